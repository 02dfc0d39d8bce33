"""A release of the stand-in, as tarballs in a folder: tested on real machines through the whole farm, and reported."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from demo.farm import CHECKOUT, STANDIN, Farm
from demo.mailsink import body_of, read_mail
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.words import Label
from tests.farm.support import eventually

SECONDS = 2400


class ReleaseFarm(Farm):
    """Watches a folder, and tests what comes there with one cell."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self.at, self.profiles = folder / "at", folder / "profiles"
        self.at.mkdir()
        shutil.copytree(CHECKOUT / "profiles", self.profiles)
        matrix = self.profiles / "matrix.toml"
        matrix.write_text(matrix.read_text().replace('labels = ["smoke", "nightly"]', 'labels = ["candidate"]', 1))
        self.candidate = next(c.name for c in load_matrix(self.profiles).cells if Label.CANDIDATE in c.labels)
        super().__init__(directory)

    def _site(self, web_port: int, master_port: int) -> str:
        place = f'[[tarballs]]\nname = "releases"\nurl = {json.dumps(str(self.at))}\npoll = 1\n'
        return f'{super()._site(web_port, master_port)}\n{place}parts = ["base", "repo-common-rpms"]\n'


def pack(target: Path, folder: Path, top: str) -> None:
    """A tarball of `folder`, whose top folder is called `top`."""
    new = target.with_name(".new")
    command = ["tar", "-czf", new, "-C", folder.parent, f"--transform=s,^{folder.name},{top},", folder.name]
    subprocess.run(command, check=True, timeout=60)
    new.rename(target)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_a_release_is_installed_on_a_cluster_and_can_be_released(tmp_path: Path) -> None:
    with ReleaseFarm(CHECKOUT / ".farm" / "release", tmp_path) as farm:
        eventually((farm.directory / "master/tarballs/releases/seen.json").exists, 60)
        pack(farm.at / "oscar-base-5.1a1.tar.gz", STANDIN / "tree", "oscar-5.1a1")
        (tmp_path / "common-rpms").mkdir()
        (tmp_path / "common-rpms/README").write_text("no packages\n")
        pack(farm.at / "oscar-repo-common-rpms-5.1a1.tar.gz", tmp_path / "common-rpms", "common-rpms")

        def report() -> Any:
            mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
            return next((mail for mail in mails if "releasable" in str(mail["Subject"])), None)

        mail = eventually(report, SECONDS)
        assert body_of(mail).startswith("releasable: yes\n"), body_of(mail)
        assert farm.candidate in body_of(mail)
        (run,) = farm.runs.glob(f"{farm.candidate}-t5.1a1-b*")
        verdict = json.loads((run / "verdict.json").read_text())
        assert verdict["outcome"] == "passed"
        assert verdict["tested"]["kind"] == "tarball"
        assert len(verdict["tested"]["files"]) == 2
    assert farm.leftovers == []
