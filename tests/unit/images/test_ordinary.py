"""An ordinary user gets the name of what is missing, and what to type; what others left in a store stops no run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from oscar_steps.errors import HostError, ImageBuildFailed, ToolMissing
from oscar_steps.images import ordinary, outside
from oscar_steps.images import store as images
from oscar_steps.images.kinds.bootstrap import Bootstrap
from oscar_steps.images.store import ImageStore
from oscar_steps.v3m.host import checks
from oscar_steps.v3m.host.settings import HostSettings, NetworkSettings, VlanKind
from tests.unit.images.test_store import RECIPE, FakeBuild, Mirror, key_of

USER = 4711


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Somebody who is not root, with nothing; the folder stands for /etc and for the programs."""
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(os, "getuid", lambda: USER)
    monkeypatch.setattr(ordinary, "_user", lambda: "ann")
    monkeypatch.setattr(ordinary, "_FILES", {str(tmp_path / "subuid"): "--add-subuids"})
    monkeypatch.setattr(ordinary, "build_environment", lambda: {"PATH": str(tmp_path)})
    monkeypatch.setattr(ordinary, "_trial", lambda: "unshare: failed")
    return tmp_path


def programs(folder: Path) -> None:
    for name in ("newuidmap", "newgidmap"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def missing() -> dict[str, str]:
    return {check.sentence: check.hint for check in ordinary.check_user() if not check.ok}


def test_each_missing_program_and_line_is_named_with_what_to_type(user: Path) -> None:
    (user / "subuid").write_text("bob:100000:65536\nrubbish\n")
    said = missing()
    assert said == {
        "the program newuidmap is missing: without it only root can build an image": (
            "install it: apt-get install uidmap"
        ),
        "the program newgidmap is missing: without it only root can build an image": (
            "install it: apt-get install uidmap"
        ),
        f"{user / 'subuid'} has no line for ann": "as root: usermod --add-subuids 165536-231071 ann",
    }
    with pytest.raises(ToolMissing, match="as an ordinary user: the program newuidmap is missing"):
        ordinary.require_user()


def test_a_range_that_is_too_small_and_a_kernel_that_refuses_are_named(user: Path) -> None:
    programs(user)
    (user / "subuid").write_text(f"{USER}:100000:1000\n")
    assert list(missing()) == [f"{user / 'subuid'} has 1000 numbers for ann, too few"]
    (user / "subuid").write_text(f"{USER}:100000:65536\n")
    with pytest.raises(HostError, match="does not let this user make a user namespace: unshare: failed") as caught:
        ordinary.require_user()
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in caught.value.hint


def test_where_the_trial_works_nothing_is_missing_wherever_the_range_comes_from(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(user)
    monkeypatch.setattr(ordinary, "_trial", lambda: "")
    assert missing() == {}
    ordinary.require_user()


def test_a_service_that_may_gain_no_privileges_is_sent_to_the_one_that_builds_images(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordinary, "_STATUS", user / "status")
    (user / "status").write_text("Name:\tpython\nNoNewPrivs:\t1\nSeccomp:\t0\n")
    assert missing() == {}  # such a worker starts all the same
    with pytest.raises(HostError, match="NoNewPrivileges") as caught:
        ordinary.require_user()
    assert "systemctl restart oscar-farm-images" in caught.value.hint


def test_root_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ordinary.check_user() == []


def test_a_kvm_that_may_not_be_opened_is_a_note_and_a_tun_that_is_needed_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "kvm"
    device.touch(mode=0o600)
    monkeypatch.setattr(checks, "KVM", device)
    monkeypatch.setattr(checks, "TUN", tmp_path / "tun")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    (kvm,) = checks._devices(HostSettings())
    assert kvm.ok
    assert str(kvm).startswith("note    kvm: ")
    assert f"chgrp kvm {device}; chmod 660 {device}; usermod --append --groups kvm " in kvm.hint
    _, tun = checks._devices(HostSettings(network=NetworkSettings(vlan=VlanKind.BRIDGE)))
    assert not tun.ok
    assert f"chmod 666 {tmp_path / 'tun'}" in tun.hint
    _, tun = checks._devices(HostSettings(network=NetworkSettings(bridges=("br0",))))
    assert tun.ok  # a run without a BRIDGED_TAP needs none
    assert f"chmod 666 {tmp_path / 'tun'}" in tun.hint


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setattr(images, "ImageBuild", FakeBuild)
    monkeypatch.setattr(images, "check_host", lambda _recipe: None)
    monkeypatch.setattr(images, "require_user", lambda: None)
    monkeypatch.setattr(FakeBuild, "fails", False)
    mirror = Mirror()
    monkeypatch.setattr(Bootstrap, "outside", lambda _kind, recipe: mirror.outside(recipe))

    async def no_jail(_command: list[str], _log: Path) -> None:
        raise ImageBuildFailed("rm ended with status 127: newuidmap: not found")

    monkeypatch.setattr(images, "run_jailed", no_jail)
    return ImageStore(tmp_path / "store")


def test_a_leftover_that_no_jail_can_remove_keeps_nobody_from_an_image(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = store.directory / f"tmp-{key_of(RECIPE)}-{os.getpid()}"
    (leftover / "root").mkdir(parents=True)
    monkeypatch.setattr(images, "shutil", SimpleNamespace(rmtree=lambda _folder, **_how: None))
    said: list[str] = []
    image = asyncio.run(store.ensure(RECIPE, said.append))
    assert image.path.is_file()
    assert said[0] == (
        f"what an earlier build left cannot be removed, {leftover}: rm ended with status 127: newuidmap: not found"
    )
    assert leftover.exists()


def test_a_leftover_of_plain_files_is_removed_without_a_jail(store: ImageStore) -> None:
    leftover = store.directory / "tmp-dead-4711"
    (leftover / "root").mkdir(parents=True)
    said: list[str] = []
    asyncio.run(store.ensure(RECIPE, said.append))
    assert not leftover.exists()
    assert said == ["building"]


def test_another_users_store_is_read_and_where_it_has_nothing_one_sentence_says_so(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    image = asyncio.run(store.ensure(RECIPE, said.append))
    truth = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and truth(path, mode))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert asyncio.run(store.ensure(RECIPE, said.append)).path == image.path
    other = RECIPE.model_copy(update={"name": "other"})
    with pytest.raises(HostError, match=f"the image store {store.directory} belongs to .*cannot read the image other"):
        asyncio.run(store.ensure(other, said.append))


def test_a_store_that_nobody_can_write_to_is_not_called_another_users(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that is mounted for reading alone; root may write to every other one."""
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(HostError, match="cannot be written, and has no image tiny") as caught:
        asyncio.run(store.ensure(RECIPE, lambda _line: None))
    assert "chgrp" not in caught.value.hint


def test_of_another_users_store_the_newest_image_is_used_until_that_of_today_is_there(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    image = asyncio.run(store.ensure(RECIPE, said.append))
    mirror = Mirror()
    mirror.index = "2"
    monkeypatch.setattr(Bootstrap, "outside", lambda _kind, recipe: mirror.outside(recipe))
    outside.forget(store.directory)
    truth = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and truth(path, mode))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert asyncio.run(store.ensure(RECIPE, said.append)).path == image.path
    assert said[-1].endswith(f"who has not built the image of today yet; using that of {image.record.day}")
