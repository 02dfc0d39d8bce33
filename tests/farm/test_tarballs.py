"""Releases as tarballs, through a real master: sets in pieces, a killed master, a web server, the report."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.children import Child
from demo.farm import CHECKOUT, Farm
from demo.mailsink import body_of, read_mail
from demo.ports import LOOPBACK, accepts, free_port
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import order, play

STABLE, UNSTABLE = "debian-12-x86_64", "debian-testing-x86_64"


class ReleaseFarm(Farm):
    """Watches a folder and a web server for releases, and tests them with two cells."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self.at, self.web = folder / "at", folder / "web"
        self.at.mkdir()
        self.web.mkdir()
        self.web_port = free_port()
        self.profiles = folder / "profiles"
        shutil.copytree(CHECKOUT / "profiles", self.profiles)
        matrix = self.profiles / "matrix.toml"
        text = matrix.read_text()
        for old, new in (
            ('labels = ["smoke", "nightly"]', 'labels = ["candidate", "smoke"]'),
            (
                'labels = ["weekly"], stability = "unstable", real = "debian-14"',
                'labels = ["candidate"], stability = "unstable", real = "debian-14"',
            ),
        ):
            assert old in text, old
            text = text.replace(old, new, 1)
        matrix.write_text(text)
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])

    def _site(self, web_port: int, master_port: int) -> str:
        return f"""{super()._site(web_port, master_port)}
[[tarballs]]
name = "folder"
url = {json.dumps(str(self.at))}
poll = 1
parts = ["base", "repo-common-rpms"]
release_manager = "manager@oscar.test"

[[tarballs]]
name = "web"
url = "http://{LOOPBACK}:{self.web_port}/dist/"
poll = 1
newer_than = "5.0"
"""

    def kill_master(self) -> None:
        self.master_server.kill()

    def start_master_again(self) -> None:
        self.master_server.start_again()
        self.master_server.wait_until(self.master.answers, "serving its web page", self.patience)

    def builds(self, revision: str, cell: str) -> list[dict[str, Any]]:
        """The builds of a release in a cell."""
        builder = self.master._get("builders", "builders", name=cell)[0]["builderid"]
        found = self.master._get(f"builders/{builder}/builds", "builds", order="buildid")
        return [build for build in found if self.master.property(build["buildid"], "revision") == revision]

    def ended(self, revision: str, cell: str, seconds: float = 90) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            return next((build for build in self.builds(revision, cell) if build["complete"]), None)

        return eventually(there, seconds)

    def reports(self, revision: str) -> list[Any]:
        mails = map(read_mail, sorted((self.directory / "mails").glob("*.eml")))
        return [mail for mail in mails if f"OSCAR {revision}: releasable" in " ".join(str(mail["Subject"]).split())]

    def changes(self, revision: str) -> list[dict[str, Any]]:
        return self.master._get("changes", "changes", revision=revision)

    def looked(self, name: str, times: int = 2) -> None:
        """Until the farm has looked so many times more at a place."""
        state = self.directory / f"master/tarballs/{name}/seen.json"
        for _ in range(times):
            before = state.stat().st_mtime_ns if state.exists() else 0
            eventually(lambda before=before: state.exists() and state.stat().st_mtime_ns > before, 60)


def put(folder: Path, name: str, content: str = "x") -> None:
    """A release's file, as an upload leaves it in the end: at once."""
    top = {"base": "oscar-5.1", "repo": "common-rpms"}["repo" if "repo" in name else "base"]
    with tarfile.open(folder / ".new", "w:gz") as tar:
        info = tarfile.TarInfo(f"{top}/README")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content.encode()))
    (folder / ".new").rename(folder / name)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseFarm]:
    with nothing_to_install(tmp_path_factory.mktemp("standin")):
        folder = tmp_path_factory.mktemp("releases")
        with ReleaseFarm(tmp_path_factory.mktemp("farm") / "f", folder) as farm:
            play(farm, "pass")
            farm.looked("folder", 1)
            yield farm


