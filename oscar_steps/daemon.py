"""Start one of our own programs so that it outlives us: the process of a run, the daemon of v2m."""

from __future__ import annotations

import subprocess
import threading
from typing import IO

from oscar_steps.environment import python_environment


def start_detached(command: list[str], log: IO[bytes], ready: int) -> None:
    """Start `command` in a session of its own. What it says goes to `log`; the descriptor `ready` stays open in it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=(ready,),
        env=python_environment(),
    )
    # Where it ends before us, it must not stay behind as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
