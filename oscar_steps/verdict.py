"""The verdict of a run, and the words that master and driver share: stages, outcomes, exit statuses.

Mail, web pages and exit statuses are drawn from `verdict.json` alone, never from scraping a log a second time.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from oscar_steps.errors import ConfigError
from oscar_steps.textio import read_regular, write_atomically

VERDICT_FILE = "verdict.json"
MAX_EVIDENCE_LINES = 40
LINT = "lint"
"""The first tier, without a cluster: its builder's name, and what its verdicts have for a cell."""


class Stage(StrEnum):
    """The stages of a run, in order: the mission's nine steps, with the image made first and the cluster ended last."""

    CREATE_IMAGE = "create-image"
    BOOT_HEADNODE = "boot-headnode"
    CHECKOUT = "checkout"
    START_INSTALL = "start-install"
    BOOT_NODES = "boot-nodes"
    WAIT_NODES = "wait-nodes"
    FINALIZE = "finalize"
    EXTRACT_LOGS = "extract-logs"
    TEARDOWN = "teardown"

    @property
    def always_runs(self) -> bool:
        """Whether the stage runs although an earlier one failed."""
        return self in (Stage.EXTRACT_LOGS, Stage.TEARDOWN)


class Outcome(StrEnum):
    """How a run ended. Only `failed` is OSCAR's doing.

    `warning` is the first tier's alone: something new is wrong, and nothing that keeps the cells from running.
    """

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"
    INFRASTRUCTURE = "infrastructure"
    CANCELLED = "cancelled"


class StageResult(StrEnum):
    """How one stage ended."""

    PASSED = "passed"
    FAILED = "failed"
    INFRASTRUCTURE = "infrastructure"
    CANCELLED = "cancelled"
    NOT_REACHED = "not-reached"


class Category(StrEnum):
    """Whose fault it is. Only `oscar` is blamed on a commit.

    `distribution`: the distribution's packages or mirrors are broken. `answers`: what the site answers does not fit.
    `farm`: the farm's profiles, images and files. `host`: the machine that the run was on.
    """

    NONE = ""
    OSCAR = "oscar"
    DISTRIBUTION = "distribution"
    ANSWERS = "answers"
    FARM = "farm"
    HOST = "host"


class ExitStatus(IntEnum):
    """Exit statuses of `oscar-testdriver`: few and fixed, each mapped on purpose by the master.

    Anything else is a bug of the farm's. None is 1 or 2, which a Python traceback and a usage error would give.
    """

    PASSED = 0
    FAILED = 10
    WARNING = 11
    INFRASTRUCTURE = 20
    CANCELLED = 30
    NOT_REACHED = 40
    USAGE = 64

    @classmethod
    def of(cls, result: StageResult | Outcome) -> ExitStatus:
        """The exit status that tells `result` to whoever started us."""
        return cls[result.name]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(_Frozen):
    """Lines of a file of the run directory that show what happened; `first_line` counts from 1."""

    file: str
    first_line: int
    lines: tuple[str, ...]

    @property
    def last_line(self) -> int:
        return self.first_line + max(len(self.lines), 1) - 1


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


class Verdict(_Frozen):
    """All that is told about a run. One sentence that a developer understands comes first."""

    run_id: str
    cell: str
    source: str
    revision: str
    outcome: Outcome
    sentence: str
    hint: str = ""
    stage: Stage | None = None
    oscar_stage: str = ""
    category: Category = Category.NONE
    evidence: tuple[Evidence, ...] = ()
    nodes: tuple[NodeReport, ...] = ()
    stages: tuple[StageReport, ...] = ()
    installer: tuple[InstallReport, ...] = ()
    mended: tuple[str, ...] = ()
    """What the first tier does not see any more."""
    seconds: float = 0.0
    replay: str = ""

    @classmethod
    def load(cls, run_directory: Path) -> Verdict:
        """Read the verdict of a run. Raises FileNotFoundError where it has none (yet), ConfigError for a broken one."""
        path = run_directory / VERDICT_FILE
        try:
            return cls.model_validate_json(read_regular(path))
        except ValidationError as error:
            raise ConfigError(f"{path}: this is no verdict: {error.errors()[0]['msg']}") from None

    def save(self, run_directory: Path) -> None:
        """Write `verdict.json` in one step, so that nobody ever reads half of it."""
        write_atomically(run_directory / VERDICT_FILE, self.model_dump_json(indent=2) + "\n")
