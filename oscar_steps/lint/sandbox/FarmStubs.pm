package FarmStubs;

# Stand-ins for modules that neither Perl itself nor the tree has. They are empty, and export whatever they are asked for.

use strict;

# What well-known modules export by default. Of other modules this is not known here.
my %exports = (
    'AppConfig'      => '',
    'DBI'            => '',
    'LWP::Simple'    => 'get head getprint getstore mirror',
    'LWP::UserAgent' => '',
    'Qt'             => 'SIGNAL SLOT CAST emit',
    'Tk'             => 'MainLoop DoOneEvent tkinit exit Ev',
    'XML::Parser'    => '',
    'XML::Simple'    => 'XMLin XMLout',
    map { ("Qt::$_" => '') } qw(app debug enumerations isa properties signals slots),
);
# Those that declare words of the script's own: without parentheses, and to be assigned to.
my %declares = ('Qt' => ['this'], 'Qt::isa' => ['this'], 'Qt::attributes' => []);

sub instead_of {
    my ($file) = @_;
    my $code = '1;';
    if ($file =~ /^([\w\/]+)\.pm$/) {
        (my $name = $1) =~ s{/}{::}g;
        FarmLoader::note('missing', $name);
        $code = "package $name; our \$VERSION = 1; our \@ISA = ('FarmStubs::Empty');"
          . ' *AUTOLOAD = \&FarmStubs::Empty::AUTOLOAD; 1;';
    }
    elsif ($file !~ /\.(ph|pl)$/) {
        return;
    }
    open(my $in, '<', \$code) or return;
    return $in;
}

# A module of the tree that died half-way, or does not compile, may not have said yet what it exports.
sub grant_to_importers {
    my ($module, $file) = @_;
    no strict 'refs';
    no warnings;
    open(my $in, '<', $file) or return;
    my $text = do { local $/; <$in> } // '';
    my $import = $module->can('import');
    *{"${module}::import"} = sub {
        local $Exporter::ExportLevel = ($Exporter::ExportLevel || 0) + 2;
        eval { local $SIG{__DIE__}; &$import } if $import;
        FarmLoader::note('handed', substr($file, 6), scalar caller);
        FarmStubs::export(scalar caller, @_[1 .. $#_], grep { says($text, $_) } @FarmLoader::names);
    };
    return;
}

# Functions may be put into the list of exports by other ways than by name, variables are not.
sub says {
    my ($text, $name) = @_;
    return $name =~ /^\w/ ? $text =~ /\b\Q$name\E\b/ : $text =~ /EXPORT(?:[^;#]|#[^\n]*\n)*\Q$name\E\b/;
}

sub grant {
    my ($module, $into, @names) = @_;
    # Without a list, or with a tag in it, nobody knows what would be exported: then it is what the caller lacked.
    if (!@names || grep { m{^[:!/]} } @names) {
        if (!@names && exists $exports{$module}) {
            push @names, split ' ', $exports{$module};
        }
        else {
            FarmLoader::note('unknown', $module, $into);
            push @names, grep { /^\w/ } @FarmLoader::names;
        }
    }
    no strict 'refs';
    if (my $words = $declares{$module}) {
        eval qq{package $into; no warnings; sub $_ () :lvalue; 1} foreach grep { /^\w+$/ } @$words, @names;
        if ($module ne 'Qt') {
            FarmLoader::note('unknown', $module, $into);    # the words of the Qt class that the package is made of
            return;
        }
    }
    return FarmStubs::export($into, @names);
}

sub export {
    my ($into, @names) = @_;
    no strict 'refs';
    foreach my $name (grep { !ref } @names) {
        if    ($name =~ /^\w+(?:::\w+)+$/) { *$name = sub :lvalue { my $nothing } }
        elsif ($name =~ /^\$(\w+)$/) { *{"${into}::$1"} = \my $scalar }
        elsif ($name =~ /^\@(\w+)$/) { *{"${into}::$1"} = [] }
        elsif ($name =~ /^%(\w+)$/)  { *{"${into}::$1"} = {} }
        elsif ($name =~ /^&?([A-Za-z_]\w*)$/ && !defined &{"${into}::$1"}) {
            *{"${into}::$1"} = sub :lvalue { my $nothing };
        }
    }
    return;
}

# What `case` takes in a script that uses Switch.
sub case { return }

package FarmStubs::Empty;

our $AUTOLOAD;

sub VERSION { return 1 }

sub unimport { }

sub import {
    my ($class, @names) = @_;
    return FarmStubs::grant($class, scalar caller, @names);
}

sub AUTOLOAD {
    return if $AUTOLOAD =~ /::DESTROY$/;
    # Code of the tree that depends on what an empty module answers: nothing can be said of where that leads to.
    FarmLoader::note('called', $AUTOLOAD);
    return $AUTOLOAD =~ /::new$/ ? bless({}, ref $_[0] || $_[0]) : ();
}

1;
