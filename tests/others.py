"""What another user of the host can open, tried as that user."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
# A process of its own, which becomes that user when Python is up: the interpreter may be closed to others.
TRY = """
import json, os, sys
paths, user = json.load(sys.stdin), int(sys.argv[1])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
print(json.dumps([any(os.access(path, way) for way in (os.R_OK, os.W_OK, os.X_OK)) for path in paths]))
"""


def open_to_others(root: Path) -> list[str]:
    """What another user can read, write or enter at `root` and below, by its place below `root`.

    Names are no secret: each file is tried by its own. As root that is tried as the user 'nobody'; everybody else
    looks at the modes on the way. `root` itself has to be open, or nothing would be tried.
    """
    assert root.stat().st_mode & 0o005 == 0o005, f"{root} is closed"
    paths = sorted(path for path in root.rglob("*") if not path.is_symlink())
    may = _tried(paths) if os.geteuid() == 0 else [_by_modes(root, path) for path in paths]
    return [str(path.relative_to(root)) for path, open_ in zip(paths, may, strict=True) if open_]


def _tried(paths: list[Path]) -> list[bool]:
    command = [sys.executable, "-I", "-c", TRY, str(NOBODY)]
    asked = json.dumps([str(path) for path in paths])
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    found: list[bool] = json.loads(done.stdout)
    return found


def _by_modes(root: Path, path: Path) -> bool:
    way = [parent for parent in path.parents if root in parent.parents]
    return bool(path.stat().st_mode & stat.S_IRWXO) and all(parent.stat().st_mode & stat.S_IXOTH for parent in way)
