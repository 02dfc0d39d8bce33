"""The command line on virtual machines and clusters: looking at profiles and at the host.

The words of the V2M of 2007 (`v2m PROFILE --validate-profile`) are understood beside the sub-commands.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from oscar_steps.errors import FarmError, UserError
from oscar_steps.v3m import xmlfile
from oscar_steps.v3m.cluster import ClusterProfile, parse_cluster
from oscar_steps.v3m.host import check_accelerator, check_host
from oscar_steps.v3m.profile import Nic, VMProfile, parse_profiles

_EXIT_USAGE = 64
_EXIT_HOST = 20
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
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a profile of a VM, of several, or of a cluster."""
    profile = _load(file)
    what = f"the cluster {profile.name}" if isinstance(profile, ClusterProfile) else f"{len(profile)} VM(s)"
    click.echo(f"{file}: valid: {what}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Say what a profile means."""
    profile = _load(file)
    if not isinstance(profile, ClusterProfile):
        for machine in profile:
            click.echo(_describe(machine))
        return
    click.echo(f"cluster {profile.name}: nodes boot from {profile.boot}, {profile.memory_mib} MiB of memory in all")
    click.echo(f"head  {_describe(profile.head)}")
    for node in profile.nodes:
        click.echo(f"node  {_describe(node)}")


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


def _load(file: Path) -> ClusterProfile | tuple[VMProfile, ...]:
    text = xmlfile.read(file)
    if xmlfile.root_tag(text, str(file)) == "cluster":
        return parse_cluster(text, str(file))
    return parse_profiles(text, str(file))


def _describe(vm: VMProfile) -> str:
    size = "" if vm.image.size_mib is None else f" of {vm.image.size_mib} MiB"
    nics = ", ".join(_describe_nic(nic) for nic in vm.nics) or "no NIC"
    kind = vm.type or "the host's hypervisor"
    return f"{vm.name}: {kind}, {vm.cpu} CPU(s), {vm.memory_mib} MiB, {vm.disk_bus} disk {vm.image.path}{size}, {nics}"


def _describe_nic(nic: Nic) -> str:
    if nic.is_vlan:
        return f"{nic.mac} on the VLAN{f' {nic.vlan}' if nic.vlan else ''}"
    return f"{nic.mac} to the host"
