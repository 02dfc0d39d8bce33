"""The store of base images on a virtualization host: each is built once from its recipe, then only read."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pwd
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import AsyncFileLock, FileLock, Timeout

from oscar_steps.environment import default_store
from oscar_steps.errors import FarmError, ImageBuildFailed, UserError
from oscar_steps.images.build import (
    DISK,
    KERNEL,
    LOG,
    ImageBuild,
    Report,
    check_host,
    own_contents,
)
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.ordinary import require_user
from oscar_steps.matrix.recipes import ImageRecipe, load_recipe
from oscar_steps.textio import close_to_others, keep_private, shared_with_group
from oscar_steps.v3m.host import eventloop

BUILDER_VERSION = 2
"""Raise it when the builder changes in a way that its own files (see `own_contents`) do not show."""

_RECIPE = "recipe.json"
_WAIT_POLL = 0.5
"""Seconds between two looks at a lock that another process holds: flock has no event to wait for."""


@dataclass(frozen=True)
class BaseImage:
    """A finished image. Nobody writes to it: virtual machines run on overlays."""

    path: Path
    """The disk, qcow2."""
    kernel: Path
    """Its kernel, for those who need one on the host (the trial of an accelerator)."""
    digest: str


def digest_of(recipe: ImageRecipe) -> str:
    """The image's key: what its recipe says, and everything that the builder adds."""
    canonical = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{BUILDER_VERSION}\0{canonical}\0{own_contents(recipe)}".encode()).hexdigest()


class ImageStore:
    """Base images by the digest of their recipe: `DIGEST/` is an image, `tmp-DIGEST-PID-…/` one that is being built,
    `DIGEST.lock` is held by who builds it. It is for its user alone; the setgid bit (`chmod g+s`)
    says that an administrator shares it with its group.

    Why it survives kill -9, or a power cut, at any moment: a folder named `DIGEST` comes to be by one rename of a
    finished folder, whose files were synced before. The lock is the kernel's (flock) and ends with its process, and no
    child inherits it. The build's own children die with the process that started them (see `jail.jail`). So a
    `tmp-` folder whose lock is free has no owner any more; the next `ensure` removes it.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_store()

    def find(self, recipe: ImageRecipe) -> BaseImage | None:
        """The image of `recipe` if it is there already."""
        digest = digest_of(recipe)
        folder = self.directory / digest
        if not os.access(folder, os.R_OK | os.X_OK):
            return None
        return BaseImage(path=folder / DISK, kernel=folder / KERNEL, digest=digest)

    async def ensure(self, recipe: ImageRecipe, report: Report) -> BaseImage:
        """The image of `recipe`, built now if it has to be (minutes). To be called from the main thread.

        Of several processes that want the same image one builds it, the others wait. Raises ImageBuildFailed or
        ToolMissing (the host), ConfigError (the recipe).
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ImageBuildFailed(f"the image store {self.directory} cannot be made: {error.strerror}") from error
        if not os.access(self.directory, os.W_OK | os.X_OK):
            return self._of_another(recipe)
        try:
            return await self._ensured(recipe, report)
        except PermissionError as error:
            file = Path(str(error.filename))
            if self.directory not in file.parents:
                raise
            what = f"the image store {self.directory} is shared, but this user may not open {file}"
            hint = f"its owner or root opens it to the group: chmod g+rw {file}"
            raise ImageBuildFailed(what, hint=hint) from error

    async def _ensured(self, recipe: ImageRecipe, report: Report) -> BaseImage:
        """The image in a store that this user may write to. Raises PermissionError: another has closed something."""
        self._close()
        await self._remove_orphans(report)
        if image := self.find(recipe):
            return image
        check_host(recipe)
        require_user()
        digest = digest_of(recipe)
        async with self._locked(digest, report):
            if image := self.find(recipe):
                return image
            await self._build(recipe, digest, report)
        image = self.find(recipe)
        assert image is not None
        return image

    def _of_another(self, recipe: ImageRecipe) -> BaseImage:
        """The image in a store that is not this user's to write: it can be read, but none can be built there."""
        image = self.find(recipe)
        if image is not None and os.access(image.path, os.R_OK):
            return image
        number = self.directory.stat().st_uid
        try:
            owner = pwd.getpwuid(number).pw_name
        except KeyError:
            owner = str(number)
        what = f"the image store {self.directory} belongs to {owner}, and you cannot read the image {recipe.name} in it"
        share = f"chgrp -R GROUP {self.directory}; chmod -R g+rX {self.directory}; chmod g+s {self.directory}"
        hint = f"name a store of your own (--images FOLDER), or let {owner} share that one with a group: {share}"
        raise ImageBuildFailed(what, hint=hint)

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
    async def _locked(self, digest: str, report: Report) -> AsyncIterator[None]:
        lock = AsyncFileLock(self._lock_path(digest), mode=self._lock_mode(), run_in_executor=False)
        try:
            await lock.acquire(blocking=False)
        except Timeout:
            report("another process builds this image; waiting for it")
            await lock.acquire(poll_interval=_WAIT_POLL)
        try:
            yield
        finally:
            await lock.release()

    def _lock_path(self, digest: str) -> Path:
        return self.directory / f"{digest}.lock"

    def _lock_mode(self) -> int:
        return 0o660 if shared_with_group(self.directory) else 0o600

    async def _build(self, recipe: ImageRecipe, digest: str, report: Report) -> None:
        temporary = self.directory / f"tmp-{digest}-{os.getpid()}-{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            (temporary / _RECIPE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
            await ImageBuild(recipe, temporary, machine_id=digest[:32], report=report).run()
            _publish(temporary, self.directory / digest)
        except ImageBuildFailed as failure:
            kept = self.directory / f"failed-{recipe.name}.log"
            with suppress(FileNotFoundError):
                kept.unlink(missing_ok=True)  # it may be another user's
                shutil.copyfile(temporary / LOG, kept)
            raise ImageBuildFailed(
                f"image {recipe.name}: {failure.sentence}", hint=f"The build's log: {kept}"
            ) from failure
        finally:
            await self._remove(temporary, report)

    async def _remove_orphans(self, report: Report) -> None:
        """Remove what killed builders left: a folder whose lock can be taken has no builder any more."""
        for folder in self.directory.glob("tmp-*-*"):
            digest = folder.name.split("-")[1]
            lock = FileLock(self._lock_path(digest), mode=self._lock_mode(), blocking=False)
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


def main() -> int:
    """Build the image of a recipe file by hand."""
    parser = argparse.ArgumentParser(prog="python -m oscar_steps.images.store", description=main.__doc__)
    parser.add_argument("recipe", type=Path, help="the recipe of the image (RECIPE.toml)")
    parser.add_argument("store", nargs="?", type=Path, help="the folder of images (the user's cache)")
    keep_private()
    words = parser.parse_args()
    try:
        recipe = load_recipe(words.recipe)
        store = ImageStore(words.store)
        image = eventloop.run(store.ensure(recipe, lambda line: print(line, flush=True)))
    except FarmError as error:
        print(error.explain(), file=sys.stderr)
        return 64 if isinstance(error, UserError) else 20
    print(image.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
