"""What runs inside guests: the files themselves, read by the programs that know their languages, and their reader."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from oscar_steps import guest
from oscar_steps.guest import guest_text

FOLDER = Path(guest.__file__).parent
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)

CHECKS = {
    # SC2015: `A && B || C` where B is a test, too, is what is meant.
    ".sh": ["shellcheck", "--shell=sh", "--exclude=SC2015"],
    ".pl": ["perl", "-c"],
    ".cfg": ["true"],
    ".conf": ["true"],
    "": ["true"],
    ".py": ["true"],
    ".service": ["true"],
}
"""What reads a file, by its suffix. Python is read elsewhere; units, boot menus and what a
style calls as its own programs want it hold no program."""

STYLES = ("network", "initrd")


def _suffix(path: Path) -> str:
    """A file of a style has the name that it has in the guest: only its first line says that it is a script."""
    if path.relative_to(FOLDER).parts[0] not in STYLES:
        return path.suffix
    return ".sh" if path.read_text().startswith("#!") else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_has_a_suffix_that_is_known_and_nothing_to_complain_of(path: Path) -> None:
    assert _suffix(path) in CHECKS, f"which program checks a file '{path.suffix}'?"
    done = subprocess.run([*CHECKS[_suffix(path)], path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_script_says_who_runs_it_in_its_first_line(path: Path) -> None:
    assert (_suffix(path) == ".sh") == path.read_text().startswith("#!/bin/sh\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guest, "_FOLDER", tmp_path)
    return tmp_path


def test_values_take_the_places_of_their_names_and_are_not_read_again(folder: Path) -> None:
    (folder / "a.sh").write_text("echo @WORD@ $@ me@EXAMPLE.org @END_MARK@@WORD@\n")
    assert guest_text("a.sh", word="@END_MARK@\\1", end_mark="!") == (
        "echo @END_MARK@\\1 $@ me@EXAMPLE.org !@END_MARK@\\1\n"
    )


@pytest.mark.parametrize("values", [{}, {"word": "a", "other": "b"}, {"other": "b"}])
def test_a_placeholder_without_a_value_and_a_value_without_a_placeholder_are_faults(
    folder: Path, values: dict[str, str]
) -> None:
    (folder / "a.sh").write_text("echo @WORD@\n")
    with pytest.raises(ValueError, match=re.escape("a.sh has the placeholders ['word'], not")):
        guest_text("a.sh", **values)
