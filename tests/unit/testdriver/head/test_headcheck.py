"""A look at the head node when something failed, and the head node that rebooted by itself."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import (
    Evidence,
    FarmError,
    HeadNodeLost,
    HeadNodeRebooted,
    HostError,
    InstallerFailed,
    InstallerHung,
    MachineLost,
    NodeFailed,
)
from oscar_steps.testdriver.head.check import HeadCheck, HeadFacts, head_rebooted, parse_facts, with_full_disk
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.stages.boot_headnode import _machine_event
from oscar_steps.v3m.machine import EventKind, MachineEvent
from tests.unit.testdriver.having import having

DF = """Filesystem     1024-blocks    Used Available Capacity Mounted on
udev                490000       0    490000       0% /dev
/dev/vda           4050000 3900000    {free}      {used}% /
tmpfs               100000       0    100000       0% /run
/dev/sr0               500     500         0     100% /mnt
"""
PROCESSES = "\n@@\n/sbin/init\n/usr/bin/rsync --daemon --config=/etc/systemimager/rsyncd.conf\ndhcpd -4 -q eth1\n"


@pytest.mark.parametrize(
    ("output", "facts"),
    [
        (DF.format(free=150000, used=97) + PROCESSES, HeadFacts()),
        (DF.format(free=0, used=100) + PROCESSES, HeadFacts(full=("/: 100 %",))),
        (DF.format(free=512, used=99) + PROCESSES, HeadFacts(full=("/: 99 %",))),
        ("\n@@\n/sbin/init\nrsync -a /a /b\n", HeadFacts(dhcp_server=False, rsync_daemon=False)),
        ("\n@@\n/sbin/init\n/usr/sbin/dhcpd3 eth1\n", HeadFacts(rsync_daemon=False)),
        ("\n@@\n/sbin/init\ndnsmasq --conf-file=/etc/dnsmasq.d/oscar.conf\n", HeadFacts(rsync_daemon=False)),
        ("", None),
        ("\n@@\n", None),
        ("sh: ps: not found", None),
    ],
)
def test_a_look_at_the_head_node_claims_only_what_it_saw(output: str, facts: HeadFacts | None) -> None:
    assert parse_facts(output) == facts


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (InstallerFailed("OSCAR could not build the image"), True),
        (HostError("a command on the head node failed"), True),
        (NodeFailed("oscarnode1 failed: it stopped"), False),
        (HeadNodeRebooted("the head node rebooted"), False),
        (InstallerFailed("OSCAR could not install: the head node's disk is full (No space left)"), False),
    ],
)
def test_a_full_disk_of_the_head_node_is_said_whatever_failed(error: FarmError, full: bool) -> None:
    async def run(_command: str, *, seconds: float) -> Any:
        assert seconds < 60
        return SimpleNamespace(output=DF.format(free=0, used=100) + PROCESSES)

    head: Any = SimpleNamespace(connected=True, run=run)
    before = error.sentence
    asyncio.run(with_full_disk(head, error))
    assert error.sentence == str(error) == before + ("; the head node's disk is full (/: 100 %)" if full else "")


def test_nodes_that_fail_together_look_once() -> None:
    looks: list[str] = []

    async def run(command: str, *, seconds: float) -> Any:
        looks.append(f"{command}, {seconds} s")
        await asyncio.sleep(0.01)
        return SimpleNamespace(output=DF.format(free=150000, used=97) + PROCESSES)

    async def look() -> list[HeadFacts | None]:
        head: Any = SimpleNamespace(run=run)
        check = HeadCheck(head)
        return await asyncio.gather(*(check.look() for _ in range(16)))

    assert asyncio.run(look()) == [HeadFacts()] * 16
    assert len(looks) == 1


def test_a_head_node_that_does_not_answer_tells_nothing() -> None:
    async def run(_command: str, *, seconds: float) -> Any:
        raise HeadNodeLost(f"gone for {seconds} s")

    head: Any = SimpleNamespace(run=run)
    assert asyncio.run(HeadCheck(head).look()) is None


class FakeRun:
    """As much of a run as an event of the head node touches."""

    def __init__(self, *, installing: bool) -> None:
        stuck = InstallerHung(
            "stuck", oscar_stage="server", evidence=(Evidence("installer/terminal.log", 7, ("last",)),)
        )
        self.ending = False
        self.diary = SimpleNamespace(write=lambda *_args, **_data: None, current_step="SSH of oscar-headnode")
        self.said: list[str] = []
        head = SimpleNamespace(broke=lambda: self.said.append("broke"), gone=self.said.append)
        self.reached = having(Booted, head=head)
        self.running_installer = SimpleNamespace(overdue=lambda _s: stuck) if installing else None
        self.alarms: list[FarmError] = []
        self.raise_alarm = self.alarms.append


def happen(run: Any, kind: EventKind, machine: str = "oscar-headnode", detail: str = "") -> None:
    _machine_event(run, "oscar-headnode", MachineEvent(machine, kind, detail))


def test_a_reboot_of_the_head_node_in_mid_install_is_found_at_once_and_is_oscars() -> None:
    run = FakeRun(installing=True)
    happen(run, EventKind.GUEST_RESET)
    (error,) = run.alarms
    assert isinstance(error, HeadNodeRebooted)
    assert error.sentence == "the head node rebooted while OSCAR was installing the server packages (step 3)"
    assert (error.oscar_stage, error.category) == ("server", "oscar")
    assert error.evidence == (Evidence("installer/terminal.log", 7, ("last",)),)
    assert run.said == ["broke"]


def test_a_reboot_without_an_installer_is_not_oscars() -> None:
    run = FakeRun(installing=False)
    happen(run, EventKind.GUEST_RESET)
    assert isinstance(run.alarms[0], MachineLost)
    assert "rebooted by itself" in run.alarms[0].sentence


def test_a_head_node_that_ended_is_not_waited_for() -> None:
    run = FakeRun(installing=True)
    happen(run, EventKind.ENDED, detail="guest-shutdown")
    assert isinstance(run.alarms[0], MachineLost)
    assert run.said == ["the head node oscar-headnode ended unexpectedly: ended guest-shutdown"]


def test_what_the_machines_do_while_the_run_ends_them_is_no_alarm() -> None:
    run = FakeRun(installing=True)
    run.ending = True
    happen(run, EventKind.ENDED)
    happen(run, EventKind.GUEST_RESET)
    assert (run.alarms, run.said) == ([], [])


def test_a_compute_node_may_reboot() -> None:
    run = FakeRun(installing=True)
    happen(run, EventKind.GUEST_RESET, machine="oscarnode1")
    happen(run, EventKind.ENDED, machine="oscarnode1", detail="guest-reset")
    assert run.alarms == []


def test_a_reboot_without_a_named_stage_still_has_a_sentence() -> None:
    installer: Any = SimpleNamespace(overdue=lambda _s: InstallerHung("stuck"))
    assert head_rebooted(installer, "SSH").sentence == "the head node rebooted while OSCAR was installing the cluster"
