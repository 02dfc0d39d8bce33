"""libvirt's own word on a definition: its schema, and its converters to Xen's and VMware's native configuration.

Nothing is started, and nothing is left on the host. A process that is asked is waited for only so long, and dies with
ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

from lxml import etree

from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.v3m import ledger
from oscar_steps.v3m.libvirthost import connection_uri

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
VIRSH_SECONDS = 30.0
"""It reads a file and writes a text; only a hypervisor that does not answer takes longer."""


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
    """What virsh prints. It is given no terminal: it must not ask for a password."""
    program = shutil.which("virsh")
    if program is None:
        raise ToolMissing("the program virsh is missing", hint="install it: apt-get install libvirt-clients")
    process = await asyncio.create_subprocess_exec(
        *ledger.owned([program, "--quiet", "--connect", uri, *arguments]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(VIRSH_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        raise HostError(f"virsh {arguments[0]} did not end within {VIRSH_SECONDS:.0f} s, asking {uri}") from None
    finally:
        if process.returncode is None:  # what it started, e.g. an ssh, goes with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        reason = _reason(errors.decode(errors="replace")) or f"it ended with {process.returncode}"
        raise DefinitionRefused(f"libvirt at {uri} refuses virsh {arguments[0]}: {reason}")
    return output.decode(errors="replace")


def _reason(errors: str) -> str:
    """The last line of virsh's complaint: the first ones only say what it was doing."""
    lines = [line.removeprefix("error: ") for line in errors.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""
