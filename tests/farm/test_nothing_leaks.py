"""Nothing of a farm can be opened by another user of the host, and none of its secrets is where it need not be."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import demo.farm
from demo import children
from demo.farm import Farm
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_reconfig import Relay, change, reconfigure, secret, serving
from tests.others import open_to_others

WORKER, MAIL, WEB = "marked-worker-7f3a", "marked-mail-91bc", "marked-web-e205"
SECRETS = (WORKER, MAIL, WEB)
THEIR_PLACES = {"master/secrets/worker-demo-worker", "master/secrets/mail-password", "master/secrets/web-jane"}
THEIR_PLACES |= {"worker/password"}


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """A farm that begins under a umask that closes nothing, in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="farm-others-") as folder, pytest.MonkeyPatch.context() as patch:
        place = Path(folder)
        place.chmod(0o755)
        patch.setattr(demo.farm, "_PASSWORD", WORKER)
        before = os.umask(0)
        try:
            with nothing_to_install(place), Farm(place / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm:
                yield farm
        finally:
            os.umask(before)


@pytest.fixture(scope="module")
def used(farm: Farm) -> Farm:
    """The same after a mail by an account, a login, and a run that passed."""
    (farm.directory / "scenario").write_text(json.dumps({"play": "pass", "stage": "wait-nodes"}))
    relay = Relay(MAIL)
    with serving(relay) as port:
        change(farm, f"port = {farm.mails.port}", f'port = {port}\nuser = "farm"')
        change(farm, "open = true", 'admins = ["jane"]')
        secret(farm, "mail-password", MAIL)
        secret(farm, "web-jane", WEB)
        assert "configuration update complete" in reconfigure(farm)
        login = httpx.get(f"{farm.master.base}auth/login", auth=("jane", WEB), trust_env=False, timeout=60)
        assert login.status_code == 302
        revision = farm.commit_harmless()
        eventually(lambda: any(f"r{revision}: " in mail for mail in relay.taken), 120)
    return farm


def forms(text: str) -> list[bytes]:
    """A secret as it is, and as HTTP and SMTP write it."""
    logins = [f"jane:{text}", f"\0farm\0{text}", text]
    return [text.encode(), *(base64.b64encode(login.encode()) for login in logins)]


def found_in(data: bytes) -> list[str]:
    return [text for text in SECRETS if any(form in data for form in forms(text))]


def test_of_master_worker_and_runs_another_user_can_open_nothing(used: Farm) -> None:
    beside = ["f.lock", "faults", "faults/faults.toml", "tree", "tree/README"]
    assert open_to_others(used.directory.parent) == beside
    used.directory.chmod(0o755)  # also in a folder that is open
    try:
        theirs = [name for name in open_to_others(used.directory) if name.split("/")[0] in ("master", "worker", "runs")]
        assert theirs == []
        # Nor would they in these, were they opened by mistake.
        (run,) = (path for path in used.runs.iterdir() if path.name.startswith(used.cell))
        for folder in (used.runs, run, used.directory / "master" / "runs", used.directory / "master" / "spool"):
            assert [
                str(path) for path in folder.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077
            ] == []
        state = used.directory / "master"
        assert [path.name for path in state.iterdir() if path.stat().st_mode & 0o077] == []
    finally:
        used.directory.chmod(0o700)


def test_no_file_of_the_farm_holds_a_secret_but_its_own(used: Farm) -> None:
    files = [path for path in used.directory.rglob("*") if path.is_file() and not path.is_symlink()]
    places = {str(path.relative_to(used.directory)): found_in(path.read_bytes()) for path in files}
    assert {name for name, found in places.items() if found} == THEIR_PLACES
    assert any(name.startswith("runs/") and name.endswith("job.json") for name in places)
    assert "master/state.sqlite" in places


def test_no_row_of_the_database_holds_a_secret(used: Farm) -> None:
    """Logs are packed there: they are read as the pages show them."""
    with sqlite3.connect(f"file:{used.directory}/master/state.sqlite?mode=ro", uri=True) as database:
        dump = "\n".join(database.iterdump())
        logs = [number for (number,) in database.execute("select id from logs")]
    assert "got_revision" in dump
    assert found_in(dump.encode()) == []
    assert logs
    for number in logs:
        text = httpx.get(f"{used.master.base}api/v2/logs/{number}/contents", trust_env=False, timeout=60).content
        assert found_in(text) == []


def test_no_answer_of_the_web_pages_holds_a_secret(used: Farm) -> None:
    for path in (
        "workers",
        "builders",
        "builds?property=*",
        "changes",
        "schedulers",
        "forceschedulers",
        "changesources",
    ):
        text = httpx.get(f"{used.master.base}api/v2/{path}", trust_env=False, timeout=60).content
        assert found_in(text) == [], path
    for path in ("", "config", "plugins/health/", "plugins/standing/"):
        assert found_in(httpx.get(used.master.base + path, trust_env=False, timeout=60).content) == [], path


def test_no_process_of_the_farm_has_a_secret_in_its_environment_or_its_words(used: Farm) -> None:
    processes = children.marked(str(used.directory))
    assert len(processes) >= 3
    for process in processes:
        try:
            told = "\n".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            continue
        assert found_in(told.encode()) == []
