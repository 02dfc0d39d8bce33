"""qemu-img is a child of the run: it is waited for only so long, and it does not outlive whoever asked for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from oscar_steps.errors import HostError
from oscar_steps.v3m import disks


@pytest.fixture(autouse=True)
def qemu_img_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "qemu-img"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 1000\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def children() -> list[str]:
    return [child.name() for child in psutil.Process().children(recursive=True)]


def test_a_qemu_img_that_hangs_is_ended_and_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "QEMU_IMG_SECONDS", 0.5)
    with pytest.raises(HostError, match=r"timed out after 0 s waiting for qemu-img create"):
        asyncio.run(disks.create_disk(tmp_path / "disk.qcow2", 10))
    assert "sleep" not in children()


def test_a_run_that_is_ended_leaves_no_qemu_img(tmp_path: Path) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(disks.create_disk(tmp_path / "disk.qcow2", 10))
        while "sleep" not in children():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(asyncio.wait_for(give_up(), 20))
    assert "sleep" not in children()
