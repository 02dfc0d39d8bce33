"""Which hypervisors work on this host: each is tried, none is guessed.

For QEMU a kernel is booted; for the others libvirt is asked to connect, which its driver does only where the hypervisor
runs, and, for Xen, for the kinds of guests that it starts.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lxml import etree

from oscar_steps.errors import FarmError, HostError
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator
from oscar_steps.v3m.libvirt.client import virsh
from oscar_steps.v3m.libvirt.networks import connection_uri
from oscar_steps.v3m.profiles.vm import Hypervisor

_ANSWER_SECONDS = 15.0
"""An answer takes a tenth of a second; a daemon that looks for its drivers first, a few."""
_XEN_GUESTS = {"Xen": ("xen", "linux", "xenpvh"), "XenHVM": ("hvm",)}
"""What libvirt calls the kinds of Xen's guests, by its releases."""
_OTHER = "use a host that has it, or set the type Qemu"


@dataclass(frozen=True, slots=True)
class HypervisorCheck:
    """Whether machines of a type work here; None: it was not tried.

    `sentence`: what was tried and seen; `hint`: how to get there, if at all.
    """

    type: Hypervisor
    works: bool | None
    sentence: str
    hint: str = ""

    def __str__(self) -> str:
        mark = {True: "works    ", False: "not here ", None: "not tried"}[self.works]
        return f"{mark} {self.type}: {self.sentence}{f' ({self.hint})' if self.hint else ''}"


async def check_hypervisors(cache_dir: Path, kernel: Path | None = None) -> list[HypervisorCheck]:
    """Try every type that a profile can have. The first time on a host it takes up to half a minute.

    `cache_dir`, `kernel`: as for `find_accelerator`.
    """
    found, trouble = await _accelerator(cache_dir, kernel)
    checks: list[HypervisorCheck] = []
    for kind in get_args(Hypervisor):
        match kind:
            case "Qemu" | "Kvm":
                checks.append(_qemu(kind, found, trouble))
            case "Xen" | "XenHVM":
                checks.append(await _xen(kind))
            case "VMWare":
                checks.append(await _vmware())
            case _:
                why = "a research prototype of 2007; its tools are no longer available"
                checks.append(HypervisorCheck(kind, False, why, "set another type"))
    return checks


async def _accelerator(cache_dir: Path, kernel: Path | None) -> tuple[Accelerator | None, FarmError]:
    try:
        return await find_accelerator(cache_dir, kernel), HostError("")
    except FarmError as error:
        return None, error


def _qemu(kind: Hypervisor, found: Accelerator | None, trouble: FarmError) -> HypervisorCheck:
    if found is None:
        return HypervisorCheck(kind, False, trouble.sentence, trouble.hint)
    if not found.tried:
        return HypervisorCheck(kind, None, "there is no kernel on this host to boot", "name one: --kernel FILE")
    if kind == "Kvm" and found.name != "kvm":
        return HypervisorCheck(kind, False, found.reason, "set the type Qemu: it is emulated then")
    return HypervisorCheck(kind, True, f"{found.name}: {found.reason}")


async def _xen(kind: Hypervisor) -> HypervisorCheck:
    uri = connection_uri(kind)
    try:
        answer = etree.fromstring(await virsh(uri, "capabilities", seconds=_ANSWER_SECONDS))
    except FarmError as error:
        return HypervisorCheck(kind, False, error.sentence, error.hint or _OTHER)
    guests = sorted({str(word.text) for word in answer.iterfind("guest/os_type")})
    there_are = f"libvirt at {uri} starts guests of the kinds: {', '.join(guests) or 'none'}"
    if set(guests) & set(_XEN_GUESTS[kind]):
        return HypervisorCheck(kind, True, there_are)
    hint = "a fully virtual guest needs a processor with VT-x or AMD-V" if kind == "XenHVM" else _OTHER
    return HypervisorCheck(kind, False, there_are, hint)


async def _vmware() -> HypervisorCheck:
    uri = connection_uri("VMWare")
    missing = [program for program in ("vmrun", "vmplayer") if shutil.which(program) is None]
    if missing:
        hint = f"install VMware Workstation or Player, which brings {' and '.join(missing)}"
        return HypervisorCheck("VMWare", False, f"the program {missing[0]} is missing", hint)
    try:
        await virsh(uri, "list", seconds=_ANSWER_SECONDS)
    except FarmError as error:
        return HypervisorCheck("VMWare", False, error.sentence, error.hint or _OTHER)
    return HypervisorCheck("VMWare", True, f"libvirt at {uri} answers; no guest was started")
