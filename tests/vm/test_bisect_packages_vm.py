"""A search over the packages of two images, on real virtual clusters: one of them breaks OSCAR."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from demo.replays import standin_served
from oscar_steps.images import outside
from oscar_steps.images.kinds import bootstrap
from oscar_steps.images.kinds.bootstrap import AptSource
from oscar_steps.images.store import ImageStore
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import BootstrapRecipe, load_recipe
from oscar_steps.testdriver.cli.main import cli

_CELL = "debian-12-x86_64"
_PACKAGES = 4
_PLANTED = 3

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(7200)]


class Repository:
    """A repository beside Debian's own, with packages that do nothing; of the second edition one breaks something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "key.gpg"
        self._home = folder / "gnupg"
        (folder / "pool").mkdir(parents=True)
        self._home.mkdir(mode=0o700)
        self._gpg("--passphrase", "", "--quick-gen-key", "Tiny <tiny@example.org>", "ed25519", "sign", "never")
        self._gpg("--output", self.key, "--export")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"farm-planted-{number}" for number in range(1, _PACKAGES + 1))

    def publish(self, edition: int) -> None:
        """Packages N of version EDITION.N; earlier ones stay."""
        for number, name in enumerate(self.names, 1):
            tree = self.folder / f"{name}-{edition}"
            (tree / "DEBIAN").mkdir(parents=True)
            control = f"Package: {name}\nVersion: {edition}.{number}\nArchitecture: all\nMaintainer: nobody\n"
            (tree / "DEBIAN/control").write_text(f"{control}Description: nothing\n")
            if edition > 1 and number == _PLANTED:
                program = tree / "usr/local/sbin/genisoimage"
                program.parent.mkdir(parents=True)
                program.write_text("#!/bin/sh\necho 'genisoimage: the new version is broken' >&2\nexit 1\n")
                program.chmod(0o755)
            command = ["dpkg-deb", "--root-owner-group", "--build", tree, self.folder / f"pool/{name}_{edition}.deb"]
            subprocess.run(command, check=True, capture_output=True)
        suite = self.folder / "dists/bookworm"
        (suite / "main/binary-amd64").mkdir(parents=True, exist_ok=True)
        made = subprocess.run(["apt-ftparchive", "packages", "pool"], cwd=self.folder, check=True, capture_output=True)
        (suite / "main/binary-amd64/Packages").write_bytes(made.stdout)
        digest = f" {hashlib.sha256(made.stdout).hexdigest()} {len(made.stdout)} main/binary-amd64/Packages\n"
        about = "Origin: Debian\nSuite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: main\n"
        (suite / "Release").write_text(f"{about}Date: Sat, 28 Nov 2026 10:00:00 UTC\nSHA256:\n{digest}")
        (suite / "InRelease").unlink(missing_ok=True)
        self._gpg("--output", suite / "InRelease", "--clearsign", suite / "Release")

    def _gpg(self, *words: object) -> None:
        gpg = ["gpg", "--homedir", str(self._home), "--batch", "--quiet"]
        try:
            subprocess.run([*gpg, *map(str, words)], check=True, capture_output=True)
        finally:
            subprocess.run(["gpgconf", "--homedir", self._home, "--kill", "gpg-agent"], check=False)

    def beside(self, host_sources: Callable[[], object]) -> Callable[[], object]:
        """The host's sources and this one."""

        async def sources() -> tuple[AptSource, ...]:
            theirs = await host_sources()  # type: ignore[misc]
            return (*theirs, AptSource(f"copy:{self.folder}", "bookworm", "bookworm", "Debian", str(self.key)))

        return sources


def two_images(store: Path, repository: Repository) -> tuple[str, str]:
    """The keys of an image before the new edition of the packages, and of one after it."""
    recipe = load_recipe(default_profiles() / f"images/{_CELL}.toml")
    assert isinstance(recipe, BootstrapRecipe)
    recipe = recipe.model_copy(update={"packages": (*recipe.packages, *repository.names)})
    keys = []
    for edition in (1, 2):
        repository.publish(edition)
        outside.forget(store)
        keys.append(asyncio.run(ImageStore(store).ensure(recipe, print)).digest)
    return keys[0], keys[1]


def test_a_bisect_over_packages_finds_the_planted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path / "repository")
    monkeypatch.setattr(bootstrap, "host_sources", repository.beside(bootstrap.host_sources))
    old, new = two_images(tmp_path / "store", repository)
    with standin_served() as standin:
        words = ["bisect-packages", old, new, "--cell", _CELL, "--url", f"{standin.url}/trunk", "--revision", "1"]
        result = CliRunner().invoke(cli, [*words, "--runs", str(tmp_path), "--images", str(tmp_path / "store")])
    print(result.output)
    assert result.exit_code == 0
    assert f"farm-planted-{_PLANTED} 1.{_PLANTED} -> 2.{_PLANTED} did it" in result.output
