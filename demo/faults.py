"""Faults of the stand-in OSCAR: each is a patch to its tree and a word on where a run should end with it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from demo.errors import FaultUnknown
from oscar_steps.matrix import load_toml, validate
from oscar_steps.verdict import Stage


class Fault(BaseModel):
    """A way in which OSCAR fails: where the run ends, and words that the mail's first lines have to say."""

    model_config = ConfigDict(frozen=True, extra="allow")

    title: str
    stage: Stage
    words: tuple[str, ...] = ()


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
