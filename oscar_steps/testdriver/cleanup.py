"""What a run directory must not keep when its cluster has ended: disks, sockets, and everything that holds a secret."""

from __future__ import annotations

import shutil
from pathlib import Path

from oscar_steps.testdriver.head.access import ACCESS_FILE, SSH_DIRECTORY

SEED_FILE = "seed.tar"
BOOT_CD_FILE = "oscar_bootcd.iso"


def clean_up(run_directory: Path) -> None:
    """Remove them; may be called again."""
    for name in ("disks", "vlan", SSH_DIRECTORY):
        shutil.rmtree(run_directory / name, ignore_errors=True)
    for name in (SEED_FILE, BOOT_CD_FILE, ACCESS_FILE):
        (run_directory / name).unlink(missing_ok=True)
