"""The store of base images on a virtualization host: each is built once from its recipe, then only read."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import AsyncFileLock, FileLock, Timeout

from oscar_steps.environment import default_store
from oscar_steps.errors import ConfigError, HostError, ImageBuildFailed
from oscar_steps.images import lease, room
from oscar_steps.images.build import DISK, KERNEL, LOG, ImageBuild, Report, check_host, kind_of
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.key import ImageKey, own_digests, said_of
from oscar_steps.images.kind import Base
from oscar_steps.images.layer import LAYER, base_for
from oscar_steps.images.ordinary import require_user
from oscar_steps.images.outside import outside
from oscar_steps.images.record import KEY_FILE, ImageRecord, describe
from oscar_steps.images.spread import spread
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.matrix.recipes import ImageRecipe
from oscar_steps.textio import close_to_others, shared_with_group
from oscar_steps.v3m.host.checks import check_space

_WAIT_POLL = 0.5
"""Seconds between two looks at a lock that another process holds: flock has no event to wait for."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ANOTHER = "--images FOLDER"


@dataclass(frozen=True)
class BaseImage:
    """A finished image. Nobody writes to it: virtual machines run on overlays. It is in use as long as this lives."""

    path: Path
    """The disk, qcow2."""
    kernel: Path
    """Its kernel, for those who need one on the host (the trial of an accelerator)."""
    record: ImageRecord
    lease: lease.Lease

    @property
    def digest(self) -> str:
        """The image's key."""
        return self.record.key

    @property
    def packages(self) -> Path:
        """The list of its packages, which is there where the record names its digest."""
        return self.path.with_name(MANIFEST_FILE)


