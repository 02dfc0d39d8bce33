"""Logs of a head node that answers no more: from its disk, and never a green run without them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import FarmError, HeadNodeLost, HostError
from oscar_steps.testdriver.deadline import HostSpeed
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.stages import extract_logs
from oscar_steps.v3m.machine import Ended, EndReason, MachineState
from tests.unit.testdriver.having import having


class LostHead:
    """A machine that runs, and obeys its power button or not."""

    disk = Path("disk")

    console = Path("no console")

    def __init__(self, *, obeys: bool, state: MachineState = MachineState.RUNNING, seconds: float = 0.0) -> None:
        self.obeys, self.state, self.seconds = obeys, state, seconds
        self.done: list[str] = []

    async def screenshot(self, _path: Path) -> None:
        raise HostError("no screen")

    async def status(self) -> MachineState:
        return self.state

    async def shut_down(self) -> None:
        self.done.append("button")
        if self.seconds:
            with self.console.open("a") as file:
                file.write("Stopping everything\n")

    async def wait_ended(self) -> Ended:
        if not self.obeys:
            await asyncio.Event().wait()
        await asyncio.sleep(self.seconds)
        return Ended(EndReason.GUEST_SHUTDOWN, 0)

    async def power_off(self) -> None:
        self.done.append("plug")


class LostRun:
    """As much of a run as the stage touches."""

    ending = False

    def __init__(self, directory: Path, head: LostHead, *, failure: FarmError | None, keep: bool = False) -> None:
        self.directory, self.failure = directory, failure
        cluster = SimpleNamespace(head=head, machines=[])
        ssh = SimpleNamespace(name="oscar-headnode", reconnect=self._reconnect)
        self.reached = having(Booted, cluster=cluster, head=ssh, speed=HostSpeed(2.0))
        self.options = SimpleNamespace(keep=keep)
        self.job = SimpleNamespace(answers=SimpleNamespace(oscar_home="/opt/oscar"))
        self.said: list[str] = []
        self.diary: Any = SimpleNamespace(say=self.said.append, write=self._write, step=self._step)

    async def _reconnect(self) -> None:
        raise HeadNodeLost("the head node does not answer")

    def _write(self, _kind: str, text: str, **_facts: object) -> None:
        self.said.append(text)

    def _step(self, text: str) -> Any:
        self.said.append(text)
        return contextlib.nullcontext()


def read_from_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: LostHead, **settings: Any
) -> tuple[LostRun, list[Path]]:
    read: list[Path] = []

    def logs(_disk: Path, into: Path, _oscar_home: str) -> int:
        read.append(into)
        return 7

    monkeypatch.setattr(extract_logs, "logs_from_disk", logs)
    monkeypatch.setattr(extract_logs, "BUTTON_SECONDS", 0.2)
    run: Any = LostRun(tmp_path, head, **settings)
    asyncio.run(extract_logs.run_stage(run))
    return run, read


@pytest.mark.parametrize("obeys", [True, False])
def test_logs_of_a_lost_head_node_come_from_its_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, obeys: bool
) -> None:
    head = LostHead(obeys=obeys)
    run, read = read_from_disk(monkeypatch, tmp_path, head, failure=HostError("cut off"))
    assert read == [tmp_path / "logs/head"]
    assert head.done == ["button", "plug"]
    assert "7 log files read from the head node's disk" in run.said[-1]
    assert ("the last seconds may be missing" in run.said[-1]) is not obeys
    assert not run.ending  # the other machines are still looked after


def test_a_machine_that_says_that_it_shuts_down_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head = LostHead(obeys=True, seconds=1.0)
    head.console = tmp_path / "console"
    run, _ = read_from_disk(monkeypatch, tmp_path, head, failure=HostError("cut off"))
    assert "may be missing" not in run.said[-1]


def test_a_machine_that_stands_still_is_not_asked_to_shut_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head = LostHead(obeys=False, state=MachineState.PAUSED)
    read_from_disk(monkeypatch, tmp_path, head, failure=HostError("cut off"))
    assert head.done == ["plug"]


def test_a_hypervisor_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head = LostHead(obeys=False)
    monkeypatch.setattr(head, "status", asyncio.Event().wait)
    _, read = read_from_disk(monkeypatch, tmp_path, head, failure=HostError("stands still"))
    assert (head.done, len(read)) == (["plug"], 1)


def test_a_head_node_that_is_kept_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head = LostHead(obeys=True)
    run, read = read_from_disk(monkeypatch, tmp_path, head, failure=HostError("cut off"), keep=True)
    assert (head.done, read) == ([], [])
    assert "no logs from the head node, which is kept: " in run.said[-1]
    _, read = read_from_disk(
        monkeypatch, tmp_path, LostHead(obeys=True, state=MachineState.OFF), failure=HostError("ended"), keep=True
    )
    assert read == [tmp_path / "logs/head"]


def test_a_good_run_whose_head_node_gives_no_logs_is_not_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(HeadNodeLost, match="does not answer"):
        read_from_disk(monkeypatch, tmp_path, LostHead(obeys=True), failure=None)


def test_a_disk_that_cannot_be_read_leaves_the_runs_own_failure_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_arguments: object) -> int:
        raise HostError("it has no ext4 file system")

    monkeypatch.setattr(extract_logs, "logs_from_disk", fails)
    run: Any = LostRun(tmp_path, LostHead(obeys=True), failure=HostError("cut off"))
    asyncio.run(extract_logs.run_stage(run))
    assert "no logs from the head node's disk: it has no ext4" in run.said[-1]


def test_an_installer_that_does_not_end_is_said_to_run_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def end() -> None:
        pass

    monkeypatch.setattr(extract_logs, "END_SECONDS", 0.1)
    run: Any = LostRun(tmp_path, LostHead(obeys=True), failure=HostError("cut off"))
    waiting = SimpleNamespace(is_set=lambda: False, wait=asyncio.Event().wait)
    installer: Any = SimpleNamespace(ended=waiting, reached_barrier=waiting, end=end)
    asyncio.run(extract_logs._shut_barrier(run, installer))
    assert run.said == ["OSCAR's installer did not end by itself: it still runs after 0 s"]


def test_a_full_disk_of_the_host_is_no_bug_of_the_farm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def read(_command: str, *, seconds: float) -> bytes:
        return b"a tar" * int(seconds)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract_logs, "unpack", full)
    head: Any = SimpleNamespace(read=read)
    with pytest.raises(HostError, match="the logs of oscarnode1 cannot be written: No space left on device"):
        asyncio.run(extract_logs._fetch(head, "tar", tmp_path / "oscarnode1", 5.0))
