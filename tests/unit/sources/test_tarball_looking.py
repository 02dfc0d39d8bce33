"""Looks at a folder with releases: what is taken, what is waited for, what is said, and what a restart forgets."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from oscar_steps.errors import HostError
from oscar_steps.sources.tarballs.fetch import Limit
from oscar_steps.sources.tarballs.looking import Look, Place
from oscar_steps.sources.tarballs.memory import Memory, Shelf


class Farm:
    """A place with releases, and the farm that looks at it; each look is of a farm that has just started."""

    def __init__(self, tmp_path: Path, **settings: object) -> None:
        self.at = tmp_path / "releases"
        self.at.mkdir()
        self.place = replace(Place("releases", str(self.at)), **settings)  # type: ignore[arg-type]
        self.shelf = Shelf(tmp_path / "master", "releases")
        self.said: list[str] = []
        self.now = 1000.0

    def put(self, name: str, content: str = "x") -> None:
        path = self.at / name
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_text(content)
        os.utime(path, ns=(before + 10**9, before + 10**9))

    def look(self, times: int = 1) -> Memory:
        for _ in range(times):
            Look(
                self.place, self.shelf, self.shelf.load(), Limit(1 << 30, 60, Event()), self.said.append, self.now
            ).all()
        return self.shelf.load()

    def sent(self) -> list[str]:
        """The sets that are new, taken as tested."""
        memory = self.shelf.load()
        new = memory.unsent()
        for revision in new:
            memory.sets[revision].sent = True
        self.shelf.save(memory)
        return new

    def mails(self) -> list[str]:
        memory = self.shelf.load()
        subjects = [letter.subject for letter in memory.letters]
        memory.letters = []
        self.shelf.save(memory)
        return subjects


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    farm = Farm(tmp_path)
    farm.look()
    return farm


def test_a_file_is_taken_when_two_looks_find_it_the_same_and_its_set_is_tested_once(farm: Farm) -> None:
    farm.put("oscar-base-5.1rc1.tar.gz", "first half")
    farm.look()
    farm.put("oscar-base-5.1rc1.tar.gz", "first half, second half")
    assert not farm.look().sets, "it grew between the two looks"
    memory = farm.look()
    (file,) = memory.sets["5.1rc1"].files
    assert file.sha256 == hashlib.sha256(b"first half, second half").hexdigest()
    assert farm.shelf.file(file.sha256).read_text() == "first half, second half"
    assert farm.sent() == ["5.1rc1"]
    farm.look(3)
    assert farm.sent() == []
    assert farm.mails() == []


def test_a_file_is_on_the_disk_before_it_is_noted_that_it_has_come(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut would leave an empty file of that digest, which no worker takes."""
    happened: list[str] = []
    plain_sync, plain_save = os.fsync, Shelf.save

    def sync(descriptor: int) -> None:
        plain_sync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".part":
            happened.append(f"{os.fstat(descriptor).st_size} bytes are on the disk")

    def save(shelf: Shelf, memory: Memory) -> None:
        happened.extend(f"noted: {note.size} bytes" for note in memory.files.values() if note.sha256)
        plain_save(shelf, memory)

    farm.put("oscar-base-5.1.tar.gz", "content")
    farm.look()
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Shelf, "save", save)
    farm.look()
    assert happened[:2] == ["7 bytes are on the disk", "noted: 7 bytes"]


def test_a_set_in_pieces_waits_says_what_for_and_is_tested_once(tmp_path: Path) -> None:
    farm = Farm(tmp_path, parts=("base", "repo-common-rpms", "repo-rhel-*"), remind_seconds=3600)
    farm.look()
    farm.put("oscar-base-5.1.tar.gz")
    memory = farm.look(2)
    assert memory.waiting == {"5.1": "OSCAR 5.1 waits for repo-common-rpms, repo-rhel-*; there is base"}
    farm.put("oscar-repo-common-rpms-5.1.tar.gz")
    assert farm.look(2).waiting == {"5.1": "OSCAR 5.1 waits for repo-rhel-*; there is base, repo-common-rpms"}
    assert farm.mails() == []
    farm.now += 3601
    farm.look(2)
    assert farm.mails() == ["OSCAR 5.1 is not complete"]
    farm.now += 100_000
    farm.look(2)
    assert farm.mails() == [], "one reminder is enough"
    farm.put("oscar-repo-rhel-4-i386-5.1.tar.gz")
    farm.look(2)
    assert farm.sent() == ["5.1"]
    farm.put("oscar-repo-rhel-4-x86_64-5.1.tar.gz")
    farm.put("oscar-srpms-5.1.tar.gz")
    farm.look(3)
    assert farm.sent() == []
    assert sum("after OSCAR 5.1 was tested" in line for line in farm.said) == 2


def test_old_style_and_new_style_releases_that_come_together_are_tested_in_the_order_of_their_versions(
    farm: Farm,
) -> None:
    for name in ("oscar-6.0.5.tar.gz", "oscar-4.2.1.tgz", "oscar-base-5.1rc1.tar.gz", "oscar-only-srpms-3.0.tar.gz"):
        farm.put(name)
    memory = farm.look(2)
    assert farm.sent() == ["4.2.1", "5.1rc1", "6.0.5"]
    assert {*memory.waiting} == {"3.0"}


