"""The link to the head node while the installer runs: who broke it, and since when."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import Evidence, FarmError, HeadNodeCutOff, HeadNodeLost, HostError, InstallerHung, MachineLost
from oscar_steps.testdriver.deadline import HostSpeed
from oscar_steps.testdriver.head import link
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.head.link import HeadLink, echo_command
from oscar_steps.v3m.machine import MachineState
from tests.unit.testdriver.head.sshd import Server, with_head


class Linked:
    """What the watch over the link looks at. `pid`: of the process that is the head node's machine."""

    def __init__(self, head: HeadNode, tmp_path: Path, *, pid: int, installing: bool = True) -> None:
        self.head = head
        self.alarms: list[FarmError] = []
        self.said: list[str] = []
        self.diary: Any = SimpleNamespace(say=self.said.append, current_step="the nodes")
        stuck = InstallerHung(
            "stuck", oscar_stage="server", evidence=(Evidence("installer/terminal.log", 7, ("last",)),)
        )
        self.installer: Any = SimpleNamespace(ended=asyncio.Event(), overdue=lambda _seconds: stuck)
        if not installing:
            self.installer.ended.set()
        self.state = MachineState.RUNNING
        console = tmp_path / "oscar-headnode.log"
        console.write_text("login:\nkernel: eth0: link down\n", encoding="utf-8")
        self.unanswered = False
        self.machine: Any = SimpleNamespace(
            pid=pid, status=self._status, console=console, has_unanswered_ssh=self._has_unanswered_ssh
        )

    async def watch(self, probe_seconds: float = 2.0) -> None:
        speed = HostSpeed(probe_seconds)
        await HeadLink(self.head, self.machine, self.installer, speed, self.diary, self.alarms.append).watch()

    async def cut_off(self) -> FarmError:
        return await link.cut_off(self.machine, self.installer, "the nodes")

    async def explained(self, error: FarmError) -> FarmError:
        return await link.explained(error, self.head, self.machine, self.installer, "the nodes")

    async def _status(self) -> MachineState:
        return self.state

    async def _has_unanswered_ssh(self) -> bool:
        return self.unanswered


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The watch over the link with shorter times; the file that it asks for."""
    for name, seconds in {"IDLE_SECONDS": 0.2, "LATE_SECONDS": 1.0, "LOST_SECONDS": 4.0}.items():
        monkeypatch.setattr(link, name, seconds)
    monkeypatch.setattr(link, "FARM", str(tmp_path))
    (tmp_path / "terminal.log").touch()
    return tmp_path / "terminal.log"


def test_a_link_that_is_silent_is_found_and_is_oscars_with_the_consoles_last_lines(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "echo_command", lambda _file: "exec cat >/dev/null")

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run = Linked(head, hurried.parent, pid=os.getpid())
        await run.watch()
        (error,) = run.alarms
        assert isinstance(error, HeadNodeCutOff)
        assert error.sentence == (
            "the head node runs but does not answer on eth0 any more, "
            "since OSCAR began installing the server packages (step 3)"
        )
        assert (error.category, error.oscar_stage) == ("oscar", "server")
        assert error.evidence == (Evidence("console/oscar-headnode.log", 1, ("login:", "kernel: eth0: link down")),)
        assert head.is_gone == error.sentence  # nobody waits for it any more
        assert "has not answered" in run.said[0]

    with_head(server, work)


def test_a_kernel_that_answers_no_new_connection_is_found_without_the_patience_of_a_slow_host(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_answers(_host: str, _port: int, seconds: float) -> bool:
        await asyncio.sleep(seconds)
        return False

    monkeypatch.setattr(link, "echo_command", lambda _file: "exec cat >/dev/null")
    monkeypatch.setattr(link, "greets", nobody_answers)

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run = Linked(head, hurried.parent, pid=os.getpid())
        run.unanswered = True
        begun = time.monotonic()
        await run.watch(8.0)
        assert time.monotonic() - begun < 12  # the patience for its SSH server is 16 s
        assert [type(error) for error in run.alarms] == [HeadNodeCutOff]

    with_head(server, work)


def test_a_silent_link_of_a_machine_that_stands_still_is_the_hosts(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "echo_command", lambda _file: "exec cat >/dev/null")

    async def work(head: HeadNode) -> None:
        server.deaf = True
        machine = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            machine.send_signal(signal.SIGSTOP)
            run = Linked(head, hurried.parent, pid=machine.pid)
            begun = time.monotonic()
            await run.watch(8.0)
            assert time.monotonic() - begun < 10  # and not four times as long as on a fast host, which would be 16 s
        finally:
            machine.kill()
            await machine.wait()
        paused = Linked(head, hurried.parent, pid=os.getpid())
        paused.state = MachineState.PAUSED
        for error, word in ((run.alarms[0], "stopped by a signal"), (await paused.cut_off(), "paused")):
            assert isinstance(error, HostError)
            assert error.sentence.startswith("the virtual machine of the head node stands still")
            assert word in error.sentence
        ended = Linked(head, hurried.parent, pid=os.getpid(), installing=False)
        assert isinstance(await ended.cut_off(), MachineLost)

    with_head(server, work)


def test_a_host_that_stood_still_is_not_oscars_fault(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "echo_command", lambda _file: "exec cat >/dev/null")
    monkeypatch.setattr(link, "GAP_SECONDS", 0.5)

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run = Linked(head, hurried.parent, pid=os.getpid())
        asyncio.get_running_loop().call_later(1.2, time.sleep, 2.0)
        await run.watch()
        assert [type(error) for error in run.alarms] == [HostError]
        assert "the host itself stood still" in run.alarms[0].sentence

    with_head(server, work)


def test_a_link_that_comes_back_in_time_is_followed_on(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The echo is late, and comes; sshd is started again, as OSCAR does: both are events, and no failures."""
    monkeypatch.setattr(link, "echo_command", lambda file: f"sleep 2; {echo_command(file)}")

    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        watch = asyncio.create_task(run.watch())
        async with asyncio.timeout(20):
            while "the head node answers again" not in run.said:  # noqa: ASYNC110 - words have no event
                await asyncio.sleep(0.05)
            server.hang_up()
            while run.said.count("the head node answers again") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert any("SSH connection is gone" in words for words in run.said)
        run.installer.ended.set()
        await watch
        assert run.alarms == []

    with_head(server, work)


