"""The web pages of a real master with a login: who may do what, and what an odd or hostile request gets."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import buildbot.data
import httpx
import jwt
import pytest
from buildbot.data.base import Endpoint
from twisted.python.modules import getModule

from demo.children import Child
from demo.farm import Farm
from demo.ports import LOOPBACK, accepts, free_port
from demo.rest import Build
from oscar_steps.master.schedules.names import FIND
from oscar_steps.verdict import LINT
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install

ADMIN, FORMER_ADMIN = "ann", "bob"
_PASSWORD = "a word for the tests"
_SECONDS = 60.0


class GuardedFarm(Farm):
    """The demo's farm, but only `ann` may force and stop."""

    def _site(self, web_port: int, master_port: int) -> str:
        secret = self.directory / "master/secrets" / f"web-{ADMIN}"
        secret.touch(mode=0o600)
        secret.write_text(_PASSWORD)
        return super()._site(web_port, master_port).replace("open = true", f'admins = ["{ADMIN}"]')


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with (
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        GuardedFarm(tmp_path_factory.mktemp("farm") / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm,
    ):
        (farm.directory / "scenario").write_text(json.dumps({"play": "pass", "stage": "wait-nodes"}))
        yield farm


@pytest.fixture(scope="module")
def build(farm: Farm) -> Build:
    """A build that has ended well."""
    found = farm.master.wait_for_build(farm.commit_harmless(), farm.cell, 120)
    eventually(lambda: farm.master.build(found.build_id).complete, 120)
    return farm.master.build(found.build_id)


@contextmanager
def client(farm: Farm, user: str = "") -> Iterator[httpx.Client]:
    """A browser: of nobody, of the admin (who logs in), or of somebody who has a login and is no admin any more."""
    with httpx.Client(base_url=farm.master.base, trust_env=False, timeout=_SECONDS) as browser:
        if user == ADMIN:
            answer = browser.get("auth/login", auth=(ADMIN, _PASSWORD))
            assert answer.status_code == 302, answer.text
        elif user:
            browser.cookies.set("TWISTED_SESSION", signed(farm, user))
            assert browser.get("config").json()["user"]["username"] == user
        yield browser


def signed(farm: Farm, user: str) -> str:
    """A session as the master itself signs it."""
    with closing(sqlite3.connect(farm.directory / "master/state.sqlite")) as database:
        rows = database.execute("SELECT value_json FROM object_state WHERE name = 'session_secret'").fetchall()
    claims = {"user_info": {"username": user, "email": user}, "exp": int(time.time()) + 600}
    return jwt.encode(claims, json.loads(rows[0][0]), algorithm="HS256")


def control(browser: httpx.Client, path: str, method: str, **parameters: Any) -> int:
    message = {"id": 1, "jsonrpc": "2.0", "method": method, "params": parameters}
    return browser.post(f"api/v2/{path}", json=message).status_code


def talk(farm: Farm, request: bytes) -> bytes:
    """What the master answers to exactly these bytes; it has ten seconds."""
    url = httpx.URL(farm.master.base)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (some := connection.recv(65536)):
            answer += some
    return answer


def websocket(farm: Farm, *more: str) -> int:
    """The status of an attempt to open a WebSocket; 101 where it is open."""
    authority = httpx.URL(farm.master.base).netloc.decode()
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET /ws HTTP/1.1", f"Host: {authority}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *more,
    ]  # fmt: skip
    return int(talk(farm, "\r\n".join([*lines, "", ""]).encode()).split(b" ", 2)[1])


def test_a_cookie_is_kept_from_scripts_and_from_other_sites(farm: Farm) -> None:
    for path in ("", "config", "api/v2/builders"):
        with client(farm) as browser:
            cookies = browser.get(path).headers.get_list("set-cookie")
        assert cookies, path
        for cookie in cookies:
            words = {word.strip().lower() for word in cookie.split(";")}
            assert {"httponly", "samesite=lax", "path=/"} <= words, cookie
            assert "secure" not in words, "the farm's own address is http: a browser would not keep it"


