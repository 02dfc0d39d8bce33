"""What comes from a worker: regular files below one folder, and no more than so many."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.buildstep import create_step_from_step_or_factory
from buildbot.process.results import FAILURE
from twisted.web.test.requesthelper import DummyRequest

from oscar_steps.master.steps import evidence
from oscar_steps.master.steps.first import superseded
from oscar_steps.master.steps.report import ReportStep
from oscar_steps.master.steps.results import RunIdentity
from oscar_steps.master.web.run_files import RunFiles
from oscar_steps.site import Schedule, Site
from oscar_steps.verdict import Category, Outcome, Verdict


def archive(directory: Path, *members: tuple[str, bytes, bytes]) -> Path:
    path = directory / "a.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname, member.size = content.decode(), 0
            packed.addfile(member, io.BytesIO(content) if member.size else None)
    return path


def test_only_regular_files_below_the_folder_are_unpacked(tmp_path: Path) -> None:
    packed = archive(
        tmp_path,
        ("logs/good", tarfile.REGTYPE, b"good"),
        ("../evil", tarfile.REGTYPE, b"evil"),
        ("/etc/evil", tarfile.REGTYPE, b"evil"),
        ("logs/link", tarfile.SYMTYPE, b"/etc/passwd"),
        ("logs/hard", tarfile.LNKTYPE, b"/etc/passwd"),
        ("logs/pipe", tarfile.FIFOTYPE, b""),
        ("logs/good/below-a-file", tarfile.REGTYPE, b"evil"),
    )
    assert evidence.unpack(packed, tmp_path / "run") == ["logs/good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "run"]


def test_names_that_are_no_text_are_printable_on_the_master(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    for name in (b"caf\xe9.log", b"caf%E9-done.log", "Übersicht".encode(), b"a\nb"):
        (Path(os.fsdecode(os.fsencode(run / "logs") + b"/" + name))).write_bytes(b"x")
    subprocess.run(["sh", "-c", evidence.PACK, str(run)], check=True)
    names = ["logs/a%0Ab", "logs/caf%E9-done.log", "logs/caf%E9.log", "logs/Übersicht"]
    assert evidence.unpack(run / evidence.ARCHIVE, tmp_path / "out") == names
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_a_name_that_is_too_long_is_left_out_and_the_rest_comes(tmp_path: Path) -> None:
    packed = archive(
        tmp_path,
        ("logs/" + "\udce9" * 200, tarfile.REGTYPE, b"x"),
        ("d/" * 2000 + "deep", tarfile.REGTYPE, b"x"),
        ("logs/b", tarfile.REGTYPE, b"y"),
    )
    assert evidence.unpack(packed, tmp_path / "run") == ["logs/b"]


def report_step(monkeypatch: pytest.MonkeyPatch, **methods: Any) -> tuple[ReportStep, dict[str, str]]:
    """A report step whose build has a red verdict; `methods` stand for what Buildbot and the worker would do."""
    verdict = RunIdentity("c-r7-b1", "c", "svn://h/oscar", "7").verdict(Outcome.FAILED, "red", category=Category.OSCAR)
    step = create_step_from_step_or_factory(
        ReportStep(Site.model_construct(schedule=Schedule(again=())), name="report")
    )
    builder = SimpleNamespace(name="c")
    step.build = SimpleNamespace(conn=object(), results=FAILURE, executedSteps=[], builder=builder)
    properties: dict[str, Any] = {"run_id": "c-r7-b1", "run_directory": "/runs/c-r7-b1"}
    logs: dict[str, str] = {}

    async def add_log(name: str, text: str) -> None:
        text.encode()
        logs[name] = text

    async def found(_identity: object) -> Verdict:
        return verdict

    made = {"addCompleteLog": add_log, "_verdict": found, "getProperty": properties.get, **methods}
    for name, method in {**made, "setProperty": lambda *_: None}.items():
        monkeypatch.setattr(step, name, method, raising=False)
    botmaster = SimpleNamespace(shuttingDown=False)
    step.master = SimpleNamespace(config=SimpleNamespace(buildbotURL="http://h/"), botmaster=botmaster)
    return step, logs


def test_names_that_cannot_be_stored_do_not_turn_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetched(_run_id: str) -> list[str]:
        return ["logs/caf\udce9.log"]

    step, logs = report_step(monkeypatch, _fetched_files=fetched)
    assert asyncio.run(step.run()) == FAILURE
    assert "could not be fetched or shown" in logs["note"]


def test_a_note_that_cannot_be_written_does_not_turn_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise OSError("disk full \udce9")

    step, logs = report_step(monkeypatch, _fetched_files=fails, addCompleteLog=fails)
    assert asyncio.run(step.run()) == FAILURE
    assert logs == {}


def test_an_archive_that_swells_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LIMITS", replace(evidence.LIMITS, total_bytes=10))
    packed = archive(tmp_path, ("a", tarfile.REGTYPE, b"12345678"), ("b", tarfile.REGTYPE, b"12345678"))
    assert evidence.unpack(packed, tmp_path / "run") == ["a"]


def test_packing_takes_what_is_there_and_leaves_disks_and_links(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    for folder in ("console", "disks", "logs"):
        (run / folder).mkdir(parents=True)
    (run / "console/head node.log").write_text("booted\n")
    (run / "disks/head.qcow2").write_text("disk")
    (run / "logs/passwd").symlink_to("/etc/passwd")
    subprocess.run(["sh", "-c", evidence.PACK, str(run)], check=True)
    assert evidence.unpack(run / evidence.ARCHIVE, tmp_path / "out") == ["console/head node.log"]


def test_old_runs_on_the_master_go_and_other_cells_stay(tmp_path: Path) -> None:
    for number in range(4):
        run = tmp_path / f"debian-12-x86_64-r{number}-b{number}"
        run.mkdir()
        os.utime(run, (number, number))
    (tmp_path / "debian-12-x86_64-xen-r1-b1").mkdir()
    evidence.prune(tmp_path, "debian-12-x86_64", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "debian-12-x86_64-r2-b2",
        "debian-12-x86_64-r3-b3",
        "debian-12-x86_64-xen-r1-b1",
    ]


def test_old_runs_of_commits_of_git_and_of_releases_go_as_well(tmp_path: Path) -> None:
    for number, source in enumerate(["r7", "g0123456789ab", "g0123456789ab.p0a1b2c3d", "t5.1rc1"]):
        run = tmp_path / f"debian-12-x86_64-{source}-b{number}"
        run.mkdir()
        os.utime(run, (number, number))
    evidence.prune(tmp_path, "debian-12-x86_64", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["debian-12-x86_64-t5.1rc1-b3"]


def test_the_workers_newest_runs_are_told_by_build_number_not_by_name() -> None:
    runs = [f"/runs/c-r7-b{number}" for number in (2, 10, 9)]
    assert superseded(runs, 2) == ["/runs/c-r7-b2"]
    assert superseded([*runs, "/runs/something-else"], 3) == []


@pytest.mark.parametrize("name", [b"pipe", b"link", b".hidden", b"a\0b", b"%00\0", b"x" * 5000, b"..", b"\xff"])
def test_what_is_no_file_of_the_run_is_not_found_and_nobody_waits_for_it(tmp_path: Path, name: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / ".hidden").write_text("x")
    page = RunFiles(str(tmp_path))
    assert page.getChild(name, DummyRequest([name])) is page.childNotFound


def test_a_file_and_a_folder_of_the_run_are_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.log").write_text("x")
    page = RunFiles(str(tmp_path))
    found = [page.getChild(name, DummyRequest([name])) for name in (b"folder", b"x.log")]
    assert [str(getattr(child, "path", "")) for child in found] == [str(tmp_path / "folder"), str(tmp_path / "x.log")]


@pytest.mark.parametrize(("ranges", "code", "body"), [("1-2", 206, b"bc"), (",".join(["0-0"] * 999), 200, b"abcd")])
def test_one_part_of_a_file_can_be_had_and_who_asks_for_several_gets_the_file(
    tmp_path: Path, ranges: str, code: int, body: bytes
) -> None:
    (tmp_path / "x.log").write_bytes(b"abcd")
    request = DummyRequest([b"x.log"])
    request.requestHeaders.addRawHeader(b"range", f"bytes={ranges}".encode())
    RunFiles(str(tmp_path)).getChild(b"x.log", request).render(request)
    assert (request.responseCode or 200, b"".join(request.written)) == (code, body)
