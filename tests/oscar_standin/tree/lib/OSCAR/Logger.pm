package OSCAR::Logger;

# Sections and subsections of the installation log, as of 2007.

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(oscar_log_section oscar_log_subsection);

$| = 1;

my $RULE = '=' x 77;

sub oscar_log_section {
    my ($title) = @_;
    print "\n$RULE\n== $title\n$RULE\n\n";
}

sub oscar_log_subsection {
    my ($title) = @_;
    print "--> $title\n";
}

1;
