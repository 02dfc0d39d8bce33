package OSCAR::MAC;

# What the networking step does to the head node: installation mode, MACs, DHCP, CD, network boot.

use strict;
use warnings;
use Carp;
use OSCAR::Logger;
use OSCAR::Network;
use OSCAR::SISDB;
use base qw(Exporter);
our @EXPORT = qw(enable_install_mode load_macs assign_mac setup_dhcpd build_autoinstall_cd setup_network_boot enable_uyok);

my $HOSTS = '/var/lib/systemimager/scripts/hosts';

# The services of an installation mode: what is stopped, what is started again. The original also switches them on and
# off for the next boot of the head node (update-rc.d), which this miniature leaves out.
my %SERVICES = (
    'systemimager-rsync'     => { stop => [qw(flamethrowerd bittorrent)], restart => [qw(rsyncd)] },
    'systemimager-multicast' => { stop => [qw(bittorrent)],               restart => [qw(rsyncd flamethrowerd)] },
    'systemimager-bt'        => { stop => [qw(flamethrowerd)],            restart => [qw(rsyncd bittorrent)] },
);

sub run_or_die {
    my ($command) = @_;
    croak("Failed to run $command") if system($command);
}

sub enable_install_mode {
    my ($step) = @_;
    my $mode = get_install_mode();
    my $its  = $SERVICES{$mode};
    run_or_die("/etc/init.d/systemimager-server-$_ stop")    foreach @{ $its->{stop} };
    run_or_die("/etc/init.d/systemimager-server-$_ restart") foreach @{ $its->{restart} };
    oscar_log_subsection("$step: Successfully enabled installation mode: $mode");
}

# The usable MACs of a file, in its order: padded, upper case, neither nobody's nor the head node's own nor in @known.
sub load_macs {
    my ($file, @known) = @_;
    open(my $in, '<', $file) or do {
        print "File $file does not exist\n";
        return;
    };
    my %dropped = map { $_ => 1 } '00:00:00:00:00:00', own_macs(), @known;
    my @macs;
    while (my $line = <$in>) {
        next unless $line =~ /^\s*([0-9A-Fa-f:]{11,17})/;
        my $mac = uc join(':', map { length == 1 ? "0$_" : $_ } split /:/, $1);
        push @macs, $mac unless $dropped{$mac}++;
    }
    return @macs;
}

sub assign_mac {
    my ($mac, $client) = @_;
    oscar_log_subsection("Assigning MAC: $mac to client: $client->{name}");
    $client->{mac} = $mac;
}

# Reduce the image server's list of hosts to pairs of address and name.
sub clean_hosts_file {
    open(my $in, '<', $HOSTS) or return 0;
    my @pairs = map { s/#.*//r =~ /^\s*(\d\S+)\s+([^\s.]+)/ ? "$1 $2\n" : () } <$in>;
    close($in);
    rename($HOSTS, "$HOSTS.bak") or return carp("Couldn't backup rsyncable hosts file!") && 0;
    open(my $out, '>', $HOSTS) or return 0;
    print $out @pairs;
    return close($out);
}

# Any failure in here is silent, and the installation goes on: only the lines of success are missing.
sub setup_dhcpd {
    my ($step, $adapter) = @_;
    oscar_log_subsection("$step: cleaning hostfile");
    clean_hosts_file() or return 0;
    print "About to run setup_dhcpd...\n";
    my ($ip) = interface2ip($adapter);
    my $file = -d '/etc/dhcp3' ? '/etc/dhcp3/dhcpd.conf' : '/etc/dhcpd.conf';
    rename($file, "$file.oscarbak") if -e $file && !-l $file;
    link_for_debian($file);
    my $multicast = get_install_mode() eq 'systemimager-multicast' ? ' --multicast=yes' : '';
    my $command = "mkdhcpconf -o $file --interface=$adapter --gateway=$ip$multicast";
    oscar_log_subsection("$step: Running command: $command");
    system($command) and return 0;
    oscar_log_subsection("$step: Successfully ran command");
    oscar_log_subsection("$step: Restarting dhcpd service");
    system("si_restart_dhcpd $adapter") and return 0;
    oscar_log_subsection("$step: Successfully restarted dhcpd service");
    return 1;
}

# Debian 12 reads /etc/dhcp/dhcpd.conf; the installer writes where it did in 2007.
sub link_for_debian {
    my ($file) = @_;
    my $read = '/etc/dhcp/dhcpd.conf';
    return unless -d '/etc/dhcp';
    unlink $read;
    symlink($file, $read) or carp("Couldn't link $read to $file");
}

sub build_autoinstall_cd {
    my ($step, $adapter) = @_;
    my ($ip) = interface2ip($adapter);
    my $bittorrent = get_install_mode() eq 'systemimager-bt' ? ' BITTORRENT=y' : '';
    my $command = "si_mkautoinstallcd --append \"MONITOR_SERVER=$ip MONITOR_CONSOLE=yes$bittorrent\""
      . ' --out-file /tmp/oscar_bootcd.iso --flavor standard';
    oscar_log_subsection("$step: Building AutoInstall CD: $command");
    run_or_die($command);
    oscar_log_subsection("$step: Successfully built AutoInstall CD");
}

sub setup_network_boot {
    my ($step) = @_;
    my $command = "$ENV{OSCAR_HOME}/scripts/setup_pxe -v";
    oscar_log_subsection("$step: Setup network boot: $command");
    return 0 if system($command);
    oscar_log_subsection("$step: Successfully setup network boot");
    return 1;
}

sub enable_uyok {
    my ($step) = @_;
    my $command = 'si_prepareclient --server ' . ($ENV{HOSTNAME} // '') . ' --no-uyok --yes';
    oscar_log_subsection("$step: Running si_prepareclient on headnode to use your own kernel");
    croak("Failed to run: si_prepareclient") if system($command);
    oscar_log_subsection("$step: Successfully enabled UYOK");
}

1;
