"""What a run is to show: derived from its job alone, for the run itself and for its verdict."""

from __future__ import annotations

from typing import cast, get_args

from pydantic import BaseModel, ConfigDict

from oscar_steps.job import Job
from oscar_steps.oscar.flavour import FlavourName
from oscar_steps.oscar.logs.installlog import InstallLog
from oscar_steps.oscar.logs.wizardlog import WizardLog
from oscar_steps.v3m.profiles.cluster import ClusterProfile, parse_cluster
from oscar_steps.v3m.profiles.vm import BootDevice
from oscar_steps.words import Architecture, NodeBoot

InstallerLog = InstallLog | WizardLog
"""Who reads the installer's terminal, by the flavour of the OSCAR that is installed."""


def cluster_of(job: Job, source: str = "the cluster profile") -> ClusterProfile:
    """The job's cluster: as its profile says, with the job's own hypervisor, number of nodes and way of booting.

    Machines whose profiles name no architecture have that of the job's image.

    `source`: what errors call the profile. Raises ProfileError.
    """
    profile = parse_cluster(job.cluster_xml, source)
    if job.hypervisor is not None:
        profile = profile.with_type(job.hypervisor)
    if job.image.architecture in get_args(Architecture):
        profile = profile.with_architecture(cast(Architecture, job.image.architecture))
    if job.nodes is not None:
        profile = profile.resized(job.nodes)
    return profile if job.boot is None else profile.with_boot(BootDevice(job.boot))


def node_boot(profile: ClusterProfile) -> NodeBoot:
    """How its nodes reach OSCAR's installer, in the job's and OSCAR's words."""
    return "network" if profile.boot is BootDevice.NETWORK else "cdrom"


class Wanted(BaseModel):
    """What OSCAR's installer is to do: without it its terminal cannot be judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int
    boot: NodeBoot
    image: str
    tests: tuple[str, ...] = ()
    flavour: FlavourName = FlavourName.INSTALL_CLUSTER

    @classmethod
    def of(cls, job: Job, flavour: FlavourName, source: str = "the cluster profile") -> Wanted:
        """What `job` wants of an OSCAR of that flavour. Raises ProfileError, which calls the job's profile `source`."""
        profile, answers = cluster_of(job, source), job.answers
        return cls(
            nodes=len(profile.nodes),
            boot=node_boot(profile),
            image=answers.image_name,
            tests=answers.tests,
            flavour=flavour,
        )

    def log(self, *, from_banner: bool = False) -> InstallerLog:
        """A reader of the installer's lines that looks for this. `from_banner`: they begin where its log does."""
        if self.flavour is FlavourName.OSCAR_WIZARD:
            return WizardLog()
        return InstallLog(
            expected_nodes=self.nodes,
            boot=self.boot,
            image_name=self.image,
            tests=self.tests,
            from_banner=from_banner,
        )
