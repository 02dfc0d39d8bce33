"""A real master takes over what is new or changed, passwords included, by a reconfiguration alone."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import kill
from pathlib import Path

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from demo.children import Child
from demo.farm import CHECKOUT, Farm
from demo.ports import LOOPBACK, free_port
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with (
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        Farm(tmp_path_factory.mktemp("farm") / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm,
    ):
        yield farm


def secret(farm: Farm, name: str, text: str) -> None:
    path = farm.directory / "master/secrets" / name
    path.touch(mode=0o600)
    path.write_text(text)


def reconfigure(farm: Farm) -> str:
    """Reconfigure the master; what it wrote meanwhile."""
    log = farm.directory / "master.log"
    before = log.stat().st_size
    kill(farm.master_server.pid, signal.SIGHUP)

    def written() -> str:
        return log.read_bytes()[before:].decode(errors="replace")

    eventually(
        lambda: bool(re.search(r"configuration update (complete|partially|aborted)|reconfig.*failed", written()))
    )
    return written()


@contextmanager
def worker(farm: Farm, name: str, password: str, folder: Path) -> Iterator[None]:
    folder.mkdir()
    shutil.copy(CHECKOUT / "workers/buildbot.tac", folder)
    (folder / "worker.toml").write_text(f'master = "{farm._worker_address}"\nname = "{name}"\n')
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(password)
    child: Child = farm._twistd(name, folder, folder / "log")
    try:
        child.wait_until(lambda: farm.master.has_worker(name), "a connection to the master", 30)
        yield
    finally:
        child.stop(15)
    eventually(lambda: not farm.master.has_worker(name))


class Relay:
    """A mail relay that takes mail from one account only, and says who logged in and who was refused."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.refused: list[str] = []
        self.taken: list[str] = []

    def authenticate(self, _server: object, _session: object, _envelope: object, _how: str, login: object) -> object:
        user, password = login.login.decode(), login.password.decode()  # type: ignore[attr-defined]
        if (user, password) == ("farm", self.password):
            return AuthResult(success=True)
        self.refused.append(password)
        return AuthResult(success=False, handled=False)

    async def handle_DATA(self, _server: object, _session: object, envelope: object) -> str:
        self.taken.append(envelope.content.decode())  # type: ignore[attr-defined]
        return "250 kept"


@contextmanager
def serving(relay: Relay) -> Iterator[int]:
    port = free_port()
    server = Controller(
        relay,
        hostname=LOOPBACK,
        port=port,
        authenticator=relay.authenticate,
        auth_required=True,
        auth_require_tls=False,
    )
    server.start()
    try:
        yield port
    finally:
        server.stop()


def change(farm: Farm, old: str, new: str) -> None:
    """Put `new` for `old` in the site."""
    site = farm.directory / "master/farm.toml"
    text = site.read_text()
    assert text.count(old) == 1
    site.write_text(text.replace(old, new))


def test_a_new_worker_is_taken_by_a_reconfiguration_and_so_is_its_changed_password(farm: Farm, tmp_path: Path) -> None:
    site = farm.directory / "master/farm.toml"
    site.write_text(site.read_text() + '\n[[worker]]\nname = "second"\n')
    secret(farm, "worker-second", "first password")
    said = reconfigure(farm)
    assert "KeyError" not in said
    assert "configuration update complete" in said
    with worker(farm, "second", "first password", tmp_path / "one"):
        pass
    secret(farm, "worker-second", "other password")
    assert "configuration update complete" in reconfigure(farm)
    with worker(farm, "second", "other password", tmp_path / "two"):
        pass


def test_an_account_at_the_mail_relay_is_taken_by_a_reconfiguration_and_so_is_its_changed_password(farm: Farm) -> None:
    (farm.directory / "scenario").write_text(json.dumps({"play": "pass", "stage": "wait-nodes"}))
    relay = Relay("first password")
    with serving(relay) as port:
        change(farm, f"port = {farm.mails.port}", f'port = {port}\nuser = "farm"')
        secret(farm, "mail-password", "first password")
        assert "configuration update complete" in reconfigure(farm)
        revision = farm.commit_harmless()
        eventually(lambda: any(f"r{revision}: " in mail for mail in relay.taken), 60)
        assert relay.refused == []
        relay.password = "other password"
        revision = farm.commit_harmless()
        eventually(lambda: "first password" in relay.refused, 60)
        secret(farm, "mail-password", "other password")
        said = reconfigure(farm)
        assert "configuration update complete" in said
        # The mail that the relay refused waits, and goes out at once.
        eventually(lambda: any(f"r{revision}: " in mail for mail in relay.taken))
        log = (farm.directory / "master.log").read_text(errors="replace")
        assert "other password" not in log
        assert "first password" not in log
        change(farm, f'port = {port}\nuser = "farm"', f"port = {farm.mails.port}")
        assert "configuration update complete" in reconfigure(farm)


def test_an_admin_and_a_changed_web_password_are_taken_by_a_reconfiguration(farm: Farm) -> None:
    def login(password: str) -> int:
        page = f"{farm.master.base}auth/login"
        return httpx.get(page, auth=("jane", password), trust_env=False, timeout=60).status_code

    change(farm, "open = true", 'admins = ["jane"]')
    secret(farm, "web-jane", "first password")
    assert "configuration update complete" in reconfigure(farm)
    assert (login("first password"), login("other password")) == (302, 401)
    secret(farm, "web-jane", "other password")
    assert "configuration update complete" in reconfigure(farm)
    assert (login("first password"), login("other password")) == (401, 302)
    change(farm, 'admins = ["jane"]', "open = true")
    assert "configuration update complete" in reconfigure(farm)
