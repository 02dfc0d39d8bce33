"""What the tests with a real master share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

import demo.farm

_Found = TypeVar("_Found")
FAKE_DRIVER = Path(__file__).with_name("fake_driver.py")


def eventually(what: Callable[[], _Found | None], seconds: float = 30) -> _Found:
    """What `what` gives as soon as that is something true; fails where it is not so within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found


@contextmanager
def nothing_to_install(folder: Path) -> Iterator[None]:
    """Farms that start meanwhile have a tree of one file in their repository: the fake driver installs nothing."""
    (folder / "tree").mkdir()
    (folder / "tree/README").write_text("A tree that is never installed.\n")
    (folder / "faults").mkdir()
    (folder / "faults/faults.toml").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo.farm, "STANDIN", folder)
        yield
