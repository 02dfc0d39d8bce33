"""Where releases appear: folders, web servers, FTP servers; and files fetched from there, within limits."""

from __future__ import annotations

import hashlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from oscar_steps.errors import Cancelled, HostError
from oscar_steps.sources.tarballs.fetch import Limit, download, page
from oscar_steps.sources.tarballs.names import is_ours
from oscar_steps.sources.tarballs.places import entries, names_of

LIMIT = Limit(1 << 22, 20)
CONTENT = b"a tarball" * 1000
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200, **fields: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    for name, value in fields.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(content)


def shelf(index: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/old/":
            send(handler, b"", 302, Location="/dist/")
        elif handler.path == "/dist/":
            send(handler, index.encode())
        elif handler.path.startswith("/dist/oscar-base-5.1"):
            send(handler, CONTENT, Last_Modified="Fri, 15 Jun 2007 10:00:00 GMT", ETag='"1"')
        else:
            send(handler, b"no", 404)

    return answer


INDEX = """<html><head><title>Index of /dist</title></head><body><h1>Index of /dist</h1><pre>
<a href="?C=N;O=D">Name</a> <a href="/">Parent Directory</a> <a href="../">../</a>
<a href="oscar-base-5.1.tar.gz">oscar-base-5.1.tar.gz</a>     2007-06-15 10:00   9k
<a href="/dist/oscar-base-5.1rc1.tar.gz">oscar-base-5.1rc1.tar.gz</a>
<a href='oscar-base-5.2.tar.gz'>gone</a> <A HREF=oscar-base-5.1b1.tar.gz>old style</A>
<a href="http://elsewhere.test/dist/oscar-base-9.1.tar.gz">x</a> <a href="file:///etc/oscar-9.2.tar.gz">x</a>
<a href="sub/oscar-base-9.3.tar.gz">x</a> <a href="/oscar-base-9.4.tar.gz">x</a>
<a href="oscar-base-9.5.tar.gz?x=1">x</a> <a href="..%2foscar-9.6.tar.gz">x</a> <a href="oscar-9.7%0a.tar.gz">x</a>
<a href="http://[bad/oscar-9.8.tar.gz">x</a> <a>nothing</a>
"""


@pytest.mark.parametrize("start", ["/dist", "/dist/", "/old/"])
def test_an_index_page_leads_to_the_tarballs_right_below_it_and_nowhere_else(start: str) -> None:
    with web(shelf(INDEX)) as base:
        found = {entry.name: entry for entry in entries(base + start, is_ours, LIMIT)}
    assert {*found} == {"oscar-base-5.1.tar.gz", "oscar-base-5.1rc1.tar.gz", "oscar-base-5.1b1.tar.gz"}
    one = found["oscar-base-5.1.tar.gz"]
    assert (one.size, one.url) == (len(CONTENT), f"{base}/dist/oscar-base-5.1.tar.gz")
    assert one.tag == f'{len(CONTENT)}|Fri, 15 Jun 2007 10:00:00 GMT|"1"'


def test_a_listing_of_ten_thousand_names_is_read_and_one_without_end_is_refused() -> None:
    many = "".join(f'<a href="sis-{number}.tar.gz">sis</a>\n' for number in range(10_000))
    with web(shelf(many + INDEX)) as base:
        assert len(entries(f"{base}/dist", is_ours, LIMIT)) == 3
    with pytest.raises(HostError, match="more than 50000 names"):
        names_of('<a href="x">' * 60_000, "http://x.test/")

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b'<a href="x">' * 10_000)

    with web(endless) as base, pytest.raises(HostError, match="more than 8388608 bytes"):
        entries(base, is_ours, LIMIT)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "/again"])
def test_a_redirection_leads_to_no_file_of_this_host_and_comes_to_an_end(tmp_path: Path, to: str) -> None:
    with web(lambda handler: send(handler, b"", 302, Location=to)) as base:
        with pytest.raises(HostError, match=r"cannot be read: (Protocol|Maximum)"):
            page(f"{base}/x", LIMIT)
        with pytest.raises(HostError):
            download(f"{base}/x", tmp_path / "x", LIMIT)


def test_a_file_is_fetched_with_its_digest_from_a_server_and_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "at").mkdir()
    (tmp_path / "at/oscar-base-5.1.tar.gz").write_bytes(CONTENT)
    with web(shelf(INDEX)) as base:
        for place in (f"{base}/dist", str(tmp_path / "at"), f"file://{tmp_path}/at"):
            entry = next(e for e in entries(place, is_ours, LIMIT) if e.name == "oscar-base-5.1.tar.gz")
            got = download(entry.url, tmp_path / "got", LIMIT)
            assert (got.sha256, got.size, got.tag) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), entry.tag)
            assert (tmp_path / "got").read_bytes() == CONTENT


