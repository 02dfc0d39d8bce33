"""`make audit`: what it makes of what pip-audit says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parents[3] / "requirements" / "audit.sh"


@pytest.mark.parametrize(
    ("words", "ended", "status", "said"),
    [
        ("No known vulnerabilities found", 0, 0, "no vulnerability is known"),
        ("Found 2 known vulnerabilities in 1 package", 1, 1, "take newer versions: make lock"),
        ("ERROR:pip_audit._cli:jinja2: Dependency not found on PyPI and could not be audited", 1, 20, "from here, so"),
        ("requests.exceptions.ProxyError: Max retries exceeded", 1, 20, "On a machine with access to it"),
    ],
)
def test_only_an_answer_of_the_database_is_good(tmp_path: Path, words: str, ended: int, status: int, said: str) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text(
        f'#!/bin/sh\ncase " $* " in *" --strict "*) ;; *) exit 0;; esac\necho "{words}" >&2\nexit {ended}\n'
    )
    tool.chmod(0o755)
    done = subprocess.run([AUDIT, tool, "a.txt"], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert ("no vulnerability is known" in done.stdout) == (status == 0)


def test_a_file_that_could_not_be_asked_about_is_worse_than_one_with_a_vulnerability(tmp_path: Path) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text('#!/bin/sh\ncase "$*" in *b.txt*) echo "Found 1 known vulnerability in 1 package";; esac\nexit 1\n')
    tool.chmod(0o755)
    for files in (("a.txt", "b.txt"), ("b.txt", "a.txt")):
        assert subprocess.run([AUDIT, tool, *files], capture_output=True, check=False).returncode == 20
