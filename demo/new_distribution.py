"""`python -m demo.new_distribution`: is a new distribution a matter of data alone?

Takes a Debian out of a copy of this checkout, as if it had never been there, and puts it in again. What the second step
changes is the answer: it has to be profiles and the stand-in's package lists, and no program.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import click

from demo.farm import CHECKOUT
from demo.ports import free_port

PARTS = ("oscar_steps", "demo", "profiles", "tests/oscar_standin", "master.cfg", "farm.toml")
"""What of the checkout the farm reads."""
DATA = ("profiles/", "tests/oscar_standin/tree/oscarsamples/", "tests/oscar_standin/tree/share/package_sets/")
"""Where the changes for a new distribution may be."""

_SITE = """\
[repository]
url = "svn://127.0.0.1/oscar"
[mail]
from = "farm@example.org"
operator = "operator@example.org"
[web]
port = {web}
[master]
port = "tcp:{master}:interface=127.0.0.1"
[[worker]]
name = "worker1"
[[worker]]
name = "worker2"
cells = ["{cell}"]
"""


class Checkout:
    """A copy of what the farm reads, and its commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for part in PARTS:
            source, target = CHECKOUT / part, directory / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)

    def forget(self, distribution: str, version: str) -> None:
        """Take out what belongs to a version of a distribution: its files, and its place in the matrix."""
        pattern = re.compile(rf"{re.escape(distribution)}-{re.escape(version)}[.-]")
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and pattern.match(path.name):
                path.unlink()
        matrix = self.directory / "profiles" / "matrix.toml"
        lines = (without(line, version) for line in matrix.read_text(encoding="utf-8").splitlines())
        matrix.write_text("".join(f"{line}\n" for line in lines if line is not None), encoding="utf-8")

    def changes_since(self, before: Checkout) -> list[str]:
        """The files that differ from `before`, as paths in the checkout."""
        done = subprocess.run(
            ["git", "diff", "--no-index", "--no-renames", "--name-only", str(before.directory), str(self.directory)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        folders = re.compile("|".join(re.escape(f"{one.directory}/") for one in (before, self)))
        return [folders.sub("", line.strip('"'), count=1) for line in done.stdout.splitlines()]

    def knows(self, cell: str) -> bool:
        """Whether `python -m oscar_steps.matrix` lists the cell, and all is well with the profiles."""
        status, said = self._said("-m", "oscar_steps.matrix")
        return status == 0 and re.search(rf"(?<![\w.-]){re.escape(cell)}(?![\w.-])", said) is not None

    def checkconfig(self, cell: str, state: Path) -> tuple[int, str]:
        """Status and words of `buildbot checkconfig` for a master whose worker asks for `cell`."""
        secrets = state / "secrets"
        secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        (state / "farm.toml").write_text(_SITE.format(web=free_port(), master=free_port(), cell=cell))
        (state / "buildbot.tac").write_text(f"configfile = {str(self.directory / 'master.cfg')!r}\n")
        for worker in ("worker1", "worker2"):
            secret = secrets / f"worker-{worker}"
            secret.touch(mode=0o600)
            secret.write_text("a-secret-of-nobody")
        return self._said(str(Path(sys.executable).parent / "buildbot"), "checkconfig", str(state))

    def install(self, cell: str, runs: Path) -> int:
        """Install the cell for real, with the stand-in; the status of `make matrix`."""
        words = ("-m", "demo.matrix_table", "--only", cell, "--runs", str(runs))
        return subprocess.run(
            [sys.executable, *words], env=self._environment, cwd=self.directory, check=False
        ).returncode

    def _said(self, *words: str) -> tuple[int, str]:
        command = [sys.executable, *words]
        done = subprocess.run(
            command, env=self._environment, cwd=self.directory, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.directory)}


def without(line: str, version: str) -> str | None:
    """A line of matrix.toml without the version; None: nothing is left of its entry."""
    word = re.escape(f'"{version}"')
    if re.search(rf"\bversion = (?:\[\s*)?{word}\s*(?:\]|,\s*\w+ =|}})", line):
        return None
    return re.sub(rf"{word},\s*|,\s*{word}", "", line)


def proof(cell: str, directory: Path, runs: Path | None) -> Iterator[tuple[str, bool]]:
    """What is looked at, one after the other, and whether it is as it has to be."""
    distribution, version, _ = cell.rsplit("-", 2)
    before, after = Checkout(directory / "before"), Checkout(directory / "after")
    before.forget(distribution, version)
    yield f"without its files the cell {cell} is unknown", not before.knows(cell)
    status, said = before.checkconfig(cell, directory / "state-before")
    yield f"and a master whose worker asks for it is refused: {_last(said)}", status != 0 and cell in said
    changed = after.changes_since(before)
    for name in changed:
        yield f"added or changed: {name}", name.startswith(DATA) and not name.endswith(".py")
    yield f"{len(changed)} files make it known", bool(changed) and after.knows(cell)
    status, said = after.checkconfig(cell, directory / "state-after")
    yield f"and the master takes it: {_last(said)}", status == 0
    if runs is not None:
        yield "and it is installed", after.install(cell, runs) == 0


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


@click.command()
@click.option("--cell", default="debian-13-x86_64", show_default=True, help="The cell to take for new.")
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), help="Install it, too, with its run here.")
def main(cell: str, runs: Path | None) -> NoReturn:
    """Show that a new distribution is data alone. Ends with 0 only if it is."""
    wrong = 0
    with TemporaryDirectory(prefix="oscar-new-distribution-") as directory:
        for what, good in proof(cell, Path(directory), runs and runs.resolve()):
            wrong += not good
            click.echo(f"{'ok  ' if good else 'NOT '}{what}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
