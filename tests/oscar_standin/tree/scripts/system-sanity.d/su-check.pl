#!/usr/bin/perl
# Only root, and nobody who merely has root's number, may install.
use strict;
use warnings;

my $user = $ENV{USER} // '';
exit 0 if $< == 0 && $user eq 'root';
print "UID=($<) should be '0'\n", "USER=($user) should be 'root'\n";
exit 255;
