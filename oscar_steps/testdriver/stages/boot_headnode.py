"""Stage 2: boot the virtual head node, wait until it lets root in by SSH."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from oscar_steps.errors import MachineLost
from oscar_steps.images.seed import write_seed
from oscar_steps.oscar.logs.nodeconsole import SignKind, classify
from oscar_steps.sources.resolve import is_carried
from oscar_steps.testdriver.cleanup import SEED_FILE
from oscar_steps.testdriver.head.access import save_access
from oscar_steps.testdriver.head.check import head_rebooted
from oscar_steps.testdriver.head.console import follow_console, last_lines
from oscar_steps.testdriver.head.forwards import Forward, forwards_of
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.head.needs import check_needs
from oscar_steps.testdriver.reached import Booted, Booting, Prepared
from oscar_steps.testdriver.run import Run
from oscar_steps.v3m.host.settings import HostSettings, ToHost, load_settings
from oscar_steps.v3m.libvirt.domain import is_libvirts
from oscar_steps.v3m.machine import EndReason, EventKind, MachineEvent
from oscar_steps.v3m.profiles.vm import VMProfile
from oscar_steps.v3m.qemu.network import bridge_of
from oscar_steps.v3m.runtime import VirtualCluster

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The head node ends only when we end it; anything else that ends it is a failure of the run.
_ENDED = (EventKind.PANICKED, EventKind.ENDED)
REFERENCE_BOOT_SECONDS = 25.0  # power-on to the login prompt, emulated, unloaded
_NOT_THE_GUEST = (EndReason.CRASHED, EndReason.HOST_SIGNAL)


async def run_stage(run: Run, prepared: Prepared) -> None:
    """Raises MachineLost, StageTimeout, HeadNodeLost, ImageUnfit; ConfigError, HostError: the host's own networks."""
    profile, speed, answers = prepared.profile, prepared.speed, run.job.answers
    settings = load_settings()
    is_open = settings.of_runs.network.to_host is ToHost.OPEN
    forwards = forwards_of(run.job, is_open=is_open, is_carried=is_carried(run.job.source))
    seed_path = run.directory / SEED_FILE
    seed = write_seed(
        seed_path,
        hostname="oscarhead",
        domain=answers.domain,
        head_address=answers.head_address,
        netmask=answers.netmask,
        network=run.job.image.network,
        macs=[nics[0].mac if nics else "" for nics in (profile.head.host_nics, profile.head.vlan_nics)],
        forwarded=[forward.name for forward in forwards],
        is_open=is_open,
    )
    cluster = VirtualCluster(
        profile=profile,
        run_directory=run.directory,
        accelerator=prepared.accelerator,
        base_image=prepared.image.path,
        seed=seed_path,
        on_event=partial(_machine_event, run, profile.head.name),
        settings=settings,
    )
    booting = Booting(**vars(prepared), cluster=cluster)
    run.reached = booting
    await cluster.create()
    console = cluster.head.console
    deadline = speed.deadline(run.job.timeouts.boot_headnode)
    powered_on = time.monotonic()
    await cluster.head.boot()
    with run.diary.step(f"{profile.head.name} to boot"):
        async with deadline.enforced(f"a login prompt of {profile.head.name}", hint=partial(_hint, console)):
            await _login_prompt(console)
    speed.seen(time.monotonic() - powered_on, REFERENCE_BOOT_SECONDS)
    host, port = cluster.head.ssh_endpoint()
    head = HeadNode(host, port, seed.password, seed.host_key, forwards)
    run.reached = Booted(**vars(booting), head=head)
    save_access(run.directory, host, port, seed)
    with run.diary.step(f"{profile.head.name} to let root in by SSH"):
        async with deadline.enforced(f"SSH of {profile.head.name}", hint=partial(_hint, console)):
            await head.connect()
    with run.diary.step(f"the image {run.job.image.name}, whether it has what a head node needs"):
        await check_needs(head, run.job.image, answers.head_address)
    run.in_background(_watch_console(console))
    run.diary.say(f"the head node reaches {reach(profile.head, settings, forwards)}")
    run.diary.write("head-up", f"{profile.head.name} is up: ssh root@{host} -p {port}", host=host, port=port)


def reach(head: VMProfile, settings: HostSettings, forwards: Iterable[Forward]) -> str:
    """What a head node reaches, for people. Only QEMU's user network can be closed by us."""
    named = ", ".join(str(forward) for forward in forwards) or "no server"
    if is_libvirts(head) or any(bridge_of(head, nic, settings) for nic in head.host_nics):
        return f"{named} through this run, and all that its own network reaches"
    if settings.of_runs.network.to_host is ToHost.OPEN:
        return "all that this host reaches"
    return f"{named}, and nothing else" if forwards else "no server"


async def _login_prompt(console: Path) -> None:
    # SSH's banner alone would do, but asking for it forks an sshd each time in a guest that is slow already; the login
    # prompt comes when the boot is over and costs nothing to wait for.
    async for line in follow_console(console):
        sign = classify(line)
        if sign and sign.kind is SignKind.PANIC:
            raise MachineLost(f"the head node's kernel panicked while booting: {sign.text}", hint=_hint(console))
        if sign and sign.kind is SignKind.LOGIN_PROMPT:
            return


async def _watch_console(console: Path) -> None:
    """For the rest of the run: a head node that panics says so here, also where its hypervisor does not know."""
    async for line in follow_console(console):
        sign = classify(line)
        if sign and sign.kind is SignKind.PANIC:
            raise MachineLost(f"the head node's kernel panicked: {sign.text}", hint=_hint(console))


def _hint(console: Path) -> str:
    _, lines = last_lines(console, 1)
    return f"console/{console.name} ends with: {lines[-1] if lines else '(nothing)'}"


def _machine_event(run: Run, head_name: str, event: MachineEvent) -> None:
    text = f"{event.machine}: {event.kind}" + (f" ({event.detail})" if event.detail else "")
    run.diary.write("vm", text, machine=event.machine, what=event.kind)
    if run.ending:
        return
    if event.kind is EventKind.DISK_ERROR:
        what = f"the host could not write the disk of {event.machine}: {event.detail}"
        run.raise_alarm(MachineLost(what, hint="is the host's disk full?"))
    if event.kind is EventKind.ENDED and event.detail.partition(":")[0] in _NOT_THE_GUEST:
        run.raise_alarm(MachineLost(f"the VM of {event.machine} ended unexpectedly: {event.detail}"))
    if event.machine == head_name:
        _head_event(run, event)


def _head_event(run: Run, event: MachineEvent) -> None:
    """The head node has rebooted or ended: end all that waits for its SSH."""
    reached = run.reached
    if event.kind is EventKind.GUEST_RESET:
        run.raise_alarm(head_rebooted(run.running_installer, run.diary.current_step))
        if isinstance(reached, Booted):
            reached.head.broke()
    elif event.kind in _ENDED:
        what = f"the head node {event.machine} ended unexpectedly: {event.kind} {event.detail}".strip()
        run.raise_alarm(MachineLost(what))
        if isinstance(reached, Booted) and event.kind is EventKind.ENDED:
            reached.head.gone(what)
