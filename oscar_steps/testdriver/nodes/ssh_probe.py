"""The lookout: one small program on the head node that asks compute nodes for SSH and reads the monitor's file.

It runs for as long as its SSH channel is open, reads the addresses to ask from its standard input, and prints a line
for each thing it sees. So any number of nodes costs one channel and no thread of ours, nothing is forked to ask a node
that does not answer yet, and a node is asked from where OSCAR's own steps will come. Perl is there: OSCAR is written in
it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from oscar_steps.errors import FarmError, HostError
from oscar_steps.oscar.logs.monitor import CLIENTS_FILE
from oscar_steps.testdriver.head.headnode import LineSplitter
from oscar_steps.testdriver.nodes.board import Node, NodeBoard, NodeState, Trouble
from oscar_steps.testdriver.nodes.head_logs import take_clients

if TYPE_CHECKING:
    from oscar_steps.testdriver.head.headnode import HeadNode, Stream

SSH_COMMAND = (
    "ssh -n -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
    "-o ConnectTimeout=30"
)
"""root's own keys and nothing else, as OSCAR's steps log in; root's list of known hosts stays as OSCAR left it."""

# A node that is not there yet is asked twice a second: a port that nobody listens on is refused by its kernel at once.
# Only modules that come with the smallest perl, and its `times`, since `time` knows whole seconds only.
PROGRAM = r"""
use strict; use warnings;
use Errno qw(EINPROGRESS); use Fcntl; use POSIX ':sys_wait_h'; use Socket;
$0 = 'farm-lookout'; $| = 1; $SIG{PIPE} = 'DEFAULT';
my ($clients, $port, $tries, @ssh) = @ARGV;
my ($hz, $input, $seen, %node) = (POSIX::sysconf(POSIX::_SC_CLK_TCK()), '', '');
sub now { return (POSIX::times())[0] / $hz }
sub later {
    my ($n, $seconds) = @_;
    close $n->{fh} if $n->{fh};
    @$n{qw(fh doing from text)} = (undef, '', now() + $seconds, '');
}
if (open my $in, '<', '/proc/sys/kernel/random/boot_id') { print 'boot ', scalar <$in> }

sub ask {
    my ($n) = @_;
    socket(my $fh, PF_INET, SOCK_STREAM, 0) or return later($n, 1);
    fcntl($fh, F_SETFL, fcntl($fh, F_GETFL, 0) | O_NONBLOCK);
    @$n{qw(fh doing from)} = ($fh, 'connect', now());
    connect($fh, sockaddr_in($port, inet_aton($n->{ip}))) or $!{EINPROGRESS} or later($n, .5);
}
sub log_in {
    my ($n) = @_;
    $n->{pid} = open(my $fh, '-|') // return later($n, 1);
    if (!$n->{pid}) {
        open STDERR, '>&', \*STDOUT;
        open STDIN, '<', '/dev/null';
        exec @ssh, "root\@$n->{ip}", 'true' or exit 127;
    }
    @$n{qw(fh doing from)} = ($fh, 'login', now());
}
sub heard {
    my ($n) = @_;
    my $got = sysread($n->{fh}, $n->{text}, 4096, length $n->{text});
    if ($n->{doing} eq 'login') { logged_in($n) unless $got }
    elsif (!$got) { later($n, .5) }
    elsif ($n->{text} =~ /^(SSH-[^\r\n]*)\r?\n/m) {
        print "banner $n->{ip} $1\n";
        later($n, .5); # the barrier may open now, and that comes first
        $n->{known} = 1;
    }
}
sub logged_in {
    my ($n) = @_;
    waitpid($n->{pid}, 0);
    my $status = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    my @words = grep { /\S/ } split /\r?\n/, $n->{text};
    my $last = $words[-1] // '';
    later($n, 1);
    return if $status && $last !~ /denied|authentication/i && ++$n->{tried} < $tries;
    print "login $n->{ip} $status $last\n";
    delete $node{ $n->{ip} };
}
sub look_at_clients {
    my @stat = stat $clients or return;
    my $now = "@stat[1,7,9]";
    return if $now eq $seen || $stat[7] > 1 << 22;
    open my $in, '<', $clients or return;
    $seen = $now;
    print map({ s/[\r\n]//gr =~ s/^/clients /r . "\n" } <$in>), "clients-end\n";
}

my $looked = 0;
while (1) {
    if (now() - $looked >= 1) { $looked = now(); look_at_clients() }
    for my $n (values %node) {
        my $for = now() - $n->{from};
        if (!$n->{doing}) { ($n->{known} ? log_in($n) : ask($n)) if $for >= 0 }
        elsif ($n->{doing} eq 'login') { kill 'TERM', $n->{pid} if $for > 60 }
        elsif ($for > ($n->{doing} eq 'connect' ? 2 : 30)) { later($n, 0) }
    }
    my ($read, $write) = ('', '');
    vec($read, 0, 1) = 1;
    for (grep { $_->{fh} } values %node) { vec($_->{doing} eq 'connect' ? $write : $read, fileno $_->{fh}, 1) = 1 }
    next if select($read, $write, undef, %node ? .25 : 1) < 1;
    if (vec($read, 0, 1)) {
        sysread(STDIN, $input, 4096, length $input) or last;
        while ($input =~ s/^ask (\d+(?:\.\d+){3})\n//) {
            $node{$1} //= { ip => $1, doing => '', from => now(), text => '', tried => 0 };
        }
    }
    for my $n (grep { $_->{fh} } values %node) {
        my $number = fileno $n->{fh};
        if ($n->{doing} ne 'connect') { heard($n) if vec($read, $number, 1) }
        elsif (vec($write, $number, 1)) {
            unpack('i', getsockopt($n->{fh}, SOL_SOCKET, SO_ERROR)) ? later($n, .5) : ($n->{doing} = 'banner');
        }
    }
}
kill 'TERM', map { $_->{doing} eq 'login' ? $_->{pid} : () } values %node;
"""

