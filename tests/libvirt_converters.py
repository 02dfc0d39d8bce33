"""libvirt's own word on a definition: its schema, and its converters to Xen's and VMware's native configuration.

Nothing is started, and nothing is left on the host. A process that is asked is waited for only so long, and dies with
ours.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from lxml import etree

from oscar_steps.errors import HostError, LibvirtRefused, ToolMissing
from oscar_steps.v3m.libvirt.client import virsh
from oscar_steps.v3m.libvirt.networks import connection_uri

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")


class DefinitionRefused(HostError):
    """libvirt's schema or a converter of its does not take a definition of ours; the sentence has its reason."""


def validate(definition: str, schema: Path = SCHEMA) -> None:
    """Check a domain's definition by libvirt's schema. Raises DefinitionRefused, or ToolMissing without a schema."""
    if not schema.is_file():
        raise ToolMissing(f"libvirt's schema {schema} is missing", hint="install it: apt-get install libvirt0")
    rules = _schema(schema)
    if not rules.validate(etree.fromstring(definition)):
        raise DefinitionRefused(f"libvirt's schema does not allow the definition: {rules.error_log[0].message}")


async def to_xl(definition: str, uri: str | None = None) -> str:
    """What Xen's `xl` would read, by the libvirt of a Xen host (`uri`; None: this one).

    Raises ToolMissing, and DefinitionRefused, also when there is no Xen at `uri`.
    """
    with tempfile.TemporaryDirectory(prefix="v3m-xl-") as directory:
        file = Path(directory) / "domain.xml"
        file.write_text(definition, encoding="utf-8")
        return await _virsh(uri or connection_uri("Xen"), "domxml-to-native", "xen-xl", str(file))


async def to_vmx(definition: str) -> str:
    """The VMX file that VMware's Player would read.

    libvirt's driver for Player has its converter only behind `define`, which writes the file beside the first disk. So
    the disks are said to be below a directory of our own, and its name is taken out of the answer.
    Raises ToolMissing where libvirt's client or Player is not installed, DefinitionRefused otherwise.
    """
    for program in ("vmrun", "vmplayer"):
        if shutil.which(program) is None:
            raise ToolMissing(
                f"the program {program} is missing, without which libvirt has no driver for VMware Player"
            )
    with tempfile.TemporaryDirectory(prefix="v3m-vmx-") as directory:
        disks = Path(directory) / "disks"
        file = Path(directory) / "domain.xml"
        file.write_bytes(_moved(definition, disks))
        await _virsh(connection_uri("VMWare"), "define", str(file))
        written = list(disks.rglob("*.vmx"))
        if len(written) != 1:
            raise DefinitionRefused("libvirt took the definition for VMware, but wrote no VMX file for it")
        return written[0].read_text(encoding="utf-8").replace(str(disks), "")


def _moved(definition: str, directory: Path) -> bytes:
    """The definition with every disk file below `directory`; only the directories are made."""
    root = etree.fromstring(definition)
    for source in root.iterfind("devices/disk/source[@file]"):
        path = Path(f"{directory}{source.get('file')}")
        path.parent.mkdir(parents=True, exist_ok=True)
        source.set("file", str(path))
    return etree.tostring(root)


@cache
def _schema(path: Path) -> etree.RelaxNG:
    return etree.RelaxNG(file=str(path))


async def _virsh(uri: str, *arguments: str) -> str:
    try:
        return await virsh(uri, *arguments)
    except LibvirtRefused as refused:
        raise DefinitionRefused(refused.sentence) from None
