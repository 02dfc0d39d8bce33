#!/usr/bin/perl

# Runs inside the sandbox. usage: check.pl SECONDS < LIST, where each line is "KIND <tab> PATH <tab> NAMES": check the
# file PATH of /tree as KIND ('perl' or 'shell') and let empty modules export NAMES.
# For each a line "=result <tab> PATH <tab> STATUS <tab> BYTES", then so many bytes of what was said. STATUS is the exit
# status as in $?, 'time' or 'left'. After the last two it ends, with all that the file has started.

use strict;
use warnings;
use POSIX ();

my $seconds = shift @ARGV;
my ($said, $notes) = ('/tmp/said', '/tmp/notes');
my $MAX = 64 * 1024;
$| = 1;
my @list = <STDIN>;
chomp @list;
print "=ready\n";

foreach my $entry (@list) {
    my ($kind, $path, $names) = split /\t/, $entry, 3;
    unlink $said, $notes;
    my $status = run($kind, $path, $names);
    my $text = head($notes, '+') . head($said, '');
    print "=result\t$path\t$status\t", length $text, "\n", $text;
    POSIX::_exit(0) if $status =~ /[a-z]/;
}

sub run {
    my ($kind, $path, $names) = @_;
    my $child = fork;
    if (!defined $child) {
        POSIX::_exit(1);
    }
    if (!$child) {
        compile($kind, $path, $names);
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
    my ($kind, $path, $names) = @_;
    my ($folder, $name) = $path =~ m{^(?:(.*)/)?([^/]+)$};
    chdir '/tree' . (defined $folder ? "/$folder" : '') or return;
    open(STDIN, '<', '/dev/null') or return;
    open(STDOUT, '>', $said) or return;
    open(STDERR, '>&', \*STDOUT) or return;
    @ENV{qw(FARM_NOTES FARM_PREDECLARE)} = ($notes, $names // '');
    # `bash -n` does not execute the script's own `shopt`, which changes how the lines after it are read.
    my @options = head("./$name", '') =~ /^[^#\n]*\bshopt\s+-s\s[^#\n]*\bextglob\b/m ? ('-O', 'extglob') : ();
    exec('bash', @options, '-n', "./$name") if $kind eq 'shell';
    exec('perl', '-I/tree/lib', '-I/checks', '-MFarmStubs', '-c', "./$name");
}

sub head {
    my ($file, $mark) = @_;
    open(my $in, '<', $file) or return '';
    read($in, my $text, $MAX);
    $text =~ s/^/$mark/mg if $mark;
    return $text;
}
