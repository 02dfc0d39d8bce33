"""The words that master and driver share: stages, outcomes, exit statuses. They need no model, so they load quickly."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

JOB_FILE = "job.json"
TARBALL_FOLDER = "tarballs"
"""In a run directory: what the master keeps of a release. What is not there is fetched."""
LINT = "lint"
"""The first tier, without a cluster: its builder's name, and what its verdicts have for a cell."""


NodeBoot = Literal["cdrom", "network"]
"""How a node with a blank disk reaches OSCAR's installer, in a job and in OSCAR's menus."""
Architecture = Literal["x86_64", "i386", "aarch64", "ia64", "ppc64", "ppc64le", "riscv64", "s390x"]
HypervisorType = Literal["Qemu", "Kvm", "Xen", "XenHVM", "VMWare", "VMM-HPC"]
MAX_NODES = 128
"""Compute nodes of a cluster."""

MAX_KEEP_HOURS = 8
"""So long a person may keep the cluster of a forced build."""

MARK = "@@oscar "
"""Begins a line of the driver that is meant for the master. The rest of the line is a JSON object."""


class Stage(StrEnum):
    """The stages of a run, in order: the image is made first, and the cluster ended last."""

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

    `distribution`: the distribution's packages or mirrors are broken. `answers`: the site's answers do not fit.
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
        """The exit status by which our caller learns `result`."""
        return cls[result.name]


class Label(StrEnum):
    """When the farm starts a cell by itself. A cell may have several labels; without one it runs when somebody asks."""

    SMOKE = "smoke"
    """After each commit in which the first tier found nothing that stops the installer."""
    NIGHTLY = "nightly"
    """Once a night."""
    WEEKLY = "weekly"
    """On one night of the week (`[schedule] weekly`). A cell that is nightly, too, runs once in that night."""
    CANDIDATE = "candidate"
    """For each release that appears in a place with tarballs (`[[tarballs]]`)."""


class Stability(StrEnum):
    """Whether a cell's red says something about OSCAR's commits, and about a release."""

    STABLE = "stable"
    """Red is blamed on the commits that were tested, and keeps a revision from being released."""
    UNSTABLE = "unstable"
    """Red is blamed on no commit and holds no release back: the distribution changes, or the cell is new. The mail goes
    to the cell's owner and to the developers' list (without one, to the operator)."""


UNSTABLE = "this cell is unstable: its failures are not blamed on commits"
"""What mails and pages say of an unstable cell."""
