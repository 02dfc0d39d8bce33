"""What the administrator of a virtualization host has settled for it, in `/etc/oscar-farm/host.toml`.

It is about the host alone: profiles say what a network is, this says what it is made of here. Without the file
everything has its default, which works for every user and changes nothing on the host.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from oscar_steps.tomlfile import load_toml, validate

SETTINGS_FILE = Path("/etc/oscar-farm/host.toml")


class VlanKind(StrEnum):
    """What a VLAN is made of."""

    STAR = "star"
    """Sockets between QEMU processes, a hub in the head node's."""
    BRIDGE = "bridge"
    """A bridge of the kernel's, in a network namespace of the run's own."""


class ToHost(StrEnum):
    """How far a guest gets by a NIC of type TUN/TAP or TUN/TAP+NAT. Where nothing is settled: machines of v2m's are
    open, as a user asked for each of them; clusters of runs are cut off, as they run commits that no one has reviewed.
    """

    OPEN = "open"
    """To the host's own services, also those on its loopback interface, and wherever the host gets to."""
    CUT_OFF = "cut-off"
    """Nowhere; SSH from the host to the guest works all the same."""


InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,15}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(_Frozen):
    """The table `[network]`."""

    vlan: VlanKind = VlanKind.STAR
    to_host: ToHost | None = None
    bridges: tuple[InterfaceName, ...] = ()
    """Bridges of the host that a BRIDGED_TAP may join; the first one is joined by those that name none."""


class CapacitySettings(_Frozen):
    """The table `[capacity]`: what machines of the farm and of v2m may take of the host; without it all that it has."""

    memory_mib: int | None = Field(default=None, ge=256)
    processors: int | None = Field(default=None, ge=1)
    """Of all guests together."""


class ImagesSettings(_Frozen):
    """The table `[images]`."""

    limit_gib: float | None = Field(default=None, gt=0, le=1e6)
    """How much room the store of base images may take; None: 20 GiB, on a small file system a third of it."""


class HostSettings(_Frozen):
    """All settings of the host."""

    network: NetworkSettings = NetworkSettings()
    capacity: CapacitySettings = CapacitySettings()
    images: ImagesSettings = ImagesSettings()

    @property
    def switched(self) -> HostSettings:
        """The same for machines that come and go: their VLANs are on a VLAN hub, whatever is said of clusters."""
        network = self.network.model_copy(update={"vlan": VlanKind.STAR})
        return self.model_copy(update={"network": network})

    @property
    def of_runs(self) -> HostSettings:
        """The same for clusters of runs, which are open only where that is said."""
        network = self.network.model_copy(update={"to_host": self.network.to_host or ToHost.CUT_OFF})
        return self.model_copy(update={"network": network})


DEFAULTS = HostSettings()


def load_settings(path: Path | None = None) -> HostSettings:
    """The settings in `path`, or in `SETTINGS_FILE`, which need not be there. Raises ConfigError with file and line."""
    if path is None:
        if not SETTINGS_FILE.exists():
            return DEFAULTS
        path = SETTINGS_FILE
    return validate(HostSettings, path, *load_toml(path))
