"""More cells on one worker than Twisted allows references on a connection (1,024): they are built like few."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from twisted.spread import pb

from bench.master import write_profiles
from demo.farm import Farm
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install

CELLS = 1100


class LargeFarm(Farm):
    """A farm of that many cells."""

    def __init__(self, directory: Path, profiles: Path) -> None:
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])
        write_profiles(profiles, CELLS)
        self.profiles = profiles


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    with (
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        LargeFarm(folder / "f", folder / "profiles") as farm,
    ):
        yield farm


def test_a_cell_beyond_the_1024th_is_built_and_the_worker_has_a_slot_for_each_build_at_a_time(farm: Farm) -> None:
    assert CELLS > pb.MAX_BROKER_REFS
    (farm.directory / "scenario").write_text(json.dumps({"play": "pass", "stage": "wait-nodes"}))
    last = farm.master._get("builders", "builders", name=f"debian-{CELLS}-x86_64")[0]["builderid"]
    order = {"id": 1, "jsonrpc": "2.0", "method": "force", "params": {"builderid": str(last), "branch": "trunk"}}
    url = f"{farm.master.base}api/v2/forceschedulers/force"
    httpx.post(url, json=order, trust_env=False, timeout=60).raise_for_status()
    build = eventually(
        lambda: next(iter(farm.master._get(f"builders/{last}/builds", "builds", complete="true")), None), 120
    )
    assert build["results"] == 0
    assert farm.master.property(build["buildid"], "verdict")["outcome"] == "passed"
    folders = sorted(path.name for path in (farm.directory / "worker").iterdir() if path.is_dir())
    assert folders == ["info", "slot1", "slot2"]
