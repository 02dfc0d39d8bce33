"""What a check of the tree says: problems with file and line, and what was left alone with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

_FAR = 2**31


@dataclass(frozen=True)
class Problem:
    """Something that will fail. `file` is relative to the tree; `line` counts from 1 (0: the file as a whole).

    Problems are sorted in the order in which they are worth reading: what gates first, then as the installer meets it.
    """

    file: str
    line: int
    what: str
    right: str
    of_answers: bool = False
    """The commit may be right: it is the farm's answers that do not fit it any more."""
    gates: bool = False
    """It certainly keeps the installer from starting, or from going on, on the way that the cells take."""
    rank: int = field(default=_FAR, compare=False)
    """How early the installer meets the file."""
    because: str = field(default="", compare=False)
    """The path that the change took away, or took something from, so that this came about."""

    def __lt__(self, other: Problem) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[bool, int, str, int, str, str]:
        return (not self.gates, self.rank, self.file, self.line, self.what, self.right)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.what}; {self.right}"


@dataclass(frozen=True, order=True)
class LeftAlone:
    """A file on which nothing could be said, and why. Never a reason to fail."""

    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}: left alone: {self.why}"


def make_executable(path: str) -> str:
    """What would be right where a file has no execute bit: a tree does not say where it came from."""
    return f"svn propset svn:executable, or chmod +x in git, on {path}"


@dataclass
class Findings:
    """What one check found."""

    problems: list[Problem] = field(default_factory=list)
    left_alone: list[LeftAlone] = field(default_factory=list)

    def add(self, file: str, line: int, what: str, right: str, *, gates: bool = False) -> None:
        self.problems.append(Problem(file, line, what, right, gates=gates))

    def leave(self, file: str, why: str) -> None:
        self.left_alone.append(LeftAlone(file, why))

    def take(self, other: Findings) -> None:
        self.problems += other.problems
        self.left_alone += other.left_alone


@dataclass(frozen=True)
class Report:
    """All that was found in a tree. `files` is how many were looked at, `seconds` the wall time that it took."""

    problems: tuple[Problem, ...]
    left_alone: tuple[LeftAlone, ...]
    files: int
    seconds: float

    @property
    def blamed(self) -> tuple[Problem, ...]:
        """Those that are the commit's own fault."""
        return tuple(problem for problem in self.problems if not problem.of_answers)

    @property
    def good(self) -> bool:
        return not self.problems

    @property
    def summary(self) -> str:
        """One line: 'lint: 2 problems in 143 files, 3.1 s'."""
        count = len(self.problems)
        problems = "no problem" if not count else f"{count} problem{'s' if count > 1 else ''}"
        alone = f", {len(self.left_alone)} left alone" if self.left_alone else ""
        return f"lint: {problems} in {self.files} file{'s' if self.files != 1 else ''}{alone}, {self.seconds:.1f} s"