LOGIN_TRIES = 3
MAX_FAILED_STARTS = 3

_SAID = re.compile(r"(?P<what>banner|login|clients|clients-end|boot)(?: (?P<rest>.*))?")
_REFUSED = re.compile(r"(?P<status>\d+) ?(?P<words>.*)")


def lookout_command(*, clients: str = CLIENTS_FILE, port: int = 22, ssh: str = SSH_COMMAND) -> str:
    """Shell line that runs the program. Its input: lines 'ask ADDRESS'. It ends with its input."""
    return f"exec perl -e {shlex.quote(PROGRAM)} {shlex.quote(clients)} {port} {LOGIN_TRIES} {ssh} 2>&1"


class Lookout:
    """The lookout of a run: `follow` keeps it running, `ask` names a node to be asked from now on."""

    def __init__(self, head: HeadNode, board: NodeBoard, rebooted: Callable[[], FarmError]) -> None:
        self._head, self._board, self._rebooted = head, board, rebooted
        self._wanted: dict[str, Node] = {}
        self._stream: Stream | None = None
        self._boot_id = self._complaint = ""
        self._clients: list[str] = []

    async def ask(self, node: Node) -> None:
        """Ask `node` for SSH until it answers and lets root in, or refuses. Raises nothing: the stream's end is told by
        `follow`, which asks again."""
        self._wanted[node.address] = node
        if self._stream is not None:
            await self._stream.send(f"ask {node.address}\n".encode())

    async def follow(self, alarm: Callable[[FarmError], None]) -> None:
        """Take what the program says until cancelled; start it again where the connection broke. A program that does
        not run at all is the farm's fault, not that of nodes which nobody asks."""
        failed_starts = 0
        try:
            while failed_starts < MAX_FAILED_STARTS:
                self._complaint = ""
                async with self._head.stream(lookout_command()) as stream:
                    asked = "".join(f"ask {address}\n" for address in self._wanted)
                    await stream.send(asked.encode())
                    self._stream = stream
                    splitter = LineSplitter()
                    async for chunk in stream:
                        for line in splitter.feed(chunk):
                            self.take(line)
                self._stream = None
                failed_starts = failed_starts + 1 if self._head.connected else 0
                await self._head.reconnect()
            raise HostError(f"the farm's lookout does not run on the head node: {self._complaint or 'it ends at once'}")
        except FarmError as error:
            alarm(error)
        finally:
            self._stream = None

    def take(self, line: str) -> None:
        """One line of the program. Raises what `rebooted` gives when the head node is not the one that it was."""
        match = _SAID.fullmatch(line)
        if match is None:
            self._complaint = line.strip() or self._complaint
            return
        rest = match["rest"] or ""
        match match["what"]:
            case "boot":
                if self._boot_id not in ("", rest):
                    raise self._rebooted()
                self._boot_id = rest
            case "clients":
                self._clients.append(rest)
            case "clients-end":
                take_clients("\n".join(self._clients), self._board)
                self._clients.clear()
            case what:
                address, _, words = rest.partition(" ")
                node = self._wanted.get(address)
                if node is not None:
                    self._answered(node, what, words)

    def _answered(self, node: Node, what: str, words: str) -> None:
        if node.state not in (NodeState.REBOOTED, NodeState.ANSWERING):
            return
        if what == "banner":
            node.reach(NodeState.ANSWERING, note=words)
            return
        del self._wanted[node.address]
        match = _REFUSED.fullmatch(words)
        if match is None or match["status"] == "0":
            node.reach(NodeState.UP, note=node.note)
            return
        said = match["words"] or f"ssh ended with status {match['status']}"
        node.trouble.put_nowait(
            Trouble(f"{node.name} answers by SSH but does not let root in from the head node: {said}")
        )
