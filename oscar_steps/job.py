"""The job: all that a run needs to know, as one JSON value. The same job gives the same run, on any host.

It holds the *contents* of the image recipe, the cluster profile and the answers, not only their names. So a worker
needs no copy of `profiles/`, and a run can be repeated from its run directory alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oscar_steps.capacity import OVERHEAD_MIB, Need
from oscar_steps.errors import ConfigError
from oscar_steps.manifest import PACKAGE_NAME, PACKAGE_VERSION
from oscar_steps.matrix.answers import Answers
from oscar_steps.matrix.cells import Cell, Matrix
from oscar_steps.matrix.clusters import cluster_facts
from oscar_steps.matrix.recipes import ImageRecipe
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.sources.source import Source
from oscar_steps.textio import read_regular, seen_line, write_atomically
from oscar_steps.words import JOB_FILE, MAX_NODES, HypervisorType, NodeBoot, Stability

__all__ = ["JOB_FILE", "CellPlan", "Job", "Seconds", "Source", "Timeouts"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


PackageName = Annotated[str, Field(pattern=PACKAGE_NAME)]
PackageVersion = Annotated[str, Field(pattern=PACKAGE_VERSION)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Timeouts(_Frozen):
    """Seconds on the reference host (2 cores, emulated, unloaded); a slower one stretches them by its speed."""

    create_image: Seconds = 3600
    boot_headnode: Seconds = 300
    checkout: Seconds = 300
    install: Seconds = 3600
    silence: Seconds = 300
    """The installer may be silent for this long; then it hangs."""
    node_boot: Seconds = 180
    """Power-on to the node's address by DHCP (where DHCP is not seen: to its installer's first request)."""
    node_request: Seconds = 180
    """From its address to the first request of its installer; as long again to the request for its image."""
    node_transfer: Seconds = 600
    """The request for the image to 'imaging complete'."""
    node_stall: Seconds = 45
    """A node that is pulling its image may send no byte for this long."""
    node_finish: Seconds = 180
    """All of the image copied (as the monitor says) to 'imaging complete'."""
    node_reboot: Seconds = 60
    """'Imaging complete' to the end of the install boot."""
    node_up: Seconds = 180
    """Start from disk to the first SSH banner."""
    node_login: Seconds = 90
    """The first SSH banner to root's login from the head node."""
    extract_logs: Seconds = 180
    room: Seconds = 3600
    """So long a run waits for memory and processors of its host, which others have (not stretched)."""
    lease: Seconds = 120
    """A run to which no command is attached for this long ends its cluster and itself (not stretched)."""

    def times(self, factor: float) -> Timeouts:
        """All of them multiplied, but for the lease and the room: no guest is waited for there."""
        return self.model_copy(update={name: value * factor for name, value in self if name not in ("lease", "room")})


class Job(_Frozen):
    """What to test and how: see the module's docstring."""

    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    cell: str
    source: Source
    image: ImageRecipe
    cluster_xml: str
    answers: Answers
    boot: NodeBoot | None = None
    """How nodes boot the installer; None: as the cluster profile says."""
    nodes: int | None = Field(default=None, ge=1, le=MAX_NODES)
    """How many compute nodes; None: as the cluster profile says."""
    hypervisor: HypervisorType | None = None
    """The type of every machine; None: as the cluster profile says."""
    stability: Stability = Stability.STABLE
    """Of the cell: the red of an unstable one is blamed on no commit."""
    image_key: str = Field(default="", pattern=r"^([0-9a-f]{8,64})?$")
    """The key of the base image, or its beginning: that one is used, whatever the mirror has today."""
    image_versions: dict[PackageName, PackageVersion] = {}
    """Packages of that image (by its whole key) that are brought to these versions first: a search over packages."""
    timeouts: Timeouts = Timeouts()
    log_limit_mib: int = Field(default=64, ge=1)
    """An installer that writes more than this is flooding its log."""
    known_issues: tuple[KnownIssue, ...] = ()
    """Known issues, which the verdict names where they show; they change no outcome."""

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read a job. Raises ConfigError with file and field."""
        try:
            return cls.parse(read_regular(path), str(path))
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such job file") from None

    @classmethod
    def parse(cls, text: bytes, source: str) -> Job:
        """The job in a text that comes from `source`. Raises ConfigError with source and field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = seen_line(".".join(str(part) for part in first["loc"])) or "the file as a whole"
            raise ConfigError(f"{source}: {where}: {first['msg']}") from None

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n", mode=0o600)


@dataclass(frozen=True)
class CellPlan:
    """A cell with all that it refers to, read once. Master, laptop and tests make their jobs with it."""

    cell: Cell
    image: ImageRecipe
    answers: Answers
    cluster_xml: str
    known_issues: tuple[KnownIssue, ...]
    timeouts: Timeouts

    @classmethod
    def of(cls, matrix: Matrix, cell: Cell, timeouts: Timeouts) -> CellPlan:
        """Raises ConfigError, with file and line, where what the cell refers to cannot be used."""
        issues = matrix.known_issues(cell)
        stretched = timeouts.times(cell.timeout_factor)
        return cls(cell, matrix.image(cell), matrix.answers(cell), matrix.cluster_xml(cell), issues, stretched)

    @property
    def name(self) -> str:
        return self.cell.name

    def need(self, nodes: int | None = None) -> Need:
        """What the cluster takes of its host, with as many nodes as a person may wish."""
        cell = self.cell
        need = cluster_facts(self.cluster_xml).need(cell.architecture, nodes or cell.nodes, cell.hypervisor)
        return need.model_copy(update={"memory_mib": need.memory_mib + OVERHEAD_MIB})

    def job(self, run_id: str, source: Source, *, nodes: int | None = None, boot: str | None = None) -> Job:
        """The job of one run. `nodes` and `boot` are a person's wishes; None: as the cell or its cluster says."""
        cell = self.cell
        value = {name: value for name, value in vars(self).items() if name != "cell"}
        value |= {"run_id": run_id, "cell": cell.name, "source": source, "stability": cell.stability}
        value |= {"nodes": nodes or cell.nodes, "boot": boot or cell.boot, "hypervisor": cell.hypervisor}
        return Job.model_validate(value)