def test_what_was_there_at_the_first_look_is_not_tested_unless_the_site_says_since_when(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    farm.put("oscar-base-5.0.tar.gz")
    farm.put("oscar-srpms-5.1.tar.gz")
    farm.look(3)
    farm.put("oscar-base-5.1.tar.gz")
    farm.look(2)
    assert farm.sent() == ["5.1"], "half a set at the first look is completed later"
    (tmp_path / "other").mkdir()
    since = Farm(tmp_path / "other", newer_than="5.0")
    for version in ("4.2", "5.0", "5.1rc1", "5.1"):
        since.put(f"oscar-base-{version}.tar.gz")
    since.look(2)
    assert since.sent() == ["5.1rc1", "5.1"]


def test_a_file_that_changes_under_its_name_is_reported_once_and_its_set_tested_as_another_one(farm: Farm) -> None:
    farm.put("oscar-base-5.1.tar.gz", "one")
    first = farm.look(2).sets["5.1"]
    assert farm.sent() == ["5.1"]
    farm.put("oscar-base-5.1.tar.gz", "one")
    farm.look(3)
    assert (farm.sent(), farm.mails()) == ([], []), "it was touched, and is the same"
    farm.put("oscar-base-5.1.tar.gz", "two")
    memory = farm.look(3)
    assert farm.mails() == ["oscar-base-5.1.tar.gz has changed under its name"]
    assert farm.sent() == ["5.1#2"]
    assert memory.sets["5.1#2"].files[0].sha256 != first.files[0].sha256


def test_a_release_from_before_the_farm_that_changes_is_reported_and_tested(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    farm.put("oscar-base-5.0.tar.gz", "old")
    farm.put("oscar-srpms-5.0.tar.gz", "old")
    farm.look(2)
    farm.put("oscar-base-5.0.tar.gz", "new")
    farm.look(3)
    assert farm.mails() == ["oscar-base-5.0.tar.gz has changed"]
    assert farm.sent() == ["5.0#2"]


def test_a_checksum_that_is_published_and_differs_keeps_a_file_from_its_test_until_it_is_right(farm: Farm) -> None:
    right = hashlib.sha256(b"good").hexdigest()
    farm.put("SHA256SUMS", f"{right}  oscar-base-5.1.tar.gz\n")
    farm.put("oscar-base-5.1.tar.gz", "bad")
    memory = farm.look(3)
    assert not memory.sets
    assert "SHA256SUMS says" in memory.waiting["5.1"]
    assert farm.mails() == ["oscar-base-5.1.tar.gz is not tested"]
    farm.look(2)
    assert farm.mails() == []
    farm.put("oscar-base-5.1.tar.gz", "good")
    farm.look(2)
    assert farm.sent() == ["5.1"]
    farm.put("oscar-base-5.2.tar.gz.md5", f"{hashlib.md5(b'5.2').hexdigest()}\n")
    farm.put("oscar-base-5.2.tar.gz", "5.2")
    farm.look(2)
    assert farm.sent() == ["5.2"]


def test_without_the_signature_that_the_site_asks_for_nothing_is_tested(tmp_path: Path) -> None:
    keyring = tmp_path / "keys"
    keyring.write_text("no keys")
    farm = Farm(tmp_path, keyring=keyring)
    farm.look()
    farm.put("oscar-base-5.1.tar.gz")
    memory = farm.look(3)
    assert not memory.sets
    assert "there is no signature oscar-base-5.1.tar.gz.asc" in memory.waiting["5.1"]
    assert farm.mails() == ["oscar-base-5.1.tar.gz is not tested"]
    farm.put("oscar-base-5.1.tar.gz.asc", "no signature")
    farm.look()
    with pytest.raises(HostError, match="holds no key"):
        farm.look()
    assert not farm.shelf.load().sets


def test_names_that_are_none_of_oscars_are_said_once_and_left_alone(farm: Farm) -> None:
    for name in ("oscar-5.0\x1b[2J.tar.gz", "oscar-manual.tar.gz", "sis-5.0.tar.gz", "oscar-5.0.tar.gz.part"):
        farm.put(name)
    memory = farm.look(3)
    assert memory.files == {}
    assert len(farm.said) == 2
    assert all(line.isprintable() and "is left alone" in line for line in farm.said)


def test_files_are_kept_up_to_a_limit_and_those_of_waiting_sets_always(tmp_path: Path) -> None:
    farm = Farm(tmp_path, keep_bytes=100, newer_than="1.0")
    for number in range(4):
        farm.put(f"oscar-base-5.{number}.tar.gz", str(number) * 60)
        memory = farm.look(2)
        assert farm.shelf.file(memory.sets[f"5.{number}"].files[0].sha256).is_file()
        farm.sent()
    farm.look()
    kept = [farm.shelf.file(note.files[0].sha256).is_file() for note in memory.sets.values()]
    assert kept == [False, False, False, True]


def test_a_file_that_cannot_be_had_keeps_no_other_from_its_test(farm: Farm) -> None:
    farm.put("oscar-base-5.0.tar.gz")
    farm.put("oscar-base-5.1.tar.gz", "x" * 2000)
    farm.place = replace(farm.place, file_bytes=1000)
    farm.look()
    with pytest.raises(HostError, match=r"oscar-base-5\.1\.tar\.gz has more than 1000 bytes"):
        farm.look()
    assert farm.sent() == ["5.0"]


def test_a_memory_that_cannot_be_read_is_said_and_tests_nothing_anew(farm: Farm) -> None:
    path = farm.shelf.folder / "seen.json"
    for spoiled in (b"", b"{", b'{"looked": true, "sets": {"x": {"version": "x"}}}', b'{"unknown": 1}', b"\xff"):
        path.write_bytes(spoiled)
        with pytest.raises(HostError, match=r"seen\.json cannot be read"):
            farm.look()