def test_a_set_that_arrives_in_pieces_while_the_master_is_killed_is_tested_once_and_reported_once(
    farm: ReleaseFarm,
) -> None:
    (farm.at / "oscar-base-5.1rc1.tar.gz").write_bytes(b"an upload that")
    farm.looked("folder", 1)
    put(farm.at, "oscar-base-5.1rc1.tar.gz")
    farm.looked("folder", 3)
    assert farm.changes("5.1rc1") == []
    assert "waits for repo-common-rpms" in (farm.directory / "master.log").read_text()
    farm.kill_master()
    put(farm.at, "oscar-repo-common-rpms-5.1rc1.tar.gz")
    farm.start_master_again()
    eventually(lambda: farm.changes("5.1rc1"), 60)
    farm.kill_master()
    farm.start_master_again()
    for cell in (STABLE, UNSTABLE):
        assert farm.ended("5.1rc1", cell)["results"] == 0
    (report,) = eventually(lambda: farm.reports("5.1rc1"), 60)
    assert report["To"] == "manager@oscar.test"
    assert str(report["Subject"]).endswith("releasable: yes")
    text = body_of(report)
    assert text.startswith("releasable: yes\n")
    assert STABLE in text and UNSTABLE in text and "oscar-repo-common-rpms-5.1rc1.tar.gz" in text
    put(farm.at, "oscar-srpms-5.1rc1.tar.gz")
    farm.looked("folder", 3)
    assert len(farm.changes("5.1rc1")) == 1
    assert {len([b for b in farm.builds("5.1rc1", cell) if b["results"] != 5]) for cell in (STABLE, UNSTABLE)} == {1}
    assert len(farm.reports("5.1rc1")) == 1


def test_the_worker_gets_the_files_that_fit_the_cell_from_the_master(farm: ReleaseFarm) -> None:
    put(farm.at, "oscar-base-5.2.tar.gz")
    put(farm.at, "oscar-repo-debian-12-x86_64-5.2.tar.gz")
    put(farm.at, "oscar-repo-debian-14-x86_64-5.2.tar.gz")
    put(farm.at, "oscar-srpms-5.2.tar.gz")
    farm.looked("folder")
    put(farm.at, "oscar-repo-common-rpms-5.2.tar.gz")
    build = farm.ended("5.2", STABLE)
    run = farm.runs / farm.master.property(build["buildid"], "run_id")
    assert run.name.startswith(f"{STABLE}-t5.2-b")
    job = json.loads((run / "job.json").read_text())["source"]
    fitting = ["oscar-base-5.2.tar.gz", "oscar-repo-common-rpms-5.2.tar.gz", "oscar-repo-debian-12-x86_64-5.2.tar.gz"]
    assert [file["name"] for file in job["files"]] == fitting
    assert (job["kind"], job["revision"], job["branch"]) == ("tarball", "5.2", "tarballs/folder")
    for name in fitting:
        assert (run / "tarballs" / name).read_bytes() == (farm.at / name).read_bytes()
    other = farm.ended("5.2", UNSTABLE)
    files = json.loads((farm.runs / farm.master.property(other["buildid"], "run_id") / "job.json").read_text())
    assert [file["name"] for file in files["source"]["files"]][-1] == "oscar-repo-debian-14-x86_64-5.2.tar.gz"


def forced(farm: ReleaseFarm, cell: str = STABLE, **wishes: str) -> None:
    builder = farm.master._get("builders", "builders", name=cell)[0]["builderid"]
    asked = {"branch": "tarballs/folder", "nodes": "0", "username": "manager@oscar.test", **wishes}
    order(farm, "forceschedulers/force", "force", builderid=builder, **asked)


def last_of(farm: ReleaseFarm, cell: str) -> dict[str, Any]:
    """The cell's last build."""
    builder = farm.master._get("builders", "builders", name=cell)[0]["builderid"]
    return dict(farm.master._get(f"builders/{builder}/builds", "builds", order="-buildid", limit=1)[0])


def after(farm: ReleaseFarm, cell: str, known: int) -> dict[str, Any]:
    """The cell's last build when it has ended, and is not the one that is known."""

    def found() -> dict[str, Any] | None:
        last = last_of(farm, cell)
        return last if last["complete"] and last["buildid"] > known else None

    return eventually(found, 90)


