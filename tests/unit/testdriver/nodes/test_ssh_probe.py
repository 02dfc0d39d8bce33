"""The SSH probe on the head node: the very program, run here against small servers and a false ssh."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from oscar_steps.errors import FarmError, MachineLost
from oscar_steps.testdriver.nodes.board import NodeBoard, NodeState
from oscar_steps.testdriver.nodes.ssh_probe import SshProbe, probe_command

BANNER = "SSH-2.0-dropbear_2022.83"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Program:
    """The running program: what it says as a queue of lines."""

    def __init__(self, directory: Path, port: int, ssh: str) -> None:
        self.clients = directory / "clients.xml"
        script = directory / "ssh"
        script.write_text(f"#!/bin/sh\n{ssh}\n", encoding="utf-8")
        script.chmod(0o755)
        command = probe_command(clients=str(self.clients), port=port, ssh=str(script))
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def ask(self, *addresses: str) -> None:
        assert self.process.stdin
        self.process.stdin.write("".join(f"ask {address}\n" for address in addresses))
        self.process.stdin.flush()

    def line(self, start: str, seconds: float = 10) -> str:
        """The next line that begins with `start`."""
        end = time.monotonic() + seconds
        while True:
            line = self.lines.get(timeout=max(end - time.monotonic(), 0.01))
            if line.startswith(start):
                return line

    def end(self) -> str:
        """Close its input, which ends it; what it complained of."""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.process.stdin.close()
        self.process.wait(10)
        self._reader.join(10)
        self.process.stdout.close()
        with self.process.stderr as complaints:
            return complaints.read()


@pytest.fixture
def started() -> Iterator[list[Program]]:
    programs: list[Program] = []
    yield programs
    for program in programs:
        assert program.end() == ""


def serve(address: str, port: int, banner: str = BANNER) -> socket.socket:
    """An SSH server that gets no further than its banner."""
    server = socket.create_server((address, port))

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{banner}\r\n".encode())

    threading.Thread(target=answer, daemon=True).start()
    return server


def test_a_node_that_comes_up_late_is_found_and_lets_root_in(tmp_path: Path, started: list[Program]) -> None:
    port = free_port()
    program = Program(tmp_path, port, f'echo "$@" >{tmp_path}/words')
    started.append(program)
    assert len(program.line("boot ")) > 20
    program.ask("127.0.0.1")
    with pytest.raises(Empty):
        program.line("banner", 0.6)
    with serve("127.0.0.1", port):
        came_up = time.monotonic()
        assert program.line("banner") == f"banner 127.0.0.1 {BANNER}"
        assert time.monotonic() - came_up < 5
        assert program.line("login") == "login 127.0.0.1 0 "
    assert (tmp_path / "words").read_text(encoding="utf-8") == "root@127.0.0.1 true\n"


def test_nodes_do_not_wait_for_each_other(tmp_path: Path, started: list[Program]) -> None:
    port = free_port()
    program = Program(tmp_path, port, "exit 0")
    started.append(program)
    silent = socket.create_server(("127.0.0.2", port))  # accepts and says nothing
    with silent, serve("127.0.0.3", port):
        program.ask("127.0.0.1", "127.0.0.2", "127.0.0.3")
        assert program.line("banner").startswith("banner 127.0.0.3 ")
        assert program.line("login") == "login 127.0.0.3 0 "


def test_a_refusal_is_told_at_once_with_its_words(tmp_path: Path, started: list[Program]) -> None:
    port = free_port()
    denied = "root@127.0.0.1: Permission denied (publickey)."
    program = Program(tmp_path, port, f"echo x >>{tmp_path}/tries; echo '{denied}' >&2; exit 255")
    started.append(program)
    with serve("127.0.0.1", port):
        program.ask("127.0.0.1")
        assert program.line("login") == f"login 127.0.0.1 255 {denied}"
    assert (tmp_path / "tries").read_text(encoding="utf-8") == "x\n"


def test_a_login_that_breaks_is_tried_again(tmp_path: Path, started: list[Program]) -> None:
    port = free_port()
    tries = tmp_path / "tries"
    program = Program(tmp_path, port, f"echo x >>{tries}; [ $(wc -l <{tries}) = 2 ] || {{ echo reset >&2; exit 255; }}")
    started.append(program)
    with serve("127.0.0.1", port):
        program.ask("127.0.0.1")
        assert program.line("login") == "login 127.0.0.1 0 "


def test_what_is_no_ssh_server_is_no_banner(tmp_path: Path, started: list[Program]) -> None:
    port = free_port()
    program = Program(tmp_path, port, "exit 0")
    started.append(program)
    with serve("127.0.0.1", port, "Exceeded MaxStartups"):
        program.ask("127.0.0.1")
        with pytest.raises(Empty):
            program.line("banner", 1.2)


def replace_text(path: Path, text: str) -> None:
    """Never half of it is there."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.rename(path)


