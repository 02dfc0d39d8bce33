"""Commands that look for what broke it, by hand: `bisect` runs revision after revision, `compare` shows two runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from oscar_steps import manifest
from oscar_steps.bisect.compare import Side, compare
from oscar_steps.bisect.images import Images
from oscar_steps.bisect.search import Answer, Kind, Search
from oscar_steps.environment import cache_directory, default_runs, default_store
from oscar_steps.errors import UserError
from oscar_steps.images.upgrade import UpgradeStore
from oscar_steps.job import JOB_FILE, CellPlan, Job, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.site import load_site
from oscar_steps.sources.git import person
from oscar_steps.sources.git_history import commits_between
from oscar_steps.sources.history import MAX_COMMITS, change_of
from oscar_steps.sources.mirror import mirror_of
from oscar_steps.sources.resolve import exact, resolve_revision, source_as_asked
from oscar_steps.sources.source import short_name
from oscar_steps.testdriver.cli.bisecting import Bisect, Commits, Packages, side_of
from oscar_steps.testdriver.cli.common import directory as _directory
from oscar_steps.testdriver.cli.common import explained as _explained
from oscar_steps.testdriver.cli.common import leave as _leave
from oscar_steps.testdriver.cli.images import image_entry
from oscar_steps.testdriver.cli.patches import patch_options, read_patch
from oscar_steps.testdriver.cli.run import image_option, new_id
from oscar_steps.testdriver.process.run_process import execute
from oscar_steps.testdriver.process.rundirectory import is_running
from oscar_steps.testdriver.run import RunOptions
from oscar_steps.testdriver.stages.create_image import check_job
from oscar_steps.textio import one_line, printable
from oscar_steps.verdict import VERDICT_FILE, Verdict
from oscar_steps.words import ExitStatus

_Positions = tuple[tuple[Source, ...], tuple[str, ...]]
"""What is tested at each position of a search, and its name; position 0 is the last good one."""
_ORDER = "give the last good revision first, then the bad one"


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a command takes the repository."""
    for option in (
        click.option("--git", "is_gits", is_flag=True, help="The URL is a git repository's, whatever it looks like."),
        click.option("--url", required=True, help="URL of the OSCAR tree, or of a git repository."),
    ):
        command = option(command)
    return command


def _execute(directory: Path, job: Job, images: Path) -> Verdict:
    return execute(directory, job, RunOptions(image_store=images), stepwise=False)


@click.command()
@click.argument("good")
@click.argument("bad")
@click.option("--cell", "cell_name", required=True, help="Cell of the matrix, e.g. debian-12-x86_64.")
@source_options
@click.option("--votes", type=click.IntRange(1, 20), default=1, show_default=True, help="Runs that have to agree.")
@click.option(
    "--flake",
    type=click.IntRange(0, 40),
    default=0,
    show_default=True,
    help="How many runs of 100 say the wrong thing, as far as you know.",
)
@patch_options
@click.option("--like", type=_directory(exists=True), help="A run with the fault [the first red one of BAD].")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder for the folder of this search's runs.")
@click.option("--site", type=click.Path(path_type=Path, dir_okay=False), help="A farm's farm.toml.")
@click.option("--profiles", type=_directory(), help="Folder with matrix.toml and what it names.")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@image_option
@_explained
def bisect(
    good: str,
    bad: str,
    cell_name: str,
    url: str,
    is_gits: bool,
    votes: int,
    flake: int,
    patch: Path | None,
    strip: int,
    patch_of: str,
    like: Path | None,
    runs: Path,
    site: Path | None,
    profiles: Path | None,
    images: Path,
    image: str,
) -> None:
    """Find the commit that broke it: GOOD is the last revision that passed, BAD the first one that did not.

    First come BAD again and GOOD today; then each run halves what is left. A run that fails otherwise counts as not
    tested. With --patch FIX each revision is tested with that fix, where it applies: this finds a fault that another
    one hides. Of a git repository the commits are those of BAD's branch: what a merge brought is the merge's. Ctrl-C
    ends it; the same command goes on where it stopped.
    """
    farm = load_site(site) if site else None
    matrix = load_matrix(profiles or (farm and farm.profiles) or default_profiles())
    plan = CellPlan.of(matrix, matrix.cell(cell_name), farm.timeouts if farm else Timeouts())
    first, last = (source_as_asked(url, end, is_gits=is_gits) for end in (good, bad))
    job = plan.job(f"{cell_name}-bisect", last).model_copy(update={"image_key": image})
    check_job(job)
    fix = read_patch(patch, strip, patch_of)
    sources, names = (_commits_of_git if last.kind == "git" else _commits)(first, last)
    fixed = sources[-1].model_copy(update={"patch": fix})
    folder = runs.resolve() / f"bisect-{cell_name}-{sources[0].short}-{fixed.short}"
    search = Search(len(sources) - 1, flake=flake / 100, votes=votes)
    wanted = Verdict.load(like) if like else None
    it = Bisect(folder, Commits(job, sources, names, fix), search, new_id, images, _execute, wanted)
    it.load()
    click.echo(f"{len(sources) - 1} candidates: {names[1]} to {names[-1]}; the last good revision is {names[0]}")
    _say(it, it.go_on())


