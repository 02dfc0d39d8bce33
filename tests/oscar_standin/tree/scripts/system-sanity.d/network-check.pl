#!/usr/bin/perl
# The head node's name, and the adapter given for the cluster.
use strict;
use warnings;
use POSIX qw(uname);
use lib "$ENV{OSCAR_HOME}/lib";
use OSCAR::Network;

my $adapter = $ARGV[0];
my $name    = (uname())[1];

sub failure {
    print "ERROR: ", @_, "\n";
    exit 255;
}

failure('the host name is empty') if $name eq '';
failure("the host name is $name") if $name =~ /^localhost(\.localdomain)?$/;

my ($short, %address) = ($name =~ /^([^.]+)/);
if (open(my $hosts, '<', '/etc/hosts')) {
    while (my $line = <$hosts>) {
        $line =~ s/#.*//;
        my ($ip, @names) = split ' ', $line;
        $address{$_} //= $ip foreach @names;
    }
}
failure('your hostname is assigned to the loopback') if ($address{$short} // '') eq '127.0.0.1';

my $its = defined $adapter ? interfaces()->{$adapter} : undef;
failure("A valid NIC must be specified for the cluster\n", 'You tried to use: ', $adapter // '<None>', '.') unless $its;
if (defined $address{oscar_server} && $address{oscar_server} ne ($its->{ip} // '')) {
    failure("it seems the interface used is not the one of oscar_server ($address{oscar_server})");
}
exit 0;
