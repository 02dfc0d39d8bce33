"""A run by hand, on a laptop or a virtualization host, and the window that Buildbot's steps use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import click

from oscar_steps.environment import home_directory
from oscar_steps.errors import FarmError, HostError, UserError
from oscar_steps.job import Job, Source
from oscar_steps.matrix import default_profiles, load_matrix
from oscar_steps.testdriver import display, window
from oscar_steps.testdriver.access import open_ssh
from oscar_steps.testdriver.commandline import directory as _directory
from oscar_steps.testdriver.commandline import explained as _explained
from oscar_steps.testdriver.commandline import leave as _leave
from oscar_steps.testdriver.events import EVENTS_FILE
from oscar_steps.testdriver.images import default_store
from oscar_steps.testdriver.ordinary import check_user
from oscar_steps.testdriver.owner import own
from oscar_steps.testdriver.postmortem import is_running, require_run, verdict_of_dead_run
from oscar_steps.testdriver.run import RunOptions
from oscar_steps.testdriver.source import DEFAULT_URL, resolve_revision, source_as_asked
from oscar_steps.testdriver.stages.create_image import check_job
from oscar_steps.testdriver.verdicts import verdict_of
from oscar_steps.v3m import consoleview, eventloop
from oscar_steps.v3m import host as v3m_host
from oscar_steps.verdict import ExitStatus, Stage, Verdict


def default_runs() -> Path:
    """Where runs are kept: for root a place of the system's, otherwise one of the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/oscar-farm/runs")
    return home_directory("say --runs FOLDER") / ".local/share/oscar-farm/runs"


@click.command()
@click.option("--cell", "cell_name", required=True, help="Cell of the matrix, e.g. debian-12-x86_64.")
@click.option("--revision", default="HEAD", show_default=True, help="Subversion revision of OSCAR.")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Subversion URL of the OSCAR tree.")
@click.option("--nodes", type=click.IntRange(1, 128), help="Number of compute nodes [as the cluster profile says].")
@click.option(
    "--boot", type=click.Choice(["cdrom", "network"]), help="How nodes boot the installer [as the profile says]."
)
@click.option("--keep", is_flag=True, help="Keep the VMs when the run is over, until Ctrl-C or `destroy`.")
@click.option(
    "--profiles", type=_directory(), default=default_profiles, help="Folder with matrix.toml and what it names."
)
@click.option("--runs", type=_directory(), default=default_runs, help="Folder that run directories are made in.")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@_explained
def run(
    cell_name: str,
    revision: str,
    url: str,
    nodes: int | None,
    boot: str | None,
    keep: bool,
    profiles: Path,
    runs: Path,
    images: Path,
) -> None:
    """Do a whole run by hand: head node, installation, compute nodes, test, logs, verdict.

    Ctrl-C ends the cluster and the run. Everything that was seen is in the run directory: events.jsonl, console/,
    installer/terminal.log, logs/, verdict.json.
    """
    matrix = load_matrix(profiles)
    cell = matrix.cell(cell_name)
    job = Job.model_validate(
        {
            "run_id": f"{cell.name}-{_now()}",
            "cell": cell.name,
            "source": source_as_asked(url, revision),
            "image": matrix.image(cell),
            "cluster_xml": matrix.cluster_xml(cell),
            "answers": matrix.answers(cell),
            "boot": boot,
            "nodes": nodes,
            "known_issues": matrix.known_issues(cell),
        }
    )
    # What is wrong with the files is said first: it needs no network.
    check_job(job, str(matrix.cluster_path(cell)), str(matrix.answers_path(cell)))
    number = resolve_revision(url, revision)
    exact = {"run_id": f"{cell.name}-r{number}-{_now()}", "source": Source(url=url, revision=number)}
    _run_here(job.model_copy(update=exact), runs, images, keep)


def _run_here(job: Job, runs: Path, images: Path, keep: bool) -> NoReturn:
    directory = runs.resolve() / job.run_id
    click.echo(f"run directory: {directory}")
    options = RunOptions(image_store=images, keep=keep)
    if sys.stdout.isatty():
        with display.TerminalDisplay() as terminal:
            verdict = own(directory, job, options, windows=False, listener=terminal)
    else:
        verdict = own(directory, job, options, windows=False, listener=display.plain)
    click.echo("\n".join(["", *display.summary_lines(verdict)]))
    _leave(ExitStatus.of(verdict.outcome))


@click.command()
@click.argument("job_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--keep", is_flag=True, help="Keep the VMs when the run is over, until Ctrl-C or `destroy`.")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder that run directories are made in.")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@_explained
def replay(job_file: Path, keep: bool, runs: Path, images: Path) -> None:
    """Do the very same run again: JOB_FILE is the job.json of an earlier one (run directory or web page)."""
    job = Job.load(job_file)
    check_job(job, f"the cluster profile in {job_file}", "the answers")
    _run_here(job.model_copy(update={"run_id": f"{job.run_id[:50]}-again-{_now()}"}), runs, images, keep)


