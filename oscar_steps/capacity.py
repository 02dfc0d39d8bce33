"""What a host can run, and what a cell needs: the worker says the one, the matrix the other, the master compares.

A worker's word is a hint for the queue, never a promise: the driver on the host measures again before each run
(`oscar_steps.v3m.host.reservations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oscar_steps.textio import json_object, one_line

INFO_FILE = "host.json"
"""In the folder `info` of the worker's base: Buildbot's worker sends all files there whenever it connects."""
LONGEST = 1 << 16
"""Characters that it may have."""
OVERHEAD_MIB = 256
"""What a cluster's QEMUs take beside the guests' memory, and what is left to the host itself."""
SAYS_NOTHING = "it does not say what its host can do"
"""Of a worker that was set up before workers did."""
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
_Mib = Annotated[int, Field(ge=0, le=1 << 30)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Host(_Frozen):
    """What one host can run, as its worker has tried it. Fields that a newer worker adds are left out."""

    architectures: Mapping[_Name, Literal["kvm", "tcg"]] = Field(min_length=1, max_length=64)
    """Each architecture whose machines run here, and by what."""
    hypervisors: list[_Name] = Field(max_length=64)
    """Types of machines that were seen to work."""
    memory_mib: _Mib
    processors: Annotated[int, Field(ge=1, le=1 << 16)]
    runs_free_mib: _Mib = 0
    store_free_mib: _Mib = 0

    def __str__(self) -> str:
        architectures = ", ".join(f"{name} ({by})" for name, by in self.architectures.items())
        types = ", ".join(self.hypervisors) or "no hypervisor"
        return f"{architectures}; {types}; {gib(self.memory_mib)} of memory; {self.processors} processors"


ASSUMED = Host(architectures={"x86_64": "tcg", "i386": "tcg"}, hypervisors=["Qemu"], memory_mib=4096, processors=2)
"""What is believed of a host whose worker says nothing that can be used."""


class Need(_Frozen):
    """What the cluster of a cell needs. `hypervisors`: the types that its machines name."""

    architecture: str
    hypervisors: tuple[str, ...] = ()
    memory_mib: int = 0
    processors: int = 0


def read_host(said: object) -> tuple[Host, str]:
    """What a worker says of its host (the text of `INFO_FILE`), and a sentence where that cannot be believed."""
    if said is None:
        return ASSUMED, SAYS_NOTHING
    if not isinstance(said, str) or len(said) > LONGEST:
        return ASSUMED, f"what it says of its host cannot be used: it is no text of at most {LONGEST} characters"
    try:
        return Host.model_validate(json_object(said)), ""
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return ASSUMED, one_line(f"what it says of its host cannot be used: {where}: {first['msg']}", 200)
    except ValueError as error:
        return ASSUMED, one_line(f"what it says of its host cannot be used: {error}", 200)


def why_not(need: Need, host: Host) -> str:
    """Why a host cannot run what is needed; '' where it can. Processors are no reason: a run waits for them there."""
    if need.architecture not in host.architectures:
        return f"has the architectures {', '.join(host.architectures)}, not {need.architecture}"
    if lacks := [each for each in need.hypervisors if each not in host.hypervisors]:
        return f"has the hypervisor types {', '.join(host.hypervisors) or 'none'}, not {lacks[0]}"
    if need.memory_mib > host.memory_mib:
        return f"has {gib(host.memory_mib)} of memory, the cluster needs {gib(need.memory_mib)}"
    return ""


def gib(mib: float) -> str:
    """An amount of memory for people."""
    return f"{mib / 1024:.1f} GiB"
