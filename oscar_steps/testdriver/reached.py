"""What the stages of a run hand on: how far the cluster has come, and what exists because of that.

A stage takes the value that it needs, and sets the next one on the run as soon as it is true. So `Run.reached` always
says what exists, also when a stage fails halfway, for the logs and the teardown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oscar_steps.images.store import BaseImage
    from oscar_steps.oscar.answers.menus import Menus
    from oscar_steps.oscar.answers.wizard import Way
    from oscar_steps.oscar.flavour import Flavour
    from oscar_steps.testdriver.deadline import HostSpeed
    from oscar_steps.testdriver.head.headnode import HeadNode
    from oscar_steps.testdriver.head.installer import Installer
    from oscar_steps.testdriver.nodes.board import NodeBoard
    from oscar_steps.v3m.host.accelerator import Accelerator
    from oscar_steps.v3m.host.reservations import Held
    from oscar_steps.v3m.profiles.cluster import ClusterProfile
    from oscar_steps.v3m.runtime import VirtualCluster


@dataclass(frozen=True)
class Begun:
    """There is a run directory with a job."""


@dataclass(frozen=True)
class Prepared(Begun):
    """By create-image. `flavour`: None where the repository cannot be asked from the host.

    `room`: memory and processors of the host, reserved for the cluster.
    """

    profile: ClusterProfile
    image: BaseImage
    accelerator: Accelerator
    speed: HostSpeed
    flavour: Flavour | None
    room: Held


@dataclass(frozen=True)
class Booting(Prepared):
    """By boot-headnode: the cluster is being made, and has to be ended."""

    cluster: VirtualCluster


@dataclass(frozen=True)
class Booted(Booting):
    """By boot-headnode: the head node has an address."""

    head: HeadNode


@dataclass(frozen=True)
class CheckedOut(Booted):
    """By checkout: OSCAR is on the head node. `answered`: its menus, or the way round them."""

    flavour: Flavour
    answered: Menus | Way


@dataclass(frozen=True)
class Installing(CheckedOut):
    """By start-install: OSCAR's installer is being started, the compute nodes are known."""

    installer: Installer
    board: NodeBoard
