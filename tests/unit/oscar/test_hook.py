"""The barrier's hook, run with a real shell and a real FIFO."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oscar_steps.oscar import hook


def start(directory: Path) -> subprocess.Popen[str]:
    path = Path(hook.hook_path(str(directory)))
    path.write_text(hook.hook_text(str(directory)), encoding="utf-8")
    path.chmod(0o755)
    return subprocess.Popen([path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with start(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == hook.WAITING
        yield process
        if process.poll() is None:
            process.kill()


def shell(line: str) -> int:
    return subprocess.run(["sh", "-c", line], check=False, timeout=30).returncode


def test_open_lets_oscar_go_on_and_leaves_no_fifo(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    assert stat.S_ISFIFO((tmp_path / "barrier").stat().st_mode)
    assert shell(hook.open_command(str(tmp_path))) == 0
    assert waiting.wait(timeout=10) == 0
    assert not (tmp_path / "barrier").exists()


def test_shut_makes_oscar_give_up_and_prints_the_reason(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    reason = "oscarnode2: 'no' $(touch x)\n\\\\second \\t \\cline"
    assert shell(hook.shut_command(reason, str(tmp_path))) == 0
    assert waiting.wait(timeout=10) == 1
    assert waiting.stdout is not None
    assert waiting.stdout.read() == f"{hook.SHUT}oscarnode2: 'no' $(touch x) \\\\second \\t \\cline\n"
    assert not (tmp_path / "x").exists()


def test_a_writer_that_dies_without_a_word_opens_nothing(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    assert shell(f": >{tmp_path}/barrier") == 0
    assert waiting.poll() is None
    assert shell(hook.open_command(str(tmp_path))) == 0
    assert waiting.wait(timeout=10) == 0


def test_a_word_that_is_not_understood_never_opens(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    assert shell(f"echo opened >{tmp_path}/barrier") == 0
    assert waiting.wait(timeout=10) == 2


def test_opening_where_no_hook_waits_fails_and_makes_no_file(tmp_path: Path) -> None:
    assert shell(hook.open_command(str(tmp_path))) == 1
    assert not (tmp_path / "barrier").exists()
