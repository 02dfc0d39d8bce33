"""The verdict of a run.

Mail, web pages and exit statuses come from `verdict.json` alone. Nothing reads the logs a second time.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from oscar_steps.errors import ConfigError, Evidence
from oscar_steps.sources.source import Source, short_name
from oscar_steps.textio import read_regular, write_atomically
from oscar_steps.words import LINT, Category, ExitStatus, Outcome, Stability, Stage, StageResult

__all__ = [
    "LINT", "MAX_EVIDENCE_LINES", "VERDICT_FILE", "Category", "Evidence", "ExitStatus", "ImageReport", "InstallReport",
    "NodeReport", "Outcome", "Stability", "Stage", "StageReport", "StageResult", "Verdict",
]  # fmt: skip

VERDICT_FILE = "verdict.json"
MAX_EVIDENCE_LINES = 40


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeReport(_Frozen):
    """What became of one compute node: its last state, since when (seconds into the run), and every earlier state."""

    name: str
    state: str
    since: float
    history: tuple[tuple[str, float], ...] = ()
    note: str = ""


class StageReport(_Frozen):
    """How one stage ended and how long it took (wall seconds)."""

    stage: Stage
    result: StageResult
    seconds: float = 0.0


class InstallReport(_Frozen):
    """How one stage of OSCAR's own installer ended: passed, failed, hung or not-reached. `seconds`: None if unknown."""

    stage: str
    result: str
    seconds: float | None = None


class ImageReport(_Frozen):
    """The base image of the run: its key, and the digest of its list of packages ('': it has none)."""

    key: str
    manifest: str = ""


class Verdict(_Frozen):
    """All that is known of a run. One sentence that a developer understands comes first."""

    run_id: str
    cell: str
    source: str
    revision: str
    tested: Source | None = None
    """What was tested, to the byte (of a patch its digest); None: nobody knew it yet."""
    outcome: Outcome
    sentence: str
    hint: str = ""
    stage: Stage | None = None
    oscar_stage: str = ""
    category: Category = Category.NONE
    stability: Stability = Stability.STABLE
    """Of the cell: the red of an unstable one is blamed on no commit and holds no release back."""
    evidence: tuple[Evidence, ...] = ()
    nodes: tuple[NodeReport, ...] = ()
    stages: tuple[StageReport, ...] = ()
    installer: tuple[InstallReport, ...] = ()
    mended: tuple[str, ...] = ()
    """What the first tier does not see any more."""
    image: ImageReport | None = None
    """None: the run did not get as far as its image."""
    image_failed: bool = False
    """Its image could not be had, by no fault of the host: a mirror that is away, a recipe that cannot be built."""
    seconds: float = 0.0
    replay: str = ""

    @property
    def short(self) -> str:
        """What was tested, in one word."""
        return self.tested.short if self.tested else short_name(self.revision)

    @classmethod
    def load(cls, run_directory: Path) -> Verdict:
        """Read the verdict of a run. Raises FileNotFoundError where it has none (yet), ConfigError for a broken one."""
        path = run_directory / VERDICT_FILE
        try:
            return cls.model_validate_json(read_regular(path))
        except ValidationError as error:
            raise ConfigError(f"{path}: this is not a verdict: {error.errors()[0]['msg']}") from None

    def save(self, run_directory: Path) -> None:
        """Write `verdict.json` in one step, so that no reader ever gets half of it."""
        write_atomically(run_directory / VERDICT_FILE, self.model_dump_json(indent=2) + "\n")
