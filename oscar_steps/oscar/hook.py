"""The farm's node barrier: the program that OSCAR's `--bootscript` runs on the head node, and how to open or shut it.

OSCAR calls the hook without arguments and without a time limit, after the network is set up and before it completes the
cluster. It goes on when the hook ends with 0, and gives up on anything else. The hook waits on a FIFO: no port, no
polling, and nothing that could be missed.
"""

from __future__ import annotations

import shlex

from oscar_steps.guest import guest_text
from oscar_steps.textio import one_line

DIRECTORY = "/root/farm"
"""Where the farm's files are on the head node."""

WAITING = "farm barrier: waiting"
"""The hook's line once its FIFO exists: from now on `open_command` and `shut_command` find a reader."""

SHUT = "farm barrier: shut: "
"""What the hook's line begins with when it received the order to stop the installation; the reason follows."""

_ANSWER_SECONDS = 20
_MAX_REASON = 500


def hook_path(directory: str = DIRECTORY) -> str:
    """The hook on the head node; it must be executable."""
    return f"{directory}/hook"


def hook_text(directory: str = DIRECTORY) -> str:
    """The hook, a POSIX shell script."""
    return guest_text("head/barrier.sh", fifo=shlex.quote(_fifo(directory)), waiting=WAITING, shut=SHUT)


def open_command(directory: str = DIRECTORY) -> str:
    """Shell line for the head node that lets OSCAR go on. Ends with 1 when no hook is there, 124 when none answers."""
    return _answer("open", directory)


def shut_command(reason: str, directory: str = DIRECTORY) -> str:
    """Shell line for the head node that makes OSCAR give up, with `reason` in its log. Statuses as `open_command`."""
    return _answer(f"shut {one_line(reason, _MAX_REASON)}", directory)


def _fifo(directory: str) -> str:
    return f"{directory}/barrier"


def _answer(line: str, directory: str) -> str:
    # Opening a FIFO blocks until somebody reads, hence the time limit; without the test, a file would be made instead.
    fifo = shlex.quote(_fifo(directory))
    script = f"[ -p {fifo} ] && printf '%s\\n' {shlex.quote(line)} >{fifo}"
    return f"timeout {_ANSWER_SECONDS} sh -c {shlex.quote(script)}"
