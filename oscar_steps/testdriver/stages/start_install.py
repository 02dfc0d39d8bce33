"""Stage 4: start OSCAR's installer without a person, follow it until nodes may boot (or until it needs a screen)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from oscar_steps.errors import ConfigError
from oscar_steps.job import Job
from oscar_steps.oscar.answers.answers import (
    AnswerFiles,
    AnswerKind,
    NodeAddress,
    installer_command,
    node_addresses,
    render_answers,
)
from oscar_steps.oscar.answers.check import AnswerFile, Expected, Problem, check_answers
from oscar_steps.oscar.answers.menus import LAYOUTS, Menus
from oscar_steps.oscar.answers.wizard import SCRIPT, Way, install_script, script_command
from oscar_steps.testdriver.head.forwards import Forward, forwards_of, url_in_guest
from oscar_steps.testdriver.head.installer import Installer, Limits
from oscar_steps.testdriver.head.link import HeadLink
from oscar_steps.testdriver.nodes.board import NodeBoard, write_changes
from oscar_steps.testdriver.reached import CheckedOut, Installing
from oscar_steps.testdriver.run import Run
from oscar_steps.testdriver.wanted import Wanted, node_boot
from oscar_steps.v3m.profiles.cluster import ClusterProfile


def answer_files(
    job: Job, profile: ClusterProfile, menus: Menus | None = None, forwards: Iterable[Forward] | None = None
) -> AnswerFiles:
    """The answers of `job` for this cluster, by the numbers of `menus`; None: before there is an OSCAR to read.
    `forwards`: what the head node reaches through us; None: as where the host is closed.

    Raises UserError where OSCAR would not do what the answers ask for, MenuUnreadable where a menu lacks an entry,
    ConfigError for files written by hand that OSCAR would choke on (before there is an OSCAR: any OSCAR).
    """
    nodes = [NodeAddress(node.name, node.vlan_nics[0].mac) for node in profile.nodes]
    fields = job.answers.model_dump(exclude={"files", "tests", "oscar_repository"})
    through_us = forwards_of(job) if forwards is None else tuple(forwards)
    fields["repositories"] = ",".join(url_in_guest(one, through_us) for one in job.answers.repositories.split(","))
    written = {kind: file.text for kind, file in job.answers.files.items()}
    layouts = (menus,) if menus else LAYOUTS
    rendered = [
        render_answers(**fields, nodes=nodes, boot=node_boot(profile), menus=layout, written=written)
        for layout in layouts
    ]
    if written:
        expected = Expected(
            nodes=tuple(node.name for node in nodes),
            macs=tuple(node.mac for node in nodes),
            first_address=job.answers.first_address,
            boot=node_boot(profile),
            image_name=job.answers.image_name,
        )
        found = [_problems(job, *pair, expected) for pair in zip(rendered, layouts, strict=True)]
        if problems := min(found, key=len):
            more = f"{len(problems) - 1} more: `oscar-testdriver answers check` shows all" if problems[1:] else ""
            raise ConfigError(str(problems[0]), hint=more)
    return rendered[0]


def _problems(job: Job, rendered: AnswerFiles, menus: Menus, expected: Expected) -> tuple[Problem, ...]:
    """What is wrong with files written by hand, together with those that are generated beside them."""
    names = {kind: file.name for kind, file in job.answers.files.items()}
    files = [AnswerFile(kind, names.get(kind, kind.path()), rendered.files[kind.path()]) for kind in AnswerKind]
    return check_answers(*files, menus=menus, expected=expected, complete=True)


def addresses(job: Job, profile: ClusterProfile) -> dict[str, str]:
    """Node name to IP address, as OSCAR will define them."""
    wanted = {"base_name", "starting_number", "padding", "head_address", "first_address", "netmask"}
    return node_addresses(**job.answers.model_dump(include=wanted), count=len(profile.nodes))


async def run_stage(run: Run, checked_out: CheckedOut) -> None:
    """Raises InstallerFailed and InstallerHung through the run's alarm; StageTimeout."""
    head, speed, answered, timeouts = checked_out.head, checked_out.speed, checked_out.answered, run.job.timeouts
    if isinstance(answered, Menus):
        driven = _by_command_line(run.job, checked_out, answered)
    else:
        driven = _by_wizard(run.job, head.forwards, answered)
    with run.diary.step("the answers to reach the head node"):
        await head.write_files(driven.files)
    board = NodeBoard(addresses(run.job, checked_out.profile), lambda: run.diary.elapsed)
    write_changes(board, run.diary)
    limits = Limits(silence=timeouts.silence * speed.factor, log_bytes=run.job.log_limit_mib << 20)
    log = Wanted.of(run.job, checked_out.flavour.name).log()
    installer = Installer(head, log, run.directory, run.diary, limits)
    run.reached = Installing(**vars(checked_out), installer=installer, board=board)
    await installer.start(driven.command)
    run.diary.write("installer-started", "", flavour=checked_out.flavour.name)
    link = HeadLink(head, checked_out.cluster.head, installer, speed, run.diary, run.raise_alarm)
    for task in (installer.follow(run.raise_alarm), installer.watch_silence(run.raise_alarm), link.watch()):
        run.in_background(task)
    deadline = speed.deadline(timeouts.install)
    with run.diary.step(driven.waits_for):
        # An installer that ends before its --bootscript hook raises the alarm, which ends this stage.
        try:
            async with asyncio.timeout(deadline.left):
                await installer.reached_barrier.wait()
        except TimeoutError:
            raise installer.overdue(deadline.seconds) from None


@dataclass(frozen=True)
class _Driven:
    """How one flavour of OSCAR is driven: files for the head node (text, mode), a shell line."""

    files: dict[str, tuple[str, int]]
    command: str
    waits_for: str


def _by_command_line(job: Job, checked_out: CheckedOut, menus: Menus) -> _Driven:
    files = answer_files(job, checked_out.profile, menus, checked_out.head.forwards)
    return _Driven(
        files={path: (text, files.mode(path)) for path, text in files.files.items()},
        command=installer_command(
            job.answers.oscar_home,
            files.arguments,
            asks_configurator=menus.asks_configurator,
            prefixes_paths=checked_out.flavour.prefixes_paths,
        ),
        waits_for="OSCAR to build its image and to say that nodes may boot",
    )


def _by_wizard(job: Job, forwards: tuple[Forward, ...], way: Way) -> _Driven:
    answers = job.answers
    script = install_script(
        way,
        oscar_home=answers.oscar_home,
        distro=answers.distro or job.cell,
        adapter="eth1",
        repository=" ".join(url_in_guest(word, forwards) for word in answers.oscar_repository.split(" ")),
    )
    return _Driven(
        files={SCRIPT: (script, 0o755)},
        command=script_command(),
        waits_for="OSCAR to be installed as far as it goes without a screen",
    )
