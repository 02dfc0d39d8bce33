#!/usr/bin/perl
use strict;
use warnings;

open(my $in, '<', '/etc/ssh/sshd_config') or exit 0;
my ($value) = map { /^\s*PermitRootLogin\s+(\S+)/ ? $1 : () } <$in>;
exit 0 if !defined $value || $value eq 'yes';
print "Option PermitRootLogin in /etc/ssh/sshd_config should be 'yes'\n";
exit 255;
