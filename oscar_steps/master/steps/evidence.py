"""What a run left behind, on its way from the worker to the master: packed there, checked and unpacked here.

Its contents come from guests that run whatever OSCAR's commit did, so nothing about them is believed: only regular
files below one folder are written, and no more than so many bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from oscar_steps import archive as archives
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.master.steps.results import is_run_of
from oscar_steps.sources.diffs import PATCH_FILE
from oscar_steps.textio import printable_name

ARCHIVE = "evidence.tar.gz"
MAX_ARCHIVE_BYTES = 128 * 2**20
MAX_FILE_KIB = 64 * 1024
LIMITS = archives.Limits(files=5000, total_bytes=512 << 20, file_bytes=MAX_FILE_KIB << 10, depth=15)
_NAMES = f"verdict.json job.json {PATCH_FILE} cluster.xml events.jsonl {MANIFEST_FILE} console logs screens installer"

# Disks, sockets and links stay where they are; so does what is too big, but its name is printed.
PACK = f"""
cd "$0" || exit 1
find {_NAMES} -type f -size -{MAX_FILE_KIB}k -print0 2>/dev/null |
    tar --null --no-recursion -czf {ARCHIVE} -T - || exit 1
find {_NAMES} -type f ! -size -{MAX_FILE_KIB}k -printf 'left on the worker: %p (%s bytes)\\n' 2>/dev/null
exit 0
"""


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack the regular files of `archive` into a new `folder`; gives their names."""
    shutil.rmtree(folder, ignore_errors=True)
    return sorted(archives.unpack(archive, folder, LIMITS, named=_named))


def _named(part: str) -> str:
    """The worker has made names printable; one that is not (of an older worker, or a hostile one) is made so here."""
    return part if part.isprintable() else printable_name(part)


def prune(runs: Path, cell: str, keep: int) -> None:
    """Remove all but the newest `keep` runs of a cell from the master's folder of runs."""
    ours = [path for path in runs.glob(f"{cell}-*") if is_run_of(cell, path.name)]
    for path in sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
