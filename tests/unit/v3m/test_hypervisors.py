"""What is said of each hypervisor on a host: only what was tried."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

import pytest

from oscar_steps.errors import HostError
from oscar_steps.v3m import hypervisors
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.hypervisors import HypervisorCheck, check_hypervisors
from oscar_steps.v3m.profiles.vm import Hypervisor

CAPABILITIES = "<capabilities>{}</capabilities>"
GUEST = "<guest><os_type>{}</os_type></guest>"


def _checks(
    monkeypatch: pytest.MonkeyPatch, found: Accelerator | HostError, guests: tuple[str, ...] | HostError = ()
) -> dict[Hypervisor, HypervisorCheck]:
    async def find(_cache: Path, _kernel: Path | None) -> Accelerator:
        if isinstance(found, HostError):
            raise found
        return found

    async def virsh(_uri: str, *_words: str, seconds: float) -> str:
        assert seconds < 60
        if isinstance(guests, HostError):
            raise guests
        return CAPABILITIES.format("".join(map(GUEST.format, guests)))

    monkeypatch.setattr(hypervisors, "find_accelerator", find)
    monkeypatch.setattr(hypervisors, "virsh", virsh)
    monkeypatch.setattr(hypervisors.shutil, "which", lambda _program: None)
    return {check.type: check for check in asyncio.run(check_hypervisors(Path("/nowhere")))}


def _works(checks: dict[Hypervisor, HypervisorCheck]) -> list[str]:
    return [kind for kind, check in checks.items() if check.works]


def test_every_type_of_the_grammar_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _checks(monkeypatch, Accelerator("tcg", "it booted", 2.0))
    assert list(checks) == list(get_args(Hypervisor))
    assert _works(checks) == ["Qemu"]
    assert "it is emulated then" in str(checks["Kvm"])


def test_kvm_works_where_a_kernel_was_seen_to_boot_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _works(_checks(monkeypatch, Accelerator("kvm", "it booted", 0.5))) == ["Qemu", "Kvm"]


def test_without_a_kernel_nothing_was_tried_and_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _checks(monkeypatch, Accelerator("tcg", "taken", 2.0, tried=False))
    assert [checks[kind].works for kind in ("Qemu", "Kvm")] == [None, None]
    assert "not tried Qemu: there is no kernel on this host to boot (name one: --kernel FILE)" in str(checks["Qemu"])


def test_without_qemu_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _checks(monkeypatch, HostError("QEMU is missing", hint="install it"), ("xen",))
    assert _works(checks) == ["Xen"]
    assert str(checks["Qemu"]) == "not here  Qemu: QEMU is missing (install it)"


@pytest.mark.parametrize(
    ("guests", "works"), [(("xen",), ["Xen"]), (("hvm", "xen"), ["Xen", "XenHVM"]), (("hvm",), ["XenHVM"]), ((), [])]
)
def test_xen_says_itself_which_guests_it_starts(
    monkeypatch: pytest.MonkeyPatch, guests: tuple[str, ...], works: list[str]
) -> None:
    checks = _checks(monkeypatch, HostError("no QEMU"), guests)
    assert _works(checks) == works


def test_a_libvirt_that_does_not_answer_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _checks(monkeypatch, Accelerator("tcg", "it booted", 2.0), HostError("no such socket"))
    for kind in ("Xen", "XenHVM"):
        assert "no such socket" in str(checks[kind])
        assert "set the type Qemu" in str(checks[kind])
