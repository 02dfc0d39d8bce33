"""What the head node reaches through the run's SSH connection: the servers that its job names, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import paramiko
import pytest

from oscar_steps.errors import HostError, SourceError
from oscar_steps.job import Job, Source
from oscar_steps.matrix.answers import Answers
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.testdriver.head import forwards
from oscar_steps.testdriver.head.forwards import (
    Forward,
    check_reach,
    forwards_for,
    forwards_of,
    url_in_guest,
    words_from_guest,
)
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.stages.boot_headnode import reach
from oscar_steps.testdriver.stages.start_install import answer_files
from oscar_steps.v3m.host.settings import HostSettings
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.profiles.vm import DiskImage, Hypervisor, Nic, NicType, VMProfile
from tests.unit.testdriver.head.sshd import Server, with_head

LIMIT = 20.0


@pytest.mark.parametrize(
    ("url", "seen", "server"),
    [
        ("svn://127.0.0.1:4000/oscar/trunk", "svn://127.0.0.1:28690/oscar/trunk", "127.0.0.1:4000"),
        ("http://localhost/svn/oscar", "http://127.0.0.1:28690/svn/oscar", "localhost:80"),
        ("svn://[::1]/oscar", "svn://127.0.0.1:28690/oscar", "[::1]:3690"),
        ("svn://192.0.2.7/oscar", "svn://127.0.0.1:28690/oscar", "192.0.2.7:3690"),
        ("svn://svn.example.org/oscar", "svn://svn.example.org:28690/oscar", "svn.example.org:3690"),
        (
            "https://me:x@SVN.example.org/o?p=a%20b",
            "https://me:x@svn.example.org:28690/o?p=a%20b",
            "svn.example.org:443",
        ),
        ("https://svn.example.org:8443/o", "https://svn.example.org:28690/o", "svn.example.org:8443"),
        # What cannot stand in a file of hosts never does.
        ("http://a\tb.example.org/", "http://ab.example.org:28690/", "ab.example.org:80"),
        ("http://b\u00fccher.example.org/", "http://127.0.0.1:28690/", "b\u00fccher.example.org:80"),
        ("svn://x/o", "svn://x:28690/o", "x:3690"),
    ],
)
def test_a_server_keeps_its_name_in_the_guest_and_has_a_port_of_ours(url: str, seen: str, server: str) -> None:
    found = forwards_for([url])
    assert [str(forward) for forward in found] == [server]
    assert url_in_guest(url, found) == seen


@pytest.mark.parametrize(
    "url", ["", "/tftpboot/distro/x", "file:///srv/svn", "svn://h:99999/x", "http://[::1", "x://h/"]
)
def test_what_is_no_server_that_the_farm_knows_is_left_as_it_is(url: str) -> None:
    assert forwards_for([url]) == ()
    assert url_in_guest(url, [Forward("h", 80, 1)]) == url


def test_each_server_has_one_port_however_often_it_is_named() -> None:
    found = forwards_for(["svn://a.example/x", "http://b.example/y", "svn://a.example:3690/z", "http://a.example/x"])
    assert [(str(one), one.guest_port) for one in found] == [
        ("a.example:3690", 28690),
        ("b.example:80", 28691),
        ("a.example:80", 28692),
    ]


def job_of(url: str, **answers: str) -> Job:
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    its = Answers.model_validate(matrix.answers(cell).model_dump() | answers)
    source = Source(url=url, revision="1")
    xml = matrix.cluster_xml(cell)
    return Job(run_id="x", cell=cell.name, source=source, image=matrix.image(cell), cluster_xml=xml, answers=its)


def test_a_run_reaches_its_repository_and_the_packages_that_its_answers_name() -> None:
    job = job_of(
        "svn://svn.example.org/oscar",
        oscar_repository="http://deb.example.org/oscar bookworm main",
        repositories="/tftpboot/x,http://rpm.example.org/y",
    )
    assert [str(one) for one in forwards_of(job)] == [
        "svn.example.org:3690",
        "deb.example.org:80",
        "rpm.example.org:80",
    ]
    assert forwards_of(job_of("file:///srv/svn/oscar")) == ()


def test_where_the_host_is_open_only_what_is_on_its_loopback_interface_goes_through_the_run() -> None:
    urls = {"oscar_repository": "http://[::1]:8080/oscar bookworm main", "repositories": "http://127.0.0.2/y"}
    assert forwards_of(job_of("https://svn.example.org/oscar"), is_open=True) == ()
    assert [str(one) for one in forwards_of(job_of("svn://LocalHost/oscar", **urls), is_open=True)] == [
        "localhost:3690",
        "[::1]:8080",
        "127.0.0.2:80",
    ]


@pytest.mark.parametrize(
    "url", ["file:///srv/svn/oscar", "FILE:///srv", "svn+ssh://h/oscar", "http://[::1", "svn:///x"]
)
def test_a_repository_that_no_head_node_reaches_is_refused_before_anything_boots(url: str) -> None:
    with pytest.raises(
        SourceError, match=r"checks OSCAR out itself, and cannot reach .*; it can reach svn://, http://, https://"
    ):
        check_reach(job_of(url), is_open=False)


def test_what_the_host_carries_gives_the_head_node_no_way_to_its_server() -> None:
    job = job_of("svn+ssh://svn.example.org/oscar", repositories="http://deb.example.org/debian")
    check_reach(job, is_open=False, is_carried=True)
    assert [forward.host for forward in forwards_of(job, is_carried=True)] == ["deb.example.org"]
    job = job_of("https://svn.example.org/oscar", repositories="http://deb.example.org/debian")
    assert [forward.host for forward in forwards_of(job, is_carried=True)] == ["deb.example.org"]


def test_an_open_host_lets_a_head_node_try_every_server_but_no_file() -> None:
    check_reach(job_of("svn://svn.example.org/oscar"), is_open=False)
    check_reach(job_of("svn+ssh://h/oscar"), is_open=True)
    with pytest.raises(SourceError):
        check_reach(job_of("file:///srv/svn/oscar"), is_open=True)


def test_packages_that_the_answers_name_are_named_as_the_guest_reaches_them() -> None:
    job = job_of("svn://svn.example.org/oscar", repositories="/tftpboot/x,http://rpm.example.org/y")
    profile = load_cluster(default_profiles() / "clusters" / "head-and-two-nodes.xml")
    answered = "\n".join(answer_files(job, profile).files.values())
    assert "\n/tftpboot/x,http://rpm.example.org:28691/y\n" in answered


def test_what_subversion_says_in_the_guest_names_the_server_as_people_know_it() -> None:
    found = forwards_for(["svn://127.0.0.1:4000/oscar", "https://svn.example.org/oscar"])
    said = "E170013: 'svn://127.0.0.1:28690/oscar', 'https://svn.example.org:28691/oscar'"
    assert words_from_guest(said, found) == (
        "E170013: 'svn://127.0.0.1:4000/oscar', 'https://svn.example.org:443/oscar'"
    )


@pytest.mark.parametrize(
    ("kind", "nic", "network", "told"),
    [
        (None, "TUN/TAP+NAT", {}, "h.example:80, and nothing else"),
        (None, "BRIDGED_TAP", {}, "h.example:80, and nothing else"),
        (None, "TUN/TAP+NAT", {"to_host": "open"}, "all that this host reaches"),
        (
            None,
            "BRIDGED_TAP",
            {"bridges": ["br0"]},
            "h.example:80 through this run, and all that its own network reaches",
        ),
        ("Xen", "TUN/TAP", {}, "h.example:80 through this run, and all that its own network reaches"),
    ],
)
def test_a_run_says_what_its_head_node_reaches_and_promises_no_more_than_it_holds(
    kind: Hypervisor | None, nic: NicType, network: dict[str, object], told: str
) -> None:
    settings = HostSettings.model_validate({"network": network})
    head = VMProfile("head", kind, DiskImage("x"), nics=(Nic(nic, "52:54:00:00:00:01"),))
    assert reach(head, settings, forwards_for(["http://h.example/x"])) == told


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[Forward]:
    """A server that says what it has heard once it has heard all of it, as often as it is asked."""

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            heard = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(b"heard " + heard)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield Forward("127.0.0.1", listener.getsockname()[1], 28690)
        listener.shutdown(socket.SHUT_RDWR)


def connection(server: Server, port: int) -> paramiko.Channel:
    """What the guest's SSH server opens for a program in the guest that has connected to `port` there."""
    place = "127.0.0.1"
    channel = server.transports[-1].open_forwarded_tcpip_channel((place, 40000), (place, port))
    channel.settimeout(LIMIT)
    return channel


