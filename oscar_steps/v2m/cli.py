"""The program `v2m`: its commands, how it ends, and the words of the V2M of 2007."""

from __future__ import annotations

import io
import sys

import click
from click.shell_completion import get_completion_class

from oscar_steps.errors import ConfigError, FarmError, UserError
from oscar_steps.textio import keep_private
from oscar_steps.v2m import looking, media, moves, power, profiles
from oscar_steps.v2m.exits import EXIT_HOST, EXIT_PROFILE, EXIT_STATE
from oscar_steps.v2m.oldwords import modern
from oscar_steps.v3m.machine import ImpossibleTransition

_PROGRAM = "v2m"


class _InOrder(click.Group):
    """Lists its commands in the order in which one needs them, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx  # it is the same everywhere
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
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


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, files, machines and systems in your shell.

    \b
    Examples:
      v2m completion bash > ~/.local/share/bash-completion/completions/v2m
      v2m completion zsh > ~/.zfunc/_v2m
      v2m completion fish > ~/.config/fish/completions/v2m.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    complete = found(cli, {}, _PROGRAM, "_V2M_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())


for command in (
    profiles.validate, profiles.show, profiles.check_host_command,
    power.create, power.boot, power.install, looking.status, media.console, media.screenshot,
    power.pause, power.unpause, power.reset, power.shut_down, power.power_off,
    media.insert_cd, media.eject_cd, media.save, media.restore, moves.migrate, moves.receive,
    power.destroy, completion,
):  # fmt: skip
    cli.add_command(command)


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
    return EXIT_STATE if isinstance(error, ImpossibleTransition) else EXIT_HOST
