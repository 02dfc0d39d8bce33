"""Commands on runs that exist, for people and for Buildbot's steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from oscar_steps.environment import default_runs, default_store
from oscar_steps.errors import FarmError, HostError, UserError
from oscar_steps.testdriver.cli import display
from oscar_steps.testdriver.cli.common import directory as _directory
from oscar_steps.testdriver.cli.common import existing_run as _existing_run
from oscar_steps.testdriver.cli.common import explained as _explained
from oscar_steps.testdriver.cli.common import leave as _leave
from oscar_steps.testdriver.head.access import open_ssh
from oscar_steps.testdriver.process.postmortem import verdict_of_dead_run
from oscar_steps.testdriver.process.rundirectory import is_running, require_run
from oscar_steps.testdriver.record.events import EVENTS_FILE
from oscar_steps.v3m import consoleview
from oscar_steps.words import MAX_KEEP_HOURS, ExitStatus, Stage


@click.command()
@click.argument("stage", type=click.Choice([stage.value for stage in Stage]), metavar="STAGE")
@click.option("--run", "directory", type=_directory(), required=True, help="The run directory.")
@click.option(
    "--job", type=click.Path(path_type=Path, dir_okay=False), help="The job; starts the run (create-image only)."
)
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@click.option(
    "--keep",
    type=click.FloatRange(0, MAX_KEEP_HOURS),
    default=0.0,
    metavar="HOURS",
    help="So long the teardown keeps the cluster, unless `destroy` ends it (create-image only).",
)
@_explained
def stage(stage: str, directory: Path, job: Path | None, images: Path, keep: float) -> None:
    """Let a run go on to the end of STAGE and show what happens: the command of a Buildbot step.

    The run is a process of its own. Losing this command harms nothing; TERM ends the command and the run. When no
    command was attached for longer than the job's lease, the run ends its cluster and itself.
    """
    from oscar_steps.testdriver.process import attach  # and asyncio, which no other command here needs

    options = ("--images", str(images), "--keep", str(keep))
    result = attach.follow_stage(directory.resolve(), Stage(stage), job, options, display.plain)
    if Stage(stage) is Stage.TEARDOWN and (directory / "verdict.json").exists():
        from oscar_steps.verdict import Verdict

        click.echo("\n".join(display.summary_lines(Verdict.load(directory))))
    _leave(ExitStatus.of(result))


def _runs(directory: Path) -> list[Path]:
    return sorted((path.parent for path in directory.glob(f"*/{EVENTS_FILE}")), key=lambda path: path.stat().st_mtime)


@click.command()
@click.argument("directory", type=_existing_run(), required=False, metavar="[RUN]")
@click.option("--runs", type=_directory(), is_eager=True, help="Folder with the run directories.")
@_explained
def status(directory: Path | None, runs: Path | None) -> None:
    """Show the state of a run, or of every run on this host. What a killed run has left is cleaned up."""
    _each([directory.resolve()] if directory else _runs(runs or default_runs()), _status)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("directory", type=_existing_run(), metavar="RUN")
@click.argument("command", nargs=-1)
@_explained
def ssh(directory: Path, command: tuple[str, ...]) -> None:
    """Log in to the head node of a run as root, or run COMMAND there."""
    require_run(directory)
    open_ssh(directory, command)


@click.command()
@click.argument("directory", type=_existing_run(), metavar="RUN")
@click.argument("machine")
@click.option("--follow/--no-follow", default=True, help="Follow the console as it grows, until Ctrl-C.")
@click.option("--raw", is_flag=True, help="Show the bytes as they are, with the guest's control sequences.")
@_explained
def console(directory: Path, machine: str, follow: bool, raw: bool) -> None:
    """Show the serial console of MACHINE: its text, without colours and other control sequences."""
    require_run(directory)
    path = directory / "console" / f"{machine}.log"
    if not path.is_file():
        there_are = (
            ", ".join(sorted(p.stem for p in path.parent.glob("*.log") if not p.stem.endswith(".qemu"))) or "none"
        )
        raise UserError(f"{directory}: there is no console of '{machine}'; there are: {there_are}")
    consoleview.show(path, sys.stdout.buffer, raw=raw, goes_on=(lambda: True) if follow else None)


@click.command()
@click.argument("directories", type=_existing_run(), nargs=-1, metavar="[RUN]...")
@click.option("--all", "all_", is_flag=True, help="Every run in the --runs folder.")
@click.option("--runs", type=_directory(), is_eager=True, help="Folder with the run directories.")
@_explained
def destroy(directories: tuple[Path, ...], all_: bool, runs: Path | None) -> None:
    """End runs: their VMs, their processes. The run directories stay. Nothing else is touched."""
    wanted = [path.resolve() for path in directories] + (_runs(runs or default_runs()) if all_ else [])
    if not wanted and not all_:
        raise UserError("no run was named: name its directory, or give --all")
    _each(wanted, _destroy)


def _each(runs: list[Path], do: Callable[[Path], str]) -> None:
    """`do` with every run: what is wrong with one must not keep the others from their turn. The first error counts."""
    errors: list[FarmError] = []
    for path in runs:
        try:
            click.echo(f"{path.name}: {do(path)}")
        except FarmError as error:
            errors.append(error)
            which = "" if str(path) in error.sentence else f"{path.name}: "
            click.echo(f"oscar-testdriver: {which}{error.explain()}", err=True)
        except OSError as error:
            errors.append(HostError(f"{error.filename or path} cannot be used: {error.strerror}"))
            click.echo(f"oscar-testdriver: {path.name}: {errors[-1].explain()}", err=True)
    if errors:
        _leave(ExitStatus.USAGE if isinstance(errors[0], UserError) else ExitStatus.INFRASTRUCTURE)


def _destroy(path: Path) -> str:
    if is_running(path):
        from oscar_steps.testdriver.process import attach

        attach.follow(path, {"cancel": "`oscar-testdriver destroy` was asked for"}, lambda _event: None)
    verdict = verdict_of_dead_run(path)
    return f"ended ({verdict.outcome}: {verdict.sentence})"


def _status(path: Path) -> str:
    if is_running(path):
        return "running"
    verdict = verdict_of_dead_run(path)
    return f"{verdict.outcome}: {verdict.sentence}"


@click.command()
@click.argument("directory", type=_existing_run(), metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
@click.option("--stored", is_flag=True, help="The verdict as it was written at the end of the run.")
@_explained
def verdict(directory: Path, as_json: bool, stored: bool) -> None:
    """Make the verdict of a finished run again, from its files (also of an archived run).

    It equals the one that was written at the run's end, unless this farm knows more of OSCAR's failures by now.
    """
    if is_running(directory):
        raise UserError(f"{directory}: the run is still going on")
    value = verdict_of_dead_run(directory)
    if not stored:
        from oscar_steps.testdriver.record.verdicts import verdict_of

        value = verdict_of(directory)
    click.echo(value.model_dump_json(indent=2) if as_json else "\n".join(display.summary_lines(value)))
    _leave(ExitStatus.of(value.outcome))
