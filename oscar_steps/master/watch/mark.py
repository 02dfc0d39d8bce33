"""Which repository the poller has seen: a note in a file, so that another one in its place is not taken for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from oscar_steps.errors import HostError
from oscar_steps.textio import read_regular, write_atomically


class AnotherRepository(HostError):
    """What is at the address is not what was there before. Somebody has to decide."""


@dataclass(frozen=True)
class Mark:
    """What is known of the repository: a repository that was loaded anew or restored differs in something of it."""

    uuid: str = ""
    """'' where it is not known."""
    after: int = 0
    """Changes of Buildbot's database up to this id are of a repository before this one."""
    revision: int = 0
    date: str = ""
    """A revision that was seen, and when it was made; 0: none yet."""

    @classmethod
    def read(cls, path: Path) -> Mark | None:
        """The note in a file; None where there is none, or none that can be read."""
        try:
            found = json.loads(read_regular(path)[:1000])
            return cls(str(found["uuid"]), int(found["after"]), int(found["revision"]), str(found["date"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Raises OSError."""
        write_atomically(path, json.dumps(asdict(self)) + "\n")

    def difference(self, uuid: str, head: int, seen: int) -> str:
        """What is different in the repository that is there now; '' where nothing is."""
        if self.uuid and uuid != self.uuid:
            return f"its UUID is {uuid}, and was {self.uuid}"
        if head < seen:
            return f"its newest revision is {head}, but the farm has seen {seen} already"
        return ""

    def other_date(self, dates: dict[int, str]) -> str:
        """What is different in the revision that is noted; '' where nothing is."""
        if not self.revision or not self.date or dates.get(self.revision) == self.date:
            return ""
        there = dates.get(self.revision)
        if there == "":  # an entry that could not be read as a whole
            return ""
        now = f"is of {there}" if there else "is not there"
        return f"its revision {self.revision} {now}, and was of {self.date}"
