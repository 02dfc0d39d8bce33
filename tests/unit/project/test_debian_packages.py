"""`make setup` on a host that has services of its own: what it installs for tests listens nowhere, the rest goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "requirements/debian-packages.sh"
# In a mount namespace of its own, so that the units of this host are neither seen nor touched.
INSIDE = """
set -eu
mount --make-rprivate /
mount --bind "$1/etc" /etc/systemd
mount --bind "$1/lib" /usr/lib/systemd
PATH=$1/bin:$PATH
exec "$2" "$3"
"""


def masked(place: Path, *units: str) -> list[str]:
    """The units that the script masks where `units` are there and the packages of none are."""
    for folder in ("etc/system", "lib/system", "bin"):
        (place / folder).mkdir(parents=True)
    for unit in units:
        (place / unit).touch()
    for name, says in (("dpkg-query", "exit 1"), ("apt-get", "exit 0")):
        (place / "bin" / name).write_text(f"#!/bin/sh\n{says}\n")
        (place / "bin" / name).chmod(0o755)
    command = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", place, SCRIPT, sys.executable]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return sorted(path.name for path in (place / "etc/system").iterdir() if path.is_symlink())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace of its own")
@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ((), [f"{name}.{kind}" for name in ("nginx", "postgresql", "slapd", "ssh") for kind in ("service", "socket")]),
        # nginx-light is missing where the site's own server is the package nginx.
        (
            ("lib/system/nginx.service", "lib/system/postgresql.service", "lib/system/slapd.service"),
            ["ssh.service", "ssh.socket"],
        ),
        (
            (
                "etc/system/nginx.service",
                "lib/system/ssh.socket",
                "etc/system/postgresql.service",
                "etc/system/slapd.service",
            ),
            [],
        ),
    ],
)
def test_a_service_that_the_host_has_already_is_not_masked(
    tmp_path: Path, units: tuple[str, ...], expected: list[str]
) -> None:
    assert masked(tmp_path, *units) == expected
