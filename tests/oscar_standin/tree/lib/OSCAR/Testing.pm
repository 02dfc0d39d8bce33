package OSCAR::Testing;

# Result lines for the tests of packages.

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(announce report);

$| = 1;
my $TESTPRINT = "$ENV{OSCAR_HOME}/testing/testprint";

# A test that takes its time: its label, until the result overwrites it.
sub announce {
    my ($label, $status) = @_;
    system($TESTPRINT, $label, $status);
}

# PASSED, or FAILED where something is said about it. Returns whether the test passed.
sub report {
    my ($label, $trouble) = @_;
    system($TESTPRINT, $label, $trouble // '', defined $trouble ? 'FAILED' : 'PASSED');
    return !defined $trouble;
}

1;