def test_a_download_dies_with_the_process_that_waits_for_it() -> None:
    asked = threading.Event()

    def silent(_handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        time.sleep(60)

    with web(silent) as base:
        code = (
            "import sys, threading; from pathlib import Path\n"
            "from oscar_steps.sources.tarballs.fetch import Limit, page\n"
            "threading.Thread(target=page, args=(sys.argv[1], Limit(1, 50))).start()"
        )
        waiting = subprocess.Popen([sys.executable, "-c", code, f"{base}/x"])
        assert asked.wait(20)
        (curl,) = psutil.Process(waiting.pid).children()
        waiting.kill()
        waiting.wait()
        curl.wait(10)


def test_what_is_larger_than_allowed_cut_off_slow_or_stopped_is_said(tmp_path: Path) -> None:
    target = tmp_path / "got"

    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "9000")
        handler.end_headers()
        handler.wfile.write(b"only this")

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)

    with web(shelf(INDEX)) as base:
        url = f"{base}/dist/oscar-base-5.1.tar.gz"
        with pytest.raises(HostError, match="more than 100 bytes"):
            download(url, target, Limit(100, 20))
        with pytest.raises(HostError, match=r"nothing\.tar\.gz cannot be read: .*404"):
            download(f"{base}/nothing.tar.gz", target, LIMIT)
    with pytest.raises(HostError, match=r"cannot be read: .*[Cc]onnect"):
        download(url, target, LIMIT)
    with web(short) as base, pytest.raises(HostError):
        download(f"{base}/x", target, LIMIT)
    with web(trickle) as base:
        began = time.monotonic()
        with pytest.raises(HostError, match="timed out after 1"):
            download(f"{base}/x", target, Limit(1 << 20, 1))
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(Cancelled):
            download(f"{base}/x", target, Limit(1 << 20, 60, stop))
        assert time.monotonic() - began < 15


def test_an_address_gives_curl_no_order(tmp_path: Path) -> None:
    for url in ('http://127.0.0.1/x"\noutput = "/tmp/pwned', "scp://h/x", "http://h/a b", "-K/etc/passwd", "dict://h/"):
        with pytest.raises(HostError, match="is no address"):
            download(url, tmp_path / "x", LIMIT)


def test_links_pipes_and_folders_called_like_tarballs_are_none(tmp_path: Path) -> None:
    (tmp_path / "oscar-5.0.tar.gz").symlink_to("/etc/passwd")
    (tmp_path / "oscar-5.1.tar.gz").mkdir()
    os.mkfifo(tmp_path / "oscar-5.2.tar.gz")
    assert entries(str(tmp_path), is_ours, LIMIT) == []
    with pytest.raises(HostError):
        download(f"file://{tmp_path}/oscar-5.0.tar.gz", tmp_path / "got", LIMIT)
    with pytest.raises(HostError, match="cannot be read"):
        entries(str(tmp_path / "nowhere"), is_ours, LIMIT)


class Ftp(socketserver.StreamRequestHandler):
    """As much of FTP as curl speaks."""

    mlsd = True

    def handle(self) -> None:
        self._say("220 ready")
        passive = socket.create_server(("127.0.0.1", 0))
        with passive:
            for line in self.rfile:
                word = line.decode().strip().partition(" ")[0]
                self._answer(word.upper(), passive)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def _answer(self, word: str, passive: socket.socket) -> None:
        listing = {
            "MLSD": "type=cdir;modify=20070615100000; .\r\n"
            f"type=file;size={len(CONTENT)};modify=20070615100000; oscar-base-5.1.tar.gz\r\n"
            "type=dir;modify=20070615100000; oscar-5.0.tar.gz\r\ntype=file;size=3; README\r\n",
            "NLST": "oscar-base-5.1.tar.gz\r\nREADME\r\n",
        }
        if word in ("NLST", "RETR") or (word == "MLSD" and self.mlsd):
            self._say("150 here it comes")
            with passive.accept()[0] as data:
                data.sendall(CONTENT if word == "RETR" else listing[word].encode())
            self._say("226 done")
            return
        said = {
            "USER": "331 password", "PASS": "230 in", "PWD": '257 "/"', "CWD": "250 ok", "TYPE": "200 ok",
            "EPSV": f"229 ok (|||{passive.getsockname()[1]}|)", "SIZE": f"213 {len(CONTENT)}",
            "MDTM": "213 20070615100000", "REST": "350 ok", "QUIT": "221 bye",
        }  # fmt: skip
        self._say(said.get(word, "502 no"))


@pytest.mark.parametrize("mlsd", [True, False])
def test_a_folder_of_an_ftp_server_is_read_also_where_it_knows_no_mlsd(tmp_path: Path, mlsd: bool) -> None:
    handler = type("Ftp", (Ftp,), {"mlsd": mlsd})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        (entry,) = entries(f"ftp://127.0.0.1:{server.server_address[1]}/dist", is_ours, LIMIT)
        got = download(entry.url, tmp_path / "got", LIMIT)
        server.shutdown()
    assert (entry.name, entry.size) == ("oscar-base-5.1.tar.gz", len(CONTENT))
    assert entry.tag.startswith(f"{len(CONTENT)}|")
    assert got.sha256 == hashlib.sha256(CONTENT).hexdigest()
