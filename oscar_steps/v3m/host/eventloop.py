"""The event loop of all our programs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run`, whose child processes are waited for by pidfd: in this thread, by the loop itself.

    Python 3.11's own way is a thread per child, which collects the child before the loop knows that it has ended. In
    between its number may belong to another process already, which then gets the signal that was meant for the child.
    From 3.12 on asyncio takes pidfds by itself, and what is called here is deprecated; from 3.14 on it is gone.
    """
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    return asyncio.run(work)
