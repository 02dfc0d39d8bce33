"""Words that Perl knows by itself."""

from __future__ import annotations

EXPORTED = {
    "AppConfig": "",
    "Carp": "carp croak confess",
    "Cwd": "cwd getcwd fastcwd fastgetcwd",
    "DBI": "",
    "Data::Dumper": "Dumper",
    "English": "",
    "Exporter": "",
    "File::Basename": "basename dirname fileparse fileparse_set_fstype",
    "File::Copy": "copy move",
    "File::Find": "find finddepth",
    "File::Path": "mkpath rmtree make_path remove_tree",
    "File::Spec": "",
    "FindBin": "",
    "Getopt::Long": "GetOptions",
    "IO::File": "",
    "IO::Handle": "",
    "IO::Select": "",
    "IPC::Open2": "open2",
    "IPC::Open3": "open3",
    "LWP::Simple": "get head getprint getstore mirror",
    "LWP::UserAgent": "",
    "List::Util": "",
    "Scalar::Util": "",
    "Storable": "store retrieve nstore store_fd nstore_fd fd_retrieve",
    "Sys::Hostname": "hostname",
    "Term::ANSIColor": "color colored",
    "Text::Wrap": "wrap fill",
    "Time::HiRes": "",
    "Time::Local": "timelocal timegm",
    "XML::Parser": "",
    "XML::Simple": "XMLin XMLout",
}
"""What well-known modules export to those who ask for nothing. Modules that export much are not here."""

_WORDS = """
AUTOLOAD BEGIN CHECK DESTROY END INIT VERSION abs accept alarm and atan2 bind binmode bless caller chdir chmod chomp
chop chown chr chroot close closedir cmp connect constant continue cos crypt dbmclose dbmopen defined delete die do
dump each else elsif endgrent endhostent endnetent endprotoent endpwent endservent eof eq eval exec exists exit exp
fcntl fileno flock for foreach fork format formline ge getc getgrent getgrgid getgrnam gethostbyaddr gethostbyname
gethostent getlogin getnetbyaddr getnetbyname getnetent getpeername getpgrp getppid getpriority getprotobyname
getprotobynumber getprotoent getpwent getpwnam getpwuid getservbyname getservbyport getservent getsockname
getsockopt given glob gmtime goto grep gt hex if import index int ioctl join keys kill last lc lcfirst le length
link listen local localtime lock log lstat lt m map mkdir msgctl msgget msgrcv msgsnd my ne next no not oct open
opendir or ord our pack package pipe pop pos print printf prototype push q qq qr quotemeta qw qx rand read readdir
readline readlink readpipe recv redo ref rename require reset return reverse rewinddir rindex rmdir s say scalar
seek seekdir select semctl semget semop send setgrent sethostent setnetent setpgrp setpriority setprotoent setpwent
setservent setsockopt shift shmctl shmget shmread shmwrite shutdown sin sleep socket socketpair sort splice split
sprintf sqrt srand stat state study sub substr symlink syscall sysopen sysread sysseek system syswrite tell telldir
tie tied time times tr truncate uc ucfirst umask undef unimport unless unlink unpack unshift untie until use utime
values vec wait waitpid wantarray warn when while write x xor y
"""
WORDS = frozenset(_WORDS.split())
"""Functions and operators of Perl, and the names of blocks and functions that it calls itself."""
