"""The connection to the head node, against a small SSH server that runs commands here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from oscar_steps.errors import FarmError, HostError, InstallerHung, MachineLost, StageTimeout
from oscar_steps.oscar import dhcplog, rsyncdlog
from oscar_steps.svn import svn_words
from oscar_steps.testdriver import headlink, lookout
from oscar_steps.testdriver.deadline import HostSpeed
from oscar_steps.testdriver.headlink import HeadLink, HeadNodeCutOff, echo_command
from oscar_steps.testdriver.headnode import HeadNode, HeadNodeLost
from oscar_steps.testdriver.nodes import NodeBoard, NodeState
from oscar_steps.testdriver.nodesources import follow_dhcp_log, follow_rsyncd_log
from oscar_steps.v3m.machine import MachineState

PASSWORD = "secret-of-this-test"


class Sshd(paramiko.ServerInterface):
    """One connection: root's password, commands by the shell, forwarding refused."""

    def __init__(self, most: int) -> None:
        self.most, self.open, self.peak = most, 0, 0
        self.lock = threading.Lock()

    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == ("root", PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password" if username else ""

    def check_channel_request(self, kind: str, chanid: int) -> int:
        with self.lock:
            if kind != "session" or self.open >= self.most:
                return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
            self.open += chanid >= 0
            self.peak = max(self.peak, self.open)
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdin and process.stdout
        threading.Thread(target=self._feed, args=(channel, process), daemon=True).start()
        with contextlib.suppress(OSError, EOFError):
            while True:
                ready = select.select([process.stdout], [], [], 0.05)[0]
                if ready and not (chunk := os.read(process.stdout.fileno(), 4096)):
                    break
                if ready:
                    channel.sendall(chunk)
                elif channel.closed:
                    break
            if not channel.closed:
                channel.send_exit_status(process.wait())
        process.kill()
        process.wait()
        with self.lock:  # first: who sees it closed may ask for the next one
            self.open -= 1
        with contextlib.suppress(OSError, EOFError):
            channel.close()

    @staticmethod
    def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        with contextlib.suppress(OSError, EOFError, ValueError):
            while chunk := channel.recv(4096):
                process.stdin.write(chunk)
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()


class Server:
    """Listens, and can hang up on everybody, as a head node does that reboots."""

    def __init__(self, most: int = 10) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.most = most
        self.transports: list[paramiko.Transport] = []
        self.connections: list[Sshd] = []
        self.deaf = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                if self.deaf:
                    connection.close()
                    continue
                sshd, transport = Sshd(self.most), paramiko.Transport(connection)
                transport.add_server_key(self.key)
                self.connections.append(sshd)
                self.transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=sshd)

    def hang_up(self) -> None:
        for transport in self.transports:
            transport.close()

    def close(self) -> None:
        self.listener.close()
        self.hang_up()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def with_head(server: Server, work: Callable[[HeadNode], Awaitable[None]]) -> None:
    async def run() -> None:
        head = HeadNode("127.0.0.1", server.port, PASSWORD, server.key)
        try:
            async with asyncio.timeout(60):
                await head.connect()
                await work(head)
        finally:
            head.close()

    asyncio.run(run())


