"""Our definitions, read by libvirt: its schema, its converter to Xen's configuration, its converter to VMware's.

No machine is started, and neither Xen nor VMware is here. What is expected stands in the hypervisor's own words and is
worked out of the profile anew, field by field. Xen's converter is libvirt's own, called without the daemon that would
not start (see xl_without_xen.py); VMware's is behind libvirt's driver for Player, which only wants to find Player's
programs: these are stand-ins that know their version. So the definitions are tested here, and not the hypervisors.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import ToolMissing
from oscar_steps.v3m.boot import BootPlan, DirectKernel
from oscar_steps.v3m.libvirt.domain import domain_xml
from oscar_steps.v3m.libvirt.networks import connection_uri, plan_networks, vlan_network_xml
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, Hypervisor, Nic, VirtualDisk, VMProfile, parse_profile
from tests import libvirt_converters as converters
from tests.libvirt_converters import DefinitionRefused

RUN = Path("/run/of/mine")
CONSOLE = Path("console/node.log")
XL_WITHOUT_XEN = Path(__file__).with_name("xl_without_xen.py")
LIMIT = 30.0
TESTS_DEFAULT_BRIDGE = "virbr0"
"""The bridge of the network 'default' of libvirt's test driver."""

needs_schema = pytest.mark.skipif(
    not converters.SCHEMA.is_file(), reason="libvirt's schemas are missing: apt-get install libvirt0"
)
needs_virsh = pytest.mark.skipif(
    shutil.which("virsh") is None, reason="the program virsh is missing: apt-get install libvirt-clients"
)

HEADNODE = """<?xml version="1.0"?>
<!DOCTYPE profile PUBLIC "" "/etc/v3m/v3m_profile.dtd">
<profile>
  <name>oscar-headnode</name>
  <type>Qemu</type>
  <memory>256</memory>
  <image size="5000">
    /data/headnode.vmdk
  </image>
  <nic1><type>TUN/TAP</type><mac>00:02:03:04:05:06</mac></nic1>
  <nic2><type>VLAN</type><mac>00:02:03:04:05:07</mac></nic2>
</profile>
"""
"""As people have them, but for the image's ending, which VMware insists on."""

VLAN = Nic("VLAN", "52:54:00:00:00:11")
STORAGE = Nic("VLAN", "52:54:00:00:00:12", "storage")
HOST = Nic("TUN/TAP+NAT", "00:0c:29:00:00:13")
BRIDGED = Nic("BRIDGED_TAP", "00:50:56:00:00:14")
NODE = VMProfile("oscarnode1", "Xen", DiskImage("disks/oscarnode1.vmdk"), memory_mib=128, nics=(VLAN,))
FULL = replace(
    NODE,
    name="a <b> & ü",
    cpu=3,
    memory_mib=130,
    virtual_disks=(VirtualDisk("hdb", "/data/b, with comma.vmdk"), VirtualDisk("hdd", "/data/d.vmdk")),
    cdrom="/iso/boot.iso",
    nics=(VLAN, STORAGE, HOST, BRIDGED),
)
PLAIN = BootPlan()