def heard(channel: paramiko.Channel, said: bytes = b"") -> bytes:
    channel.sendall(said)
    channel.shutdown_write()
    return b"".join(iter(lambda: channel.recv(65536), b""))


def answer(server: Server, port: int, said: bytes = b"") -> bytes:
    """What a program in the guest hears at `port`; nothing where it is closed, however soon."""
    try:
        return heard(connection(server, port), said)
    except (paramiko.SSHException, OSError):
        return b""


def test_a_guest_speaks_with_a_server_that_is_named_any_number_of_times(server: Server, echo: Forward) -> None:
    async def work(head: HeadNode) -> None:
        await head.forwarded()
        assert server.connections[-1].forwarded == [("127.0.0.1", 28690)]
        large = bytes(range(256)) * 20_000
        for said in (b"one", b"two", large):
            assert await asyncio.to_thread(lambda said=said: heard(connection(server, 28690), said)) == b"heard " + said
        channels = [connection(server, 28690) for _ in range(8)]
        for number, channel in enumerate(channels):
            assert await asyncio.to_thread(heard, channel, b"%d" % number) == b"heard %d" % number

    with_head(server, work, (echo,))


def test_a_port_that_nobody_named_is_closed_unread(server: Server, echo: Forward) -> None:
    """A guest's SSH server may open what it likes; whom it speaks with is not its choice."""

    async def work(head: HeadNode) -> None:
        await head.forwarded()
        for port in (echo.port, 22, 0):
            assert await asyncio.to_thread(answer, server, port) == b""
        assert await asyncio.to_thread(answer, server, 28690, b"still") == b"heard still"

    with_head(server, work, (echo,))