def test_only_the_farms_own_pages_open_a_websocket(farm: Farm) -> None:
    authority = httpx.URL(farm.master.base).netloc.decode()
    assert websocket(farm) == 101, "a program that is no browser"
    assert websocket(farm, f"Origin: http://{authority}") == 101
    port = authority.partition(":")[2]
    foreign = (
        "http://evil.example.org", f"http://evil.example.org:{port}", f"http://{authority}.evil.example.org", "null",
        "http://127.0.0.1:1", f"file://{authority}", "", "http://", f"http://{authority}, http://evil.example.org",
    )  # fmt: skip
    assert {origin: websocket(farm, f"Origin: {origin}") for origin in foreign} == dict.fromkeys(foreign, 403)
    assert websocket(farm, f"Origin: http://{authority}", "Origin: http://evil.example.org") == 403


def test_another_sites_page_can_order_nothing_with_the_admins_cookie(farm: Farm) -> None:
    with client(farm, ADMIN) as browser:
        before = farm.master._get("buildrequests", "buildrequests")
        for path in ("api/v2/forceschedulers/force", "change_hook/base", "auth/login", "plugins/health"):
            answer = browser.post(path, json={}, headers={"Origin": "http://evil.example.org"})
            assert answer.status_code == 403, path
        answer = browser.get("api/v2/builds", headers={"Origin": "http://evil.example.org"})
        assert answer.headers.get("access-control-allow-origin") is None
    assert farm.master._get("buildrequests", "buildrequests") == before


def test_who_may_not_force_is_shown_no_button_for_it(farm: Farm) -> None:
    builder = farm.master._get("builders", "builders", name=farm.cell)[0]["builderid"]
    paths = ("api/v2/forceschedulers", f"api/v2/builders/{builder}/forceschedulers")
    for user, shown in (("", False), (FORMER_ADMIN, False), (ADMIN, True)):
        with client(farm, user) as browser:
            for path in paths:
                assert bool(browser.get(path).json()["forceschedulers"]) is shown, (user, path)
            styles = browser.get("plugins/runs/styles.css").text
            assert ("navbar-nav form { display: none; }" not in styles) is shown, user


def controls() -> dict[str, Any]:
    """Buildbot's endpoints that can be ordered to do something, by the name of their class."""
    found = {}
    for module in getModule(buildbot.data.__name__).walkModules():
        for name, thing in vars(module.load()).items():
            if isinstance(thing, type) and issubclass(thing, Endpoint) and thing is not Endpoint:
                acts = any(word.startswith("action") for word in dir(thing))
                if acts or thing.control is not Endpoint.control:
                    found[name] = thing
    return found


def orders(farm: Farm, build: Build) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """One order for each thing that can be ordered. Those of a build that has ended change nothing."""
    builder = farm.master._get("builders", "builders", name=farm.cell)[0]["builderid"]
    number = farm.master._get(f"builds/{build.build_id}", "builds")[0]["number"]
    request = farm.master._get(f"builds/{build.build_id}", "builds")[0]["buildrequestid"]
    worker = farm.master._get("workers", "workers")[0]
    nightly = next(s for s in farm.master._get("schedulers", "schedulers") if s["name"] != "force")["schedulerid"]
    reason = {"reason": "a test"}
    return {
        "stop": (f"builds/{build.build_id}", "stop", reason),
        "stop, by number": (f"builders/{builder}/builds/{number}", "stop", reason),
        "rebuild": (f"builds/{build.build_id}", "rebuild", reason),
        "cancel": (f"buildrequests/{request}", "cancel", reason),
        "set_priority": (f"buildrequests/{request}", "set_priority", {"priority": 1}),
        "force": ("forceschedulers/force", "force", {"builderid": str(builder), "branch": "trunk", "revision": ""}),
        "find": (f"forceschedulers/{FIND}", "force", {"builderid": str(builder), "branch": "trunk", "revision": ""}),
        "switch a scheduler": (f"schedulers/{nightly}", "enable", {"enabled": True}),
        "pause": (f"workers/{worker['workerid']}", "pause", reason),
        "unpause, by name": (f"workers/{worker['name']}", "unpause", reason),
        "end a worker": (f"builders/{builder}/workers/{worker['name']}", "stop", reason),
        "kill": (f"workers/{worker['workerid']}", "kill", reason),
    }


