"""The SSH probe: one small program on the head node that asks compute nodes for SSH and reads the monitor's file.

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
from oscar_steps.guest import guest_text
from oscar_steps.oscar.logs.monitor import CLIENTS_FILE
from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.testdriver.nodes.board import Node, NodeBoard, NodeState, Trouble
from oscar_steps.testdriver.nodes.head_logs import take_clients

if TYPE_CHECKING:
    from oscar_steps.testdriver.head.headnode import HeadNode, Stream

SSH_COMMAND = (
    "ssh -n -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
    "-o ConnectTimeout=30"
)
"""root's own keys and nothing else, as OSCAR's steps log in; root's list of known hosts stays as OSCAR left it."""

# A node that is not there yet is asked twice a second: its kernel refuses a closed port at once.
# Only modules that come with the smallest perl, and its `times`, since `time` knows whole seconds only.
PROGRAM = guest_text("head/ssh-probe.pl")

LOGIN_TRIES = 3
MAX_FAILED_STARTS = 3

_SAID = re.compile(r"(?P<what>banner|login|clients|clients-end|boot)(?: (?P<rest>.*))?")
_REFUSED = re.compile(r"(?P<status>\d+) ?(?P<words>.*)")


def probe_command(*, clients: str = CLIENTS_FILE, port: int = 22, ssh: str = SSH_COMMAND) -> str:
    """Shell line that runs the program. Its input: lines 'ask ADDRESS'. It ends with its input."""
    return f"exec perl -e {shlex.quote(PROGRAM)} {shlex.quote(clients)} {port} {LOGIN_TRIES} {ssh} 2>&1"


class SshProbe:
    """The SSH probe of a run: `follow` keeps it running, `ask` names a node to be asked from now on."""

    def __init__(self, head: HeadNode, board: NodeBoard, rebooted: Callable[[], FarmError]) -> None:
        self._head, self._board, self._rebooted = head, board, rebooted
        self._wanted: dict[str, Node] = {}
        self._stream: Stream | None = None
        self._boot_id = self._complaint = ""
        self._clients: list[str] = []

    async def ask(self, node: Node) -> None:
        """Ask `node` for SSH until it answers and lets root in, or refuses. Raises nothing: `follow` sees the
        end of the stream, and asks again."""
        self._wanted[node.address] = node
        if self._stream is not None:
            await self._stream.send(f"ask {node.address}\n".encode())

    async def follow(self, alarm: Callable[[FarmError], None]) -> None:
        """Take what the program says until cancelled; start it again where the connection broke. A program that does
        not run at all is the farm's fault, not that of nodes which are not asked."""
        failed_starts = 0
        try:
            while failed_starts < MAX_FAILED_STARTS:
                self._complaint = ""
                async with self._head.stream(probe_command()) as stream:
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
            raise HostError(
                f"the farm's SSH probe does not run on the head node: {self._complaint or 'it ends at once'}"
            )
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