def test_a_command_gives_its_status_and_its_words(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        result = await head.run("cat; exit 3", stdin=b"one\ntwo\n")
        assert (result.status, result.output, result.last_line, result.ok) == (3, "one\ntwo\n", "two", False)
        assert await head.read("printf x") == b"x"
        with pytest.raises(HostError, match="ended with status 1"):
            await head.check("false")
        with pytest.raises(StageTimeout, match="waited 1 s"):
            await head.run("sleep 20", seconds=1)

    with_head(server, work)


def test_a_file_is_followed_from_any_byte_as_it_grows(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"seen\nnew\n")

    async def work(head: HeadNode) -> None:
        got = b""
        async for chunk in head.follow(str(log), from_byte=5):
            got += chunk
            if got == b"new\n":
                with log.open("ab") as file:
                    file.write(b"more\n")
            if got.endswith(b"more\n"):
                break
        assert got == b"new\nmore\n"

    with_head(server, work)


def test_a_stream_has_an_input_and_ends_with_its_context(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        async with head.stream("cat") as stream:
            chunks = aiter(stream)
            for word in (b"one", b"two"):
                await stream.send(word)
                assert await anext(chunks) == word
        while server.connections[0].open:  # noqa: ASYNC110 - another thread's number
            await asyncio.sleep(0.05)

    with_head(server, work)


def test_more_commands_than_sshd_has_sessions_wait_for_each_other(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        async with head.stream("cat"), head.stream("cat"), head.stream("cat"), head.stream("cat"):
            results = await asyncio.gather(*(head.run(f"sleep 0.2; echo {n}") for n in range(20)))
        assert [result.output for result in results] == [f"{n}\n" for n in range(20)]
        assert server.connections[0].peak <= 10

    with_head(server, work)


def test_a_broken_connection_ends_the_streams_and_is_made_again(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        async with head.stream("cat") as stream:
            server.deaf = True
            head.broke()
            assert [chunk async for chunk in stream] == []
            await stream.send(b"nobody is there\n")
        assert not head.connected
        with pytest.raises(HeadNodeLost):
            await head.run("true")
        asyncio.get_running_loop().call_later(2.5, setattr, server, "deaf", False)
        await head.reconnect()
        assert (await head.run("echo again")).output == "again\n"

    with_head(server, work)


def test_a_head_node_that_hangs_up_is_noticed(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        async with head.stream("cat") as stream:
            server.hang_up()
            assert [chunk async for chunk in stream] == []

    with_head(server, work)


def test_a_head_node_that_will_not_come_back_is_not_waited_for(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        head.gone("the head node has ended")
        before = time.monotonic()
        with pytest.raises(HeadNodeLost, match="the head node has ended"):
            await head.reconnect()
        assert time.monotonic() - before < 5

    with_head(server, work)


def packet(payload: bytes) -> bytes:
    """An SSH packet before any keys are agreed on."""
    padding = 8 - (len(payload) + 5) % 8 + 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


KEX_INIT = b"\x14" + bytes(16)


@pytest.mark.parametrize(
    "answer",
    [
        packet(KEX_INIT + b"\0\0\0\1\xff" * 10 + bytes(5)),
        packet(KEX_INIT + b"\0\0\xff\xff"),
        packet(b""),
        b"\0\0\0\x0c\xc8" + bytes(11),
        b"\xff" * 48,
    ],
    ids=["names that are no UTF-8", "cut short", "empty", "more padding than packet", "no packet"],
)
def test_an_ssh_server_that_speaks_nonsense_is_a_connection_that_cannot_be_had(answer: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + answer)
                while connection.recv(4096):
                    pass

    async def connect() -> None:
        head = HeadNode("127.0.0.1", listener.getsockname()[1], PASSWORD, paramiko.ECDSAKey.generate())
        try:
            async with asyncio.timeout(20):
                with pytest.raises(HeadNodeLost, match=r"let nobody in: ."):
                    await head.connect()
        finally:
            head.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        asyncio.run(connect())
    thread.join(20)


@pytest.mark.parametrize("how", ["run", "stream"])
def test_an_ssh_server_that_speaks_nonsense_in_mid_session_is_a_connection_that_broke(server: Server, how: str) -> None:
    def speak_nonsense(_kind: str, _number: int) -> int:
        message = paramiko.Message()
        message.add_byte(b"\x01")  # it hangs up
        message.add_int(2)
        message.add_string(b"\xff")  # for a reason that is no UTF-8
        server.transports[-1]._send_message(message)  # type: ignore[attr-defined]
        return paramiko.OPEN_SUCCEEDED

    async def work(head: HeadNode) -> None:
        server.connections[-1].check_channel_request = speak_nonsense  # type: ignore[method-assign]
        with pytest.raises(HeadNodeLost):
            if how == "run":
                await head.run("true")
            await head._started("true")

    with_head(server, work)


def test_what_the_ssh_library_logs_is_not_on_standard_error() -> None:
    # In a process of its own: pytest listens to every logger.
    script = (
        "import logging, oscar_steps.testdriver.headnode; logging.getLogger('paramiko.transport').error('open FAILED')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_lookout_that_does_not_run_is_the_farms_fault(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "lookout_command", lambda: "echo sh: perl: not found; exit 127")
    alarms: list[FarmError] = []

    async def work(head: HeadNode) -> None:
        eyes = lookout.Lookout(head, NodeBoard({}, time.monotonic), lambda: HeadNodeLost("rebooted"))
        await eyes.follow(alarms.append)

    with_head(server, work)
    (error,) = alarms
    assert isinstance(error, HostError)
    assert error.sentence == "the farm's lookout does not run on the head node: sh: perl: not found"


def test_the_sources_of_the_nodes_share_one_connection(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DHCP's log, the rsync log and the lookout, all for real, bring a node from power-on to its login."""
    with socket.create_server(("127.0.0.1", 0)) as node_sshd:
        port = int(node_sshd.getsockname()[1])
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    ssh.chmod(0o755)
    dhcp, rsyncd = tmp_path / "messages", tmp_path / "rsyncd"
    dhcp.write_text("dhcpd[7]: DHCPACK on 127.0.0.1 to 52:54:00:00:00:11 via eth1\n", encoding="utf-8")
    command = lookout.lookout_command(clients=str(tmp_path / "none"), port=port, ssh=str(ssh))
    monkeypatch.setattr(lookout, "lookout_command", lambda: command)
    monkeypatch.setattr(dhcplog, "FOLLOW_COMMAND", f"exec tail -n +1 -F {dhcp}")
    monkeypatch.setattr(rsyncdlog, "RSYNCD_LOG", str(rsyncd))
    board = NodeBoard({"oscarnode1": "127.0.0.1"}, time.monotonic)
    board.learn_macs({"oscarnode1": "52:54:00:00:00:11"})
    node = board.nodes["oscarnode1"]
    alarms: list[FarmError] = []

    async def until(state: NodeState) -> None:
        while node.state is not state:  # noqa: ASYNC110 - a state has no event
            await asyncio.sleep(0.02)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-dropbear\r\n")
        await writer.drain()
        writer.close()

    async def work(head: HeadNode) -> None:
        node.reach(NodeState.POWERED_ON)
        eyes = lookout.Lookout(head, board, lambda: HeadNodeLost("rebooted"))
        tasks = [
            asyncio.create_task(source)
            for source in (
                follow_dhcp_log(head, board, alarms.append, tmp_path),
                follow_rsyncd_log(head, board, alarms.append),
                eyes.follow(alarms.append),
            )
        ]
        await until(NodeState.ADDRESSED)
        rsyncd.write_text(
            "2026/01/02 03:04:05 [77] rsync on scripts/imaging_complete from x (127.0.0.1)\n", encoding="utf-8"
        )
        await until(NodeState.IMAGED)
        node.reach(NodeState.REBOOTED)
        await eyes.ask(node)
        server.hang_up()  # what was asked before the connection broke is asked again
        # The lookout of the broken connection may still be about to end, and come first.
        async with await asyncio.start_server(greet, "127.0.0.1", port):
            await until(NodeState.UP)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with_head(server, work)
    assert alarms == []
    assert (tmp_path / "nodes/dhcp.log").read_text(encoding="utf-8") == dhcp.read_text(encoding="utf-8")


class LinkedRun:
    """As much of a run as the watch over the link touches. `pid`: of the process that is its machine."""

    ending = False

    def __init__(self, head: HeadNode, tmp_path: Path, *, pid: int, installing: bool = True) -> None:
        self.head = head
        self.alarms: list[FarmError] = []
        self.raise_alarm = self.alarms.append
        self.said: list[str] = []
        self.diary = SimpleNamespace(say=self.said.append, current_step="the nodes")
        stuck = InstallerHung("stuck", oscar_stage="server", evidence=(("installer/terminal.log", 7, ("last",)),))
        self.installer = SimpleNamespace(ended=asyncio.Event(), overdue=lambda _seconds: stuck)
        if not installing:
            self.installer.ended.set()
        self.state = MachineState.RUNNING
        console = tmp_path / "oscar-headnode.log"
        console.write_text("login:\nkernel: eth0: link down\n", encoding="utf-8")
        self.cluster = SimpleNamespace(head=SimpleNamespace(pid=pid, status=self._status, console=console))

    async def _status(self) -> MachineState:
        return self.state


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The watch over the link with shorter times; the file that it asks for."""
    for name, seconds in {"IDLE_SECONDS": 0.2, "LATE_SECONDS": 1.0, "LOST_SECONDS": 4.0}.items():
        monkeypatch.setattr(headlink, name, seconds)
    monkeypatch.setattr(headlink, "FARM", str(tmp_path))
    (tmp_path / "terminal.log").touch()
    return tmp_path / "terminal.log"


def test_a_link_that_is_silent_is_found_and_is_oscars_with_the_consoles_last_lines(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headlink, "echo_command", lambda _file: "exec cat >/dev/null")

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        await HeadLink(run, head, run.installer, HostSpeed(2.0)).watch()
        (error,) = run.alarms
        assert isinstance(error, HeadNodeCutOff)
        assert error.sentence == (
            "the head node runs but does not answer on eth0 any more, "
            "since OSCAR began installing the server packages (step 3)"
        )
        assert (error.category, error.oscar_stage) == ("oscar", "server")
        assert error.evidence == (("console/oscar-headnode.log", 1, ("login:", "kernel: eth0: link down")),)
        assert head.is_gone == error.sentence  # nobody waits for it any more
        assert "has not answered" in run.said[0]

    with_head(server, work)


def test_a_silent_link_of_a_machine_that_stands_still_is_the_hosts(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headlink, "echo_command", lambda _file: "exec cat >/dev/null")

    async def work(head: HeadNode) -> None:
        server.deaf = True
        machine = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            machine.send_signal(signal.SIGSTOP)
            run: Any = LinkedRun(head, hurried.parent, pid=machine.pid)
            begun = time.monotonic()
            await HeadLink(run, head, run.installer, HostSpeed(8.0)).watch()
            assert time.monotonic() - begun < 10  # and not four times as long as on a fast host, which would be 16 s
        finally:
            machine.kill()
            await machine.wait()
        paused: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        paused.state = MachineState.PAUSED
        for error, word in ((run.alarms[0], "stopped by a signal"), (await headlink.cut_off(paused), "paused")):
            assert isinstance(error, HostError)
            assert error.sentence.startswith("the virtual machine of the head node stands still")
            assert word in error.sentence
        ended: Any = LinkedRun(head, hurried.parent, pid=os.getpid(), installing=False)
        assert isinstance(await headlink.cut_off(ended), MachineLost)

    with_head(server, work)


def test_a_host_that_stood_still_is_not_oscars_fault(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headlink, "echo_command", lambda _file: "exec cat >/dev/null")
    monkeypatch.setattr(headlink, "GAP_SECONDS", 0.5)

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        asyncio.get_running_loop().call_later(1.2, time.sleep, 2.0)
        await HeadLink(run, head, run.installer, HostSpeed(2.0)).watch()
        assert [type(error) for error in run.alarms] == [HostError]
        assert "the virtualization host itself did" in run.alarms[0].sentence

    with_head(server, work)


def test_a_link_that_comes_back_in_time_is_followed_on(
    server: Server, hurried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The echo is late, and comes; sshd is started again, as OSCAR does: both are events, and no failures."""
    monkeypatch.setattr(headlink, "echo_command", lambda file: f"sleep 2; {echo_command(file)}")

    async def work(head: HeadNode) -> None:
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        watch = asyncio.create_task(HeadLink(run, head, run.installer, HostSpeed(2.0)).watch())
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
    monkeypatch.setattr(headlink, "UNUSED_SECONDS", 6.0)
    commands = iter(["exec cat >/dev/null"])
    monkeypatch.setattr(headlink, "echo_command", lambda file: next(commands, echo_command(file)))

    async def work(head: HeadNode) -> None:
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        watch = asyncio.create_task(HeadLink(run, head, run.installer, HostSpeed(2.0)).watch())
        async with asyncio.timeout(40):
            while not any("new connections only" in words for words in run.said):  # noqa: ASYNC110
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
    monkeypatch.setattr(headlink, "echo_command", lambda _file: "exec cat >/dev/null")

    async def work(head: HeadNode) -> None:
        server.deaf = True
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        loop = asyncio.get_running_loop()
        for at in (0.5, 3.5):
            loop.call_later(at, time.sleep, 2.5)
        begun = time.monotonic()
        await HeadLink(run, head, run.installer, HostSpeed(2.0)).watch()
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


def test_a_head_node_that_starts_no_command_or_lets_nobody_in_is_said_to_do_so(server: Server, hurried: Path) -> None:
    async def work(head: HeadNode) -> None:
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        lost = HeadNodeLost("the connection broke")
        server.connections[0].most = 0
        error = await headlink.explained(run, lost)
        assert isinstance(error, HeadNodeCutOff)
        assert error.sentence.startswith(
            "the head node runs and answers on eth0, but starts no command any more, since"
        )
        head.password = "another"
        server.hang_up()
        while head.connected:  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.05)
        error = await headlink.explained(run, lost)
        assert isinstance(error, HeadNodeCutOff)
        assert "does not let root in any more" in error.sentence

    with_head(server, work)


def test_root_files_that_are_removed_are_noticed_though_the_connection_is_good(server: Server, hurried: Path) -> None:
    async def work(head: HeadNode) -> None:
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        asyncio.get_running_loop().call_later(0.5, hurried.unlink)
        with pytest.raises(HeadNodeCutOff, match=r"files in root's home were removed, .*terminal.log among them"):
            await HeadLink(run, head, run.installer, HostSpeed(2.0)).watch()

    with_head(server, work)


def test_a_command_that_broke_off_is_explained_by_the_other_witnesses(server: Server, hurried: Path) -> None:
    async def work(head: HeadNode) -> None:
        run: Any = LinkedRun(head, hurried.parent, pid=os.getpid())
        lost, other = HeadNodeLost("the connection broke"), HostError("else")
        assert await headlink.explained(run, other) is other
        assert await headlink.explained(run, lost) is lost  # it can be reached: nobody cut it off
        server.deaf = True
        server.hang_up()
        assert isinstance(await headlink.explained(run, lost), HeadNodeCutOff)

    with_head(server, work)


def test_names_that_are_not_ascii_are_checked_out_whatever_the_guests_locale(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = (tmp_path / "r").as_uri()
    subprocess.run(["svnadmin", "create", tmp_path / "r"], check=True)
    words = ["svn", "mkdir", "-q", "--parents", "-m", "x", f"{repository}/trunk/Übersicht.txt"]
    subprocess.run(words, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    monkeypatch.setenv("LC_ALL", "C")  # sshd's
    monkeypatch.setenv("LANG", "C")

    async def work() -> None:
        head = HeadNode("127.0.0.1", server.port, PASSWORD, server.key)
        await head.connect()
        try:
            await head.check(f"svn checkout -q {repository}/trunk {tmp_path}/w")
            async with head.stream("echo $LC_ALL") as stream:
                assert b"".join([chunk async for chunk in stream]) == b"C.UTF-8\n"
        finally:
            head.close()

    asyncio.run(work())
    assert (tmp_path / "w" / "Übersicht.txt").is_dir()


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (
            "svn: E000022: Can't convert string from 'UTF-8' to native encoding:\nsvn: E000022: /opt/oscar/?\\195",
            "E000022: Can't convert string from 'UTF-8' to native encoding: /opt/oscar/?\\195",
        ),
        (
            "svn: E170013: Unable to connect to a repository at URL 'svn://h/x'\n"
            "svn: E000111: Can't connect to host 'h': Connection refused",
            "E000111: Can't connect to host 'h': Connection refused",
        ),
        (
            "svn: warning: W170000: URL 'file:///r/b' non-existent in revision 2\n\n"
            "svn: E200009: Could not display info for all targets because some targets don't exist",
            "W170000: URL 'file:///r/b' non-existent in revision 2",
        ),
        (
            "svn: E155009: Failed to run the WC DB work queue\nsvn: E000028: Can't write: No space left on device",
            "E000028: Can't write: No space left on device",
        ),
        ("svn: E160006: No such revision 99", "E160006: No such revision 99"),
        ("svn: E170013: Unable to connect", "E170013: Unable to connect"),
        ("sh: 1: svn: not found\n", "sh: 1: svn: not found"),
        ("", "(it said nothing)"),
    ],
)
def test_the_cause_is_quoted_of_what_svn_says(errors: str, words: str) -> None:
    assert svn_words(errors) == words
