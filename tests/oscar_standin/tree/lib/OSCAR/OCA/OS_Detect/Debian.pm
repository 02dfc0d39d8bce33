package OSCAR::OCA::OS_Detect::Debian;

# Recognises the Debians, and the machines, for which this tree has a list of server packages (oscarsamples/).

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
    my $arch = (uname())[4] =~ s/^i\d86$/i386/r;
    my ($version) = $release =~ /^(\d+)(?:\.\d+)*$/;
    $version //= version_of_pool($root, $arch);
    my $ident = "debian-" . ($version // '') . "-$arch";
    if (!-e "$ENV{OSCAR_HOME}/oscarsamples/$ident.serverlist") {
        print "Failed Debian version support - ($release)\n";
        return undef;
    }
    return { distro => 'debian', version => $version, arch => $arch, ident => $ident };
}

# A Debian that has not been released has no number, but a name ('forky/sid'): its number is that of the only package
# pool for this architecture.
sub version_of_pool {
    my ($root, $arch) = @_;
    my @versions = map { m{/debian-(\w+)-\Q$arch\E$} ? $1 : () } glob("$root/tftpboot/distro/debian-*-$arch");
    return @versions == 1 ? $versions[0] : undef;
}

1;
