"""Images of another architecture: what the host needs to run their programs, and a disk that UEFI boots."""

from __future__ import annotations

import asyncio
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.images import disk, foreign
from oscar_steps.images.kind import DISK, INITRD, KERNEL, Build
from oscar_steps.images.root import late_files
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import load_recipe

REGISTERED = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: PF\noffset 0\n"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's register of foreign programs on an x86_64 host that has every tool; it is an ordinary user's."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(foreign, "_REGISTER", tmp_path)
    monkeypatch.setattr(foreign, "require_tools", lambda _tools: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return tmp_path


@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_a_hosts_own_architectures_need_nothing(kernel: Path, architecture: str) -> None:
    foreign.require(architecture)
    assert not list(kernel.iterdir())


def test_an_architecture_that_the_kernel_knows_can_be_built(kernel: Path) -> None:
    (kernel / "qemu-aarch64").write_text(REGISTERED)
    foreign.require("aarch64")


@pytest.mark.parametrize(
    "entry", [None, REGISTERED.replace("enabled", "disabled"), REGISTERED.replace("flags: PF", "flags: P"), ""]
)
def test_where_the_kernel_does_not_know_it_the_commands_for_root_are_said(kernel: Path, entry: str | None) -> None:
    (kernel / "register").touch()
    if entry is not None:
        (kernel / "qemu-aarch64").write_text(entry)
    with pytest.raises(HostError) as error:
        foreign.require("aarch64")
    assert error.value.sentence == "programs of aarch64 do not run here: the kernel does not know qemu-aarch64"
    assert error.value.hint == "as root, after each start of the host: update-binfmts --enable qemu-aarch64"


def test_a_register_that_is_not_mounted_is_mounted_first(kernel: Path) -> None:
    with pytest.raises(HostError) as error:
        foreign.require("aarch64")
    assert f"mount -t binfmt_misc binfmt_misc {kernel}; update-binfmts --enable qemu-aarch64" in error.value.hint


def test_root_lets_the_kernel_know_it(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def run(command: list[str], **_options: Any) -> None:
        done.append(command[0])
        if command[0] == "update-binfmts":
            (kernel / "qemu-aarch64").write_text(REGISTERED)

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    foreign.require("aarch64")
    foreign.require("aarch64")
    assert done == ["mount", "update-binfmts"]


def test_the_programs_that_are_missing_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr("oscar_steps.images.kind.build_environment", lambda: {"PATH": str(tmp_path)})
    with pytest.raises(ToolMissing) as error:
        foreign.require("aarch64")
    assert error.value.hint == "apt-get install arch-test qemu-user-static"


def test_a_disk_for_uefi_has_the_images_own_boot_loader_where_a_firmware_looks_for_it(tmp_path: Path) -> None:
    recipe = load_recipe(default_profiles() / "images/debian-12-aarch64.toml").model_copy(update={"disk_mib": 512})
    root, work = tmp_path / "root", tmp_path / "work"
    loader = root / "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"
    loader.parent.mkdir(parents=True)
    loader.write_bytes(b"a boot loader")
    (root / "etc").mkdir()
    (root / "etc/issue").write_text("its root\n")
    work.mkdir()
    for name in (KERNEL, INITRD):
        (tmp_path / name).write_text(f"the {name}\n")
    asyncio.run(disk.make(Build(recipe, tmp_path, "0" * 32, print), root))

    raw = tmp_path / "raw"
    convert = ["qemu-img", "convert", "-O", "raw", str(tmp_path / DISK), str(raw)]
    subprocess.run(convert, check=True)

    def on_boot_partition(name: str) -> str:
        copy = ["mcopy", "-i", f"{raw}@@1M", f"::{name}", "-"]
        return subprocess.run(copy, check=True, capture_output=True, text=True).stdout

    assert on_boot_partition("EFI/BOOT/BOOTAA64.EFI") == "a boot loader"
    assert on_boot_partition(KERNEL) == "the vmlinuz\n"
    entry = dict(line.split(None, 1) for line in on_boot_partition("loader/entries/farm.conf").splitlines())
    assert (entry["linux"], entry["initrd"]) == (f"/{KERNEL}", f"/{INITRD}")
    assert "root=LABEL=farm-root" in entry["options"]
    assert "console=ttyAMA0" in entry["options"].split()
    table = subprocess.run(["sfdisk", "--verify", "--dump", str(raw)], capture_output=True, text=True, check=True)
    assert "label: gpt" in table.stdout
    system = ["debugfs", "-R", "cat /etc/issue", f"{raw}?offset={129 << 20}"]
    assert subprocess.run(system, capture_output=True, text=True, check=True).stdout == "its root\n"


def test_an_emulated_image_gives_its_services_and_its_console_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(default_profiles() / "images/debian-12-aarch64.toml")
    name = "etc/systemd/system.conf.d/patience.conf"
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    settings = late_files(recipe)[name][0].decode().splitlines()
    assert settings == ["[Manager]", "DefaultTimeoutStartSec=15min", "DefaultDeviceTimeoutSec=15min"]
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert name not in late_files(recipe)
