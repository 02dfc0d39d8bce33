package OSCAR::Remote;

# Nodes as the head node reaches them: one command on many of them by ssh, all at the same time, and ping. Nodes may be
# emulated and slow: the patience is long.

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(on_nodes ping);

my @SSH = (
    'ssh', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null',
    '-o', 'LogLevel=ERROR', '-o', 'ConnectTimeout=30', '-o', 'ServerAliveInterval=15', '-o', 'ServerAliveCountMax=4'
);

# Run COMMAND on the nodes NAMES, with the file STDIN as its input ('/dev/null' where undefined).
# Returns name => { status, output }; status is ssh's, 255 where the node could not be reached.
sub on_nodes {
    my ($command, $stdin, @names) = @_;
    my @started;
    foreach my $name (@names) {
        my $pid = open(my $from, '-|') // die "Couldn't fork: $!";
        if (!$pid) {
            open(STDIN, '<', $stdin // '/dev/null') or die "$stdin: $!";
            exec(@SSH, $name, $command) or die "Couldn't run ssh: $!";
        }
        push @started, [$name, $from];
    }
    my %answer;
    foreach my $one (@started) {
        my ($name, $from) = @$one;
        local $/ = undef;
        my $output = <$from> // '';
        close($from);
        $answer{$name} = { status => $? >> 8, output => $output };
    }
    return \%answer;
}

# Whether HOST answers.
sub ping {
    my ($host) = @_;
    return system("ping -c 1 -w 10 $host >/dev/null 2>&1") == 0;
}

1;
