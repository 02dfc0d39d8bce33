"""The program `v2m`: its commands, how it ends, and the words of the V2M of 2007."""

from __future__ import annotations

import io
import sys

import click

from oscar_steps.errors import ConfigError, FarmError, UserError
from oscar_steps.lazygroup import LazyGroup
from oscar_steps.textio import keep_private
from oscar_steps.v2m.exits import EXIT_HOST, EXIT_PROFILE, EXIT_STATE
from oscar_steps.v2m.legacy_cli import modern

_PROGRAM = "v2m"

_TABLE = {
    name: (f"oscar_steps.v2m.{module}", words)
    for name, module, words in (
        ("validate", "commands.profiles", "Check profiles: of a VM, of a set of VMs, or of a cluster."),
        ("show", "commands.profiles", "Show what a profile means and what it becomes on this host."),
        ("check-host", "commands.profiles", "Say what this host lacks, and which hypervisors work here."),
        ("create", "commands.power", "Make the blank disks that FILE names."),
        ("boot", "commands.power", "Power machines on: all of FILE, a cluster's head node first."),
        ("install", "commands.power", "Install machines from a CD, from the network, or by OSCAR."),
        ("status", "commands.status", "Show the state of the machines of FILE, or of all machines."),
        ("console", "commands.media", "Print what the machine has written to its serial console."),
        ("screenshot", "commands.media", "Write what the machine's screen shows to PICTURE, as PNG."),
        ("pause", "commands.power", "Stop the processors of machines; their memory stays."),
        ("unpause", "commands.power", "Resume machines after `v2m pause`."),
        ("reset", "commands.power", "Press the reset button of machines."),
        ("shut-down", "commands.power", "Press the power button of machines."),
        ("power-off", "commands.power", "Pull the plug of machines."),
        ("insert-cd", "commands.media", "Put the CD ISO into the drive of a machine that is on."),
        ("eject-cd", "commands.media", "Take the CD out of the drive of a machine that is on."),
        ("save", "commands.media", "Write memory and devices to the file STATE, and power off."),
        ("restore", "commands.media", "Resume a machine where `v2m save` stopped it."),
        ("migrate", "commands.moves", "Move a machine to HOST while it runs."),
        ("receive", "commands.moves", ""),
        ("destroy", "commands.power", "Pull the plug, and delete the disks that `v2m create` made."),
        ("completion", "completion", "Print the script that completes commands in your shell."),
    )
}


@click.group(cls=LazyGroup, table=_TABLE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oscar-farm", prog_name=_PROGRAM)
def cli() -> None:
    """Virtual machines and virtual clusters, described by profiles.

    \b
    A machine's life:
      v2m validate vm.xml                      is the profile right?
      v2m create vm.xml                        make its disk
      v2m install vm.xml --from cdrom          or: --from network, --from oscar
      v2m boot vm.xml; v2m status vm.xml
      v2m console vm.xml --follow
      v2m destroy vm.xml                       and its disk, if `create` made it

    The same commands take a file with a set of machines or a cluster; --machine NAME picks some. Old command lines
    such as `v2m vm.xml --boot-vm` are understood.

    \b
    Exit status:
       0  done
       1  an installation has ended without an installed machine
       2  the command line itself is wrong
       3  a machine's state forbids it
      20  the host's fault
      64  a profile, or a name or file that was given, is wrong
    """


def main() -> None:
    """Entry point; errors of ours are one sentence on stderr."""
    keep_private()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no é must not make a traceback
    try:
        cli(args=modern(sys.argv[1:]), prog_name=_PROGRAM)
    except click.UsageError as error:  # of an old command line
        error.show()
        sys.exit(error.exit_code)
    except FarmError as error:
        click.echo(error.explain(), err=True)
        sys.exit(_status(error))
    except OSError as error:  # a place that cannot be read or written, or the host's disk is full
        where = "" if error.filename is None else f"{click.format_filename(error.filename)}: "
        click.echo(f"{where}{error.strerror or error}", err=True)
        sys.exit(EXIT_HOST)


def _status(error: FarmError) -> int:
    if isinstance(error, UserError) and not isinstance(error, ConfigError):  # a mistake in the host's settings
        return EXIT_PROFILE
    from oscar_steps.errors import ImpossibleTransition

    return EXIT_STATE if isinstance(error, ImpossibleTransition) else EXIT_HOST
