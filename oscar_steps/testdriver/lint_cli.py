"""`oscar-testdriver lint`: the first tier, for a revision of the repository or for a tree that is checked out."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import click

from oscar_steps.errors import FarmError, HostError, UserError
from oscar_steps.job import Source
from oscar_steps.lint.check import check_tree
from oscar_steps.lint.problems import Report
from oscar_steps.testdriver.commandline import directory, explained, leave
from oscar_steps.testdriver.console import printable
from oscar_steps.testdriver.source import DEFAULT_URL, export, resolve_revision, source_as_asked
from oscar_steps.verdict import LINT, MAX_EVIDENCE_LINES, Category, Evidence, ExitStatus, Outcome, Verdict

LOG = "logs/lint.txt"
WORKING_COPY = "working-copy"
"""The revision of a tree that is checked out."""


@click.command()
@click.argument("revision", required=False)
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Subversion URL of the OSCAR tree.")
@click.option("--tree", type=directory(), help="A tree that is checked out already.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option("--run", type=directory(), help="Leave verdict.json and the report here: what a Buildbot step reads.")
@explained
def lint(revision: str | None, url: str, tree: Path | None, as_json: bool, run: Path | None) -> None:
    """Look for what is wrong with REVISION in seconds, without any virtual machine.

    Every script of the command line is compiled, with the modules that are missing here replaced by empty ones; menus
    can be read; files that are started are there and executable. What cannot be judged is left alone.

    \b
      oscar-testdriver lint 5916 --url svn://host/oscar/trunk
      oscar-testdriver lint --tree .          # before a commit
    """
    if (revision is None) == (tree is None):
        raise UserError("what is to be looked at? Say a REVISION, or --tree DIR")
    began = time.monotonic()
    try:
        if tree is not None:
            source, report = Source(url=str(tree.resolve()), revision=WORKING_COPY), check_tree(tree)
        else:
            source, report = _check_revision(url, revision or "")
    except FarmError as error:
        if run is not None:
            run.mkdir(parents=True, exist_ok=True)
            _no_report(error, Source(url=url, revision=revision or WORKING_COPY), run.name).save(run)
        raise
    report = replace(report, seconds=time.monotonic() - began)
    _tell(report, as_json)
    if run is not None:
        _leave_files(run, verdict_of(report, source, run.name), report)
        click.echo(f"@@oscar {json.dumps({'summary': report.summary})}")
    leave(ExitStatus.of(_whose(report)[0]))


def _check_revision(url: str, revision: str) -> tuple[Source, Report]:
    asked = source_as_asked(url, revision)
    source = Source(url=url, revision=resolve_revision(asked.url, asked.revision))
    with tempfile.TemporaryDirectory(prefix="oscar-lint-") as temporary:
        place = Path(temporary) / "tree"
        export(source, place)
        return source, check_tree(place)


def verdict_of(report: Report, source: Source, run_id: str) -> Verdict:
    """The report as a verdict: what mail and web pages are drawn from."""
    count = len(report.problems)
    sentence = "every script compiles, menus can be read, nothing that is started is missing"
    if count:
        more = f" (and {count - 1} more problem{'s' if count > 2 else ''})" if count > 1 else ""
        sentence = f"{(report.blamed or report.problems)[0]}{more}"
    outcome, category = _whose(report)
    lines = tuple(str(problem) for problem in report.problems[:MAX_EVIDENCE_LINES])
    return Verdict(
        run_id=run_id,
        cell=LINT,
        source=source.url,
        revision=source.revision,
        outcome=outcome,
        sentence=printable(sentence),
        category=category,
        evidence=(Evidence(file=LOG, first_line=1, lines=tuple(map(printable, lines))),) if count else (),
        seconds=report.seconds,
        replay=f"oscar-testdriver lint --tree {source.url}"
        if source.revision == WORKING_COPY
        else f"oscar-testdriver lint {source.revision} --url {source.url}",
    )


def _whose(report: Report) -> tuple[Outcome, Category]:
    if report.blamed:
        return Outcome.FAILED, Category.OSCAR
    return (Outcome.PASSED, Category.NONE) if report.good else (Outcome.INFRASTRUCTURE, Category.ANSWERS)


def _no_report(error: FarmError, source: Source, run_id: str) -> Verdict:
    """What is told where nothing could be looked at: no commit is blamed for that."""
    return Verdict(
        run_id=run_id,
        cell=LINT,
        source=source.url,
        revision=source.revision,
        outcome=Outcome.INFRASTRUCTURE,
        sentence=printable(error.sentence),
        hint=printable(error.hint),
        category=Category.HOST if isinstance(error, HostError) else Category.FARM,
    )


def _leave_files(run: Path, verdict: Verdict, report: Report) -> None:
    log = run / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"{line}\n" for line in _lines(report)), encoding="utf-8")
    verdict.save(run)


def _lines(report: Report) -> list[str]:
    return [printable(str(line)) for line in (*report.problems, *report.left_alone)] + [report.summary]


def _tell(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**asdict(report), "summary": report.summary}, indent=2))
        return
    for line in _lines(report):
        click.echo(line)