def _now() -> str:
    """What makes the id of a run done by hand its own."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


@click.command()
@click.argument("stage", type=click.Choice([stage.value for stage in Stage]), metavar="STAGE")
@click.option("--run", "directory", type=_directory(), required=True, help="The run directory.")
@click.option(
    "--job", type=click.Path(path_type=Path, dir_okay=False), help="The job; starts the run (create-image only)."
)
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@_explained
def stage(stage: str, directory: Path, job: Path | None, images: Path) -> None:
    """Let a run go on to the end of STAGE and show what happens: the window that a Buildbot step uses.

    The run is a process of its own: losing this window harms nothing, ending it by TERM ends the run. When no window
    was there for longer than the job's lease, the run ends its cluster and itself.
    """
    result = window.stage_window(directory.resolve(), Stage(stage), job, ("--images", str(images)), display.plain)
    if Stage(stage) is Stage.TEARDOWN and (directory / "verdict.json").exists():
        click.echo("\n".join(display.summary_lines(Verdict.load(directory))))
    _leave(ExitStatus.of(result))


@click.command("own", hidden=True)
@click.option("--run", "directory", type=_directory(), required=True)
@click.option("--job", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--images", type=_directory(), default=default_store)
@click.option("--ready", type=int, required=True)
@_explained
def own_(directory: Path, job: Path, images: Path, ready: int) -> None:
    """The run's own process, started by `stage create-image`."""
    verdict = own(directory, Job.load(job), RunOptions(image_store=images), windows=True, ready=ready)
    _leave(ExitStatus.of(verdict.outcome))


def _runs(directory: Path) -> list[Path]:
    return sorted((path.parent for path in directory.glob(f"*/{EVENTS_FILE}")), key=lambda path: path.stat().st_mtime)


@click.command()
@click.argument("directory", type=_directory(exists=True), required=False)
@click.option("--runs", type=_directory(), help="Folder with the run directories.")
@_explained
def status(directory: Path | None, runs: Path | None) -> None:
    """Say how a run, or every run of this host, stands. What a killed run has left is cleaned up."""
    _each([directory.resolve()] if directory else _runs(runs or default_runs()), _status)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("directory", type=_directory(exists=True))
@click.argument("command", nargs=-1)
@_explained
def ssh(directory: Path, command: tuple[str, ...]) -> None:
    """Log in to the head node of a run as root, or run COMMAND there."""
    require_run(directory)
    open_ssh(directory, command)


@click.command()
@click.argument("directory", type=_directory(exists=True))
@click.argument("machine")
@click.option("--follow/--no-follow", default=True, help="Go on as it grows, until Ctrl-C.")
@click.option("--raw", is_flag=True, help="Pass on what the guest orders your terminal to do, too.")
@_explained
def console(directory: Path, machine: str, follow: bool, raw: bool) -> None:
    """Show the serial console of MACHINE: its words, without colours and other orders to a terminal."""
    require_run(directory)
    path = directory / "console" / f"{machine}.log"
    if not path.is_file():
        there_are = (
            ", ".join(sorted(p.stem for p in path.parent.glob("*.log") if not p.stem.endswith(".qemu"))) or "none"
        )
        raise UserError(f"{directory}: there is no console of '{machine}'; there are: {there_are}")
    consoleview.show(path, sys.stdout.buffer, raw=raw, goes_on=(lambda: True) if follow else None)


@click.command()
@click.argument("directories", type=_directory(exists=True), nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every run in the --runs folder.")
@click.option("--runs", type=_directory(), help="Folder with the run directories.")
@_explained
def destroy(directories: tuple[Path, ...], all_: bool, runs: Path | None) -> None:
    """End runs: their VMs, their processes. The run directories stay. Nothing that is not theirs is touched."""
    wanted = [path.resolve() for path in directories] + (_runs(runs or default_runs()) if all_ else [])
    if not wanted and not all_:
        raise UserError("which run? Name its directory, or say --all")
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
        window.look(path, {"cancel": "`oscar-testdriver destroy` was asked for"}, lambda _event: None)
    verdict = verdict_of_dead_run(path)
    return f"ended ({verdict.outcome}: {verdict.sentence})"


def _status(path: Path) -> str:
    if is_running(path):
        return "running"
    verdict = verdict_of_dead_run(path)
    return f"{verdict.outcome}: {verdict.sentence}"


@click.command()
@click.argument("directory", type=_directory(exists=True))
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
@click.option("--stored", is_flag=True, help="The verdict as it was written at the end of the run.")
@_explained
def verdict(directory: Path, as_json: bool, stored: bool) -> None:
    """Make the verdict of a run that is over, anew from the files in its DIRECTORY (archived ones as well).

    It is the one that was written at the run's end, unless this farm knows more of OSCAR's failures than that one did.
    """
    if is_running(directory):
        raise UserError(f"{directory}: the run is still going on")
    value = verdict_of_dead_run(directory)
    if not stored:
        value = verdict_of(directory)
    click.echo(value.model_dump_json(indent=2) if as_json else "\n".join(display.summary_lines(value)))
    _leave(ExitStatus.of(value.outcome))


@click.command("check-host")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@click.option("--memory", type=int, default=2048, show_default=True, help="MiB that a cluster needs.")
@_explained
def check_host(images: Path, memory: int) -> None:
    """Say what this host lacks to run virtual clusters, and how to get it. KVM is tried by booting a kernel."""
    checks = [*v3m_host.check_host(images, memory), *check_user()]
    if all(one.ok for one in checks if one.tool):
        kernel = next(iter(sorted(images.glob("*/vmlinuz"))), None)  # of a base image that is there already
        checks.append(eventloop.run(v3m_host.check_accelerator(images, kernel))[0])
    for one in checks:
        click.echo(f"{one.mark} {one.sentence}")
        if one.hint:
            click.echo(f"        {one.hint}")
    _leave(ExitStatus.PASSED if all(one.ok for one in checks) else ExitStatus.INFRASTRUCTURE)
