"""`oscar-testdriver`: its commands, each loaded when it is used."""

from __future__ import annotations

import click

from oscar_steps.lazygroup import LazyGroup
from oscar_steps.testdriver.cli.common import explained, leave
from oscar_steps.textio import keep_private
from oscar_steps.words import ExitStatus

_TABLE = {
    name: (f"oscar_steps.testdriver.cli.{module}", words)
    for name, module, words in (
        ("answers", "answers", "The answer files of OSCAR's installer: show, check, render."),
        ("bisect", "bisect", "Find the commit that broke it, by running one revision after the other."),
        ("bisect-packages", "bisect", "Find the distribution's package that broke it, between two base images."),
        ("check-host", "run", "Check whether this host can run clusters, and say what to install."),
        ("compare", "bisect", "Show two runs beside each other: where they parted, and what was different."),
        ("console", "runs", "Show the serial console of a machine of a run."),
        ("destroy", "runs", "End runs: their VMs, their processes."),
        ("host", "host", "Say what this host can run, and what is reserved of it."),
        ("images", "images", "Base images: list, explain, build, verify, prune, diff."),
        ("lint", "lint", "Find problems that a revision introduces, without a cluster."),
        ("process", "run", ""),
        ("replay", "run", "Repeat a run, from its job.json."),
        ("run", "run", "Do a whole run by hand, and say whether OSCAR works."),
        ("ssh", "runs", "Log in to a run's head node as root, or run a command there."),
        ("stage", "runs", "Let a run go on to the end of a stage, and show what happens."),
        ("status", "runs", "Show the state of a run, or of every run on this host."),
        ("transcript", "transcript", "Make a test case of the installer's output in a run."),
        ("verdict", "runs", "Make the verdict of a finished run again, from its files."),
    )
}

EXIT_STATUSES = """\b
Exit statuses:
   0  passed                                 10  OSCAR failed         11  lint warns
  20  the farm or its host is at fault       30  cancelled            40  stage not reached
  64  a mistake in what was asked for"""


@click.group(
    cls=LazyGroup,
    table=_TABLE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_STATUSES,
)
@click.version_option(package_name="oscar-farm")
def cli() -> None:
    """Install a whole virtual cluster with OSCAR, from nothing, and say whether it works.

    RUN is a run's directory, or the name that `status` prints.

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
