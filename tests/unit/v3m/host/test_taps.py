"""VLANs on bridges of the kernel, and bridges of the host: on the real kernel, frame by frame, without any guest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.v3m.host import taps as bridge
from oscar_steps.v3m.host.taps import VNET_HEADER_BYTES, Tap, make_vlans

ROOT = Path(__file__).resolve().parents[4]
ETHERTYPE = b"\x88\xb5"
"""For experiments: nobody else's."""


def frame(text: bytes) -> bytes:
    """To everybody, of 60 bytes."""
    return (b"\xff" * 6 + bytes.fromhex("525400000002") + ETHERTYPE + text).ljust(60, b"\0")


def send(tap: Tap, text: bytes) -> None:
    os.write(tap.fileno(), bytes(VNET_HEADER_BYTES) + frame(text))


def heard(tap: Tap, seconds: float = 0.0) -> list[bytes]:
    """What has come to a tap, all of it in `frame`'s form; waits for the first one for `seconds`."""
    os.set_blocking(tap.fileno(), False)
    end = time.monotonic() + seconds
    texts: list[bytes] = []
    while True:
        try:
            data = os.read(tap.fileno(), 65536)[VNET_HEADER_BYTES:]
        except BlockingIOError:
            if texts or time.monotonic() > end:
                return texts
            time.sleep(0.01)
        else:
            assert data[12:14] == ETHERTYPE, "somebody else speaks in the VLAN"
            texts.append(data[14:].rstrip(b"\0"))


def are_refused() -> bool:
    try:
        make_vlans(["x"])
    except HostError:
        return True
    return False


needs_kernel = pytest.mark.skipif(are_refused(), reason="this kernel gives this user no bridges")


@needs_kernel
def test_a_frame_reaches_everybody_on_its_vlan_and_nobody_else() -> None:
    first, second, third, stranger = make_vlans(["a", "a", "a", "b"])
    send(first, b"hello")
    assert heard(second, 5.0) == [b"hello"]
    assert heard(third, 5.0) == [b"hello"]
    assert heard(stranger, 0.2) == []
    assert heard(first) == []


@needs_kernel
def test_two_runs_with_the_same_vlans_do_not_meet_and_nothing_appears_on_the_host() -> None:
    interfaces = socket.if_nameindex()
    ours, theirs = make_vlans(["a", "a"]), make_vlans(["a", "a"])
    send(ours[0], b"hello")
    assert heard(ours[1], 5.0) == [b"hello"]
    assert [heard(tap) for tap in theirs] == [[], []]
    assert socket.if_nameindex() == interfaces


@needs_kernel
def test_a_tap_goes_with_its_object_and_the_others_stay() -> None:
    taps = make_vlans(["a", "a", "a"])
    gone = taps.pop().fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(gone)
    send(taps[0], b"still here")
    assert heard(taps[1], 5.0) == [b"still here"]


@needs_kernel
def test_a_tap_can_be_used_again_when_who_had_it_has_ended() -> None:
    here, there = make_vlans(["a", "a"])
    for text in (b"first", b"second"):
        code = f"import os; os.write({there.fileno()}, {bytes(VNET_HEADER_BYTES) + frame(text)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, pass_fds=(there.fileno(),))
        assert heard(here, 5.0) == [text]


@needs_kernel
def test_more_taps_than_fit_into_one_message_all_come() -> None:
    taps = make_vlans(["a"] * (bridge._DESCRIPTORS_PER_MESSAGE + 2))
    send(taps[0], b"hello")
    assert heard(taps[-1], 5.0) == [b"hello"]


def with_capabilities(*kept: str, code: str) -> str:
    """What Python code prints that runs as root without root's capabilities."""
    setting = ",".join(("-all", *(f"+{name}" for name in kept)))
    words = ["setpriv", f"--bounding-set={setting}", f"--inh-caps={setting}", sys.executable, "-c", code]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@needs_kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="for other users it is the only way: the other tests show it")
def test_without_privileges_a_user_namespace_does() -> None:
    """What is kept lets root name itself in a user namespace, as every user may name himself; it gives no network."""
    allowed = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True, check=False)
    if allowed.returncode != 0:
        pytest.skip("this kernel gives no user namespaces (in a chroot none does)")
    code = "from oscar_steps.v3m.host.taps import make_vlans; print(len(make_vlans(['a', 'a'])))"
    assert with_capabilities("setfcap", code=code) == "2\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be left without the right to have namespaces")
def test_where_the_kernel_refuses_the_error_names_the_way_out() -> None:
    code = """if True:
        from oscar_steps.errors import HostError
        from oscar_steps.v3m.host.taps import make_vlans
        try:
            make_vlans(["a"])
        except HostError as error:
            print(error.explain())
        """
    said = with_capabilities(code=code)
    assert said.startswith("the kernel gives this user no bridges for VLANs: unshare: ")
    assert "Operation not permitted\n" in said
    assert 'set vlan = "star" in the host\'s settings' in said


@pytest.mark.parametrize(
    ("failing", "sentence"),
    [
        (["/bin/sh", "-c", "echo one >&2; echo two >&2; exit 1"], "no bridges for VLANs: one; two"),
        (["/bin/sh", "-c", "exit 3"], "no bridges for VLANs: /bin/sh ended with 3"),
        (["/bin/true"], "no bridges for VLANs: it made 0 of 1 taps"),
        (["/no/such/program"], "no bridges for VLANs: /no/such/program cannot be run: No such file or directory"),
    ],
)
def test_whatever_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch, failing: list[str], sentence: str) -> None:
    monkeypatch.setattr(bridge, "_ways_to_unshare", lambda: [failing])
    with pytest.raises(HostError, match=sentence):
        make_vlans(["a"])


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolMissing, match="the program unshare, which makes VLANs, is missing"):
        make_vlans(["a"])


# --- bridges of the host ---------------------------------------------------------------------------------------------


def test_a_bridge_that_the_host_does_not_have_is_named() -> None:
    with pytest.raises(HostError, match="this host has no bridge 'br-none' for NICs of type BRIDGED_TAP") as error:
        bridge.join("br-none")
    assert "ip link add br-none type bridge" in error.value.hint


def test_a_missing_helper_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "HELPERS", (Path("/no/such/helper"),))
    with pytest.raises(ToolMissing, match="a NIC cannot join the bridge lo: /no/such/helper is not there"):
        bridge.join("lo")


@pytest.mark.skipif(not any(path.exists() for path in bridge.HELPERS), reason="qemu-bridge-helper is not installed")
def test_a_bridge_that_nobody_has_allowed_is_refused_by_qemus_helper() -> None:
    with pytest.raises(HostError, match="a NIC cannot join the bridge lo: ") as error:
        bridge.join("lo")
    if os.geteuid() == 0:
        assert error.value.hint == f"write the line 'allow lo' into {bridge.ACL_FILE}"
    else:
        assert "chmod u+s" in error.value.hint or "allow lo" in error.value.hint


@needs_kernel
def test_nothing_of_the_users_directory_is_run(tmp_path: Path) -> None:
    """A profile may come from anybody, with other files beside it."""
    (tmp_path / "fcntl.py").write_text("raise SystemExit('run')\n", encoding="ascii")
    program = "from oscar_steps.v3m.host import taps; sys.path.insert(0, ''); print(len(taps.make_vlans(['a', 'a'])))"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")