def test_a_link_whose_echo_is_missing_is_not_lost_while_the_ssh_server_answers_new_connections(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a short break TCP may wait for long before it goes on; the head node is good."""
    monkeypatch.setattr(link, "UNUSED_SECONDS", 6.0)
    commands = iter(["exec cat >/dev/null"])
    monkeypatch.setattr(link, "echo_command", lambda file: next(commands, echo_command(file)))

    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        watch = asyncio.create_task(run.watch())
        async with asyncio.timeout(40):
            while not any("but not the old one" in words for words in run.said):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while not head.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        run.installer.ended.set()
        await watch
        assert run.alarms == []

    with_head(server, work)


def test_the_drivers_own_lag_does_not_count_as_the_head_nodes_silence(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "echo_command", lambda _file: "exec cat >/dev/null")

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run = Linked(head, hurried.parent, pid=os.getpid())
        loop = asyncio.get_running_loop()
        for at in (0.5, 3.5):
            loop.call_later(at, time.sleep, 2.5)
        begun = time.monotonic()
        await run.watch()
        assert time.monotonic() - begun > 4.0 + 1.5 + 1.5
        assert [type(error) for error in run.alarms] == [HeadNodeCutOff]

    with_head(server, work)


def test_an_ssh_server_that_hangs_up_twice_is_followed_on(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        server.hang_up()
        while head.connected:  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.05)
        async with head.stream("echo again") as stream:
            assert [chunk async for chunk in stream] == [b"again\n"]

    with_head(server, work)


def test_a_command_whose_connection_breaks_before_we_know_of_it_is_started_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(head: HeadNode) -> None:
        started, tries = head._started, list[str]()

        async def refused_once(command: str) -> Any:
            tries.append(command)
            if len(tries) == 1:
                raise HeadNodeLost("Channel closed")
            return await started(command)

        monkeypatch.setattr(head, "_started", refused_once)
        async with head.stream("echo again") as stream:
            assert [chunk async for chunk in stream] == [b"again\n"]

    with_head(server, work)


def test_a_head_node_that_starts_no_command_or_lets_nobody_in_is_said_to_do_so(server: Server, hurried: Path) -> None:
    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        lost = HeadNodeLost("the connection broke")
        server.connections[0].most = 0
        error = await run.explained(lost)
        assert isinstance(error, HeadNodeCutOff)
        assert error.sentence.startswith(
            "the head node runs and answers on eth0, but starts no command any more, since"
        )
        head.password = "another"
        server.hang_up()
        while head.connected:  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.05)
        error = await run.explained(lost)
        assert isinstance(error, HeadNodeCutOff)
        assert "does not let root in any more" in error.sentence

    with_head(server, work)


BASH = (
    "bash: fork: retry: Resource temporarily unavailable\\n",
    "bash: fork: Resource temporarily unavailable\\n",
)


@pytest.mark.parametrize("last", [BASH[1], "bash: fork: Cannot allocate memory\\n", "sh: 1: Cannot fork\\n"])
def test_a_full_process_table_is_known_from_the_shell_that_echoes(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setattr(link, "echo_command", lambda _file: f"read n; printf '1 here\\n{BASH[0]}{last}'")

    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        with pytest.raises(HeadNodeCutOff, match="starts no command any more, since OSCAR began installing the server"):
            await run.watch()
        (error,) = run.alarms
        assert head.is_gone == error.sentence

    with_head(server, work)


def test_a_shell_that_tries_to_fork_again_is_left_to_try(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"while read n; do printf '1 here\\n{BASH[0]}'; done"
    monkeypatch.setattr(link, "echo_command", lambda _file: line)

    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        asyncio.get_running_loop().call_later(1.0, run.installer.ended.set)
        await run.watch()
        assert not run.alarms

    with_head(server, work)


def test_the_shell_that_echoes_forks_each_time_so_that_it_says_when_it_no_longer_can() -> None:
    command = ["prlimit", "--nproc=1:1", "dash", "-c", echo_command("/etc/passwd")]
    if os.geteuid() == 0:  # the kernel counts nothing of root's
        command = ["setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps=-all", "--", *command]
    done = subprocess.run(command, input="1\n", capture_output=True, text=True, timeout=60, check=False)
    here, word = done.stdout.splitlines()
    assert here == "1 here"
    assert link.NO_FORK.search(word)


def test_root_files_that_are_removed_are_noticed_though_the_connection_is_good(server: Server, hurried: Path) -> None:
    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        asyncio.get_running_loop().call_later(0.5, hurried.unlink)
        with pytest.raises(HeadNodeCutOff, match=r"files in root's home were removed, .*terminal.log among them"):
            await run.watch()

    with_head(server, work)


def test_a_command_that_broke_off_is_explained_by_the_other_witnesses(server: Server, hurried: Path) -> None:
    async def work(head: HeadNode) -> None:
        run = Linked(head, hurried.parent, pid=os.getpid())
        lost, other = HeadNodeLost("the connection broke"), HostError("else")
        assert await run.explained(other) is other
        assert await run.explained(lost) is lost  # it can be reached: nobody cut it off
        server.deaf = True
        server.hang_up()
        assert isinstance(await run.explained(lost), HeadNodeCutOff)

    with_head(server, work)
