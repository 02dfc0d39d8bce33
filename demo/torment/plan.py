"""What a torment does, and when: all of it follows from the seed, so that a loss can be looked at again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

OPERATOR = ""
"""In place of a login: the mail about a commit whose author has no usable address goes to the operator."""
AUTHORS = (
    ("demo", "demo"),
    ("developer", "developer"),
    ("jürgen", OPERATOR),
    ("jane doe", OPERATOR),
    ("", OPERATOR),
    ("two\nlines", OPERATOR),
    ("$(reboot);`id`|x", OPERATOR),
    ("a,b@c.org", OPERATOR),
    ("x" * 3000, OPERATOR),
)
MESSAGES = ("Say more", "", "a \uffff b", "bell \x07 and escape \x1b[31m red", "x" * 2**20, "<b>&amp;</b> %s {} \\")
# No line breaks in names: Subversion refuses control characters in a path.
NAMES = ("plain", "Übersicht", "two words", "100%20%", "$(id)", "日本", "-r", "quote'\"")
EVENTS = (
    "restart-master",
    "kill-master",
    "kill-worker",
    "mail-away",
    "subversion-away",
    "database-locked",
    "disk-full",
)
_EVERY_SECONDS = 17  # so that two minutes have every kind
_GOOD, _BAD, _TRIED_AGAIN = "good", "bad", "tried-again"


@dataclass(frozen=True)
class Commit:
    """One commit to come. `recipient` is the login that gets the mail, or OPERATOR."""

    at: float
    author: str
    recipient: str
    message: str
    name: str
    kind: str

    @property
    def outcome(self) -> str:
        """The verdict that it has to get in the end."""
        return "failed" if self.kind == _BAD else "passed"

    @property
    def first_does_not_count(self) -> bool:
        return self.kind == _TRIED_AGAIN


@dataclass(frozen=True)
class Event:
    """Bad weather: it begins at `at` and lasts for `seconds`."""

    at: float
    name: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Commits, in the order of their revisions, and events."""

    commits: tuple[Commit, ...]
    events: tuple[Event, ...]


def make_plan(seed: int, minutes: float, commits: int) -> Plan:
    """The same for the same arguments. Every kind of event comes once before any comes twice."""
    random = Random(seed)
    span = minutes * 60
    times = sorted(random.uniform(0, span) for _ in range(commits))
    made = []
    for number, at in enumerate(times):
        author, recipient = random.choice(AUTHORS)
        kind = random.choices((_GOOD, _BAD, _TRIED_AGAIN), (6, 3, 1))[0]
        name = f"{random.choice(NAMES)}-{number}"
        made.append(Commit(at, author, recipient, random.choice(MESSAGES), name, kind))
    events: list[Event] = []
    names: list[str] = []
    for number in range(int(span // _EVERY_SECONDS)):
        if not names:
            names = random.sample(EVENTS, len(EVENTS))
        at = number * _EVERY_SECONDS + random.uniform(5, _EVERY_SECONDS)
        events.append(Event(at, names.pop(), random.uniform(2, 8)))
    return Plan(tuple(made), tuple(events))