def test_each_order_is_the_admins_alone(farm: Farm, build: Build) -> None:
    # A new version of Buildbot may bring more that can be ordered.
    assert set(controls()) == {
        "BuildEndpoint", "BuildRequestEndpoint", "ForceSchedulerEndpoint", "SchedulerEndpoint", "WorkerEndpoint",
    }  # fmt: skip
    table = orders(farm, build)
    before = farm.master._get("buildrequests", "buildrequests")
    for user in ("", FORMER_ADMIN):
        with client(farm, user) as browser:
            said = {name: control(browser, path, method, **words) for name, (path, method, words) in table.items()}
            assert said == dict.fromkeys(table, 403), user
            # Buildbot's own rule is for all that is not called 'get'.
            assert {control(browser, path, "get", **words) for path, _method, words in table.values()} == {403}
    assert farm.master._get("buildrequests", "buildrequests") == before
    assert not any(worker["paused"] or worker["graceful"] for worker in farm.master._get("workers", "workers"))
    with client(farm, ADMIN) as browser:
        # The others end the worker, or start builds; of the priority Buildbot 4.3 says 500 itself.
        harmless = ("stop", "stop, by number", "cancel", "switch a scheduler", "pause", "unpause, by name")
        said = {name: control(browser, table[name][0], table[name][1], **table[name][2]) for name in harmless}
        assert said == dict.fromkeys(harmless, 200)
        path, method, words = table["force"]
        assert control(browser, path, method, **words) == 200
    eventually(lambda: len(farm.master._get("buildrequests", "buildrequests")) > len(before))


def test_a_pushed_change_is_nobodys_to_send(farm: Farm) -> None:
    before = farm.master._get("changes", "changes")
    with client(farm) as browser:
        for path in ("change_hook", "change_hook/base", "change_hook/github", "change_hook/poller"):
            answer = browser.post(path, data={"revision": "1", "branch": "trunk", "author": "x", "comments": "x"})
            assert answer.status_code >= 400, path
    assert farm.master._get("changes", "changes") == before


_ODD_FILES = (
    "%00", "logs/%00", "logs/index.html%00", "%00/..", "logs/a%00b", "..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e",
    "logs/../../../secrets", "..%2fsecrets", "..%5csecrets", "x" * 300, "x/" * 3000, "%ff%fe", "logs/%e9", "pipe",
    "pipe/", "pipe/x", "out", "out/passwd", "out/", "passwd", ".", "%2e", ".hidden", "logs/index.html/x", "*", "~root",
    "%c0%ae%c0%ae/", "%0d%0aX-Evil:%201", "disks/", "%25%30%30", "locked/y",
)  # fmt: skip
_ODD_PAGES = [
    "/%00", "/assets/%00", "/plugins/%00", "/plugins/health/%00", "/api/v2/%00", "/img/%00.png", "/%00%00/x",
    "/plugins/runs/..", "/plugins/runs/%2e%2e/secrets", "/plugins/standing/%ff", "/plugins/runs//etc/passwd",
]  # fmt: skip


