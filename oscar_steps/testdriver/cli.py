"""`oscar-testdriver`: its commands, each loaded when it is asked for: what judges a commit needs no hypervisor."""

from __future__ import annotations

from importlib import import_module

import click

from oscar_steps.testdriver.commandline import explained, leave
from oscar_steps.textio import keep_private
from oscar_steps.verdict import ExitStatus

_RUNS = ("run", "replay", "stage", "own", "status", "ssh", "console", "destroy", "verdict", "check-host")
_MODULES = {"answers": "answers_cli", "lint": "lint_cli", "transcript": "transcript_cli"} | dict.fromkeys(
    _RUNS, "run_cli"
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"oscar_steps.testdriver.{_MODULES[cmd_name]}")
        commands = (value for value in vars(module).values() if isinstance(value, click.Command))
        return next(command for command in commands if command.name == cmd_name)


EXIT_STATUSES = """\b
Exit statuses:
   0  passed                                 10  OSCAR failed         11  lint warns
  20  the farm or its host is at fault       30  cancelled            40  stage not reached
  64  a mistake in what was asked for"""


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_STATUSES,
)
@click.version_option(package_name="oscar-farm")
def cli() -> None:
    """Install a whole virtual cluster with OSCAR, from nothing, and say whether it works.

    \b
    Examples:
      oscar-testdriver run --cell debian-12-x86_64 --revision HEAD --url svn://host/oscar/trunk
      oscar-testdriver run --cell debian-12-x86_64 --revision 5916 --nodes 4 --boot network --keep
      oscar-testdriver status            # the runs of this host
      oscar-testdriver ssh RUN           # root on the head node of a run that goes on
      oscar-testdriver destroy RUN       # end it
    """


@explained  # a default is made before the command begins
def main() -> None:
    """Entry point."""
    keep_private()
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        leave(ExitStatus.USAGE)
    except click.Abort:
        leave(ExitStatus.CANCELLED)
