package OSCAR::Network;

# Addresses of the head node's adapters, as /sbin/ifconfig tells them. Both layouts are read: 'inet addr:A ... Mask:M'
# (net-tools 1) and 'inet A  netmask M' (net-tools 2, which Debian 12 has; the original knows the first one only).

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(interfaces interface2ip own_macs);

# name => { ip, mask, mac } of every adapter that is up.
sub interfaces {
    my (%found, $name);
    foreach my $line (split /\n/, `/sbin/ifconfig`) {
        $name = $1 if $line =~ /^([^\s:]+(?::\d+)?):?\s/;
        next unless defined $name;
        $found{$name} //= {};
        $found{$name}{ip}   = $1 if $line =~ /^\s+inet (?:addr:)?(\d+\.\d+\.\d+\.\d+)/;
        $found{$name}{mask} = $1 if $line =~ /(?:netmask |Mask:)(\d+\.\d+\.\d+\.\d+)/;
        $found{$name}{mac}  = uc $1 if $line =~ /(?:ether|HWaddr) ([0-9A-Fa-f:]{17})/;
    }
    return \%found;
}

# (address, mask) of an adapter, or an empty list.
sub interface2ip {
    my ($adapter) = @_;
    my $its = interfaces()->{$adapter} or return;
    return defined $its->{ip} ? ($its->{ip}, $its->{mask}) : ();
}

sub own_macs {
    return map { $_->{mac} // () } values %{ interfaces() };
}

1;
