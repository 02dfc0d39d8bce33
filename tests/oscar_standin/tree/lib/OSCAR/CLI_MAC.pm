package OSCAR::CLI_MAC;

# The networking menu. It always returns 0: what fails in it either dies or is passed over.

use strict;
use warnings;
use Carp;
use OSCAR::Guard;
use OSCAR::Logger;
use OSCAR::MAC;
use OSCAR::SISDB;

my @MODES = qw(systemimager-rsync systemimager-multicast systemimager-bt);
my $MENU  = <<'MENU';
1)  Import MACs from a file
2)  Delete MACs
3)  Set the installation mode
4)  Enable the installation mode
5)  Dynamic DHCP update
6)  Configure the DHCP server
7)  Enable UYOK
8)  Build AutoInstall CD
9)  Setup network boot
10) Finish
MENU

my ($in, $recording, @clients, @unassigned, $step, $adapter);

sub setup_networking {
    (my $file, my $number, $adapter) = @_;
    $step = "Step $number";
    oscar_log_section("Running step $number of the OSCAR wizard: Setup networking");
    chdir "$ENV{OSCAR_HOME}/scripts";
    @clients = list_clients();
    open_answers($file);
    my ($enabled, $dynamic, $uyok) = (0, 1, 0);
    while (1) {
        my $choice = menu_choice();
        if    ($choice eq '1')  { import_macs() && $dynamic && setup_dhcpd($step, $adapter) }
        elsif ($choice eq '2')  { print "Not implemented yet.\n" }
        elsif ($choice eq '3')  { choose_mode() }
        elsif ($choice eq '4')  { enable_install_mode($step); $enabled = 1 }
        elsif ($choice eq '5')  { $dynamic = !$dynamic }
        elsif ($choice eq '6')  { configure_dhcp($enabled) }
        elsif ($choice eq '7')  { $uyok = !$uyok; enable_uyok($step) if $uyok }
        elsif ($choice eq '8')  { build_autoinstall_cd($step, $adapter) }
        elsif ($choice eq '9')  { setup_network_boot($step) or carp('') }
        elsif ($choice eq '10') { last }
    }
    oscar_log_subsection("$step: Completed successfully");
    return 0;
}

sub open_answers {
    my ($file) = @_;
    if (defined $file) {
        open($in, '<', $file) or die "Can't open the input file\n";
    } else {
        $in = \*STDIN;
        open($recording, '>', "$ENV{OSCAR_HOME}/tmp/mac." . getppid() . '.clilog') or return;
        select((select($recording), $| = 1)[0]);
    }
}

# The table is shown before every line that is read.
sub next_line {
    while (1) {
        spin();
        print "Current client assignments:\n";
        print map { "  $_->{name}\t$_->{ip}\t$_->{mac}\n" } @clients;
        print "Unassigned MACs: @unassigned\n" if @unassigned;
        print "\n";
        my $line = <$in>;
        if (!defined $line) {
            return $recording ? undef : '';
        }
        $line =~ s/\n\z//;
        return $line if $recording || ($line && $line !~ /^#/);
    }
}

sub menu_choice {
    if ($recording) {
        print $MENU, '>  ';
        print $recording $MENU =~ s/^/#/mgr;
    }
    my $response = next_line();
    # At the end of the terminal's input there is no line, and no end of this either.
    print $recording "$response\n" if $recording;
    return $response // '';
}

sub choose_mode {
    my $mode;
    do {
        spin();
        $mode = defined $in && eof($in) ? '' : next_line() // '';
    } until grep { $_ eq $mode } @MODES;
    oscar_log_subsection("Install mode: $mode");
    set_install_mode($mode);
}

sub configure_dhcp {
    my ($enabled) = @_;
    if (!$enabled) {
        print "Need to Enable Install Mode first\n";
    } elsif (!@clients) {
        print "No clients defined.\n";
    } else {
        setup_dhcpd($step, $adapter);
    }
}

# True where MACs may have been assigned, so that DHCP has to know them.
sub import_macs {
    my $file = next_line() // '';
    push @unassigned, load_macs($file, @unassigned, map { $_->{mac} } @clients);
    if (!@unassigned) {
        print "There are no unassigned MACs.\n" if -e $file;
        return 0;
    }
    my $method = next_line() // '';
    spin() while $method !~ /^[123]$/;
    return 0 if $method eq '3';
    $method eq '1' ? assign_in_order() : assign_by_hand();
    save_clients(@clients);
    return 1;
}

sub assign_in_order {
    foreach my $client (grep { $_->{mac} eq '-' } @clients) {
        my $mac = shift @unassigned // last;
        assign_mac($mac, $client);
    }
}

sub assign_by_hand {
    while (1) {
        spin();
        my $mac = next_line() // '';
        return if $mac eq 'quit';
        my $name = next_line() // '';
        return if $name eq 'quit';
        my ($client) = grep { $_->{name} eq $name } @clients;
        next unless $client && grep { $_ eq $mac } @unassigned;
        @unassigned = grep { $_ ne $mac } @unassigned;
        assign_mac($mac, $client);
    }
}

1;
