"""Every error of ours, by the audience that has to act on it.

A `UserError` is a mistake in what somebody wrote. A `HostError` is the fault of the farm or the host, and no commit is
blamed for it. A `Finding` is a fact about OSCAR for its developers. Any other exception is a bug of the farm, and may
show a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def on_one_line(sentence: str) -> str:
    """`sentence` without what a name in it could order a terminal to do."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)


_LONGEST = 2000
_END = 400


def cut(sentence: str) -> str:
    """`sentence` without the middle of what is too long to be read: it may quote a file, or what a server sent."""
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - _END - 5]} ... {sentence[-_END:]}"


class FarmError(Exception):
    """Root of all errors of the farm. `str()` is one sentence; `hint` says how to go on (may be empty)."""

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        sentence = cut(sentence)
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint

    def explain(self) -> str:
        """The sentence and, where there is one, the hint, ready to be printed."""
        sentence = on_one_line(self.sentence)
        return f"{sentence}\n  {self.hint}" if self.hint else sentence


class UserError(FarmError):
    """A person wrote something wrong: a profile, the matrix, the site, a command line."""


class ProfileError(UserError):
    """A VM or cluster profile that cannot be used. The sentence names file, line and what would be right."""


class InvalidProfile(ProfileError):
    """Something in a profile is wrong. `line` and `column` (from 1) say where; `what`: what is there, what is right."""

    def __init__(self, source: str, line: int, column: int, what: str) -> None:
        super().__init__(f"{source}:{line}:{column}: {what}")
        self.line = line
        self.column = column
        self.what = what


class NotOffered(ProfileError):
    """A machine of this type can never do it, in any state, on any host; the sentence says why."""


class ConfigError(UserError):
    """The matrix, the site, an image recipe or an answers file that cannot be used; the sentence says file and line."""


class RecordingUnusable(UserError):
    """A recording of OSCAR's installer that cannot be used again; the sentence names file, line and what it lost."""


class SourceError(UserError):
    """The revision or repository asked for does not exist."""


class HostError(FarmError):
    """The farm's or the host's own fault: the run's outcome is `infrastructure`; no commit is blamed."""


class ToolMissing(HostError):
    """A program, file or device that the host must have is not there."""


class MachineLost(HostError):
    """A virtual machine's process ended or stopped answering unexpectedly."""


class ImpossibleTransition(HostError):
    """The state of a virtual machine, or of a compute node, forbids what was asked for; the sentence names it."""


class HeadNodeLost(HostError):
    """The SSH connection to the head node broke or could not be had."""


class BugInTheFarm(HostError):
    """An exception that nothing handles; the traceback is in `driver.log`."""


class LibvirtRefused(HostError):
    """libvirt refused a request; the sentence ends with libvirt's reason."""


class DaemonSilent(HostError):
    """The v2m daemon is alive, but does not answer."""


class ImageBuildFailed(HostError):
    """The base image could not be built from its recipe."""


class OutsideUnknown(ImageBuildFailed):
    """What a base image is made of today could not be found out: the mirror cannot be reached, or has no such suite."""


class ImageUnfit(HostError):
    """The image has booted, but lacks what a head node needs; the sentence names the image and what it lacks."""


class StageTimeout(HostError):
    """A stage of the farm's own took longer than its deadline. The sentence says what it was waiting for."""


class Cancelled(FarmError):
    """A person, or the lease, ended the run before its time."""


@dataclass(frozen=True)
class Evidence:
    """Lines of a file that show what happened: the file relative to the run directory; `first_line` counts from 1."""

    file: str
    first_line: int
    lines: tuple[str, ...]

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - part of a verdict, which is a model

    @property
    def last_line(self) -> int:
        return self.first_line + max(len(self.lines), 1) - 1


class PatchRefused(SourceError):
    """A developer's patch that cannot be used, or does not apply: nobody else's mistake. `evidence`: what does not."""

    def __init__(self, sentence: str, *, hint: str = "", evidence: tuple[Evidence, ...] = ()) -> None:
        super().__init__(sentence, hint=hint)
        self.evidence = evidence


class Finding(FarmError):
    """A fact about OSCAR: the run has failed, and its developers read this.

    `oscar_stage` is the installer's own stage (see `oscar_steps.oscar.stages`), `category` one of
    `oscar_steps.words.Category`. `facts` is what the run's events have to keep, so that the finding can be made
    again from an archived run.
    """

    def __init__(
        self,
        sentence: str,
        *,
        hint: str = "",
        oscar_stage: str = "",
        category: str = "oscar",
        evidence: tuple[Evidence, ...] = (),
        facts: Mapping[str, float | str] | None = None,
    ) -> None:
        super().__init__(sentence, hint=hint)
        self.oscar_stage = oscar_stage
        self.category = category
        self.evidence = evidence
        self.facts = dict(facts or {})


class AnswersRefused(Finding):
    """The answers do not fit the OSCAR that is tested: neither its fault nor the farm's."""

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint, category="answers")


class InstallerFailed(Finding):
    """OSCAR's installer said that it failed, or ended without the evidence of a good run."""


class InstallerHung(Finding):
    """OSCAR's installer wrote nothing for too long, or too much without progress."""


class NodeFailed(Finding):
    """A compute node died, panicked, stopped in its installation, or did not come up from its disk."""


class HeadNodeRebooted(Finding):
    """The head node rebooted by itself while OSCAR's installer was running: something in the guest asked for it."""


class HeadNodeCutOff(Finding):
    """The head node runs, but OSCAR did something since when it cannot be reached any more."""
