#!/usr/bin/perl

# The default bootscript: ask the operator until the answer is 'continue'.

use strict;
use warnings;
use lib "$ENV{OSCAR_HOME}/lib";
use OSCAR::Guard;

$| = 1;
my $frame = '*' x 72;
my $response = '';
while ($response ne 'continue') {
    spin();
    print "$frame\n",
      "* Before continuing, network boot all of your nodes.\n",
      "* Once they have completed installation, reboot them from their disk.\n",
      "* When all of them are up,\n",
      "* type 'continue' to go on.\n",
      "$frame\n";
    $response = <STDIN>;
    chomp $response;
}
exit 0;