Case = tuple[VMProfile, BootPlan]
EVERYWHERE: dict[str, Case] = {
    "headnode of 2007": (parse_profile(HEADNODE, "headnode.xml"), PLAIN),
    "smallest": (replace(NODE, nics=()), PLAIN),
    "node": (NODE, PLAIN),
    "32 bits": (replace(NODE, architecture="i386"), PLAIN),
    "everything": (FULL, PLAIN),
    "everything, scsi": (replace(FULL, disk_bus="scsi"), PLAIN),
    "everything, virtio": (replace(FULL, disk_bus="virtio"), PLAIN),
    "CD of the host": (replace(NODE, cdrom="/dev/cdrom"), PLAIN),
    "bridge of the host's": (replace(NODE, nics=(replace(BRIDGED, option="vmnet5"),)), PLAIN),
}
FULLY_VIRTUAL: dict[str, Case] = {
    "install from CD": (NODE, BootPlan(BootDevice.CDROM, Path("boot.iso"))),
    "install from the network": (NODE, BootPlan(BootDevice.NETWORK)),
    "all in order": (replace(FULL, boot=("disk", "cdrom", "network")), PLAIN),
    "BIOS": (replace(NODE, firmware="BIOS"), PLAIN),
}
XEN_HVM: dict[str, Case] = {
    "network first": (replace(NODE, boot=("network", "disk")), PLAIN),
    "UEFI": (replace(NODE, firmware="UEFI"), PLAIN),
    "kernel": (NODE, BootPlan(kernel=DirectKernel(Path("/k"), Path("/i"), "console=ttyS0 a='b'"))),
    "seed": (replace(NODE, disk_bus="virtio"), BootPlan(seed=Path("seed.img"))),
    "qcow2": (replace(NODE, image=DiskImage("disks/a.qcow2")), PLAIN),
}
XEN: dict[str, Case] = {
    "installer's kernel": (
        NODE,
        BootPlan(BootDevice.NETWORK, kernel=DirectKernel(Path("/k"), Path("/i"), "console=hvc0")),
    ),
    "kernel alone": (NODE, BootPlan(kernel=DirectKernel(Path("/k"), None, "console=hvc0 root=/dev/xvda1"))),
    "seed": (NODE, BootPlan(seed=Path("seed.img"))),
    "qcow2": (replace(NODE, image=DiskImage("disks/a.qcow2")), PLAIN),
    "logical volume": (replace(NODE, image=DiskImage("/dev/vg/node")), PLAIN),
}
OF_TYPE: dict[Hypervisor, dict[str, Case]] = {
    "Xen": EVERYWHERE | XEN,
    "XenHVM": EVERYWHERE | FULLY_VIRTUAL | XEN_HVM,
    "VMWare": EVERYWHERE | FULLY_VIRTUAL,
}


def cases(*types: Hypervisor) -> list[object]:
    return [
        pytest.param(replace(profile, type=hypervisor), plan, id=f"{hypervisor}: {name}")
        for hypervisor in types
        for name, (profile, plan) in OF_TYPE[hypervisor].items()
    ]


def all_disks(profile: VMProfile) -> list[tuple[str, str]]:
    """(the last letter of its name in the guest, file) of each disk but the seed."""
    disks = [("a", profile.image.path), *((disk.id[-1], disk.path) for disk in profile.virtual_disks)]
    return [(letter, str(RUN / path)) for letter, path in disks]


def cd_of(profile: VMProfile, plan: BootPlan) -> str | None:
    cdrom = profile.cdrom if plan.cdrom is None else plan.cdrom
    return None if cdrom is None else str(RUN / cdrom)


# --- the schema ------------------------------------------------------------------------------------------------------


@needs_schema
@pytest.mark.parametrize(("profile", "plan"), cases("Xen", "XenHVM", "VMWare"))
def test_a_definition_is_valid_by_libvirts_schema(profile: VMProfile, plan: BootPlan) -> None:
    for console in (None, CONSOLE):
        converters.validate(domain_xml(profile, RUN, plan, console=console))


@needs_schema
def test_the_schema_refuses_what_is_no_definition() -> None:
    with pytest.raises(DefinitionRefused, match=r"does not allow the definition: .*vcpu"):
        converters.validate(domain_xml(NODE, RUN).replace("<vcpu>1", "<vcpu>none"))


