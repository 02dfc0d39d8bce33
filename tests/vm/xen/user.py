"""A user of v2m on a Xen host: real commands, and a para-virtual guest that boots from its own disk, by pygrub.

`python -m tests.vm.xen.user`, in a Xen host, as root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from oscar_steps.v2m.daemon.client import greet
from tests.vm.tiny_guest import XEN_MODULES, make_guest
from tests.vm.v2m_user import User, user_of

SECONDS = 600.0
"""For a command: a boot took eighty on a busy machine, all of it emulated."""

PROFILE = """<profile>
  <name>{name}</name>
  <type>Xen</type>
  <memory>192</memory>
  <image{size}>{name}.img</image>
  <nic1><type>TUN/TAP+NAT</type><mac>52:54:00:00:00:01</mac></nic1>
</profile>
"""
MENU = """default 0
timeout 0
title tiny
  root (hd0)
  kernel /boot/vmlinuz console=hvc0 quiet panic=-1 do=count
  initrd /boot/initrd
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="xen-user-") as name, user_of(Path(name), program=_program(name)) as user:
        _say("check-host", _hypervisors(user))
        _a_blank_disk(user)
        _bootable_disk(user.directory, "vm1")
        file = _profile(user, "vm1")
        _a_life(user, file)
        _a_killed_daemon(user, file)
        said = user.v2m("destroy", file, seconds=SECONDS).out
        assert "is kept, since `v2m create` did not make it" in said, said
        user.wait_until_unkept(seconds=SECONDS)


def _program(directory: str) -> Path:
    """The program v2m, as an installation would have made it."""
    program = Path(directory) / "v2m"
    program.write_text(f"#!{sys.executable}\nfrom oscar_steps.v2m import main\nmain()\n", encoding="ascii")
    program.chmod(0o755)
    return program


def _profile(user: User, name: str, size: str = "") -> Path:
    path = user.directory / f"{name}.xml"
    path.write_text(PROFILE.format(name=name, size=size), encoding="utf-8")
    return path


def _bootable_disk(directory: Path, name: str) -> None:
    """A raw disk with a file system, a boot menu as GRUB had it, a kernel and an initrd."""
    guest = make_guest(directory / "guest", modules=XEN_MODULES)
    assert guest.initrd is not None
    boot = directory / "tree" / "boot"
    (boot / "grub").mkdir(parents=True)
    shutil.copy(guest.kernel, boot / "vmlinuz")
    shutil.copy(guest.initrd, boot / "initrd")
    (boot / "grub" / "menu.lst").write_text(MENU, encoding="ascii")
    make = ["mke2fs", "-q", "-t", "ext2", "-d", str(directory / "tree"), str(directory / f"{name}.img"), "64M"]
    subprocess.run(make, check=True, capture_output=True)


def _hypervisors(user: User) -> str:
    """What the host says of itself: Xen's para-virtual guests work here."""
    told = user.v2m("check-host", "--json", status=None, seconds=SECONDS).json()["hypervisors"]
    assert {each["type"]: each["works"] for each in told}["Xen"] is True, told
    return next(str(each["sentence"]) for each in told if each["type"] == "Xen")


def _a_blank_disk(user: User) -> None:
    file = _profile(user, "blank", ' size="16"')
    _say("create", user.v2m("create", file, seconds=SECONDS).out)
    asked = ["qemu-img", "info", "--output=json", str(user.directory / "blank.img")]
    info = subprocess.run(asked, check=True, capture_output=True)
    assert json.loads(info.stdout)["format"] == "raw"
    _say("destroy", user.v2m("destroy", file, seconds=SECONDS).out)
    assert not (user.directory / "blank.img").exists()


def _a_life(user: User, file: Path) -> None:
    _say("boot", user.v2m("boot", file, seconds=SECONDS).out)
    user.wait_for("vm1", b"GUEST counts 3\r\n", seconds=SECONDS)
    assert "GUEST counts 3" in user.v2m("console", file, seconds=SECONDS).out
    assert _state(user, file) == "running"
    _say("pause", user.v2m("pause", file, seconds=SECONDS).out)
    assert _state(user, file) == "paused"
    _say("unpause", user.v2m("unpause", file, seconds=SECONDS).out)
    _say("save", user.v2m("save", file, "vm1.state", seconds=SECONDS).out)
    counted = user.console_of("vm1").count(b"GUEST counts")
    _say("restore", user.v2m("restore", file, "vm1.state", seconds=SECONDS).out)
    user.wait_for("vm1", b"GUEST counts", times=counted + 3, seconds=SECONDS)
    assert user.console_of("vm1").count(b"GUEST counts 1\r\n") == 1, "it was booted anew"
    refused = user.v2m("screenshot", file, "now.png", status=None, seconds=SECONDS)
    assert (refused.status, "no screen" in refused.err) == (64, True), refused
    _say("power-off", user.v2m("power-off", file, seconds=SECONDS).out)
    assert _state(user, file) == "off"


def _a_killed_daemon(user: User, file: Path) -> None:
    """Xen's guests are nobody's children, and yet they go with their daemon."""
    _say("--boot-vm", user.v2m(file, "--boot-vm", seconds=SECONDS).out)
    assert len(_guests()) == 1, _guests()
    link, _ = greet(user.system(), start=False)
    assert link is not None
    with contextlib.closing(link):
        os.kill(link.pid, signal.SIGKILL)
    killed = time.monotonic()
    while _guests():
        assert time.monotonic() < killed + SECONDS, "the guest outlived its daemon"
        time.sleep(1.0)
    said = user.v2m("status", file, seconds=SECONDS)
    assert said.err == "the v2m daemon of the system default was killed; its machines died with it: vm1\n", said
    _say("kill -9 of the daemon", f"the guest was gone {time.monotonic() - killed:.0f} s later; {said.out}")


def _state(user: User, file: Path) -> str:
    (row,) = user.v2m("status", "--json", file, seconds=SECONDS).json()
    return str(row["state"])


def _guests() -> list[str]:
    listed = ["virsh", "-q", "-c", "xen:///system", "list", "--name"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in names if name != "Domain-0"]


def _say(command: str, told: str) -> None:
    print(f"v2m {command}: {told.strip()}", flush=True)


if __name__ == "__main__":
    main()
