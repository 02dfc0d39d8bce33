"""`oscar-testdriver transcript`: a run's terminal becomes a case for the tests."""

from __future__ import annotations

from pathlib import Path

import click

from oscar_steps.errors import UserError
from oscar_steps.testdriver.cli.common import directory, existing_run, explained
from oscar_steps.testdriver.process.rundirectory import is_running, require_run
from oscar_steps.testdriver.record.transcript import CASE_FILE, record


@click.command()
@click.argument("run", type=existing_run())
@click.option("--to", "into", type=directory(), default=Path(), help="Folder for the case.  [default: here]")
@click.option("--name", default="", metavar="NAME", help="The case's directory.  [default: stage and a number]")
@explained
def transcript(run: Path, into: Path, name: str) -> None:
    """Write the output of OSCAR's installer in RUN as an anonymous case for tests/unit/transcripts.

    The command replaces addresses, MACs, names of hosts and users, paths, URLs and dates, each in the same way in all
    files. It leaves out lines that may hold a password or a key. The case has the run's terminal and OSCAR's own logs.
    case.toml says how the farm judges it today. Read the whole case before you publish it: the command cannot
    recognize every name. Correct `stage`, `category`, `says` and `hint` where the farm is wrong. Then the test fails
    until the farm is right.

    \b
    Examples:
      oscar-testdriver transcript ~/runs/debian-12-x86_64-r7012-b3 --to tests/unit/transcripts
      oscar-testdriver transcript RUN --to tests/unit/transcripts --name wizard-prep-without-mysql
    """
    require_run(run)
    if is_running(run):
        raise UserError(f"{run}: the run is still going on")
    if name and (not name.replace("-", "").replace("_", "").isalnum() or not name.isascii()):
        raise UserError(f"--name {name!r}: letters, digits, '-' and '_' make a case's name")
    recording = record(run, into, name)
    click.echo(f"{recording.case}")
    for file in (*recording.files, CASE_FILE):
        click.echo(f"   {file}")
    expected = recording.expected
    if expected.passes:
        click.echo("the farm says: a good run")
    else:
        click.echo(f"the farm says: {expected.says}  ({expected.stage}, {expected.category})")
    click.echo("Read the case before you publish it, and correct case.toml where the farm is wrong.")
