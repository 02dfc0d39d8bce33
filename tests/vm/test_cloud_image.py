"""A cloud image, as a vendor would publish one: made here, served on loopback, booted with a seed for cloud-init."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import paramiko
import pytest

from oscar_steps.guest import guest_text
from oscar_steps.images.seed import write_seed
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import BootstrapRecipe, CloudImageRecipe, load_recipe
from tests.vm.test_image import _booted, _forwarded_port, _says, _wait_for_login

MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")


def _vendors_disk() -> BaseImage:
    """An ordinary Debian with cloud-init, and nothing that knows of a farm's seed."""
    full = load_recipe(default_profiles() / "images/debian-12-x86_64.toml")
    assert isinstance(full, BootstrapRecipe)
    recipe = full.model_copy(
        update={"name": "vendors-disk", "packages": (*full.packages, "cloud-init", "locales"), "pool": ()}
    )
    return asyncio.run(ImageStore().ensure(recipe, print))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_vendors_image_boots_with_the_farms_settings_by_cloud_init(tmp_path: Path) -> None:
    disk = _vendors_disk()
    (tmp_path / "vendor.qcow2").symlink_to(disk.path)
    serve = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        recipe = CloudImageRecipe(
            name="vendors",
            kind="cloud-image",
            architecture="x86_64",
            disk_mib=5000,
            url=f"http://127.0.0.1:{server.server_address[1]}/vendor.qcow2",
            sha256=hashlib.sha256(disk.path.read_bytes()).hexdigest(),
        )
        image = asyncio.run(ImageStore(tmp_path / "store").ensure(recipe, print))
        server.shutdown()
        thread.join()
    seed = write_seed(
        tmp_path / "seed.iso",
        hostname="headnode",
        domain="oscardomain",
        head_address="10.0.0.1",
        netmask="255.255.255.0",
        network=recipe.network,
        macs=MACS,
        files={"/root/farm/greeting": (b"hello\n", 0o640)},
    )
    with _booted(image, seed, tmp_path, MACS, serial="cidata"), paramiko.SSHClient() as ssh:
        _wait_for_login(tmp_path / "console.log", 600)
        port = _forwarded_port(tmp_path / "monitor")
        ssh.get_host_keys().add(f"[127.0.0.1]:{port}", seed.host_key.get_name(), seed.host_key)
        words = ("127.0.0.1", port, "root", seed.password)
        ssh.connect(*words, allow_agent=False, look_for_keys=False, banner_timeout=60)
        assert _says(ssh, "hostname -f") == "headnode.oscardomain"
        assert _says(ssh, "cat /root/farm/greeting; ls /root/farm") == "hello\ngreeting\nseed.sh"
        addresses = _says(ssh, "ip -4 -o addr show | awk '{print $2, $4}'")
        assert addresses.splitlines()[1:] == ["eth0 10.0.2.15/24", "eth1 10.0.0.1/24"]
        assert _says(ssh, "sh -s -- '' 10.0.0.1", guest_text("head/needs.sh")) == "end"
