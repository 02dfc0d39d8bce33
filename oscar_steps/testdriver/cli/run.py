"""Commands that start a run: by hand, or as the process that Buildbot's steps attach to."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, get_args

import click

from oscar_steps.environment import cache_directory, default_runs, default_store
from oscar_steps.errors import HostError
from oscar_steps.images.ordinary import check_user
from oscar_steps.job import JOB_FILE, CellPlan, Job, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.site import load_site
from oscar_steps.sources.resolve import DEFAULT_URL, exact, host_logins, source_as_asked
from oscar_steps.testdriver.cli import display
from oscar_steps.testdriver.cli.common import directory as _directory
from oscar_steps.testdriver.cli.common import explained as _explained
from oscar_steps.testdriver.cli.common import leave as _leave
from oscar_steps.testdriver.cli.farm_job import load_job
from oscar_steps.testdriver.cli.patches import patch_options, read_patch
from oscar_steps.testdriver.cli.tarballs import source_of
from oscar_steps.testdriver.cli.terminal_display import TerminalDisplay
from oscar_steps.testdriver.process.run_process import execute
from oscar_steps.testdriver.run import RunOptions
from oscar_steps.testdriver.stages.create_image import check_job
from oscar_steps.v3m.host import checks as v3m_host
from oscar_steps.v3m.host import eventloop
from oscar_steps.words import MAX_NODES, ExitStatus, NodeBoot


def _key(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The key of an image, or enough of its beginning."""
    if value and not re.fullmatch("[0-9a-f]{8,64}", value):
        raise click.BadParameter("give 8 to 64 of the digits of a key; `oscar-testdriver images` shows them")
    return value


image_option = click.option(
    "--image", metavar="KEY", default="", callback=_key, help="Use this base image, not the one of today."
)


@click.command()
@click.option("--cell", "cell_name", required=True, help="Cell of the matrix, e.g. debian-12-x86_64.")
@click.option("--revision", default="HEAD", show_default=True, help="Revision of OSCAR; of git's a branch, tag or id.")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="URL of the OSCAR tree, or of a git repository.")
@click.option("--git", "is_gits", is_flag=True, help="The URL is a git repository's, whatever it looks like.")
@click.option(
    "--tarball",
    "tarballs",
    multiple=True,
    metavar="FILE",
    help="A release's tarball instead: a file or its address. Once for each file of its set.",
)
@patch_options
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), help="How many compute nodes [as the profile says].")
@click.option(
    "--boot", type=click.Choice(get_args(NodeBoot)), help="How nodes boot the installer [as the profile says]."
)
@click.option("--keep", is_flag=True, help="Keep the VMs when the run is over, until Ctrl-C or `destroy`.")
@click.option(
    "--site",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A farm's farm.toml, for its profiles and time limits.",
)
@click.option("--profiles", type=_directory(), help="Folder with matrix.toml and what it names.")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder for the run's directory.")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@image_option
@_explained
def run(
    cell_name: str,
    revision: str,
    url: str,
    is_gits: bool,
    tarballs: tuple[str, ...],
    patch: Path | None,
    strip: int,
    patch_of: str,
    nodes: int | None,
    boot: str | None,
    keep: bool,
    site: Path | None,
    profiles: Path | None,
    runs: Path,
    images: Path,
    image: str,
) -> None:
    """Do a whole run by hand: head node, installation, compute nodes, test, logs, verdict.

    Ctrl-C ends the cluster and the run. Everything that was seen is in the run directory: events.jsonl, console/,
    installer/terminal.log, logs/, verdict.json.
    """
    farm = load_site(site) if site else None
    matrix = load_matrix(profiles or (farm and farm.profiles) or default_profiles())
    cell = matrix.cell(cell_name)
    plan = CellPlan.of(matrix, cell, farm.timeouts if farm else Timeouts())
    asked = source_of(tarballs) if tarballs else source_as_asked(url, revision, is_gits=is_gits)
    job = plan.job(f"{cell.name}-{_now()}", asked, nodes=nodes, boot=boot)
    # What is wrong with the files is said first: it needs no network.
    check_job(job, str(matrix.cluster_path(cell)), str(matrix.answers_path(cell)))
    change = read_patch(patch, strip, patch_of)
    source = asked if tarballs else exact(asked, cache_directory() / "git")
    source = source.model_copy(update={"patch": change})
    known = {"run_id": f"{cell.name}-{source.short}-{_now()}", "source": source, "image_key": image}
    _run_here(job.model_copy(update=known), runs, images, keep)


