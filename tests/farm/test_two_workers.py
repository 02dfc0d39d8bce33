"""Two workers and more cells than they can run: where each cell goes, whose turn it is, and why the others wait."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.children import Child
from demo.farm import CHECKOUT, WORKER, Farm
from demo.mailsink import read_mail
from oscar_steps.matrix.cells import load_matrix
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install

OTHER, SECRET = "other", "only-on-loopback"
HONEST = {"architectures": {"x86_64": "tcg"}, "hypervisors": ["Qemu"], "memory_mib": 8192, "processors": 2}
BLOCKER, RED, GREEN, SMOKE = (f"debian-{number}-x86_64" for number in range(1, 5))
ARM = "debian-5-aarch64"
CELL = """
[[cell]]
distribution = "debian"
version = "{version}"
architecture = "{architecture}"
image = "debian-12-{architecture}"
cluster = "{cluster}"
answers = "{answers}"
labels = ["{label}"]
"""


class TwoWorkers(Farm):
    """A farm of five cells. Its first worker describes its host; the other one lies about its own."""

    def __init__(self, directory: Path, profiles: Path) -> None:
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])
        shutil.copytree(CHECKOUT / "profiles", profiles)
        first = load_matrix(CHECKOUT / "profiles").cells[0]
        rows = [
            CELL.format(
                version=version,
                architecture=architecture,
                cluster=first.cluster,
                answers=first.answers,
                label="smoke" if name == SMOKE else "nightly",
            )
            for name in (BLOCKER, RED, GREEN, SMOKE, ARM)
            for _, version, architecture in [name.split("-")]
        ]
        (profiles / "matrix.toml").write_text("".join(rows))
        self.profiles = profiles

    def _site(self, web_port: int, master_port: int) -> str:
        close(self.directory / f"master/secrets/worker-{OTHER}", SECRET)
        return f'{super()._site(web_port, master_port)}builds = 1\n[[worker]]\nname = "{OTHER}"\nbuilds = 1\n'

    def _start_worker(self) -> None:
        self.worker = self._one_worker(WORKER, HONEST)
        self.other = self._one_worker(OTHER, HONEST | {"memory_mib": -5})

    def _one_worker(self, name: str, said: dict[str, Any]) -> Child:
        base = self.directory / name
        base.mkdir()
        shutil.copy(CHECKOUT / "workers/buildbot.tac", base)
        (base / "said").write_text(json.dumps(said))
        describe = f'describe = ["cp", "{base}/said", "{base}/info/host.json"]\n'
        (base / "worker.toml").write_text(f'master = "{self._worker_address}"\nname = "{name}"\n{describe}')
        close(base / "password", SECRET)
        child = self._twistd(name, base, self.directory / f"{name}.log")
        self._serve(child, 15)
        child.wait_until(lambda: self.master.has_worker(name), "a connection to the master", 60)
        return child

    def number_of(self, cell: str) -> int:
        return int(self.master._get("builders", "builders", name=cell)[0]["builderid"])

    def force(self, cell: str, revision: int = 1) -> None:
        wish = {"builderid": str(self.number_of(cell)), "branch": "trunk", "revision": str(revision)}
        order = {"id": 1, "jsonrpc": "2.0", "method": "force", "params": wish}
        httpx.post(f"{self.master.base}api/v2/forceschedulers/force", json=order, trust_env=False, timeout=60)

    def builds(self, cell: str) -> list[dict[str, Any]]:
        """Those that are over."""
        return self.master._get(f"builders/{self.number_of(cell)}/builds", "builds", complete="true")

    def waits(self) -> dict[str, dict[str, Any]]:
        """The cells that wait, in their order."""
        page = httpx.get(f"{self.master.base}plugins/standing?format=json", trust_env=False, timeout=30).json()
        return {each["cell"]: each for each in page["waiting"]["cells"]}

    def play(self, name: str, **more: Any) -> None:
        (self.directory / "scenario").write_text(json.dumps({"play": name, "stage": "wait-nodes", **more}))


def close(path: Path, secret: str) -> None:
    path.touch(0o600)
    path.write_text(secret)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoWorkers]:
    folder = tmp_path_factory.mktemp("farm")
    with (
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        TwoWorkers(folder / "f", folder / "profiles") as farm,
    ):
        yield farm


def test_a_worker_that_lies_about_its_host_costs_one_mail_and_no_cell(farm: TwoWorkers) -> None:
    def mails() -> list[str]:
        files = sorted((farm.directory / "mails").glob("*.eml"))
        return [subject for file in files if "describe its host" in (subject := str(read_mail(file)["Subject"]))]

    assert eventually(mails) == [f"[oscar-farm] the worker {OTHER} does not describe its host"]


def test_a_cell_that_neither_worker_can_take_says_why_and_holds_nobody_up(farm: TwoWorkers) -> None:
    farm.force(ARM)
    waits = eventually(farm.waits)[ARM]
    assert waits["stuck"]
    lacks = (
        f"{WORKER} has the architectures x86_64, not aarch64; {OTHER} has the architectures x86_64, i386, not aarch64"
    )
    assert waits["why"] == f"no connected worker can take it: {lacks}"
    for cell, play, result in ((GREEN, "pass", 0), (RED, "fail", 2)):
        farm.play(play)
        farm.force(cell)
        assert eventually(lambda cell=cell: farm.builds(cell), 60)[0]["results"] == result  # type: ignore[misc]
    assert not farm.builds(ARM)


def test_smoke_goes_before_nightly_and_what_was_red_before_what_was_green(farm: TwoWorkers) -> None:
    assert farm.builds(RED) and farm.builds(GREEN), "red ran last, so it would be the last by its age alone"
    farm.other.stop(15)
    farm.play("wait")
    farm.force(BLOCKER)
    eventually((farm.directory / "waiting").exists, 60)
    for cell in (GREEN, RED, SMOKE):
        farm.force(cell)
    eventually(lambda: [*farm.waits()] == [SMOKE, RED, ARM, GREEN], 30)  # one that has never run is the oldest
    assert farm.waits()[SMOKE]["why"] == f"{WORKER} is full: 1 of 1 clusters; {OTHER} is not connected"
    (farm.directory / "go").touch()
    eventually(lambda: farm.builds(SMOKE) and len(farm.builds(RED)) == len(farm.builds(GREEN)) == 2, 120)
    begun = {cell: max(build["started_at"] for build in farm.builds(cell)) for cell in (GREEN, RED, SMOKE)}
    assert sorted(begun, key=lambda cell: begun[cell]) == [SMOKE, RED, GREEN]


def test_the_page_of_a_cell_says_why_it_waits(farm: TwoWorkers) -> None:
    def said() -> str:
        return str(farm.master._get("builders", "builders", name=ARM)[0]["description"])

    assert eventually(lambda: "aarch64: " in said() and ". Waits: " in said(), 90)
    assert said().endswith(f"; {OTHER} is not connected.")
