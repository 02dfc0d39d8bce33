package FarmLoader;

# Compiles one file of the tree in this process, without running it, and every module that it loads.
#
# Each file of the tree is read here, not by perl itself: its text is made fit for today's perl (FarmDialect), what was
# loaded is noted, and a module of the tree that dies when it is run (it looks for a database, for root, for a file of
# the head node), or does not even compile, counts as loaded: what is behind it can be judged all the same.
# Notes, each a line: "needs FILE" (of the tree), "lacks FILE" (looked for in the tree, and not there), "missing MODULE",
# "unknown MODULE PACKAGE" (imports nobody knows what), "called NAME" (an empty module's), "died FILE: words",
# "refused FILE: a line of what perl says of a module that does not compile", "handed FILE PACKAGE" (imports from a
# module that died or was refused), "undefined PACKAGE NAME" (a function, or whatever else has that name).

use strict;
use B ();
use Config;
use PerlIO::scalar;
use FarmDialect;
use FarmStubs;

our ($own, $notes, $hints, @names, @files, %compiled, %place, %told);

# Only Perl's own modules: what else this host has must make no difference.
my %core = map { $_ => 1 } @Config{qw(privlibexp archlibexp)};
@INC = (\&find, grep { !ref && ($core{$_} || m{/perl-base$}) } @INC);

sub note {
    my $line = join ' ', @_;
    return if !defined $notes || $told{$line}++;
    syswrite($notes, $line =~ tr/\n/ /r . "\n");    # at once: perl may be killed
    return;
}

# Compile $path, which is "./NAME" in the folder where this process is. Returns what perl says of it, '' if nothing.
sub compile {
    ($own, $notes, @names) = @_;
    FarmStubs::export('main', grep { /::/ } @names);
    splice @INC, 1, 0, '/tree/lib';
    @ARGV = ();
    $hints = '';
    ($0, $SIG{__WARN__}) = ($own, sub { $hints .= "$_[0]\n" if $_[0] =~ /^\s*\(Do you need to predeclare / });
    do 'FARM:own';
    return $compiled{$own} ? '' : ($@ || "it ends while it is being compiled\n") . $hints;
}

sub compiled {
    my $file = $files[$_[0]];
    $compiled{$file} = 1;
    if ($file eq $own) {
        note_undefined();
        die "FARM: compiled\n";
    }
    return;
}

# What is called and not defined, in the file's own packages and in the modules of the tree that it loads: perl makes a
# place for a function when it compiles a call of it.
sub note_undefined {
    open(my $in, '<', $own) or return;
    my $text = do { local $/; <$in> } // '';
    my (%called, %called_there);
    while ($text =~ /((?:\w+::)*)(\w+)\s*\(/g) {
        $1 eq '' ? $called{$2} = 1 : ($called_there{substr($1, 0, -2)}{$2} = 1);
    }
    my %own = map { $_ => 1 } 'main', $text =~ /^\s*package\s+(\w+(?:::\w+)*)/mg;
    my @loaded = map { s{/}{::}gr =~ s/\.pm$//r } grep { $place{$_} && /^[\w\/]+\.pm$/ } keys %INC;
    no strict 'refs';
    foreach my $package (keys %own, grep { $called_there{$_} && !$own{$_} } @loaded) {
        next if defined &{"${package}::AUTOLOAD"};
        my $names = $own{$package} ? {%called, %{$called_there{$package} || {}}} : $called_there{$package};
        foreach my $name (grep { $names->{$_} } sort keys %{"${package}::"}) {
            my $full = "${package}::$name";
            next if eval { prototype("CORE::$name"); 1 } || defined &$full || defined *$full{IO};
            note('undefined', $package, $name) if !made_elsewhere($full);
        }
    }
    return;
}

# A function that was imported from a module that makes its functions when they are called.
sub made_elsewhere {
    my ($name) = @_;
    no strict 'refs';
    return if !exists &$name;
    my $origin = B::svref_2object(\&$name)->GV->STASH->NAME;
    return defined &{"${origin}::AUTOLOAD"};
}

# Instead of perl's own `require`.
sub load {
    my ($file) = @_ ? @_ : $_;
    return CORE::require($file) if $file !~ /^[\w.\/:+-]*[\/a-z][\w.\/:+-]*$/i;
    return 1 if $INC{$file};
    @INC = (\&find, grep { !ref || $_ != \&find } @INC);
    my $key = $file =~ m{^\.{0,2}/} && defined in_tree($file) ? "FARM:$file" : $file;
    return 1 if $INC{$key};
    my $result = eval { CORE::require($key) };
    return $result if $result;
    my ($died, $at) = ($@, $place{$key});
    die $died if !defined $at;
    if ($compiled{$at} && $died !~ /did not return a true value/) {
        note('died', substr($at, 6) . ':', $died);
    }
    else {
        note('refused', substr($at, 6) . ':', $_) foreach split /\n/, $died . $hints;
    }
    delete $INC{$key};    # what perl leaves there cannot be written to
    $INC{$key} = $at;
    FarmStubs::grant_to_importers($1 =~ s{/}{::}gr, $at) if $key =~ /^([\w\/]+)\.pm$/;
    return 1;
}

# Perl asks here first for each file. Files of the tree, and what nobody has, are answered; the rest perl finds itself.
sub find {
    my (undef, $key) = @_;
    return text_of($own, $own) if $key eq 'FARM:own';
    my $file = $key =~ s/^FARM://r;
    foreach my $folder ($file =~ m{^\.{0,2}/} ? '' : grep { !ref } @INC) {
        my $path = $folder eq '' ? $file : "$folder/$file";
        my $seen = in_tree($path);
        if (!-f $path) {
            note('lacks', $seen) if defined $seen;
            next;
        }
        return if !defined $seen;
        note('needs', $seen);
        $INC{$key} = $place{$key} = "/tree/$seen";
        return text_of($path, "/tree/$seen");
    }
    return FarmStubs::instead_of($file);
}

# The path within the tree of what may be a relative name, or nothing.
sub in_tree {
    my ($path) = @_;
    $path = readlink('/proc/self/cwd') . "/$path" if $path !~ m{^/};
    my @parts;
    foreach my $part (split m{/+}, $path) {
        if ($part eq '..') { pop @parts }
        elsif ($part ne '.' && $part ne '') { push @parts, $part }
    }
    return @parts > 1 && shift(@parts) eq 'tree' ? join('/', @parts) : undef;
}

sub text_of {
    my ($path, $name) = @_;
    open(my $in, '<', $path) or return;
    my $text = do { local $/; <$in> } // '';
    close($in);
    push @files, $name;
    $text = "package main;UNITCHECK{FarmLoader::compiled($#files)}\n#line 1 \"$name\"\n" . FarmDialect::of_today($text);
    open(my $out, '<', \$text) or return;
    return $out;
}

BEGIN {
    no warnings;
    *CORE::GLOBAL::require = \&load;
    *CORE::GLOBAL::exit = sub { die "FARM: exit\n" };
}

1;
