package OSCAR::OCA::OS_Detect::Debian;

# Recognises Debian 12 on x86_64, and nothing else.

use strict;
use warnings;
use POSIX qw(uname);

# What is installed below $root, or undef: a hash with distro, version, arch and ident (the pool's name).
sub detect {
    my ($root) = @_;
    open(my $in, '<', "$root/etc/debian_version") or return undef;
    my $release = <$in> // '';
    close($in);
    chomp $release;
    my ($version) = $release =~ /^(\d+)(?:\.\d+)*$/;
    my $arch = (uname())[4];
    if (!defined $version || $version != 12 || $arch ne 'x86_64') {
        print "Failed Debian version support - ($release)\n";
        return undef;
    }
    return { distro => 'debian', version => $version, arch => $arch, ident => "debian-$version-$arch" };
}

1;
