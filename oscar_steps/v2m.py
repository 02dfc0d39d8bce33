"""The command line on virtual machines and clusters: looking at profiles and at the host.

The words of the V2M of 2007 (`v2m PROFILE --validate-profile`) are understood beside the sub-commands.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from oscar_steps.errors import FarmError, ProfileError, UserError
from oscar_steps.v3m import describe, xmlfile
from oscar_steps.v3m.cluster import ClusterProfile, parse_any
from oscar_steps.v3m.describe import Profiles
from oscar_steps.v3m.host import check_accelerator, check_host
from oscar_steps.v3m.xmlfile import InvalidProfile

_EXIT_USAGE = 64
_EXIT_HOST = 20
_FILE_WIDTH = 160
"""Columns of a table that no terminal shows."""
_SHOWN_NAMES = 6
_NOT_YET = {
    "--boot-vm",
    "--create-vm-image-from-cdrom",
    "--install-vm-with-oscar",
    "--migrate-vm",
    "--pause-vm",
    "--unpause-vm",
    "--status",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oscar-farm", prog_name="v2m")
def cli() -> None:
    """Virtual machines and virtual clusters, described by profiles."""


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON list on standard output, an object per FILE.")
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check profiles: of a VM, of a set of VMs, or of a cluster.

    Every FILE is checked, and of each the first mistake is told: file, line, column, what is there and what would be
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
            click.echo(error["sentence"] if error else _valid_sentence(result), err=bool(error))
    if not all(result["valid"] for result in results):
        sys.exit(_EXIT_USAGE)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--install", is_flag=True, help="Show the boot that installs: from OSCAR's CD, a CD, or the network.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def show(file: Path, install: bool, as_json: bool) -> None:
    """Say what a profile means and what it becomes here.

    First a table of the machines with every value of theirs; then, for each, the hypervisor's command line, with what
    each part of it is for, or the sentence that says why it cannot be started here. Nothing is started, and nothing but
    FILE is looked at.

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
    profiles = _load(file)
    described = describe.describe(profiles, install=install)
    if as_json:
        click.echo(json.dumps(describe.to_json(profiles, described), indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(describe.tables(profiles, described))


@cli.command("check-host")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), help="Where runs are to be.")
@click.option(
    "--memory", "memory_mib", type=int, default=2048, show_default=True, help="MiB that the VMs need together."
)
@click.option("--cache", type=click.Path(path_type=Path), default=None, help="Where the accelerator's test is kept.")
def check_host_command(directory: Path, memory_mib: int, cache: Path | None) -> None:
    """Say what this host lacks, and how to get it."""
    checks = check_host(directory, memory_mib)
    if all(check.ok for check in checks if check.tool):
        accelerator, _ = asyncio.run(check_accelerator(cache or Path.home() / ".cache" / "oscar-farm"))
        checks.append(accelerator)
    for check in checks:
        click.echo(str(check))
    if not all(check.ok for check in checks):
        sys.exit(_EXIT_HOST)


def main() -> None:
    """Entry point; errors of ours are one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no é must not make a traceback
    try:
        cli(args=_modern(sys.argv[1:]))
    except UserError as error:
        click.echo(error.explain(), err=True)
        sys.exit(_EXIT_USAGE)
    except FarmError as error:
        click.echo(error.explain(), err=True)
        sys.exit(_EXIT_HOST)


def _modern(arguments: list[str]) -> list[str]:
    """`PROFILE --old-word` as today's sub-command. Raises UserError for an old word without one."""
    for word in arguments:
        if word in _NOT_YET:
            raise UserError(
                f"v2m does not know '{word}' yet",
                hint=f"there are: {', '.join(sorted(cli.commands))}, --validate-profile",
            )
    if "--validate-profile" in arguments:
        return ["validate", *(word for word in arguments if word != "--validate-profile")]
    return arguments


def _load(file: Path) -> Profiles:
    return parse_any(xmlfile.read(file), click.format_filename(file))


def _validated(file: Path) -> dict[str, Any]:
    """What `validate --json` has of one file."""
    name = click.format_filename(file)
    try:
        profiles = _load(file)
    except ProfileError as error:
        line, column = (error.line, error.column) if isinstance(error, InvalidProfile) else (None, None)
        told = {"line": line, "column": column, "sentence": error.sentence}
        return {"file": name, "valid": False, "what": None, "names": [], "error": told}
    is_cluster = isinstance(profiles, ClusterProfile)
    machines = profiles.machines if isinstance(profiles, ClusterProfile) else profiles
    names = [machine.name for machine in machines]
    what = "cluster" if is_cluster else "profiles"
    return {"file": name, "valid": True, "what": what, "names": names, "error": None}


def _valid_sentence(result: dict[str, Any]) -> str:
    names = result["names"]
    shown = ", ".join(names[:_SHOWN_NAMES]) + (f" and {len(names) - _SHOWN_NAMES} more" if names[_SHOWN_NAMES:] else "")
    kind = "a cluster" if result["what"] == "cluster" else f"{len(names)} VM{'' if len(names) == 1 else 's'}"
    return f"{result['file']}: valid: {kind}{': ' if names else ''}{shown}"