@pytest.mark.skipif(
    shutil.which("virt-xml-validate") is None or shutil.which("xmllint") is None,
    reason="virt-xml-validate or its xmllint is missing: apt-get install libvirt-clients libxml2-utils",
)
def test_libvirts_own_validator_agrees(tmp_path: Path) -> None:
    files = {tmp_path / "network.xml": (vlan_network_xml("vlan-storage"), "network")}
    for hypervisor in OF_TYPE:
        xml = domain_xml(replace(FULL, type=hypervisor), RUN)
        files[tmp_path / f"{hypervisor}.xml"] = (xml, "domain")
    for file, (xml, schema) in files.items():
        file.write_text(xml, encoding="utf-8")
        checked = subprocess.run(
            ["virt-xml-validate", str(file), schema], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert checked.returncode == 0, checked.stderr


# --- Xen -------------------------------------------------------------------------------------------------------------


def xl_configuration(definition: str) -> dict[str, str | list[str]]:
    """What libvirt makes of it for `xl`: a line per setting, a text, a number or a list of texts."""
    converted = subprocess.run(
        [sys.executable, str(XL_WITHOUT_XEN)],
        input=definition,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if converted.returncode == 3:
        package = "apt-get install libvirt-daemon-driver-xen"
        pytest.skip(f"libvirt's Xen driver cannot be asked here ({converted.stderr.strip()}): {package}")
    assert converted.returncode == 0, f"libvirt refuses the definition: {converted.stderr}\n{definition}"
    settings: dict[str, str | list[str]] = {}
    for line in converted.stdout.splitlines():
        key, _, value = line.partition(" = ")
        settings[key] = _texts(value) if value.startswith("[") else (_texts(value) or [value])[0]
    return settings


def _texts(value: str) -> list[str]:
    return [double or single for double, single in re.findall(r'"([^"]*)"|\'([^\']*)\'', value)]


def xl_disk(text: str) -> dict[str, str]:
    """The file comes last in it, and may hold commas."""
    settings, _, target = text.partition(",target=")
    return {**dict(pair.split("=", 1) for pair in settings.split(",")), "target": target}


def expected_xl_disks(profile: VMProfile, plan: BootPlan) -> list[dict[str, str]]:
    hvm = profile.type == "XenHVM"
    prefix = {"ide": "hd", "scsi": "sd", "virtio": "xvd"}[profile.disk_bus] if hvm else "xvd"
    disks = []
    for letter, file in all_disks(profile):
        image = "qcow2" if file.endswith(".qcow2") else "raw"
        disks.append({"vdev": f"{prefix}{letter}", "format": image, "access": "rw", "target": file})
    if (cdrom := cd_of(profile, plan)) is not None:
        name = "hdc" if hvm else "xvdc"
        disks.append({"vdev": name, "format": "raw", "access": "ro", "target": cdrom, "devtype": "cdrom"})
    if plan.seed is not None:
        disks.append({"vdev": "xvdz", "format": "raw", "access": "ro", "target": str(RUN / plan.seed)})
    return disks


def expected_vif(profile: VMProfile, nic: Nic) -> str:
    match nic.type:
        case "VLAN":
            bridge = f"vlan-{nic.vlan}" if nic.vlan else "vlan"
        case "BRIDGED_TAP":
            bridge = nic.option or "xenbr0"
        case _:
            bridge = TESTS_DEFAULT_BRIDGE
    model = ",model=e1000" if profile.type == "XenHVM" else ""
    return f"mac={nic.mac},bridge={bridge},script=vif-bridge{model}"


@pytest.mark.parametrize(("profile", "plan"), cases("Xen", "XenHVM"))
def test_libvirt_converts_a_definition_to_xens_configuration_of_the_same_machine(
    profile: VMProfile, plan: BootPlan
) -> None:
    found = xl_configuration(domain_xml(profile, RUN, plan))
    assert found["name"] == profile.name
    assert (found["memory"], found["maxmem"]) == (str(profile.memory_mib), str(profile.memory_mib))
    assert found["vcpus"] == str(profile.cpu)

    disks = [xl_disk(text) for text in found["disk"]]
    assert {disk.pop("backendtype") for disk in disks} <= {"qdisk", "phy"}
    assert sorted(disks, key=str) == sorted(expected_xl_disks(profile, plan), key=str)

    in_guest_order = sorted(profile.nics, key=lambda nic: nic.is_vlan)
    assert found.get("vif", []) == [expected_vif(profile, nic) for nic in in_guest_order]

    events = [found[f"on_{event}"] for event in ("poweroff", "reboot", "crash")]
    assert events == ["destroy", "restart" if plan.medium is None else "preserve", "preserve"]
    kernel = plan.kernel
    assert found.get("kernel") == (None if kernel is None else str(kernel.kernel))
    assert found.get("ramdisk") == (None if kernel is None or kernel.initrd is None else str(kernel.initrd))
    assert found.get("cmdline") == (None if kernel is None else kernel.parameters)


@pytest.mark.parametrize(("profile", "plan"), cases("Xen"))
def test_a_para_virtual_guest_has_a_boot_loader_or_a_kernel_and_no_firmware(profile: VMProfile, plan: BootPlan) -> None:
    found = xl_configuration(domain_xml(profile, RUN, plan))
    assert found.get("bootloader") == ("pygrub" if plan.kernel is None else None)
    assert not {"builder", "boot", "bios", "serial", "acpi"} & set(found)


@pytest.mark.parametrize(("profile", "plan"), cases("XenHVM"))
def test_a_fully_virtual_guest_has_firmware_a_boot_order_and_a_serial_console(
    profile: VMProfile, plan: BootPlan
) -> None:
    found = xl_configuration(domain_xml(profile, RUN, plan))
    install = {BootDevice.CDROM: ("disk", "cdrom"), BootDevice.NETWORK: ("disk", "network")}
    order = (profile.boot or ("disk",)) if plan.medium is None else install[plan.medium]
    letters = {"disk": "c", "cdrom": "d", "network": "n"}
    assert found["boot"] == "".join(letters[device] for device in order)
    assert (found["builder"], found["serial"]) == ("hvm", "pty")
    assert found.get("bios") == ("ovmf" if profile.firmware == "UEFI" else None)
    assert found["acpi"] == "1"
    on_file = xl_configuration(domain_xml(profile, RUN, plan, console=CONSOLE))
    assert on_file["serial"] == f"file:{RUN / CONSOLE}"


def test_a_clusters_bridges_are_those_of_its_plan() -> None:
    profile = replace(NODE, nics=(VLAN, STORAGE))
    networks = plan_networks((profile,), scope="run-7")
    found = xl_configuration(domain_xml(profile, RUN, networks=networks))
    bridges = [match[1] for text in found["vif"] if (match := re.search("bridge=([^,]+)", text))]
    assert bridges == [networks.vlans[None], networks.vlans["storage"]]


@needs_virsh
@pytest.mark.skipif(Path("/proc/xen").exists(), reason="this is a Xen host")
def test_without_xen_the_real_way_to_its_converter_says_so() -> None:
    with pytest.raises(DefinitionRefused, match="libvirt at xen:///system refuses"):
        asyncio.run(converters.to_xl(domain_xml(NODE, RUN)))


# --- VMware ----------------------------------------------------------------------------------------------------------


def vmx(profile: VMProfile, plan: BootPlan = PLAIN, console: Path | None = None) -> dict[str, str]:
    text = asyncio.run(converters.to_vmx(domain_xml(profile, RUN, plan, console=console)))
    settings = dict(re.findall(r'^(\S+) = "(.*)"$', text, re.MULTILINE))
    # A character that would end the text is written as | and two digits.
    return {key: re.sub(r"\|([0-9a-fA-F]{2})", lambda code: chr(int(code[1], 16)), v) for key, v in settings.items()}


def vmx_devices(settings: dict[str, str], pattern: str) -> dict[str, str]:
    """Name to file of the devices that are present and whose kind matches."""
    return {
        key.removesuffix(".deviceType"): settings[key.replace("deviceType", "fileName")]
        for key, kind in settings.items()
        if key.endswith(".deviceType") and re.search(pattern, kind)
    }


def expected_ethernet(nic: Nic, vlans: dict[str | None, str]) -> dict[str, str]:
    if nic.type in ("VLAN", "BRIDGED_TAP"):
        network = vlans[nic.vlan] if nic.type == "VLAN" else nic.option or "vmnet0"
        expected = {"connectionType": "custom", "vnet": network}
    else:
        expected = {"connectionType": "nat"}
    # VMware's own ranges of addresses are told by their beginning.
    if nic.mac.startswith("00:0c:29"):
        return expected | {"addressType": "generated", "generatedAddress": nic.mac}
    return expected | {"addressType": "static", "address": nic.mac}


@needs_virsh
@pytest.mark.usefixtures("player")
@pytest.mark.parametrize(("profile", "plan"), cases("VMWare"))
def test_libvirt_converts_a_definition_to_vmwares_configuration_of_the_same_machine(
    profile: VMProfile, plan: BootPlan
) -> None:
    found = vmx(profile, plan, CONSOLE)
    assert found["displayName"] == profile.name
    assert found["memsize"] == str(-(-profile.memory_mib // 4) * 4)  # VMware's memory comes by 4 MiB
    assert found.get("sched.mem.max", found["memsize"]) == str(profile.memory_mib)
    assert found["numvcpus"] == str(profile.cpu)
    assert found["guestOS"] == ("other" if profile.architecture == "i386" else "other-64")

    ide = {"a": "ide0:0", "b": "ide0:1", "d": "ide1:1"}
    scsi = {"a": "scsi0:0", "b": "scsi0:1", "d": "scsi0:3"}
    places = ide if profile.disk_bus == "ide" else scsi
    expected = {places[letter]: file for letter, file in all_disks(profile)}
    assert vmx_devices(found, "hardDisk") == expected
    controller = {"ide": None, "scsi": "lsilogic", "virtio": "pvscsi"}[profile.disk_bus]
    assert found.get("scsi0.virtualDev") == controller
    cdrom = cd_of(profile, plan)
    assert vmx_devices(found, "cdrom") == ({} if cdrom is None else {"ide1:0": cdrom})

    vlans = {vlan: f"vmnet{number}" for number, vlan in enumerate(dict.fromkeys(n.vlan for n in profile.vlan_nics), 2)}
    for number, nic in enumerate(sorted(profile.nics, key=lambda nic: nic.is_vlan)):
        ethernet = {
            key.partition(".")[2]: value for key, value in found.items() if key.startswith(f"ethernet{number}.")
        }
        assert ethernet.items() >= {"present": "true", "virtualDev": "e1000", **expected_ethernet(nic, vlans)}.items()
    assert f"ethernet{len(profile.nics)}.present" not in found

    assert (found["serial0.fileType"], found["serial0.fileName"]) == ("file", str(RUN / CONSOLE))


@needs_virsh
@pytest.mark.usefixtures("player")
def test_a_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    vmx(replace(NODE, type="VMWare", image=DiskImage(str(tmp_path / "mine" / "a.vmdk"))))
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "mine").exists()


@needs_virsh
@pytest.mark.usefixtures("player")
def test_libvirt_refuses_uefi_for_vmware_as_we_do() -> None:
    """When this fails, libvirt has learnt it, and UEFI need not be refused any more."""
    definition = domain_xml(replace(NODE, type="VMWare"), RUN).replace("<os>", '<os firmware="efi">')
    with pytest.raises(DefinitionRefused, match="firmware auto selection not implemented"):
        asyncio.run(converters.to_vmx(definition))


def test_without_player_there_is_no_conversion_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="vmrun is missing"):
        asyncio.run(converters.to_vmx(domain_xml(replace(NODE, type="VMWare"), RUN)))


# --- connections -----------------------------------------------------------------------------------------------------


def virsh(uri: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["virsh", "--connect", uri, "uri"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )


@needs_virsh
@pytest.mark.usefixtures("player")
def test_libvirt_opens_our_uri_of_player() -> None:
    uri = connection_uri("VMWare")
    assert virsh(uri).stdout.strip() == uri


@needs_virsh
def test_libvirt_goes_by_ssh_to_the_user_and_host_of_our_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nexit 1\n', encoding="utf-8")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert virsh(connection_uri("Xen", "xen1.example.org", "farm")).returncode != 0
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert re.search(r"-l farm\b.* xen1\.example\.org ", asked)


@needs_virsh
def test_libvirt_asks_the_esx_host_of_our_uri_for_the_users_password() -> None:
    """It is given none, so it goes no further; nothing listens there either."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        answer = virsh(connection_uri("VMWare", "127.0.0.1", "farm"))
    assert answer.returncode != 0
    assert "Enter farm's password for 127.0.0.1" in answer.stdout + answer.stderr
