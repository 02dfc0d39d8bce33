"""Faults of the stand-in OSCAR: each is a patch to its tree and a word on what a run with it has to end with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from demo.errors import FaultUnknown
from oscar_steps.tomlfile import load_toml, validate
from oscar_steps.verdict import Category, Outcome, Stage, Verdict
from oscar_steps.words import NodeBoot


class Fault(BaseModel):
    """A way in which OSCAR fails, or (`passes`) in which one version of it differs from another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    stage: Stage | None = None
    oscar_stage: str = ""
    lint: str = ""
    """File that the first tier names, where it sees the fault: on the farm no cell is installed then."""
    category: Category = Category.OSCAR
    words: tuple[str, ...] = ()
    """Have to be in the sentence, in either case; 'a|b': one of them."""
    passes: bool = False
    boot: NodeBoot | None = None
    line: str = ""
    """Regular expression for the first line of the run's files from which the fault can be known."""

    @field_validator("line")
    @classmethod
    def _is_pattern(cls, line: str) -> str:
        try:
            re.compile(line)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return line

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.passes == (self.stage is not None):
            raise ValueError("say either the stage that fails, or passes = true")
        return self

    @property
    def outcome(self) -> Outcome:
        """How the run has to end: only OSCAR's own faults are failures."""
        if self.passes:
            return Outcome.PASSED
        return Outcome.FAILED if self.category is Category.OSCAR else Outcome.INFRASTRUCTURE

    @property
    def expected(self) -> str:
        """What is expected, for a table: 'wait-nodes/barrier, oscar'."""
        return "passed" if self.passes else place(self.stage, self.oscar_stage, self.category)

    def missing_words(self, text: str) -> list[str]:
        """The words that `text` does not say."""
        text = text.lower()
        return [word for word in self.words if not any(one in text for one in word.lower().split("|"))]

    def complaints(self, verdict: Verdict) -> list[str]:
        """What of the verdict is not as it should be, a few words each; empty when all is."""
        if verdict.outcome is not self.outcome:
            return [f"it is {verdict.outcome}, not {self.outcome}"]
        if self.passes:
            return []
        wrong = []
        said = place(verdict.stage, verdict.oscar_stage, verdict.category)
        if said != self.expected:
            wrong.append(f"it should say {self.expected}, not {said}")
        wrong += [f"the sentence does not say '{word}'" for word in self.missing_words(verdict.sentence)]
        return wrong if verdict.evidence else [*wrong, "there is no evidence"]


GOOD = Fault(title="The tree as it is", passes=True)
"""No fault."""


def place(stage: Stage | None, oscar_stage: str, category: Category) -> str:
    """Where something failed, and whose fault it is."""
    return f"{stage or 'no stage'}/{oscar_stage or '-'}, {category or '-'}"


class FaultBook:
    """All faults of a directory with `faults.toml` and one NAME.patch for each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        path = directory / "faults.toml"
        text, value = load_toml(path)
        self.faults = {name: validate(Fault, path, text, entry) for name, entry in value.items()}

    def patch(self, name: str) -> Path:
        return self._directory / f"{name}.patch"

    def __getitem__(self, name: str) -> Fault:
        """The fault called `name`. Raises FaultUnknown, naming those there are."""
        if name in self.faults:
            return self.faults[name]
        there_are = ", ".join(sorted(self.faults)) or "none"
        raise FaultUnknown(f"there is no fault '{name}'; there are: {there_are}")