def _run_here(job: Job, runs: Path, images: Path, keep: bool) -> NoReturn:
    directory = runs.resolve() / job.run_id
    click.echo(f"run directory: {directory}")
    options = RunOptions(image_store=images, keep=math.inf if keep else 0.0)
    if sys.stdout.isatty():
        with TerminalDisplay() as terminal:
            verdict = execute(directory, job, options, stepwise=False, listener=terminal)
    else:
        verdict = execute(directory, job, options, stepwise=False, listener=display.plain)
    # The job is here, with the profiles and time limits that it was made from.
    here = verdict.model_copy(update={"replay": shlex.join(["oscar-testdriver", "replay", str(directory / JOB_FILE)])})
    click.echo("\n".join(["", *display.summary_lines(here)]))
    _leave(ExitStatus.of(verdict.outcome))


@click.command()
@click.argument("job_file", type=click.Path(dir_okay=False), metavar="JOB")
@click.option("--keep", is_flag=True, help="Keep the VMs when the run is over, until Ctrl-C or `destroy`.")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder for the run's directory.")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@image_option
@_explained
def replay(job_file: str, keep: bool, runs: Path, images: Path, image: str) -> None:
    """Repeat a run: JOB is the job.json of an earlier one, a file or its address on the farm's pages.

    This host builds and runs what the job says: take jobs of a farm that you trust.
    """
    job = load_job(job_file)
    check_job(job, f"the cluster profile in {job_file}", "the answers")
    again: dict[str, Any] = {"run_id": f"{job.run_id[:50]}-again-{_now()}"}
    if image:
        again |= {"image_key": image, "image_versions": {}}
    _run_here(job.model_copy(update=again), runs, images, keep)


def new_id(cell: str, source: Source) -> str:
    """The name of a run done by hand."""
    return f"{cell}-{source.short}-{_now()}"


def _now() -> str:
    """What makes the id of a run done by hand its own."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


@click.command("process", hidden=True)
@click.option("--run", "directory", type=_directory(), required=True)
@click.option("--job", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--images", type=_directory(), default=default_store)
@click.option("--keep", type=float, default=0.0)
@click.option("--ready", type=int, required=True)
@_explained
def run_process(directory: Path, job: Path, images: Path, keep: float, ready: int) -> None:
    """The run's own process, started by `stage create-image`."""
    options = RunOptions(image_store=images, keep=keep)
    verdict = execute(directory, Job.load(job), options, stepwise=True, ready=ready)
    _leave(ExitStatus.of(verdict.outcome))


def check_logins() -> Iterator[v3m_host.Check]:
    """Whether the files of the logins at Subversion servers can be used. Raises ConfigError."""
    logins = host_logins()
    for login in logins.logins:
        try:
            replace(logins, logins=(login,)).check()
        except HostError as error:
            yield v3m_host.Check("login", False, error.sentence, error.hint)
        else:
            yield v3m_host.Check("login", True, f"this host has a login at {login.url}")


@click.command("check-host")
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@click.option("--memory", type=int, default=2048, show_default=True, help="MiB of memory that a cluster needs.")
@_explained
def check_host(images: Path, memory: int) -> None:
    """Say what this host lacks to run virtual clusters, and how to get it. KVM is tried by booting a kernel."""
    checks = [*v3m_host.check_host(images, memory), *v3m_host.check_architectures(), *check_user(), *check_logins()]
    if all(one.ok for one in checks if one.tool):
        checks.append(eventloop.run(v3m_host.check_accelerator(images))[0])
    for one in checks:
        click.echo(f"{one.mark} {one.sentence}")
        if one.hint:
            click.echo(f"        {one.hint}")
    _leave(ExitStatus.PASSED if all(one.ok for one in checks) else ExitStatus.INFRASTRUCTURE)