class ImageStore:
    """Base images by their key: `KEY/` is an image, `tmp-KEY-PID-…/` one that is being made or removed, `KEY.lock` is
    held by who does that, `damaged-KEY/` one that was found to be damaged. The store is for its user alone; the setgid
    bit (`chmod g+s`) says that an administrator shares it with its group.

    Why it survives kill -9, or a power cut, at any moment: a folder named `KEY` comes to be by one rename of a finished
    folder, whose files were synced before, and it goes by one rename before its files are removed. The lock is the
    kernel's (flock) and ends with its process, and no child inherits it. The build's own children die with the process
    that started them (see `jail.jail`). So a `tmp-` folder whose lock is free has no owner any more; the next `ensure`
    removes it. An image in use is locked, too (see `lease`), so none is removed below a run.

    An image needs no other one: what it was made from may go.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_store()

    async def key_of(self, recipe: ImageRecipe, *, fresh: bool = False) -> ImageKey:
        """The key of the image of today; not `fresh`: of some minutes ago. Raises OutsideUnknown where the mirror
        cannot be asked."""
        kind = kind_of(recipe)
        around = await outside(self.directory, recipe, lambda: kind.outside(recipe), fresh=fresh)
        return ImageKey(said_of(recipe), own_digests(kind.own_contents(recipe)), around)

    def find(self, key: str, *, locked: bool = False) -> BaseImage | None:
        """The image with this key if it is there, in use from now on. `locked`: the caller holds the key's lock."""
        folder = self.directory / key
        if (held := lease.lease(folder)) is None:
            return None
        record = ImageRecord.load(folder)
        if record is None or record.faults(folder, thorough=False):
            with suppress(OSError):
                room.set_aside(folder, held, locked=locked)
            return None
        room.mark_used(self.directory, key)
        return BaseImage(folder / DISK, folder / KERNEL, record, held)

    def newest(self, key: ImageKey) -> BaseImage | None:
        """The newest image that the same recipe and code made, of whatever day's packages."""
        records = (entry.record for entry in room.entries(self.directory) if entry.record and not entry.damaged)
        same = [record for record in records if record.image_key.same_but_for_outside(key)]
        newest = sorted(same, key=lambda record: record.built, reverse=True)
        return next((image for record in newest if (image := self.find(record.key))), None)

    async def ensure(self, recipe: ImageRecipe, report: Report, pinned: str = "") -> BaseImage:
        """The image of `recipe`, built now if it has to be (minutes). To be called from the main thread.

        Of several processes that want the same image one builds it, the others wait. `pinned`: the key, or its
        beginning, of the image to be used whatever the mirror has today.
        Raises ImageBuildFailed, ToolMissing or HostError (the host), ConfigError (the recipe, the key).
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"the image store {self.directory} cannot be made: {error.strerror}") from error
        if pinned:
            return self._pinned(recipe, pinned)
        try:
            key = await self.key_of(recipe)
            if not os.access(self.directory, os.W_OK | os.X_OK):
                return self._of_another(recipe, key, report)
            if not (self.directory / key.digest).is_dir():
                key = await self.key_of(recipe, fresh=True)
        except ImageBuildFailed as error:
            return self._instead(recipe, error, report)
        with self._explained():
            return await self._ensured(recipe, key, report)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong with the store's files, in a sentence."""
        try:
            yield
        except PermissionError as error:
            file = Path(str(error.filename))
            if self.directory not in file.parents:
                raise
            what = f"the image store {self.directory} is shared, but this user may not open {file}"
            hint = f"its owner or root opens it to the group: chmod g+rw {file}"
            raise HostError(what, hint=hint) from error
        except OSError as error:
            if error.errno not in _FULL:
                raise
            what = f"the image store {self.directory} has no room left: {error.strerror}"
            raise HostError(what, hint=room.how_to_get_room(self.directory)) from error

    async def _ensured(self, recipe: ImageRecipe, key: ImageKey, report: Report) -> BaseImage:
        """The image in a store that this user may write to."""
        self._close()
        await self._remove_orphans(report)
        if image := self.find(key.digest):
            return image
        check_host(recipe)
        try:
            require_user()
        except HostError as error:
            return self._instead(recipe, error, report, key)
        async with self._locked(key.digest, report):
            if image := self.find(key.digest, locked=True):
                return image
            self._make_room(recipe, report)
            image = await self._build(recipe, key, report)
        self._evict(report)
        return image

    def _pinned(self, recipe: ImageRecipe, pinned: str) -> BaseImage:
        """The image that was asked for by its key."""
        entries = [entry for entry in room.entries(self.directory) if entry.record and not entry.damaged]
        found = [entry for entry in entries if entry.key.startswith(pinned)]
        if len(found) > 1:
            raise ConfigError(f"{len(found)} images have a key that begins with {pinned}; give more of it")
        image = self.find(found[0].key) if found else None
        if image is None:
            what = f"there is no image {pinned} in the store {self.directory}"
            hint = f"oscar-testdriver images --images {self.directory} shows what is there"
            raise ConfigError(what, hint=hint)
        if image.record.name != recipe.name:
            raise ConfigError(f"the image {pinned} is one of {image.record.name}, not of {recipe.name}")
        return image

    def _instead(self, recipe: ImageRecipe, error: HostError, report: Report, key: ImageKey | None = None) -> BaseImage:
        """The newest image of the same recipe and code, where that of today can be neither known nor built."""
        if key is None:
            key = ImageKey(said_of(recipe), own_digests(kind_of(recipe).own_contents(recipe)), {})
        if (image := self.newest(key)) is None:
            none = f"; and the store has no image {recipe.name} of an earlier day"
            raise type(error)(f"{error.sentence}{none}", hint=error.hint) from error
        report(f"{error.sentence}; using the image of {image.record.day}")
        return image

    def _of_another(self, recipe: ImageRecipe, key: ImageKey, report: Report) -> BaseImage:
        """The image in a store that is not this user's to write: it can be read, but none can be built there."""
        image = self.find(key.digest) or self.newest(key)
        number = self.directory.stat().st_uid
        try:
            owner = pwd.getpwuid(number).pw_name
        except KeyError:
            owner = str(number)
        ours = os.geteuid() in (0, number)  # so it is the file system or the mode that lets nobody write
        if image is not None and os.access(image.path, os.R_OK):
            if image.digest != key.digest:
                why = "cannot be written" if ours else f"belongs to {owner}, who has not built the image of today yet"
                report(f"the image store {self.directory} {why}; using that of {image.record.day}")
            return image
        if ours:
            what = f"the image store {self.directory} cannot be written, and has no image {recipe.name}"
            hint = f"mount it for writing (chmod u+w, where it is a folder's mode), or use another: {_ANOTHER}"
            raise HostError(what, hint=hint)
        what = f"the image store {self.directory} belongs to {owner}, and you cannot read the image {recipe.name} in it"
        share = f"chgrp -R GROUP {self.directory}; chmod -R g+rX {self.directory}; chmod g+s {self.directory}"
        hint = f"name a store of your own ({_ANOTHER}), or let {owner} share that one with a group: {share}"
        raise HostError(what, hint=hint)

    def _close(self) -> None:
        """A store is for its user alone, also one that an earlier version left open; with the setgid bit for its group,
        too: that is how an administrator shares one."""
        group = not shared_with_group(self.directory)
        close_to_others(self.directory, group=group)
        for path in self.directory.iterdir():
            if not path.name.startswith("tmp-"):  # there a guest's own folders are being made
                for each in (path, *path.glob("*")):
                    close_to_others(each, group=group)

    @asynccontextmanager
    async def _locked(self, key: str, report: Report) -> AsyncIterator[None]:
        path = room.lock_path(self.directory, key)
        lock = AsyncFileLock(path, mode=room.lock_mode(self.directory), run_in_executor=False)
        try:
            await lock.acquire(blocking=False)
        except Timeout:
            report("another process builds this image; waiting for it")
            await lock.acquire(poll_interval=_WAIT_POLL)
        try:
            yield
        finally:
            await lock.release()

    def _make_room(self, recipe: ImageRecipe, report: Report) -> None:
        """Room for a build on the disk. Raises HostError: even without the images that nobody uses there is none."""
        for entry in room.evict(self.directory, limit=room.limit_bytes(self.directory), free=recipe.disk_mib << 20):
            report(_removed(entry))
        space = check_space(self.directory, f"the base image {recipe.name}", recipe.disk_mib)
        if not space.ok:
            raise HostError(space.sentence, hint=room.how_to_get_room(self.directory))

    def _evict(self, report: Report) -> None:
        """Keep to the limit. That it cannot be kept, since all images are in use, stops no run."""
        limit = room.limit_bytes(self.directory)
        for entry in room.evict(self.directory, limit=limit):
            report(_removed(entry))
        taken = room.used_bytes(room.entries(self.directory))
        if taken > limit:
            report(f"the images take {taken >> 20} MiB, more than their limit of {limit >> 20} MiB: all are in use")

    async def _build(self, recipe: ImageRecipe, key: ImageKey, report: Report) -> BaseImage:
        temporary = self.directory / f"tmp-{key.digest}-{os.getpid()}-{secrets.token_hex(4)}"
        spread(self.directory)
        temporary.mkdir()
        begun, began = time.time(), time.monotonic()
        try:
            layer = kind_of(recipe).layer(recipe)
            with self._base(key, layer) as base:
                build = ImageBuild(
                    recipe, temporary, machine_id=key.digest[:32], report=report, outside=key.outside, base=base
                )
                on = await self._run(build)
            if on:
                layer = layer | {"packages": sorted(set(layer["packages"]) - set(on.added))}
            more = {"layer": layer if (temporary / LAYER).is_file() else {}, "base": on.folder.name if on else ""}
            seconds = time.monotonic() - began
            record = await asyncio.to_thread(describe, temporary, key, built=begun, seconds=seconds, **more)
            (temporary / KEY_FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
            held = lease.lease(temporary)
            assert held is not None
            folder = self.directory / key.digest
            _publish(temporary, folder)
            room.mark_used(self.directory, key.digest)
            return BaseImage(folder / DISK, folder / KERNEL, record, held)
        except ImageBuildFailed as failure:
            raise self._failed(recipe, temporary, failure) from failure
        finally:
            await self._remove(temporary, report)

    async def _run(self, build: ImageBuild) -> Base | None:
        return await build.run()

    @contextmanager
    def _base(self, key: ImageKey, layer: dict[str, Any]) -> Iterator[Base | None]:
        """The image on whose layer a build may begin, in use as long as the block runs."""
        found = [(entry.folder, entry.record) for entry in room.entries(self.directory) if entry.record]
        base = base_for(key, layer, found)
        held = lease.lease(base.folder) if base else None
        try:
            yield base if held else None
        finally:
            if held:
                held.end()

    def _failed(self, recipe: ImageRecipe, temporary: Path, failure: ImageBuildFailed) -> HostError:
        """The failure of a build, with its log, which is kept. That the disk is full is not the image's."""
        kept = self.directory / f"failed-{recipe.name}.log"
        with suppress(OSError):
            kept.unlink(missing_ok=True)  # it may be another user's
            shutil.copyfile(temporary / LOG, kept)
        hint = f"The build's log: {kept}"
        if "No space left on device" in failure.sentence:
            hint = f"{room.how_to_get_room(self.directory)}. {hint}"
            return HostError(f"image {recipe.name}: {failure.sentence}", hint=hint)
        return ImageBuildFailed(f"image {recipe.name}: {failure.sentence}", hint=hint)

    async def _remove_orphans(self, report: Report) -> None:
        """Remove what killed builders left: a folder whose lock can be taken has no builder any more."""
        for folder in self.directory.glob("tmp-*-*"):
            path = room.lock_path(self.directory, folder.name.split("-")[1])
            lock = FileLock(path, mode=room.lock_mode(self.directory), blocking=False)
            with suppress(Timeout, PermissionError), lock:  # PermissionError: it is another user's to remove
                await self._remove(folder, report)

    async def _remove(self, folder: Path, report: Report) -> None:
        """Remove a build's folder, in the jail: its files may belong to users that exist only there.

        One that cannot be removed takes room and does no other harm: its name is no other build's.
        """
        if not folder.exists():
            return
        with tempfile.TemporaryDirectory(prefix="oscar-farm-") as place:
            try:
                await run_jailed(["rm", "-rf", str(folder)], Path(place) / LOG)
            except ImageBuildFailed as failure:
                shutil.rmtree(folder, ignore_errors=True)
                if folder.exists():
                    report(f"what an earlier build left cannot be removed, {folder}: {failure.sentence}")


def _removed(entry: room.Entry) -> str:
    if entry.is_download:
        return f"to make room, {entry.name} was removed: {entry.key[:21]}"
    return f"to make room, the image {entry.key[:12]} ({entry.name}) was removed: it was the least recently used"


def _publish(temporary: Path, final: Path) -> None:
    """Make a finished build the image, read-only, in one step."""
    shared = shared_with_group(final.parent)
    for path in temporary.iterdir():
        path.chmod(0o440 if shared else 0o400)
        _sync(path)
    temporary.chmod(0o550 if shared else 0o500)
    _sync(temporary)
    temporary.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit("python -m oscar_steps.images.store is a command now: oscar-testdriver images build RECIPE")
