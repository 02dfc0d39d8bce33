"""A run from tarballs, up to the head node: what is fetched, what is checked, what a person may name."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oscar_steps.errors import Finding, HostError, SourceError, UserError
from oscar_steps.sources.source import Source, TarFile
from oscar_steps.testdriver.cli.tarballs import source_of
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.stages.sources import tarball
from oscar_steps.textio import sha256_of

VERSION = b"major=5\nminor=1\nrelease=0\ngreek=rc1\nwant_svn=0\n"


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def base(folder: Path, version: bytes = VERSION) -> Path:
    files = {"oscar-5.1rc1/VERSION": version, "oscar-5.1rc1/install_cluster": b"#!"}
    return packed(folder / "oscar-base-5.1rc1.tar.gz", files)


@dataclass
class Head:
    """A head node whose commands run in a folder of this host."""

    root: Path
    commands: list[str] = field(default_factory=list)

    async def check(self, command: str, *, seconds: float, stdin: Path) -> str:
        assert seconds > 0
        self.commands.append(command)
        here = command.replace("/opt/oscar", f"{self.root}/opt/oscar").replace("/tftpboot", f"{self.root}/tftpboot")
        await asyncio.to_thread(_run, here, stdin)
        return ""


def _run(command: str, stdin: Path) -> None:
    with stdin.open("rb") as file:
        subprocess.run(["sh", "-c", command], stdin=file, check=True, timeout=60)


def bring(tmp_path: Path, source: Source) -> tuple[str, Head]:
    run_directory = tmp_path / "run"
    run_directory.mkdir()
    job = SimpleNamespace(source=source, answers=SimpleNamespace(oscar_home="/opt/oscar"))
    head = Head(tmp_path / "root")
    run = SimpleNamespace(directory=run_directory, job=job, diary=Diary(run_directory))
    said = asyncio.run(tarball.bring(cast("Any", run), cast("Any", SimpleNamespace(head=head)), Deadline(60)))
    assert not list((run_directory / "tarballs").iterdir()), "no tarball is left on the host"
    return said, head


def test_each_part_of_a_set_goes_where_oscar_looks_for_it(tmp_path: Path) -> None:
    files = [
        base(tmp_path),
        packed(tmp_path / "oscar-repo-common-rpms-5.1rc1.tar.gz", {"common-rpms/a.rpm": b"a"}),
        packed(tmp_path / "oscar-repo-rhel-4-x86_64-5.1rc1.tar.gz", {"rhel-4-x86_64/b.rpm": b"b"}),
        packed(tmp_path / "oscar-srpms-5.1rc1.tar.gz", {"oscar-5.1rc1/packages/x/SRPMS/x.src.rpm": b"x"}),
    ]
    said, head = bring(tmp_path, source_of([str(file) for file in files]))
    there = sorted(str(path.relative_to(head.root)) for path in head.root.rglob("*") if path.is_file())
    assert there == [
        "opt/oscar/VERSION",
        "opt/oscar/install_cluster",
        "tftpboot/oscar/common-rpms/a.rpm",
        "tftpboot/oscar/rhel-4-x86_64/b.rpm",
    ]
    assert "oscar-srpms-5.1rc1.tar.gz was checked" in said


def test_a_file_that_the_master_sent_is_used_although_the_original_is_gone(tmp_path: Path) -> None:
    source = source_of([str(base(tmp_path))])
    (tmp_path / "run/tarballs").mkdir(parents=True)
    (tmp_path / "oscar-base-5.1rc1.tar.gz").rename(tmp_path / "run/tarballs/oscar-base-5.1rc1.tar.gz")
    plain = tmp_path / "run/tarballs/plain"
    asyncio.run(tarball._checked(source.files[0], plain, Deadline(60), strip=True))
    with tarfile.open(plain) as tar:
        assert tar.getnames() == ["VERSION", "install_cluster"]


def test_a_file_that_has_changed_since_is_not_used_and_no_release_is_blamed(tmp_path: Path) -> None:
    source = source_of([str(base(tmp_path))])
    base(tmp_path, VERSION.replace(b"rc1", b"rc2"))
    with pytest.raises(HostError, match=r"is another file now|has more than"):
        bring(tmp_path, source)


@pytest.mark.parametrize(
    ("name", "files", "why"),
    [
        (
            "oscar-base-5.1rc1.tar.gz",
            {"oscar-5.1rc1/VERSION": VERSION.replace(b"rc1", b"")},
            "that it is OSCAR 5.1, not",
        ),
        ("oscar-base-5.1rc1.tar.gz", {"oscar-5.1rc1/x": b"", "other/x": b""}, "has to hold one folder"),
        ("oscar-base-5.1rc1.tar.gz", {"oscar-5.1rc1/../../x": b""}, "leads out of its folder"),
        ("oscar-repo-fc-5-i386-5.1rc1.tar.gz", {"fc-5-x86_64/x": b""}, "unpacks to 'fc-5-x86_64', not to 'fc-5-i386'"),
    ],
)
def test_a_tarball_that_is_not_what_its_name_says_is_the_releases_fault(
    tmp_path: Path, name: str, files: dict[str, bytes], why: str
) -> None:
    path = packed(tmp_path / name, files)
    sha256, size = sha256_of(path), path.stat().st_size
    file = TarFile(name=name, url=f"file://{path}", sha256=sha256, size=size)
    with pytest.raises(Finding) as refused:
        bring(tmp_path, Source(kind="tarball", url=str(tmp_path), revision="5.1rc1", files=(file,)))
    assert why in refused.value.sentence
    assert refused.value.sentence.startswith(name)
    assert refused.value.category == "oscar"


def test_a_person_names_files_of_one_release_with_one_installer(tmp_path: Path) -> None:
    one = base(tmp_path)
    repository = packed(tmp_path / "oscar-repo-common-rpms-5.1rc1.tar.gz", {"common-rpms/a": b""})
    found = source_of([str(one), str(repository)])
    assert (found.kind, found.revision, found.short) == ("tarball", "5.1rc1", "t5.1rc1")
    assert found.files[0].url == f"file://{one}"
    other = packed(tmp_path / "oscar-repo-common-rpms-5.1.tar.gz", {"common-rpms/a": b""})
    for wrong in ([repository], [one, one], [one, other]):
        with pytest.raises(SourceError):
            source_of([str(path) for path in wrong])
    for wrong_name in ("/nowhere/oscar-5.1.tar.gz", "/etc/passwd", "http://127.0.0.1:9/oscar-5.1.tar.gz"):
        with pytest.raises(UserError):
            source_of([wrong_name])
