"""The connection to the head node, against a small SSH server that runs commands here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import paramiko
import pytest

from oscar_steps.errors import FarmError, HeadNodeLost, HostError, StageTimeout
from oscar_steps.oscar.logs import dhcplog, rsyncdlog
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.nodes import ssh_probe
from oscar_steps.testdriver.nodes.board import NodeBoard, NodeState
from oscar_steps.testdriver.nodes.head_logs import follow_dhcp_log, follow_rsyncd_log
from tests.unit.testdriver.head.sshd import PASSWORD, Server, with_head


def test_a_command_gives_its_status_and_its_words(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        result = await head.run("cat; exit 3", stdin=b"one\ntwo\n")
        assert (result.status, result.output, result.last_line, result.ok) == (3, "one\ntwo\n", "two", False)
        assert await head.read("printf x") == b"x"
        with pytest.raises(HostError, match="ended with status 1"):
            await head.check("false")
        with pytest.raises(StageTimeout, match="timed out after 1 s waiting for"):
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
                with pytest.raises(HeadNodeLost, match=r"root could not log in to the head node by SSH at \S+: ."):
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
        "import logging, oscar_steps.testdriver.head.headnode\n"
        "logging.getLogger('paramiko.transport').error('open FAILED')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_ssh_probe_that_does_not_run_is_the_farms_fault(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_probe, "probe_command", lambda: "echo sh: perl: not found; exit 127")
    alarms: list[FarmError] = []

    async def work(head: HeadNode) -> None:
        probe = ssh_probe.SshProbe(head, NodeBoard({}, time.monotonic), lambda: HeadNodeLost("rebooted"))
        await probe.follow(alarms.append)

    with_head(server, work)
    (error,) = alarms
    assert isinstance(error, HostError)
    assert error.sentence == "the farm's SSH probe does not run on the head node: sh: perl: not found"


def test_the_sources_of_the_nodes_share_one_connection(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DHCP's log, the rsync log and the SSH probe, all for real, bring a node from power-on to its login."""
    with socket.create_server(("127.0.0.1", 0)) as node_sshd:
        port = int(node_sshd.getsockname()[1])
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    ssh.chmod(0o755)
    dhcp, rsyncd = tmp_path / "messages", tmp_path / "rsyncd"
    dhcp.write_text("dhcpd[7]: DHCPACK on 127.0.0.1 to 52:54:00:00:00:11 via eth1\n", encoding="utf-8")
    command = ssh_probe.probe_command(clients=str(tmp_path / "none"), port=port, ssh=str(ssh))
    monkeypatch.setattr(ssh_probe, "probe_command", lambda: command)
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
        probe = ssh_probe.SshProbe(head, board, lambda: HeadNodeLost("rebooted"))
        tasks = [
            asyncio.create_task(source)
            for source in (
                follow_dhcp_log(head, board, alarms.append, tmp_path),
                follow_rsyncd_log(head, board, alarms.append),
                probe.follow(alarms.append),
            )
        ]
        await until(NodeState.ADDRESSED)
        rsyncd.write_text(
            "2026/01/02 03:04:05 [77] rsync on scripts/imaging_complete from x (127.0.0.1)\n", encoding="utf-8"
        )
        await until(NodeState.IMAGED)
        node.reach(NodeState.REBOOTED)
        await probe.ask(node)
        server.hang_up()  # what was asked before the connection broke is asked again
        # The SSH probe of the broken connection may still be about to end, and come first.
        async with await asyncio.start_server(greet, "127.0.0.1", port):
            await until(NodeState.UP)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with_head(server, work)
    assert alarms == []
    assert (tmp_path / "nodes/dhcp.log").read_text(encoding="utf-8") == dhcp.read_text(encoding="utf-8")


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


def test_an_error_without_words_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_arguments: object) -> None:
        raise TimeoutError

    head = HeadNode("127.0.0.1", 22, PASSWORD, paramiko.ECDSAKey.generate())
    channel = SimpleNamespace(exec_command=breaks, set_combine_stderr=lambda _merge: None, close=lambda: None)
    monkeypatch.setattr(head, "_session", lambda: channel)
    monkeypatch.setattr(head, "_connect", breaks)
    with pytest.raises(HeadNodeLost, match=r"by SSH at 127\.0\.0\.1:22: TimeoutError"):
        asyncio.run(head.connect())
    with pytest.raises(HeadNodeLost, match="the SSH connection to the head node broke: TimeoutError"):
        asyncio.run(head.run("true"))
    with pytest.raises(HeadNodeLost, match="the head node did not start `true`: TimeoutError"):
        asyncio.run(head._started("true"))
