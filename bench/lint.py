"""What the first tier costs: seconds per commit, export included, and the share of each part.

    python -m bench.lint [TREE] [--times N]     TREE: an OSCAR tree (the stand-in's); made N times as large

A tree made larger has its script folders N times, under other names, so that it has as many scripts as OSCAR has had.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click

from demo.farm import STANDIN
from demo.repository import Repository
from oscar_steps.lint.check import check_tree
from oscar_steps.sources.resolve import svn

_FOLDERS = ("scripts", "testing", "sbin", "src/cli", "lib/OSCAR")


def enlarge(tree: Path, times: int) -> None:
    """Copy the script folders, so that there are `times` as many scripts."""
    for number in range(1, times):
        for folder in _FOLDERS:
            if (tree / folder).is_dir():
                shutil.copytree(tree / folder, tree / "packages" / f"copy{number}" / "scripts" / folder, symlinks=True)


@click.command()
@click.argument("tree", type=click.Path(path_type=Path, exists=True, file_okay=False), default=STANDIN / "tree")
@click.option("--times", type=click.IntRange(1, 50), default=1, show_default=True, help="How many times as large.")
def main(tree: Path, times: int) -> None:
    """Measure one commit: export from a repository on this machine, then the check."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        enlarged = shutil.copytree(tree, place / "tree", symlinks=True)
        enlarge(enlarged, times)
        Repository(place / "svn", enlarged, users=("bench",))
        began = time.monotonic()
        svn("export", "--quiet", f"{(place / 'svn/oscar').as_uri()}/trunk", str(place / "export"), about="trunk")
        exported = time.monotonic()
        report = check_tree(place / "export")
        click.echo(report.summary)
        click.echo(
            f"export {exported - began:.2f} s, check {report.seconds:.2f} s, in all {time.monotonic() - began:.2f} s"
        )


if __name__ == "__main__":
    main()