def test_a_head_node_without_a_server_to_reach_is_asked_for_no_port(server: Server) -> None:
    async def work(head: HeadNode) -> None:
        await head.forwarded()
        assert server.connections[-1].forwarded == []
        with pytest.raises(paramiko.ChannelException):
            await asyncio.to_thread(connection, server, 28690)

    with_head(server, work)


def test_forwards_come_back_with_the_connection_also_where_the_port_is_still_taken(
    server: Server, echo: Forward
) -> None:
    async def work(head: HeadNode) -> None:
        await head.forwarded()
        server.refusals = 2
        head.broke()
        await head.reconnect()
        await head.forwarded()
        assert server.connections[-1].refusals == 0
        assert await asyncio.to_thread(answer, server, 28690, b"again") == b"heard again"

    with_head(server, work, (echo,))


def test_a_head_node_that_forwards_nothing_is_told_as_such(server: Server, echo: Forward) -> None:
    async def work(head: HeadNode) -> None:
        with pytest.raises(HostError, match="timed out after 1 s waiting for the head node's SSH server to forward"):
            await head.forwarded(1)
        assert (await head.run("echo works")).output == "works\n"  # all else does

    server.refusals = 1 << 20
    with_head(server, work, (echo,))


def test_a_server_that_the_host_cannot_reach_is_named(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def work(head: HeadNode) -> None:
        await head.forwarded()
        assert head.forward_trouble == ""
        assert await asyncio.to_thread(answer, server, 28690) == b""
        assert head.forward_trouble == (
            f"the virtualization host cannot connect to 127.0.0.1:{port}: Connection refused"
        )

    with_head(server, work, (Forward("127.0.0.1", port, 28690),))


def test_a_guest_that_opens_connections_without_end_gets_so_many_at_once(
    server: Server, echo: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "MOST_CONNECTIONS", 3)

    async def work(head: HeadNode) -> None:
        await head.forwarded()
        held = [connection(server, 28690) for _ in range(3)]
        assert await asyncio.to_thread(answer, server, 28690) == b""
        for channel in held:
            assert await asyncio.to_thread(heard, channel, b"x") == b"heard x"
            channel.close()
        end = asyncio.get_running_loop().time() + LIMIT
        while await asyncio.to_thread(answer, server, 28690, b"y") != b"heard y":
            assert asyncio.get_running_loop().time() < end, "no place became free"

    with_head(server, work, (echo,))


def test_a_connection_ends_at_the_server_too_when_the_guest_is_gone(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)

        async def work(head: HeadNode) -> None:
            await head.forwarded()
            connection(server, 28690).sendall(b"hello")
            its, _ = await asyncio.to_thread(listener.accept)
            with its:
                its.settimeout(LIMIT)
                assert await asyncio.to_thread(its.recv, 5) == b"hello"
                head.broke()
                assert await asyncio.to_thread(its.recv, 5) == b""

        with_head(server, work, (Forward("127.0.0.1", listener.getsockname()[1], 28690),))


def test_a_guest_that_has_said_all_and_goes_away_leaves_its_place_though_the_server_keeps_silent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "MOST_CONNECTIONS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        forward = Forward("127.0.0.1", listener.getsockname()[1], 28690)

        async def work(head: HeadNode) -> None:
            await head.forwarded()
            for _ in range(2):
                channel = connection(server, 28690)
                channel.sendall(b"hello")
                channel.shutdown_write()
                its, _ = await asyncio.to_thread(listener.accept)
                with its:
                    its.settimeout(LIMIT)
                    assert await asyncio.to_thread(its.recv, 5) == b"hello"
                    assert await asyncio.to_thread(its.recv, 5) == b""  # it has heard all, and says nothing
                    channel.close()
                    end = asyncio.get_running_loop().time() + LIMIT
                    while [each for each in threading.enumerate() if each.name == f"to {forward}"]:
                        assert asyncio.get_running_loop().time() < end, "the connection is still there"
                        await asyncio.sleep(0.05)

        with_head(server, work, (forward,))