def test_the_monitors_file_is_told_whenever_it_changes(tmp_path: Path, started: list[Program]) -> None:
    program = Program(tmp_path, free_port(), "exit 0")
    started.append(program)
    replace_text(program.clients, "<opt>\n</opt>\n")
    assert [program.line("clients") for _ in range(3)] == ["clients <opt>", "clients </opt>", "clients-end"]
    replace_text(program.clients, "<longer/>\n")
    assert program.line("clients") == "clients <longer/>"


def rebooted() -> FarmError:
    return MachineLost("the head node rebooted")


@pytest.fixture
def board() -> NodeBoard:
    board = NodeBoard({"oscarnode1": "10.0.0.2", "oscarnode2": "10.0.0.3"}, lambda: 0.0)
    board.learn_macs({"oscarnode1": "52:54:00:00:00:11", "oscarnode2": "52:54:00:00:00:12"})
    return board


def asking(board: NodeBoard, state: NodeState = NodeState.REBOOTED) -> SshProbe:
    probe = SshProbe(None, board, rebooted)  # type: ignore[arg-type]  # no stream, no head node
    for node in board:
        for step in (NodeState.POWERED_ON, NodeState.IMAGED, state):
            node.reach(step)
        asyncio.run(probe.ask(node))
    return probe


def test_a_banner_and_a_login_bring_a_node_up(board: NodeBoard) -> None:
    probe, node = asking(board), board.nodes["oscarnode1"]
    probe.take(f"banner 10.0.0.2 {BANNER}")
    assert (node.state, node.answers.is_set(), node.up.is_set()) == (NodeState.ANSWERING, True, False)
    probe.take("login 10.0.0.2 0 ")
    assert (node.state, node.note, node.up.is_set()) == (NodeState.UP, BANNER, True)
    assert board.nodes["oscarnode2"].state is NodeState.REBOOTED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("255 root@10.0.0.3: Permission denied (publickey).", "root@10.0.0.3: Permission denied (publickey)."),
        ("143 ", "ssh ended with status 143"),
    ],
)
def test_a_banner_without_a_login_is_trouble(board: NodeBoard, words: str, said: str) -> None:
    probe, node = asking(board), board.nodes["oscarnode2"]
    probe.take(f"banner 10.0.0.3 {BANNER}")
    probe.take(f"login 10.0.0.3 {words}")
    expected = f"oscarnode2 answers by SSH but does not let root in from the head node: {said}"
    assert node.trouble.get_nowait().sentence == expected
    assert (node.state, node.up.is_set()) == (NodeState.ANSWERING, False)


def test_an_installer_that_runs_an_ssh_server_is_not_an_installed_node(board: NodeBoard) -> None:
    probe = asking(board, NodeState.IMAGED)
    probe.take(f"banner 10.0.0.2 {BANNER}")
    assert board.nodes["oscarnode1"].state is NodeState.IMAGED


def test_lines_of_strangers_and_torn_ones_change_nothing(board: NodeBoard) -> None:
    probe = asking(board)
    for line in (
        "",
        "banner",
        "banner 10.0.0.99 SSH-2.0-x",
        "login",
        "login 10.0.0.99 0 ",
        "perl: warning",
        "clients-end",
    ):
        probe.take(line)
    assert all(node.state is NodeState.REBOOTED and node.trouble.empty() for node in board)


def test_another_boot_of_the_head_node_is_found_out(board: NodeBoard) -> None:
    probe = asking(board)
    probe.take("boot 1f6e")
    probe.take("boot 1f6e")
    with pytest.raises(MachineLost, match="rebooted"):
        probe.take("boot 2a77")


def test_the_monitors_file_moves_nodes(board: NodeBoard) -> None:
    probe = SshProbe(None, board, rebooted)  # type: ignore[arg-type]
    board.nodes["oscarnode1"].reach(NodeState.POWERED_ON)
    for line in ('<opt><client name="52.54.00.00.00.11" ip="10.0.0.2" status="40"/>', "</opt>"):
        probe.take(f"clients {line}")
    probe.take("clients-end")
    assert board.nodes["oscarnode1"].state is NodeState.PULLING
    assert board.nodes["oscarnode1"].note == "monitor: 40 % of the image"