def test_an_odd_address_of_a_runs_file_is_not_found_at_once(farm: Farm, build: Build) -> None:
    name = farm.master.property(build.build_id, "run_id")
    run = farm.directory / "master/runs" / name
    assert LINT not in name and (run / "logs").is_dir()
    os.mkfifo(run / "pipe")
    (run / "out").symlink_to("/etc")
    (run / "passwd").symlink_to("/etc/passwd")
    (run / "locked").mkdir()
    (run / "locked/x").write_text("x")
    base = f"/plugins/runs/{name}"
    odd = [f"{base}/{path}" for path in _ODD_FILES] + _ODD_PAGES
    log = farm.directory / "master.log"
    said, logged = {}, log.stat().st_size
    for path in odd:
        answer = talk(farm, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said[path[:80]] = int(answer.split(b" ", 2)[1])
    assert {path: status for path, status in said.items() if status != 404} == {}
    for path in ("//", "/logs//index.html", "///logs/index.html"):
        answer = talk(farm, f"GET {base}{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert int(answer.split(b" ", 2)[1]) in (200, 404), path
    assert b"Traceback" not in log.read_bytes()[logged:]


def test_what_a_run_wrote_is_no_page_of_the_farms(farm: Farm, build: Build) -> None:
    run = farm.master.property(build.build_id, "run_id")
    with client(farm) as browser:
        for path in (f"plugins/runs/{run}/logs/index.html", f"plugins/runs/{run}/"):
            headers = browser.get(path).headers
            assert "sandbox" in headers["content-security-policy"].split("; "), path
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff", path
        for path in ("", "config", "api/v2/builds", "plugins/health", "plugins/standing/", "nothing/here"):
            headers = browser.get(path).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff", path


def proxy_example() -> str:
    """nginx's configuration, as docs/operator-guide.md shows it."""
    text = (Path(__file__).resolve().parents[2] / "docs/operator-guide.md").read_text()
    found = re.search(r"^    server \{\n(?:^    .*\n|^\n)*?^    \}\n", text, re.MULTILINE)
    assert found, "the operator's guide has no example of a proxy"
    return textwrap.dedent(found[0])


@pytest.fixture
def proxy(farm: Farm, tmp_path: Path) -> Iterator[int]:
    """The guide's proxy with a certificate of its own before the farm: its port on the loopback interface."""
    if not (program := shutil.which("nginx", path="/usr/sbin:/usr/bin")):
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    names = ("-subj", "/CN=farm.example.org", "-addext", "subjectAltName=DNS:farm.example.org")
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *files, *names],
        check=True,
        timeout=60,
        capture_output=True,
    )
    port = free_port()
    server = proxy_example()
    for old, new in (
        ("listen 443", f"listen {LOOPBACK}:{port}"),
        ("/etc/ssl/farm.example.org.pem", str(tmp_path / "certificate")),
        ("/etc/ssl/private/farm.example.org.key", str(tmp_path / "key")),
        ("http://127.0.0.1:8010", farm.master.base.rstrip("/")),
    ):
        assert old in server, old
        server = server.replace(old, new)
    places = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; events {{}}\n"
        f"http {{ access_log off; {places}\n{server}}}\n"
    )
    words = [program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-e", str(tmp_path / "error.log")]
    child = Child("the proxy", words, log=tmp_path / "nginx.log", cwd=tmp_path, environment=dict(os.environ))
    try:
        child.wait_until(lambda: accepts(port), "listening", 30)
        yield port
    finally:
        child.stop(10)


def through(proxy: int, certificate: Path, request: bytes) -> bytes:
    """What the proxy answers to these bytes by TLS; of a WebSocket all up to its first answer."""
    trusted = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection((LOOPBACK, proxy), timeout=_SECONDS) as plain,
        trusted.wrap_socket(plain, server_hostname="farm.example.org") as connection,
    ):
        connection.sendall(request)
        answer = b""
        while not any(end in answer for end in (b"pong", b" 403 Forbidden\r\n")) and (some := connection.recv(65536)):
            answer += some
    return answer


def test_the_guides_proxy_gives_the_pages_and_their_websocket_by_tls(farm: Farm, proxy: int, tmp_path: Path) -> None:
    def get(path: str, *more: str, after: bytes = b"") -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: farm.example.org", *more, "", ""]
        return through(proxy, tmp_path / "certificate", "\r\n".join(lines).encode() + after)

    page = get("/", "Connection: close")
    assert page.startswith(b"HTTP/1.1 200") and b"<title>Buildbot</title>" in page
    assert b"HttpOnly" in page
    assert farm.cell.encode() in get("/api/v2/builders", "Connection: close")
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    ping = b'{"cmd": "ping", "_id": 1}'
    frame = bytes([0x81, 0x80 | len(ping), 0, 0, 0, 0]) + ping
    opened = get("/ws", *upgrade, "Origin: https://farm.example.org", after=frame)
    assert opened.startswith(b"HTTP/1.1 101"), opened
    assert b'"msg":"pong"' in opened
    assert get("/ws", *upgrade, "Origin: https://evil.example.org").startswith(b"HTTP/1.1 403")
