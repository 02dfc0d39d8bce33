package OSCAR::Guard;

# The original loops for ever in several places where an answer file is wrong, and so does this tree. Tests set
# OSCAR_STANDIN_LOOP_LIMIT to a number of rounds after which the program ends with status 99 instead.

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(spin);

my $rounds = 0;

# To be called once in every round of a loop that may never end.
sub spin {
    my $limit = $ENV{OSCAR_STANDIN_LOOP_LIMIT} or return;
    if (++$rounds > $limit) {
        print "OSCAR_STANDIN_LOOP_LIMIT reached\n";
        exit 99;
    }
}

1;
