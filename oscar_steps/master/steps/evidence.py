"""What a run left behind, on its way from the worker to the master: packed there, checked and unpacked here.

Its contents come from guests that run whatever OSCAR's commit did, so nothing about them is believed: only regular
files below one folder are written, and no more than so many bytes.
"""

from __future__ import annotations

import errno
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from oscar_steps.textio import printable_name

ARCHIVE = "evidence.tar.gz"
MAX_ARCHIVE_BYTES = 128 * 2**20
MAX_UNPACKED_BYTES = 512 * 2**20
MAX_FILES = 5000
MAX_DEPTH = 15
MAX_FILE_KIB = 64 * 1024
_NAMES = "verdict.json job.json cluster.xml events.jsonl console logs screens installer"

# Disks, sockets and links stay where they are; so does what is too big, but its name is printed.
PACK = f"""
cd "$0" || exit 1
find {_NAMES} -type f -size -{MAX_FILE_KIB}k -print0 2>/dev/null |
    tar --null --no-recursion -czf {ARCHIVE} -T - || exit 1
find {_NAMES} -type f ! -size -{MAX_FILE_KIB}k -printf 'left on the worker: %p (%s bytes)\\n' 2>/dev/null
exit 0
"""


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack the regular files of `archive` into a new `folder`; gives their names. What is not welcome is left out."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names: list[str] = []
    left = MAX_UNPACKED_BYTES
    with tarfile.open(archive, "r:gz", encoding="utf-8", errors="surrogateescape") as packed:
        for member in packed:
            target = _target(member, folder)
            left -= member.size
            if left < 0 or len(names) >= MAX_FILES:
                break
            if target is None or not _is_free(target) or (content := packed.extractfile(member)) is None:
                continue
            with target.open("wb") as out:
                shutil.copyfileobj(content, out)
            names.append(str(target.relative_to(folder)))
    return sorted(names)


def _is_free(target: Path) -> bool:
    """Whether a file can be made there; its folder is made. A full disk still raises."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return not target.exists()
    except (FileExistsError, NotADirectoryError):  # a file is where a folder should be
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _target(member: tarfile.TarInfo, folder: Path) -> Path | None:
    parts = PurePosixPath(member.name).parts
    if not member.isreg() or not 0 < len(parts) <= MAX_DEPTH or parts[0] == "/" or ".." in parts or "\0" in member.name:
        return None
    # The worker has made names printable; one that is not (of an older worker, or a hostile one) is made so here.
    return folder.joinpath(*(part if part.isprintable() else printable_name(part) for part in parts))


def prune(runs: Path, cell: str, keep: int) -> None:
    """Remove all but the newest `keep` runs of a cell from the master's folder of runs."""
    pattern = re.compile(rf"^{re.escape(cell)}-r[^-]*-b\d+$")
    ours = [path for path in runs.glob(f"{cell}-*") if pattern.match(path.name)]
    for path in sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
