"""The seed disk: what its archive holds, and what the image does with it."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import tarfile
from pathlib import Path

import paramiko
import pytest

from oscar_steps.guest import styles
from oscar_steps.images.seed import Seed, write_seed


def _write(path: Path, **more: object) -> Seed:
    settings: dict[str, object] = {
        "hostname": "headnode",
        "domain": "oscardomain",
        "head_address": "10.0.0.1",
        "netmask": "255.255.255.0",
        "network": "ifupdown",
        **more,
    }
    return write_seed(path, **settings)  # type: ignore[arg-type]


def _unpacked(path: Path) -> dict[str, tuple[str, int]]:
    """The seed's files: name to (contents, mode)."""
    files: dict[str, tuple[str, int]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if contents := archive.extractfile(member):
                files[member.name] = (contents.read().decode(), member.mode)
    return files


def test_the_seed_is_a_whole_number_of_disk_sectors_and_private(tmp_path: Path) -> None:
    seed = _write(tmp_path / "seed.tar")
    assert seed.path.stat().st_size % 512 == 0
    assert stat.S_IMODE(seed.path.stat().st_mode) == 0o600


def test_the_head_nodes_name_is_on_its_private_address_not_on_the_loopback(tmp_path: Path) -> None:
    hosts = _unpacked(_write(tmp_path / "seed.tar").path)["etc/hosts"][0].splitlines()
    assert "10.0.0.1\theadnode.oscardomain headnode" in hosts
    assert not any("headnode" in line for line in hosts if line.startswith("127."))


def test_both_nics_are_static(tmp_path: Path) -> None:
    interfaces = _unpacked(_write(tmp_path / "seed.tar", netmask="255.255.0.0").path)["etc/network/interfaces"][0]
    assert "address 10.0.2.15/24\n" in interfaces
    assert "iface eth1 inet static\n    address 10.0.0.1/16" in interfaces
    assert "dhcp" not in interfaces


def test_only_a_head_node_that_is_open_has_a_way_out_and_a_name_server(tmp_path: Path) -> None:
    """A closed one waits for nobody: nothing answers it there, not even with a refusal."""
    for is_open in (True, False):
        files = _unpacked(_write(tmp_path / "seed.tar", is_open=is_open).path)
        assert ("\n    gateway 10.0.2.2\n" in files["etc/network/interfaces"][0]) is is_open
        name_server = "10.0.2.3" if is_open else "127.0.0.1"
        assert files["etc/resolv.conf"][0] == f"search oscardomain\nnameserver {name_server}\n"


def test_what_the_head_node_reaches_by_name_is_on_its_own_loopback(tmp_path: Path) -> None:
    names = ["svn.example.org", "127.0.0.1", "mirror.example.org", "svn.example.org"]
    hosts = _unpacked(_write(tmp_path / "seed.tar", forwarded=names).path)["etc/hosts"][0].splitlines()
    assert hosts[2:] == ["127.0.0.1\tsvn.example.org", "127.0.0.1\tmirror.example.org"]


def test_the_driver_knows_the_host_key_that_the_head_node_will_show(tmp_path: Path) -> None:
    seed = _write(tmp_path / "seed.tar")
    files = _unpacked(seed.path)
    name, key, comment = files["etc/ssh/ssh_host_ed25519_key.pub"][0].split()
    assert (name, key, comment) == (seed.host_key.get_name(), seed.host_key.get_base64(), "root@headnode")
    assert files["etc/ssh/ssh_host_ed25519_key"][1] == 0o600
    private = io.StringIO(files["etc/ssh/ssh_host_ed25519_key"][0])
    assert paramiko.Ed25519Key.from_private_key(private) == seed.host_key
    assert seed.known_hosts_line("127.0.0.1", 2222) == f"[127.0.0.1]:2222 {name} {key}"


def test_each_seed_has_its_own_password_and_host_key(tmp_path: Path) -> None:
    one, other = _write(tmp_path / "one.tar"), _write(tmp_path / "other.tar")
    assert one.password != other.password
    assert one.host_key != other.host_key


def test_files_of_the_run_come_along_and_may_replace_ours(tmp_path: Path) -> None:
    files = {"/root/farm/answers/selector": (b"unselect ganglia\n", 0o600), "/etc/hosts": (b"mine\n", 0o600)}
    unpacked = _unpacked(_write(tmp_path / "seed.tar", files=files).path)
    assert unpacked["root/farm/answers/selector"] == ("unselect ganglia\n", 0o600)
    assert unpacked["etc/hosts"] == ("mine\n", 0o600)


@pytest.mark.parametrize("name", ["root/relative", "/root/../etc/shadow"])
def test_a_file_must_say_where_it_goes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        _write(tmp_path / "seed.tar", files={name: (b"", 0o600)})


def test_the_guest_forgets_the_password_in_clear(tmp_path: Path) -> None:
    seed = _write(tmp_path / "seed.tar", password="secret")
    files = _unpacked(seed.path)
    assert files["root/farm/password"] == ("root:secret\n", 0o600)
    assert files["root/farm/seed.sh"][0].rstrip().endswith("rm /root/farm/password")


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("style", [style for style in styles("network") if style != "cloud-init"])
def test_each_style_has_both_addresses_and_a_gateway_only_where_there_is_a_way_out(
    style: str, is_open: bool, tmp_path: Path
) -> None:
    plain = set(_unpacked(_write(tmp_path / "plain.tar").path))
    files = _unpacked(_write(tmp_path / "seed.tar", network=style, is_open=is_open).path)
    of_it = [text for name, (text, _mode) in files.items() if style == "ifupdown" or name not in plain]
    text = "\n".join(of_it)
    assert "10.0.2.15/24" in text
    assert "10.0.0.1/24" in text
    assert (re.search("(?im)^ *gateway *=? *10.0.2.2$", text) is not None) is is_open
    assert "@" not in text or style == "ifupdown"


def test_a_seed_for_cloud_init_is_a_volume_with_its_words_and_the_same_archive(tmp_path: Path) -> None:
    macs = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    seed = _write(tmp_path / "seed.iso", network="cloud-init", macs=macs, files={"/root/farm/greeting": (b"hi", 0o600)})
    assert stat.S_IMODE(seed.path.stat().st_mode) == 0o600

    def read(name: str) -> bytes:
        return subprocess.run(
            ["isoinfo", "-J", "-i", seed.path, "-x", f"/{name}"], capture_output=True, check=True
        ).stdout

    label = subprocess.run(["isoinfo", "-d", "-i", seed.path], capture_output=True, text=True, check=True).stdout
    assert "Volume id: cidata" in label
    words = read("user-data")
    assert words.startswith(b"#cloud-config\n")
    settings = json.loads(words.partition(b"\n")[2])
    assert settings["locale"] == "C.UTF-8"
    assert json.loads(read("meta-data"))["local-hostname"] == "headnode"
    (tmp_path / "seed.tar").write_bytes(read("seed.tar"))
    files = _unpacked(tmp_path / "seed.tar")
    assert files["root/farm/greeting"] == ("hi", 0o600)
    assert "10.0.0.1\theadnode.oscardomain headnode" in files["etc/hosts"][0]
    assert files["root/farm/password"][0] == f"root:{seed.password}\n"
    cards = read("network-config").decode()
    assert 'match: {macaddress: "52:54:00:00:00:02"}\n    set-name: eth1\n    addresses: ["10.0.0.1/24"]' in cards
    assert "gateway" not in cards
