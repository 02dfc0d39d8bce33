package FarmDialect;

# What perls of their own time took and today's refuses is written as both take it. Lines stay where they are: what is
# said of the text is true of the file.

use strict;

sub of_today {
    my ($text) = @_;
    $text =~ s/^\xef\xbb\xbf//;
    # defined(@array), an error since 5.22
    $text =~ s/\bdefined(\s*\(?\s*)([\@%](?:\$+\w+|\w+(?:::\w+)*|\{\s*\$\w+\s*\}))(?!\s*[\[{\w])/scalar$1$2/g;
    # foreach my $x qw(a b), an error since 5.18
    $text =~ s/\b(for(?:each)?\s+(?:(?:my|our)\s+)?\$\w+\s*)(qw\s*(?:\([^()]*\)|\/[^\/]*\/|\{[^{}]*\}|\[[^\[\]]*\]))/$1($2)/g;
    return $text =~ /^\s*use\s+Switch\b/m ? switch($text) : $text;
}

# The filter Switch has left Perl's core: its words, each where a line begins with it, as plain loops and tests.
my $string = qr/"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|m?\/(?:\\.|[^\/\\\n])*\/\w*/;
my $nested = qr/\[[^\[\]]*\]|\((?:[^()]|\([^()]*\))*\)/;
my $case = qr/$string|$nested|\{[^{}\n]*\}|[\$\@%\\-]?[\w:.]+(?:(?:->)?(?:\[[^\]\n]*\]|\{[^}\n]*\}|$nested))*/;

sub switch {
    my ($text) = @_;
    # 'Perl6' adds the words that perl has had itself since 5.10, with parentheses.
    $text =~ s/^(\s*)use\s+Switch\b([^;\n]*);/$1 . ($2 =~ m{Perl6} ? "use feature 'switch';" : ';')/me;
    $text =~ s/^(\s*\}?\s*(?:given|when)\b\s*)(?!\()($case)(?=\s*(?:\{|\#|$))/$1($2)/mg;
    $text =~ s/^(\s*)switch(\s*\()/$1foreach$2/mg;
    $text =~ s/^(\s*\}?\s*)case\b\s*($case)(?=\s*(?:\{|\#|$))/$1 . 'if (FarmStubs::case(' . case($2) . '))'/meg;
    return $text;
}

# `case { CODE }` is a block.
sub case {
    my ($what) = @_;
    return $what =~ /^\{(.*)\}$/ ? "sub {$1}" : $what;
}

1;
