"""What the tests with a real master share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_Found = TypeVar("_Found")
FAKE_DRIVER = Path(__file__).with_name("fake_driver.py")


def eventually(what: Callable[[], _Found | None], seconds: float = 30) -> _Found:
    """What `what` gives as soon as that is something true; fails where it is not so within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found
