"""`oscar-testdriver lint`: the first tier, for a revision of the repository or for a tree that is checked out."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import click

from oscar_steps.environment import cache_directory
from oscar_steps.errors import FarmError, HostError, PatchRefused, SourceError, UserError
from oscar_steps.lint.baseline import Comparison, compare
from oscar_steps.lint.lists.leftout import left_out
from oscar_steps.lint.perl.exports import lost_exports
from oscar_steps.lint.perl.functions import lost_functions
from oscar_steps.lint.problems import Problem, Report
from oscar_steps.lint.remember import report_of
from oscar_steps.lint.removed import dropped_uses, removed_but_used
from oscar_steps.lint.tree import Tree
from oscar_steps.sources.git import FULL_ID
from oscar_steps.sources.git_history import change_of_git
from oscar_steps.sources.history import Change, change_of
from oscar_steps.sources.mirror import Mirror, mirror_of
from oscar_steps.sources.resolve import DEFAULT_URL, resolve_revision, source_as_asked
from oscar_steps.sources.source import Patch, Source
from oscar_steps.testdriver.cli.common import directory, explained, leave
from oscar_steps.testdriver.cli.lint_report import LOG, Looked, as_json, judgement_of, lines_of, summary_of, verdict_of
from oscar_steps.testdriver.cli.lint_trees import Trees, trees_of, trees_of_folder, trees_of_git
from oscar_steps.testdriver.cli.patches import patch_options, read_patch
from oscar_steps.textio import printable
from oscar_steps.verdict import LINT, Category, ExitStatus, Outcome, Verdict
from oscar_steps.words import MARK

WORKING_COPY = "working-copy"
"""The revision of a tree that is checked out."""


@click.command()
@click.argument("revision", required=False)
@click.option("--url", default=DEFAULT_URL, show_default=True, help="URL of the OSCAR tree, or of a git repository.")
@click.option("--git", "is_gits", is_flag=True, help="The URL is a git repository's, whatever it looks like.")
@click.option("--first", help="First of several commits; REVISION is the last.")
@click.option("--tree", type=directory(), help="A tree that is checked out already, instead of REVISION.")
@patch_options
@click.option("--all", "show_all", is_flag=True, help="Also show standing problems, and what lint cannot judge.")
@click.option("--json", "json_wanted", is_flag=True, help="The report as JSON.")
@click.option("--cache", type=directory(), help="Cache folder, which makes the next lint faster.")
@click.option("--run", type=directory(), help="Folder for verdict.json and the report, for a Buildbot step.")
@explained
def lint(
    revision: str | None,
    url: str,
    is_gits: bool,
    first: str | None,
    tree: Path | None,
    patch: Path | None,
    strip: int,
    patch_of: str,
    show_all: bool,
    json_wanted: bool,
    cache: Path | None,
    run: Path | None,
) -> None:
    """Find problems that REVISION introduces, in seconds, without any virtual machine.

    REVISION is compared with the revision before it on its branch. Older problems are standing problems: they are
    counted, and --all shows them. With --tree, a working copy of Subversion or git is compared with its last commit.
    In any other folder all problems are new. With --patch, what the patch brings to REVISION is judged.

    \b
    Exit status:
      0   no new problems
      10  a new problem keeps the installer from starting: no cluster is installed
      11  new problems, but the installer starts: the cells run all the same
      20  the farm's answers do not fit the menus any more, or the farm or this host failed
      64  a mistake in the command line

    \b
      oscar-testdriver lint 5916 --url svn://host/oscar/trunk
      oscar-testdriver lint --tree .          # before a commit
    """
    if (revision is None) == (tree is None):
        raise UserError("nothing to lint: give a REVISION, or --tree DIR")
    if patch and (tree or first):
        raise UserError("--patch is for a REVISION alone", hint="apply it to the tree yourself")
    cache = cache or cache_directory("XDG_CACHE_HOME, or use --cache FOLDER") / LINT
    try:
        change = read_patch(patch, strip, patch_of)
        looked = (
            look_at_folder(tree, cache) if tree else look(url, revision or "", first, cache, change, is_gits=is_gits)
        )
    except FarmError as error:
        if run is not None:
            run.mkdir(parents=True, exist_ok=True)
            _no_report(error, Source(url=url, revision=revision or WORKING_COPY), run.name).save(run)
        raise
    verdict = verdict_of(looked, run.name if run else LINT)
    if json_wanted:
        click.echo(json.dumps(as_json(looked), indent=2))
    else:
        click.echo("".join(f"{printable(line)}\n" for line in lines_of(looked, everything=show_all)), nl=False)
    if run is not None:
        _leave_files(run, verdict, looked)
        click.echo(f"{MARK}{json.dumps({'summary': summary_of(looked)})}")
    leave(ExitStatus.of(verdict.outcome))


def look(
    url: str, revision: str, first: str | None, cache: Path, patch: Patch | None = None, *, is_gits: bool = False
) -> Looked:
    """Judge a revision (or all from `first` to it) by what was before, or a patch on it by the revision itself.

    Raises SourceError, HostError, UserError.
    """
    asked = source_as_asked(url, revision, is_gits=is_gits)
    if asked.kind == "git":
        return _look_at_commit(asked, first, cache, patch)
    if first is not None and not (first.isdecimal() and int(first)):
        raise UserError(f"--first {first[:60]!a} is no revision's number")
    return _look_at_revision(asked, int(first) if first else None, cache, patch)


def _look_at_commit(asked: Source, first: str | None, cache: Path, patch: Patch | None) -> Looked:
    began = time.monotonic()
    with mirror_of(asked.url, cache / "git") as mirror:
        exact = mirror.resolve(asked.revision)
        change = change_of_git(mirror, exact, _first_of(mirror, first) if first else None)
        source = asked.model_copy(update={"revision": exact, "patch": patch})
        trees = trees_of_git(change, mirror, patch)
    return _compared(trees, source, None if patch else change, began, cache)


def _first_of(mirror: Mirror, wanted: str) -> str | None:
    """The first of several commits; None where it is gone: a forced push may have taken it away."""
    try:
        return mirror.resolve(wanted)
    except SourceError:
        if FULL_ID.fullmatch(wanted):
            return None
        raise


def _look_at_revision(asked: Source, first: int | None, cache: Path, patch: Patch | None) -> Looked:
    began = time.monotonic()
    change = change_of(asked.url, resolve_revision(asked.url, asked.revision), first)
    source = asked.model_copy(update={"revision": str(change.asked), "patch": patch})
    if patch is not None:
        return _compared(trees_of(change, cache / "trees", patch), source, None, began, cache)
    return _compared(trees_of(change, cache / "trees"), source, change, began, cache)


def look_at_folder(folder: Path, cache: Path) -> Looked:
    """Judge a tree that is checked out, by its last commit where it is a working copy. Raises HostError."""
    began = time.monotonic()
    source = Source(url=str(folder.resolve()), revision=WORKING_COPY)
    return _compared(trees_of_folder(folder), source, None, began, cache)


def _compared(trees: Trees, source: Source, change: Change | None, began: float, cache: Path) -> Looked:
    """Where there is nothing to compare with, a revision has brought nothing, and a folder everything."""
    before = report_of(trees.before, cache) if trees.before is not None else None
    report = report_of(trees.after, cache)
    if trees.before is not None and before is not None:
        comparison = compare(trees.before, before, trees.after, report, trees.copied)
        out, put_in = left_out(trees.before, trees.after)
        new = {*comparison.new, *_lost(trees.before, trees.after, report), *out}
        # What the reverse of the change would take away, the change has brought back.
        back = [each for each in _lost(trees.after, trees.before, before) if each not in comparison.mended] + put_in
        mended = (*comparison.mended, *sorted(back))
        dropped = dropped_uses(trees.before, trees.after)
        comparison = replace(comparison, new=tuple(sorted(new)), mended=mended, dropped=dropped)
    elif change is None:
        comparison = Comparison(new=report.problems)
    else:
        comparison = compare(trees.after, report, trees.after, report)
    return Looked(source, change, report, comparison, before, time.monotonic() - began)


def _lost(before: Tree, after: Tree, report: Report) -> set[Problem]:
    """What only the comparison tells: `report` is that of `after`."""
    reported = {(each.file, each.line) for each in report.problems if re.match(r"calls |starts ", each.what)}
    found = set[Problem]()
    for kind in (removed_but_used, lost_functions, lost_exports):
        lost = {problem for problem in kind(before, after).problems if (problem.file, problem.line) not in reported}
        reported |= {(problem.file, problem.line) for problem in lost}
        found |= lost
    return found


def _no_report(error: FarmError, source: Source, run_id: str) -> Verdict:
    """The verdict where no tree could be looked at: no commit is blamed for that."""
    return Verdict(
        run_id=run_id,
        cell=LINT,
        source=source.url,
        revision=source.revision,
        outcome=Outcome.INFRASTRUCTURE,
        sentence=printable(error.sentence),
        hint=printable(error.hint),
        category=Category.HOST if isinstance(error, HostError) else Category.FARM,
        evidence=error.evidence if isinstance(error, PatchRefused) else (),
    )


def _leave_files(run: Path, verdict: Verdict, looked: Looked) -> None:
    log = run / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"{printable(line)}\n" for line in lines_of(looked, everything=True)), encoding="utf-8")
    judgement_of(looked).save(run)
    verdict.save(run)
