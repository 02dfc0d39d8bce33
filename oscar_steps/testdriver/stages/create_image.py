"""Stage 1: the host is fit, this OSCAR can be installed at all, the base image exists, the host has room."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from oscar_steps.capacity import OVERHEAD_MIB, gib
from oscar_steps.environment import default_store
from oscar_steps.errors import ConfigError, UserError
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.images.upgrade import UpgradeStore
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.sources.resolve import is_carried
from oscar_steps.testdriver.deadline import Deadline, HostSpeed
from oscar_steps.testdriver.head.forwards import check_reach
from oscar_steps.testdriver.lookahead import look_ahead
from oscar_steps.testdriver.reached import Prepared
from oscar_steps.testdriver.stages.start_install import answer_files
from oscar_steps.testdriver.wanted import cluster_of
from oscar_steps.v3m.host.accelerator import find_accelerator
from oscar_steps.v3m.host.checks import check_host, require
from oscar_steps.v3m.host.reservations import Held, Reservations, Room
from oscar_steps.v3m.host.settings import ToHost, load_settings
from oscar_steps.v3m.profiles.cluster import ClusterProfile, cluster_to_xml

if TYPE_CHECKING:
    from oscar_steps.job import Job
    from oscar_steps.testdriver.run import Run

MIN_HEAD_MIB = 512  # OSCAR's package tools need that much; a head node with less dies in the middle of an install


def check_job(job: Job, source: str = "the cluster profile", answers: str = "the answers") -> ClusterProfile:
    """The cluster of the job, checked.

    `source` and `answers`: what errors call the two files that the job was made from.
    Raises ProfileError, ConfigError, UserError for what OSCAR or we would choke on half an hour later.
    """
    profile = cluster_of(job, source)
    try:
        answer_files(job, profile)
    except UserError as error:
        raise ConfigError(f"{answers} for {source}: {error.sentence}", hint=error.hint) from None
    if profile.head.memory_mib < MIN_HEAD_MIB:
        raise ConfigError(
            f"{source}: the head node {profile.head.name} has {profile.head.memory_mib} MiB of memory; "
            f"it needs {MIN_HEAD_MIB}"
        )
    return profile


def _keep_packages(image: BaseImage, directory: Path) -> bool:
    """Keep the list of the image's packages with the run, where there is one: the image itself may go."""
    if not image.record.manifest:
        return False
    shutil.copyfile(image.packages, directory / MANIFEST_FILE)
    return True


async def run_stage(run: Run) -> None:
    """Raises ToolMissing, HostError, ProfileError, ConfigError, SourceError, ImageBuildFailed; AnswersRefused by the
    sources."""
    profile = check_job(run.job)
    is_open = load_settings().of_runs.network.to_host is ToHost.OPEN
    check_reach(run.job, is_open=is_open, is_carried=is_carried(run.job.source))
    (run.directory / "cluster.xml").write_text(cluster_to_xml(profile), encoding="utf-8")
    require(check_host(run.directory, None, machines=profile.machines))
    wanted = room_for(profile)
    Reservations.of_host(emulated=True).check_size(wanted)
    flavour = await look_ahead(run.job.source, run.directory, run.diary)
    with run.diary.step(f"the base image {run.job.image.name}"):
        async with Deadline(run.job.timeouts.create_image).enforced("the base image"):
            image = await _image(run)
    packages = {"manifest": image.record.manifest} if _keep_packages(image, run.directory) else {}
    run.diary.write("image", f"base image {run.job.image.name}, {image.digest[:12]}", digest=image.digest, **packages)
    with run.diary.step("the accelerator, tried by booting a kernel"):
        kernel = image.kernel if image.kernel.exists() else None  # not every kind of image has one outside its disk
        accelerator = await find_accelerator(run.options.image_store, kernel, profile.head.architecture)
    speed = HostSpeed(accelerator.seconds, doubtful=accelerator.was_busy)
    doubt = " until the head node has booted, because the host was busy" if accelerator.was_busy else ""
    run.diary.write(
        "accelerator",
        f"{accelerator.name}: {accelerator.reason}; time limits x {speed.factor:.1f}{doubt}",
        accelerator=accelerator.name,
        seconds=accelerator.seconds,
    )
    room = await _reserve(run, wanted, emulated=accelerator.name == "tcg")
    run.reached = Prepared(profile, image, accelerator, speed, flavour, room)


async def _image(run: Run) -> BaseImage:
    job, folder = run.job, run.options.image_store
    if job.image_versions:
        return await UpgradeStore(folder or default_store(), job.image_key).ensure_with(
            job.image_versions, run.diary.say
        )
    return await ImageStore(folder).ensure(job.image, run.diary.say, job.image_key)


def room_for(profile: ClusterProfile) -> Room:
    """What the cluster takes of its host."""
    return Room(profile.memory_mib + OVERHEAD_MIB, sum(machine.cpu for machine in profile.machines))


async def _reserve(run: Run, wanted: Room, *, emulated: bool) -> Held:
    """Last of all: what a run waits for before it boots is not reserved meanwhile."""
    reservations = Reservations.of_host(emulated=emulated)
    with run.diary.step(f"{gib(wanted.memory_mib)} of memory and {wanted.processors:g} processors of this host"):
        held = await reservations.reserve(f"run {run.job.run_id}", wanted, run.job.timeouts.room, run.diary.say)
    run.diary.write("room", "", memory_mib=wanted.memory_mib, processors=wanted.processors)
    return held
