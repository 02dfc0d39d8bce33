#!/usr/bin/perl

# Runs inside the sandbox. usage: check.pl SECONDS MODULE... < LIST, where each line is "KIND <tab> PATH": check the
# file PATH of /tree as KIND ('perl' or 'shell'). MODULEs are loaded once, for all of them.
# For each a line "=result <tab> PATH <tab> STATUS <tab> BYTES", then so many bytes of what was said. STATUS is the exit
# status as in $?, 'time', 'left' or 'gone'. After the last three it ends, with all that the file has started. It ends as
# well, with a line "=fresh", where a file has left something for the files after it.

use strict;
use warnings;
use lib '/checks';
use Config;
use FarmLoader;
use POSIX ();

my ($seconds, @modules) = @ARGV;
my ($said, $notes, $noise);    # files without names: nothing that another file does in /tmp reaches them
my $mode = (stat '/tmp')[2];
my ($MAX, $ROUNDS) = (64 * 1024, 4);
# What an empty module may be expected to export. Of variables that is believed of the tree's own modules alone, which
# died or did not compile before they said what they export: a name that is declared nowhere is far more often a mistyped one.
my $lacked_variable = qr/^Global symbol "([\$\@%]\w+)" requires/m;
my @lacked = (
    qr/^Bareword "([\w:]+)" not allowed/m,
    qr/Do you need to predeclare "?(\w+)"?\?/,
);
$| = 1;
hide_from_children();
my @list = <STDIN>;
chomp @list;
eval { require $_ } foreach @modules;
print "=ready\n";

foreach my $entry (@list) {
    my ($kind, $path) = split /\t/, $entry, 2;
    my ($status, $text) = check($kind, $path);
    print "=result\t$path\t$status\t", length $text, "\n", $text;
    POSIX::_exit(0) if $status =~ /[a-z]/;
    next if is_clean();
    print "=fresh\n";
    POSIX::_exit(0);
}
POSIX::_exit(0);

# What a file compiled in a copy of this process could do to this one: its answers on other files must not be forged.
sub hide_from_children {
    my %prctl = (x86_64 => 157, aarch64 => 167, i686 => 172, i386 => 172, ppc64 => 171);
    my ($machine) = $Config{archname} =~ /^([^-]+)/;
    syscall($prctl{$machine}, 4, 0, 0, 0, 0) if $prctl{$machine};    # PR_SET_DUMPABLE
    return;
}

# Whether the next file finds what the first one found.
sub is_clean {
    opendir(my $in, '/tmp') or return 0;
    return 0 if grep { !/^\.\.?$/ } readdir $in;
    return $mode == (stat '/tmp')[2];
}

# A file that lacks names of empty modules is asked again, with these names.
sub check {
    my ($kind, $path) = @_;
    my ($status, $text, %names);
    foreach (1 .. $ROUNDS) {
        foreach my $file ($said, $notes, $noise) {
            open($file, '+>', undef) or return ('gone', '');
        }
        $status = run($kind, $path, sort keys %names);
        return ('gone', '') if $kind eq 'perl' && $status eq 126 << 8;
        my ($words, $noted) = map { written($_) } $said, $notes;
        $words = written($noise) if $words eq '';
        $text = $noted =~ s/^(?=.)/+/mgr . $words;
        my $refused = join "\n", $noted =~ /^refused .*?: (.*)$/mg;
        last if $status !~ /^\d+$/ || ($status == 0 && $refused eq '');
        last if $noted !~ /^(?:unknown|missing|handed|refused) /m;
        my ($before, $all) = (scalar keys %names, "$words\n$refused");
        foreach my $lacked (@lacked, $noted =~ /^handed /m ? $lacked_variable : ()) {
            while ($all =~ /$lacked/g) {
                my $name = $1;
                my $from = $name =~ /^(\w+)::/ ? qr/^(?:missing $1(?:::|$)|refused )/m : qr/^(?:unknown|handed) /m;
                $names{$name} = 1 if $noted =~ $from;
            }
        }
        last if $before == keys %names;
    }
    return ($status, $text);
}

sub run {
    my ($kind, $path, @names) = @_;
    my $child = fork;
    if (!defined $child) {
        POSIX::_exit(1);
    }
    if (!$child) {
        compile($kind, $path, @names);
        POSIX::_exit(126);
    }
    my $done = eval {
        local $SIG{ALRM} = sub { die "time\n" };
        alarm $seconds;
        waitpid($child, 0);
        alarm 0;
        1;
    };
    return 'time' unless $done;
    my $status = $?;
    foreach (1 .. 10) {
        return $status unless strangers();
        select(undef, undef, undef, 0.02);    # what has just ended may still have to be reaped
    }
    return 'left';
}

# Processes that are neither the sandbox's first one nor this.
sub strangers {
    opendir(my $proc, '/proc') or return 0;
    return scalar grep { /^\d+$/ && $_ != 1 && $_ != $$ } readdir $proc;
}

sub compile {
    my ($kind, $path, @names) = @_;
    my ($folder, $name) = $path =~ m{^(?:(.*)/)?([^/]+)$};
    chdir '/tree' . (defined $folder ? "/$folder" : '') or return;
    open(STDIN, '<', '/dev/null') or return;
    open(STDOUT, '>&', $noise) or return;
    open(STDERR, '>&', \*STDOUT) or return;
    if ($kind eq 'shell') {
        # `bash -n` does not execute the script's own `shopt`, which changes how the lines after it are read.
        my @options = head("./$name") =~ /^[^#\n]*\bshopt\s+-s\s[^#\n]*\bextglob\b/m ? ('-O', 'extglob') : ();
        exec('bash', @options, '-n', "./$name");
    }
    my $words = FarmLoader::compile("./$name", $notes, @names);
    print $said $words eq '' ? "./$name syntax OK\n" : $words;
    close($said);
    POSIX::_exit($words eq '' ? 0 : 255);
}

sub head {
    my ($file) = @_;
    open(my $in, '<', $file) or return '';
    read($in, my $text, $MAX);
    return $text;
}

sub written {
    my ($file) = @_;
    seek($file, 0, 0);
    read($file, my $text, $MAX);
    return $text;
}
