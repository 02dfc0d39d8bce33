"""Looking at profiles, and at the host: nothing is started."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from oscar_steps.environment import cache_directory
from oscar_steps.errors import InvalidProfile, ProfileError, UserError, on_one_line
from oscar_steps.textio import some
from oscar_steps.v2m.exits import EXIT_HOST, EXIT_PROFILE
from oscar_steps.v2m.reading import load
from oscar_steps.v3m.profiles.cluster import ClusterProfile

_FILE_WIDTH = 160
"""Columns of a table that no terminal shows."""
_SHOWN_NAMES = 6


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON list on standard output, an object per FILE.")
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check profiles: of a VM, of a set of VMs, or of a cluster.

    Every FILE is checked. Of each, the first mistake is shown: file, line, column, what is there and what would be
    right. Whatever DTD a file names, the farm's own grammar is used, and nothing is fetched.

    \b
    Examples:
      v2m validate head.xml
      v2m validate profiles/clusters/*.xml
      v2m validate --json head.xml | jq '.[0].error.line'
      v2m head.xml --validate-profile             as V2M of 2007 had it

    \b
    The JSON has for each FILE: file, valid, what ('cluster' or 'profiles'), names (of its machines),
    error (null, or line, column, sentence; line and column: null where FILE cannot be read).

    \b
    Exit status:
       0  every FILE is valid
      64  at least one is not; the sentence is on standard error (with --json: in the JSON)
       2  the command line itself is wrong
    """
    results = [_validated(file) for file in files]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        for result in results:
            error = result["error"]
            click.echo(on_one_line(error["sentence"]) if error else _valid_sentence(result), err=bool(error))
    if not all(result["valid"] for result in results):
        sys.exit(EXIT_PROFILE)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--install", is_flag=True, help="Show the boot that installs: from OSCAR's CD, a CD, or the network.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def show(file: Path, install: bool, as_json: bool) -> None:
    """Show what a profile means and what it becomes on this host.

    First a table of the machines with every value of theirs; then, for each, the hypervisor's command line, with what
    each part of it is for, or the sentence that says why it cannot be started here. Nothing is started, and nothing but
    FILE and the host's settings is looked at.

    \b
    Examples:
      v2m show head.xml
      v2m show profiles/clusters/head-and-two-nodes.xml --install
      v2m show --json head.xml | jq -r '.machines[0].becomes.parts[].arguments[]'

    \b
    The JSON has: kind ('cluster' or 'profiles'); for a cluster name, boot, memory_mib;
    machines: role ('head', 'node' or 'vm'), each value of the profile (null: left to the
    hypervisor), and becomes: program and parts (for, arguments), or refused (a sentence).

    \b
    Exit status:
       0  FILE is valid (also when a machine of it cannot be started here)
      64  it is not; the sentence is on standard error
       2  the command line itself is wrong
    """
    from rich.console import Console  # `validate` needs nothing of all this

    from oscar_steps.v2m import describe
    from oscar_steps.v3m.host.settings import load_settings

    profiles = load(file)
    place = file.parent.resolve()
    described = describe.describe(profiles, install=install, directory=place, settings=load_settings())
    if as_json:
        click.echo(json.dumps(describe.to_json(profiles, described), indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(describe.tables(profiles, described))


@click.command("check-host")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), help="Where runs are to be.")
@click.option(
    "--memory", "memory_mib", type=int, default=2048, show_default=True, help="MiB that the VMs need together."
)
@click.option("--cache", type=click.Path(path_type=Path), default=None, help="Where the accelerator's test is kept.")
@click.option(
    "--kernel", type=click.Path(path_type=Path), help="The kernel that QEMU is tried with; without it the host's own."
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def check_host_command(
    directory: Path, memory_mib: int, cache: Path | None, kernel: Path | None, as_json: bool
) -> None:
    """Say what this host lacks, how to get it, and which hypervisors work here: each is tried, none is guessed.

    \b
    Examples:
      v2m check-host
      v2m check-host --kernel /boot/vmlinuz
      v2m check-host --json | jq -r '.hypervisors[] | select(.works) | .type'

    \b
    The JSON has: checks (name, ok, sentence, hint) and hypervisors (type, works: null where it could
    not be tried, sentence, hint).

    \b
    Exit status:
       0  nothing is missing, and QEMU's machines run as far as could be tried
       2  the command line itself is wrong
      20  something is missing; it says what, and how to get it
    """
    from oscar_steps.v3m.host import eventloop
    from oscar_steps.v3m.host.checks import check_architectures, check_host
    from oscar_steps.v3m.hypervisors import check_hypervisors

    if kernel is not None and not kernel.is_file():
        raise UserError(f"there is no kernel {click.format_filename(kernel)}")
    checks = [*check_host(directory, memory_mib), *check_architectures()]
    cache = cache or cache_directory("XDG_CACHE_HOME, or use --cache FOLDER")
    hypervisors = eventloop.run(check_hypervisors(cache, kernel))
    if as_json:
        report = {"checks": [asdict(check) for check in checks], "hypervisors": [asdict(each) for each in hypervisors]}
        click.echo(json.dumps(report, indent=2))
    else:
        for line in (*checks, *hypervisors):
            click.echo(str(line))
    runs_qemu = next(each.works for each in hypervisors if each.type == "Qemu")
    if runs_qemu is False or not all(check.ok for check in checks):
        sys.exit(EXIT_HOST)


def _validated(file: Path) -> dict[str, Any]:
    """What `validate --json` has of one file."""
    name = click.format_filename(file)
    try:
        profiles = load(file)
    except ProfileError as error:
        line, column = (error.line, error.column) if isinstance(error, InvalidProfile) else (None, None)
        place = {"line": line, "column": column, "sentence": error.sentence}
        return {"file": name, "valid": False, "what": None, "names": [], "error": place}
    is_cluster = isinstance(profiles, ClusterProfile)
    machines = profiles.machines if isinstance(profiles, ClusterProfile) else profiles
    names = [machine.name for machine in machines]
    what = "cluster" if is_cluster else "profiles"
    return {"file": name, "valid": True, "what": what, "names": names, "error": None}


def _valid_sentence(result: dict[str, Any]) -> str:
    names = result["names"]
    shown = some(names, _SHOWN_NAMES)
    kind = "a cluster" if result["what"] == "cluster" else f"{len(names)} VM{'' if len(names) == 1 else 's'}"
    return f"{result['file']}: valid: {kind}{': ' if names else ''}{shown}"