@click.command("bisect-packages")
@click.argument("old", metavar="OLD-IMAGE")
@click.argument("new", metavar="NEW-IMAGE")
@click.option("--cell", "cell_name", required=True, help="Cell of the matrix, e.g. debian-12-x86_64.")
@source_options
@click.option("--revision", default="HEAD", show_default=True, help="Revision of OSCAR; of git's a branch, tag or id.")
@click.option("--votes", type=click.IntRange(1, 20), default=1, show_default=True, help="Runs that have to agree.")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder for the folder of this search's runs.")
@click.option("--site", type=click.Path(path_type=Path, dir_okay=False), help="A farm's farm.toml.")
@click.option("--profiles", type=_directory(), help="Folder with matrix.toml and what it names.")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@_explained
def bisect_packages(
    old: str,
    new: str,
    cell_name: str,
    url: str,
    is_gits: bool,
    revision: str,
    votes: int,
    runs: Path,
    site: Path | None,
    profiles: Path | None,
    images: Path,
) -> None:
    """Find the package of the distribution that broke it: the same OSCAR passes on OLD-IMAGE and fails on NEW-IMAGE.

    Both are keys of images of the store. The runs between have the old image with more and more packages of the new
    one; packages whose version changed in the same way change together.
    """
    farm = load_site(site) if site else None
    matrix = load_matrix(profiles or (farm and farm.profiles) or default_profiles())
    plan = CellPlan.of(matrix, matrix.cell(cell_name), farm.timeouts if farm else Timeouts())
    asked = source_as_asked(url, revision, is_gits=is_gits)
    job = plan.job(f"{cell_name}-bisect", asked)
    check_job(job)
    source = exact(asked, cache_directory() / "git")
    before, after = (image_entry(images, key) for key in (old, new))
    texts = [manifest.read_manifest(entry.folder / manifest.MANIFEST_FILE) for entry in (before, after)]
    if texts[0] is None or texts[1] is None:
        raise UserError("an image of the two has no list of packages")
    found = tuple(manifest.upgrades(texts[0], texts[1]))
    UpgradeStore(images, before.key)  # before the first run it says whether others can be made on that image
    places = Packages(job.model_copy(update={"source": source}), Images(before.key, after.key, found))
    folder = runs.resolve() / f"bisect-{cell_name}-{source.short}-{before.key[:12]}-{after.key[:12]}"
    it = Bisect(folder, places, Search(len(found) + 1, votes=votes), new_id, images, _execute)
    it.load()
    click.echo(
        f"{len(found)} packages, or groups of them, have other versions; the last good image is {before.key[:12]}"
    )
    _say(it, it.go_on())


def _commits(good: Source, bad: Source) -> _Positions:
    """The positions of a search over commits. Raises SourceError, HostError, UserError."""
    url = bad.url
    first, last = (int(resolve_revision(url, source.revision)) for source in (good, bad))
    if first >= last:
        raise UserError(f"r{first} is not before r{last}", hint=_ORDER)
    commits = [each for each in change_of(url, str(last), first + 1).commits if each.revision > first]
    if not commits:
        raise UserError(f"{url} has no commit between r{first} and r{last}")
    if len(commits) >= MAX_COMMITS:
        raise UserError(f"there are {MAX_COMMITS} commits or more between r{first} and r{last}")
    sources = (Source(url=url, revision=str(first)), *(Source(url=url, revision=str(c.revision)) for c in commits))
    return sources, (f"r{first}", *(f"r{c.revision} ({c.author})" for c in commits))


def _commits_of_git(good: Source, bad: Source) -> _Positions:
    """The same, of git."""
    with mirror_of(bad.url, cache_directory() / "git") as mirror:
        first, last = (mirror.resolve(source.revision) for source in (good, bad))
        commits = commits_between(mirror, first, last)
    if not commits:
        where = f"is not among the last {MAX_COMMITS} commits before {short_name(last)} on its branch"
        raise UserError(f"{short_name(first)} {where} (first parents)", hint=_ORDER)
    revisions = (first, *(commit.id for commit in commits))
    sources = tuple(bad.model_copy(update={"revision": revision}) for revision in revisions)
    return sources, (short_name(first), *(f"{short_name(c.id)} ({person(c.author)})" for c in commits))


def _say(it: Bisect, answer: Answer | None) -> None:
    if answer is None:
        again = "the same command goes on from here"
        click.echo(f"ended after {len(it.done)} runs; {again}")
        _leave(ExitStatus.CANCELLED)
    click.echo("")
    click.echo(printable(f"{answer.sentence(it.places.names)}, after {len(it.done)} runs"))
    if sides := it.sides(answer):
        click.echo("\n".join(["", *map(printable, compare(*sides)), ""]))
        click.echo(f"again: {shlex.join(['oscar-testdriver', 'compare', *(side.link for side in sides)])}")
    for other in it.others:
        place = f" at {other.stage}" if other.stage else ""
        click.echo(printable(one_line(f"another fault: {other.short} failed{place}: {other.sentence}", 200)))
        click.echo(f"    to search for it: --like {shlex.quote(str(it.folder / other.run_id))}")
    _leave(ExitStatus.PASSED if answer.kind is Kind.FOUND else ExitStatus.NOT_REACHED)


@click.command("compare")
@click.argument("left", metavar="RUN1")
@click.argument("right", metavar="RUN2")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder with the run directories.")
@_explained
def compare_(left: str, right: str, runs: Path) -> None:
    """Show two runs beside each other: how each ended, where they parted, and what was different.

    Each is a run's directory (also one of an archive), or the name of a run. The good one comes first.
    """
    click.echo("\n".join(map(printable, compare(*(_run_of(name, runs) for name in (left, right))))))


def _run_of(name: str, runs: Path) -> Side:
    for path in (Path(name), runs / name):
        if (path / JOB_FILE).is_file() or (path / VERDICT_FILE).is_file():
            if is_running(path):
                raise UserError(f"{path}: this run goes on still; it has no verdict yet")
            with suppress(FileNotFoundError):
                return side_of(path, Verdict.load(path))
            raise UserError(f"{path}: this run has no verdict", hint=f"oscar-testdriver verdict {path}")
    raise UserError(f"there is no run '{name}', here or in {runs}")
