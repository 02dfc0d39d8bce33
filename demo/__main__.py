"""`python -m demo`: a farm, one commit, its build, its mail. Exits with 0 only if all of it is right."""

from __future__ import annotations

import signal
import sys
from time import sleep
from types import FrameType
from typing import NoReturn

import click

from demo.farm import CHECKOUT, STANDIN, USERS, Farm
from demo.faults import Fault, FaultBook
from demo.judge import Finished, complaints
from demo.mailsink import read_mail
from demo.repository import PASSWORD
from oscar_steps.errors import FarmError, UserError
from oscar_steps.verdict import Category, ExitStatus

INTERRUPTED = 130


@click.command()
@click.option("--keep", is_flag=True, help="Leave the farm running until Ctrl-C.")
@click.option("--break", "fault_name", metavar="FAULT", help="Commit this fault instead of a harmless change.")
@click.option("--port", default=8010, show_default=True, type=click.IntRange(1, 65535), help="The web page's port.")
def main(keep: bool, fault_name: str | None, port: int) -> NoReturn:
    """Show the whole farm at work on this machine."""
    # SIGINT too: a shell starts background commands with it ignored, and then Python leaves it so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        status = _demo(keep, fault_name, port)
    except KeyboardInterrupt:
        say("interrupted: the farm has ended, nothing is left running")
        status = INTERRUPTED
    except FarmError as error:
        click.echo(f"demo: {error.explain()}", err=True)
        status = ExitStatus.USAGE if isinstance(error, UserError) else ExitStatus.INFRASTRUCTURE
    sys.exit(status)


def _demo(keep: bool, fault_name: str | None, port: int) -> int:
    fault = _chosen(fault_name) if fault_name is not None else None
    say("starting a Subversion server, a mail server, a Buildbot master and a worker ...")
    farm = Farm(CHECKOUT / ".farm" / "demo", port=port)
    try:
        with farm:
            say(f"the farm's page: {farm.master.base}")
            finished = _one_commit(farm, fault_name)
            wrong = complaints(finished, fault)
            _summarize(finished, fault, wrong)
            if keep:
                _stay(farm)
    finally:
        for left in farm.leftovers:
            click.echo(f"demo: this process did not end and was killed: {left}", err=True)
    return 1 if wrong or farm.leftovers else 0


def _chosen(name: str) -> Fault:
    """The fault to commit. Raises UserError for one that the demo cannot show: its nodes boot from CD, and a fault that
    is not OSCAR's is no developer's mail."""
    fault = FaultBook(STANDIN / "faults")[name]
    if fault.boot == "network" or fault.category is not Category.OSCAR:
        why = (
            "needs nodes that boot over the network"
            if fault.boot
            else "is not blamed on a commit: no author gets a mail"
        )
        raise UserError(f"the fault '{name}' {why}", hint=f"see it with: make faults ONLY={name}")
    return fault


def _one_commit(farm: Farm, fault_name: str | None) -> Finished:
    user = USERS[0] if fault_name is None else USERS[1]
    revision = farm.commit_harmless(user) if fault_name is None else farm.commit_fault(fault_name, user)
    say(f"{user} has committed revision {revision}: {fault_name or 'a harmless change'}")
    return farm.follow(revision, user, say)


def _summarize(finished: Finished, fault: Fault | None, wrong: list[str]) -> None:
    verdict = finished.verdict
    say("")
    say("Summary")
    say(f"  result  {finished.build.result_name}{f' ({verdict.outcome})' if verdict else ''}")
    if verdict:
        say(f"          {verdict.sentence}")
        for report in verdict.stages:
            say(f"  stage   {report.stage:<14} {report.seconds:8.1f} s  {report.result}")
        say(f"  total   {'':<14} {verdict.seconds:8.1f} s")
    if finished.mail:
        say(f"  mail    {finished.mail}")
        say(f"          {' '.join(str(read_mail(finished.mail)['Subject']).split())}")
    say(f"  build   {finished.build.page}")
    for sentence in wrong:
        say(f"  WRONG   {sentence}")
    if not wrong:
        say(f"  good    {_as_it_should_be(fault)}")


def _as_it_should_be(fault: Fault | None) -> str:
    if fault and fault.lint:
        return f"red within seconds, for {fault.lint}, as expected"
    return f"red at {fault.stage}, as expected" if fault and fault.stage else "green, and its mail arrived"


def _stay(farm: Farm) -> None:
    """Until Ctrl-C, or until a server dies."""
    say("")
    say(f"The farm keeps running: {farm.master.base}; Ctrl-C ends it. To commit something yourself:")
    say(f"  svn checkout --username {USERS[0]} --password {PASSWORD} {farm.repository.url}/trunk")
    try:
        while True:
            farm.check()
            sleep(1)
    except KeyboardInterrupt:
        say("ending the farm ...")


def say(line: str) -> None:
    """A line now, not when a buffer is full: somebody is waiting for it."""
    click.echo(click.style(line, bold=True) if line.startswith("== ") else line)
    sys.stdout.flush()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
