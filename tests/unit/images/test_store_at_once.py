"""Many processes at one store, and processes that are killed there: one build for each key, and whole images only."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from oscar_steps.images import room
from oscar_steps.images.store import ImageStore
from tests.unit.images.test_store import RECIPE, FakeBuild, Mirror, key_of, mirror, store

__all__ = ["mirror", "store"]

_BUILDER = """
import asyncio, os, shutil, sys
from pathlib import Path
from tests.unit.images import test_store
from tests.unit.images.test_store import RECIPE, Bootstrap, FakeBuild, Mirror, images

async def remove(command, _log):
    shutil.rmtree(command[-1])

class Counted(FakeBuild):
    async def run(self):
        with (self.directory.parent / "built.txt").open("a") as file:
            file.write(self.directory.name.split("-")[1] + chr(10))
        await FakeBuild.run(self)

images.ImageBuild, images.run_jailed = Counted, remove
images.check_host = images.require_user = lambda *_: None
Bootstrap.outside = Mirror().outside
store = images.ImageStore(Path(sys.argv[1]))
recipe = RECIPE.model_copy(update={"disk_mib": 1024 + int(sys.argv[2])})
step = int(sys.argv[3])

def count(wrapped):
    def wrapper(*words, **more):
        global step
        if step == 0:
            os.kill(os.getpid(), 9)
        step -= 1
        return wrapped(*words, **more)
    return wrapper

if step >= 0:
    steps = [(Path, "rename"), (Path, "chmod"), (Path, "mkdir"), (Path, "write_text"), (os, "fsync"), (os, "utime")]
    for module, name in steps:
        setattr(module, name, count(getattr(module, name)))
image = asyncio.run(store.ensure(recipe, lambda line: None))
print(image.digest)
"""


def start(folder: Path, which: int, step: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _BUILDER, str(folder), str(which), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_eight_processes_that_want_two_images_two_build(tmp_path: Path) -> None:
    builders = [start(tmp_path, number % 2) for number in range(8)]
    keys = [builder.communicate(timeout=120)[0].strip() for builder in builders]
    assert [builder.returncode for builder in builders] == [0] * 8
    assert len(set(keys)) == 2
    assert keys[0::2] == [keys[0]] * 4
    assert sorted((tmp_path / "built.txt").read_text().split()) == sorted(set(keys))


@pytest.mark.parametrize("step", range(15))
def test_a_build_that_is_killed_with_9_at_any_step_leaves_a_whole_image_or_none(
    store: ImageStore, mirror: Mirror, step: int
) -> None:
    assert mirror.index == "1"
    builder = start(store.directory, 0, step)
    builder.communicate(timeout=60)
    assert builder.returncode == -9
    for entry in room.entries(store.directory):
        assert entry.record
        assert entry.record.faults(entry.folder, thorough=True) == []
    image = asyncio.run(store.ensure(RECIPE, lambda _line: None))
    assert image.digest == key_of(RECIPE)
    assert image.record.faults(image.path.parent, thorough=True) == []
    assert not list(store.directory.glob("tmp-*"))
    assert FakeBuild.runs in (0, 1)
