"""Archives from guests: unpacked with suspicion. What a guest sends is evidence, never a path outside its folder."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from oscar_steps.errors import HostError

MAX_FILE_BYTES = 32 << 20
MAX_FILES = 2000


def unpack_logs(archive: bytes, into: Path) -> int:
    """Unpack the plain files of a tar (gzip'ed or not) below `into`; returns how many.

    Links, devices and names that lead outside are left out; a file over MAX_FILE_BYTES keeps its first and last half.
    Raises HostError where it is no tar at all.
    """
    into.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                if count >= MAX_FILES:
                    break
                if not member.isfile() or (target := _inside(into, member.name)) is None:
                    continue
                source = tar.extractfile(member)
                if source is None:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(io.BytesIO(_capped(source.read())), file)
                count += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        # An archive that was cut off in the middle still gives what came before.
        if not count:
            raise HostError(f"the logs that came for {into.name} are no archive: {error}") from error
    return count


def _inside(into: Path, name: str) -> Path | None:
    parts = [part for part in Path(name).parts if part not in ("/", ".")]
    return None if ".." in parts or not parts else into.joinpath(*parts)


def _capped(data: bytes) -> bytes:
    if len(data) <= MAX_FILE_BYTES:
        return data
    half = MAX_FILE_BYTES // 2
    left_out = len(data) - 2 * half
    return data[:half] + f"\n[... {left_out} bytes left out by the farm ...]\n".encode() + data[-half:]
