"""A cell of the matrix, and what its parts may be called."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from oscar_steps.addresses import address_fault
from oscar_steps.matrix.model import Frozen
from oscar_steps.words import MAX_NODES, Architecture, HypervisorType, Label, NodeBoot, Stability

LONGEST_NAME = 50
"""Of a cell. The ids of its runs are longer, and are names of folders with sockets, whose paths have a limit."""


def _matching(pattern: str, right: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("name", "{shown} cannot be used; {right}", {"shown": ascii(text), "right": right})
        return text

    return AfterValidator(check)


def _usable(address: str) -> str:
    if fault := address_fault(address):
        raise PydanticCustomError("address", "{fault}", {"fault": fault})
    return address


# Only a distribution's name may have a '-', so that a cell's name can be read from its end. A variant comes after a
# '.', which no architecture has: so no run of a variant looks like one of the cell (`CELL-rREVISION-bNUMBER`).
DistributionName = Annotated[
    str,
    _matching(r"[a-z0-9]+([_-][a-z0-9]+)*", "write small letters, digits, _ and -, such as debian or redhat-el"),
]
VersionName = Annotated[
    str,
    _matching(r"[a-z0-9]+([._][a-z0-9]+)*", 'write small letters, digits and dots, such as "12", "24.04" or "testing"'),
]
VariantName = Annotated[str, _matching(r"[a-z0-9]+(_[a-z0-9]+)*", "write small letters, digits and _, such as network")]
Owner = Annotated[str, AfterValidator(_usable)]
Factor = Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)]
NodeCount = Annotated[int, Field(ge=1, le=MAX_NODES)]


class Cell(Frozen):
    """One cell of the matrix, and one builder. Its name is OSCAR's own: distribution-version-architecture."""

    distribution: DistributionName
    version: VersionName
    architecture: Architecture
    variant: str = ""
    """What is special about it, where the matrix has the same distribution more than once; '': the cell itself."""
    image: str
    cluster: str
    answers: str
    boot: NodeBoot | None = None
    """How nodes boot the installer; None: as the cluster profile says."""
    nodes: NodeCount | None = None
    """How many compute nodes; None: as the cluster profile says."""
    hypervisor: HypervisorType | None = None
    """Of every machine of the cluster; None: as the cluster profile says."""
    labels: tuple[Label, ...] = (Label.NIGHTLY,)
    stability: Stability = Stability.STABLE
    owner: str | None = None
    """A mail address that gets the mails about this cell's results, too."""
    timeout_factor: Factor = 1.0
    real: str = ""
    """OSCAR's name of this distribution, for package pools and package sets."""
    compatible: str = ""
    """OSCAR's name of the distribution that it is treated as, for package lists and OSCAR's own packages."""

    @property
    def name(self) -> str:
        return f"{self.distribution}-{self.version}-{self.architecture}{self.variant and f'.{self.variant}'}"
