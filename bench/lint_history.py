"""What the first tier says of a repository's history: each revision against the one before it, as the poller sees them.

    python -m bench.lint_history URL FROM TO [--cache FOLDER]     URL: a trunk of Subversion's, or a git repository

A line for each revision: seconds, how many new problems gate, how many only warn, how many were mended; below it the
new and the mended problems, each to be read by a person. At the end the counts and the median. Revisions whose paths
are all outside of URL are left out; of git the commits are those of the chain of first parents.
"""

from __future__ import annotations

import statistics
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import click

from oscar_steps.environment import cache_directory
from oscar_steps.errors import FarmError
from oscar_steps.sources.git import is_git
from oscar_steps.sources.mirror import mirror_of
from oscar_steps.sources.resolve import svn
from oscar_steps.sources.source import short_name
from oscar_steps.sources.svn import characters
from oscar_steps.testdriver.cli.lint import look
from oscar_steps.testdriver.cli.lint_report import Looked


def revisions(url: str, first: str, last: str, cache: Path) -> list[str]:
    """The revisions that changed anything below `url`, the oldest first."""
    if is_git(url):
        with mirror_of(url, cache / "git") as mirror:
            ends = [mirror.resolve(name) for name in (first, last)]
            later = mirror.git("rev-list", "--first-parent", "--reverse", "..".join(ends), "--").decode().split()
        return [ends[0], *later]
    output = svn("log", "--xml", "--quiet", "-r", f"{first}:{last}", f"{url}@{last}", about=url)
    entries = ElementTree.fromstring(characters(output)).iter("logentry")
    return list(map(str, sorted(int(entry.get("revision") or 0) for entry in entries)))


def show(revision: str, looked: Looked) -> None:
    """A revision's line, and what there is to be read."""
    new, mended = looked.new, looked.comparison.mended
    gating = sum(problem.gates for problem in new)
    counts = f"gates: {gating}  warns: {len(new) - gating}  mended: {len(mended)}"
    click.echo(
        f"{short_name(revision)}  {looked.seconds:6.2f} s  {counts}  standing: {len(looked.comparison.standing)}"
    )
    for problem in new:
        click.echo(f"    {'GATES' if problem.gates else 'warns'}  {problem}")
    for problem in mended:
        click.echo(f"    mended {problem}")


@click.command()
@click.argument("url")
@click.argument("first")
@click.argument("last")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="As of `oscar-testdriver lint`.")
def main(url: str, first: str, last: str, cache: Path | None) -> None:
    """Lint consecutive revisions."""
    place = cache or cache_directory() / "lint"
    done, seconds, failed = list[Looked](), list[float](), 0
    for revision in revisions(url, first, last, place):
        began = time.monotonic()
        try:
            looked = look(url, revision, None, place)
        except FarmError as error:
            failed += 1
            click.echo(
                f"{short_name(revision)}  {time.monotonic() - began:6.2f} s  cannot be judged: {error.explain()}"
            )
            continue
        seconds.append(time.monotonic() - began)
        done.append(looked)
        show(revision, looked)
    gating = sum(any(problem.gates for problem in looked.new) for looked in done)
    warning = sum(bool(looked.new) for looked in done) - gating
    mending = sum(bool(looked.comparison.mended) for looked in done)
    click.echo(f"{len(done)} revisions: {gating} gate, {warning} warn, {mending} mend; {failed} could not be judged")
    if seconds:
        click.echo(f"seconds: median {statistics.median(seconds):.2f}, most {max(seconds):.2f}, first {seconds[0]:.2f}")


if __name__ == "__main__":
    main()
