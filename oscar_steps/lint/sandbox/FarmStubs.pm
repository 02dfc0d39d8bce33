package FarmStubs;

# Loaded before a script of the tree is compiled. Modules that neither Perl itself nor the tree has are replaced by empty
# ones, which export whatever they are asked for. What was replaced is noted in the file $ENV{FARM_NOTES}.

use strict;
use Config;

# Only Perl's own modules: what else this host has must make no difference.
my %core = map { $_ => 1 } @Config{qw(privlibexp archlibexp)};
@INC = grep { !ref && ($core{$_} || m{^/tree/} || m{/perl-base$}) } @INC;
push @INC, \&stub;

sub note {
    open(my $out, '>>', $ENV{FARM_NOTES}) or return;
    print $out "@_\n";
    close($out);
}

sub stub {
    my (undef, $file) = @_;
    my $code = '1;';
    if ($file =~ /^([\w\/]+)\.pm$/) {
        (my $name = $1) =~ s{/}{::}g;
        note('missing', $name);
        $code = "package $name; our \$VERSION = 1; our \@ISA = ('FarmStubs::Empty');"
          . ' *AUTOLOAD = \&FarmStubs::Empty::AUTOLOAD; 1;';
    }
    elsif ($file !~ /\.(ph|pl)$/) {
        return;
    }
    open(my $in, '<', \$code) or return;
    return $in;
}

package FarmStubs::Empty;

our $AUTOLOAD;

sub VERSION { return 1 }

sub unimport { }

sub import {
    my ($class, @names) = @_;
    my $into = caller;
    # Without a list, or with a tag in it, nobody knows what would be exported: then it is what the caller lacked.
    if (!@names || grep { m{^[:!/]} } @names) {
        FarmStubs::note('unknown', $class, $into);
        push @names, split ' ', $ENV{FARM_PREDECLARE} // '';
    }
    no strict 'refs';
    foreach my $name (grep { !ref } @names) {
        if    ($name =~ /^\$(\w+)$/) { *{"${into}::$1"} = \my $scalar }
        elsif ($name =~ /^\@(\w+)$/) { *{"${into}::$1"} = [] }
        elsif ($name =~ /^%(\w+)$/)  { *{"${into}::$1"} = {} }
        elsif ($name =~ /^&?([A-Za-z_]\w*)$/ && !defined &{"${into}::$1"}) {
            *{"${into}::$1"} = sub { return };
        }
    }
}

sub AUTOLOAD {
    return if $AUTOLOAD =~ /::DESTROY$/;
    # Code of the tree that depends on what an empty module answers: nothing can be said of where that leads to.
    FarmStubs::note('called', $AUTOLOAD);
    return $AUTOLOAD =~ /::new$/ ? bless({}, ref $_[0] || $_[0]) : ();
}

1;