def test_a_release_is_forced_by_its_version_or_as_the_last_one_with_nodes_and_boot(farm: ReleaseFarm) -> None:
    play(farm, "pass")
    last = last_of(farm, STABLE)["buildid"]
    for version, tested in (("5.1rc1", "5.1rc1"), ("", "5.2")):
        forced(farm, revision=version, nodes="3", boot="network")
        build = after(farm, STABLE, last)
        last = build["buildid"]
        assert build["results"] == 0
        run = farm.runs / farm.master.property(last, "run_id")
        assert run.name.startswith(f"{STABLE}-t{tested}-b")
        job = json.loads((run / "job.json").read_text())
        assert (job["nodes"], job["boot"], job["source"]["kind"]) == (3, "network", "tarball")
        assert job["source"]["files"][0]["name"] == f"oscar-base-{tested}.tar.gz"
    assert len(farm.reports("5.2")) == 1, "a forced release is not reported as one that came"


def test_all_candidate_cells_test_a_release_that_is_forced_by_their_label(farm: ReleaseFarm) -> None:
    known = {cell: last_of(farm, cell)["buildid"] for cell in (STABLE, UNSTABLE)}
    with pytest.raises(httpx.HTTPStatusError) as refused:
        forced(farm, label="candidate")
    assert "give a revision" in refused.value.response.text
    forced(farm, label="candidate", revision="5.2")
    for cell, last in known.items():
        build = after(farm, cell, last)
        assert (build["results"], farm.master.property(build["buildid"], "revision")) == (0, "5.2")


def test_what_is_wrong_with_a_forced_release_is_one_sentence(farm: ReleaseFarm) -> None:
    last = last_of(farm, STABLE)["buildid"]
    forced(farm, revision="9.9")
    build = after(farm, STABLE, last)
    assert build["results"] == 4
    assert f"{farm.at} has no release '9.9' that the farm took; there are: 5.1rc1, 5.2" in build["state_string"]
    for wishes, said in (
        ({"branch": "tarballs/none"}, "give one of "),
        ({"revision": "5.2 or so"}, "give the number of a revision or a release's version, or nothing"),
        (
            {"revision": "5.2", "patch_body": "--- README\n+++ README\n@@ -1 +1 @@\n-a\n+b\n"},
            "a patch is tested on a revision of the repository, not on a release",
        ),
    ):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            forced(farm, **wishes)
        assert said in refused.value.response.text


@pytest.fixture
def nginx(farm: ReleaseFarm, tmp_path: Path) -> Iterator[Child]:
    if not (program := shutil.which("nginx", path="/usr/sbin:/usr/bin")):
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    places = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; user root; pid {tmp_path}/pid; events {{}}\n"
        f"http {{ access_log off; {places}\n"
        f"server {{ listen {LOOPBACK}:{farm.web_port}; location /dist/ {{ alias {farm.web}/; autoindex on; }} }} }}\n"
    )
    words = [program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-e", str(tmp_path / "error.log")]
    child = Child("the web server", words, log=tmp_path / "nginx.log", cwd=tmp_path, environment=dict(os.environ))
    try:
        child.wait_until(lambda: accepts(farm.web_port), "listening", 30)
        yield child
    finally:
        child.stop(10)


@pytest.mark.usefixtures("nginx")
def test_a_release_of_a_web_server_that_was_away_is_tested_and_one_that_fails_cannot_be_released(
    farm: ReleaseFarm,
) -> None:
    def operator_mails(words: str) -> list[Any]:
        mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
        return [mail for mail in mails if words in str(mail["Subject"])]

    eventually(lambda: operator_mails("releases web cannot be read"), 60)
    eventually(lambda: operator_mails("releases web can be read again"), 60)
    play(farm, "fail", "wait-nodes")
    for name in ("oscar-6.0.5.tar.gz", "oscar-4.2.tar.gz"):
        put(farm.web, name)
    assert farm.ended("6.0.5", STABLE)["results"] == 2
    farm.ended("6.0.5", UNSTABLE)
    (report,) = eventually(lambda: farm.reports("6.0.5"), 60)
    assert report["To"] == "operator@oscar.test"
    assert body_of(report).startswith(f"releasable: no, because OSCAR failed on {STABLE}\n")
    assert farm.changes("4.2") == []
    play(farm, "infrastructure", "wait-nodes")
    put(farm.web, "oscar-6.0.6.tar.gz")
    farm.ended("6.0.6", STABLE)
    (report,) = eventually(lambda: farm.reports("6.0.6"), 60)
    assert "releasable: not known yet, because there is no result" in body_of(report)
    play(farm, "pass")
