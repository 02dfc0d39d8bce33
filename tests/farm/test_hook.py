"""Subversion's hook makes the farm look at once, and does nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue

import httpx
import pytest

from demo import children
from demo.children import run
from demo.farm import CHECKOUT
from demo.ports import LOOPBACK
from oscar_steps.environment import tool_environment
from tests.farm.support import eventually
from tests.farm.watching import Server, Watching
from tests.unit.git_server import Repository

SECRET = "a-secret-of-hooks-0123456789"
HOOK = CHECKOUT / "workers/post-commit"


class WithHook(Watching):
    def _site(self, web_port: int, master_port: int) -> str:
        secret = self.directory / "master/secrets/poll-hook"
        secret.touch(mode=0o600)
        secret.write_text(SECRET)
        return super()._site(web_port, master_port)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, WithHook]]:
    directory = tmp_path_factory.mktemp("farm") / "f"
    server = Server("svnserve", directory.parent, {**os.environ, children.MARK: f"{directory}-server"})
    try:
        run("svn", "mkdir", "--quiet", "-m", "trunk", f"{server.url}/trunk")
        with WithHook(directory, server.url, **{"poll = 2": "poll = 36000"}) as farm:
            yield server, farm
    finally:
        server.close()


def install(server: Server, farm: WithHook, secret: str = SECRET) -> None:
    hook = server.repository / "hooks/post-commit"
    shutil.copy(HOOK, hook)
    settings = hook.with_name("post-commit.curl")
    settings.touch(mode=0o600)
    settings.write_text(
        f'url = "{farm.master.base}change_hook/poke"\nheader = "X-Oscar-Farm-Hook: {secret}"\n', encoding="utf-8"
    )


def test_a_commit_is_seen_at_once_where_the_server_has_the_hook(served: tuple[Server, WithHook]) -> None:
    server, farm = served
    install(server, farm)
    run("svn", "mkdir", "--quiet", "-m", "seen at once", "--username", "eric", f"{server.url}/trunk/a")
    eventually(lambda: [change[:2] for change in farm.changes()] == [(2, "trunk")], 30)
    for number in range(10):
        run("svn", "mkdir", "--quiet", "-m", "a burst", "--username", "eric", f"{server.url}/trunk/b{number}")
    eventually(lambda: [change[0] for change in farm.changes()] == list(range(2, 13)), 30)


@pytest.mark.parametrize("secret", ["", "wrong", f"{SECRET}x", "\u00e9"])
def test_nobody_else_makes_the_farm_look(served: tuple[Server, WithHook], secret: str) -> None:
    _, farm = served
    url = f"{farm.master.base}change_hook/poke"
    headers = {"X-Oscar-Farm-Hook": secret.encode()}
    answer = httpx.post(url, headers=headers, trust_env=False, timeout=60)
    assert (answer.status_code, "X-Oscar-Farm-Hook" in answer.text) == (400, True)
    right = {"X-Oscar-Farm-Hook": SECRET}
    assert httpx.get(url, headers=right, trust_env=False, timeout=60).status_code == 400


def test_buildbots_own_hooks_which_believe_what_they_get_are_closed(served: tuple[Server, WithHook]) -> None:
    _, farm = served
    before = farm.changes()
    for name in ("", "/base", "/github", "/poller"):
        data = {"author": "mallory", "revision": "1", "branch": "trunk", "project": "oscar", "comments": "x"}
        answer = httpx.post(f"{farm.master.base}change_hook{name}", data=data, trust_env=False, timeout=60)
        assert answer.status_code == 400, name
    assert farm.changes() == before


def test_a_farm_that_is_away_neither_delays_nor_fails_a_commit(tmp_path: Path) -> None:
    hook = tmp_path / "post-commit"
    shutil.copy(HOOK, hook)
    environment = {key: value for key, value in tool_environment().items() if key == "LC_ALL"}
    for settings in ("", 'url = "http://127.0.0.1:9/"\n', None):
        if settings is not None:
            hook.with_name("post-commit.curl").write_text(settings)
        else:
            hook.with_name("post-commit.curl").unlink()
        done = subprocess.run([hook, tmp_path, "7"], capture_output=True, timeout=5, check=True, env=environment)
        assert (done.stdout, done.stderr) == (b"", b"")


def test_the_same_script_is_the_hook_of_a_git_repository(tmp_path: Path) -> None:
    made, there = Repository(tmp_path / "made.git"), Repository(tmp_path / "oscar.git")
    heard: SimpleQueue[tuple[str, str]] = SimpleQueue()

    class Heard(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.put((self.path, self.headers["X-Oscar-Farm-Hook"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Nothing."""

    with HTTPServer((LOOPBACK, 0), Heard) as farm:
        hook = there.path / "hooks/post-receive"
        hook.parent.mkdir(exist_ok=True)
        shutil.copy(HOOK, hook)
        settings = f'url = "http://{LOOPBACK}:{farm.server_port}/poke"\nheader = "X-Oscar-Farm-Hook: {SECRET}"\n'
        hook.with_name("post-receive.curl").write_text(settings)
        made.commit({"README": b"x\n"})
        # Not our own environment for git, which runs no hooks.
        words = ["git", f"--git-dir={made.path}", "push", "--quiet", there.path.as_uri(), "main"]
        pushed = subprocess.run(words, env=tool_environment(), capture_output=True, timeout=30, check=True)
        farm.handle_request()
    assert (heard.get(timeout=30), pushed.stderr) == (("/poke", SECRET), b"")


def test_shellcheck_finds_nothing_in_the_hook() -> None:
    done = subprocess.run(["shellcheck", "--shell=sh", str(HOOK)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
