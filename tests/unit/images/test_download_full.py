"""A download that fills the disk leaves the disk as it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images import download


def test_a_download_that_fills_the_disk_leaves_nothing_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(command: list[str], _log: Path) -> None:
        Path(command[command.index("--output") + 1]).write_bytes(b"x" * 1000)
        raise ImageBuildFailed("curl ended with status 23: curl: (23) Failure writing output to destination")

    monkeypatch.setattr(download, "run_jailed", full)

    async def get() -> None:
        log = tmp_path / "log"
        async with download.downloaded("http://m/x", "0" * 64, tmp_path, log, lambda _line: None, (10, "")):
            pass

    with pytest.raises(ImageBuildFailed, match="No space left on device"):
        asyncio.run(get())
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == []
