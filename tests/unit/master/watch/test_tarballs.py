"""The watcher of releases: a change for each set, none twice; the exact files of a build; the table of the site."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from buildbot.schedulers.forcesched import ValidationError
from twisted.internet import threads

from oscar_steps.errors import ConfigError, HostError, SourceError
from oscar_steps.master.reports.candidate import CellResult, releasable, report_text
from oscar_steps.master.schedules.force import button
from oscar_steps.master.watch import looks, tarballs
from oscar_steps.master.watch.exact import Asked, url_of
from oscar_steps.master.watch.released import tarball_source
from oscar_steps.master.watch.tarballs import TarballWatcher
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.repositories import Tarballs
from oscar_steps.site import Site, load_site
from oscar_steps.sources.tarballs.memory import Letter, Shelf
from oscar_steps.verdict import Category, Outcome, Stability, Verdict
from oscar_steps.words import Label

SITE = """
[repository]
url = "svn://svn.test/oscar"
[mail]
from = "farm@oscar.test"
operator = "operator@oscar.test"
[[worker]]
name = "one"
"""


def site_of(tmp_path: Path, *lines: str) -> Site:
    (tmp_path / "farm.toml").write_text("\n".join([SITE, "[[tarballs]]", *lines, ""]))
    return load_site(tmp_path / "farm.toml")


def test_a_place_with_releases_has_a_name_an_address_and_sensible_defaults(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("keys")
    site = site_of(tmp_path, 'name = "releases"', 'url = "https://oscar.test/dist"', 'keyring = "keys"')
    (table,) = site.tarballs
    assert (table.branch, table.place.parts, table.keyring) == ("tarballs/releases", ("base",), tmp_path / "keys")


@pytest.mark.parametrize(
    ("lines", "line", "why"),
    [
        (['name = "a"', 'url = "scp://x/y"'], 12, "tarballs.0.url"),
        (['name = "a"', 'url = "https://me:secret@oscar.test/"'], 12, r"must not contain a password.*\.netrc"),
        (['name = "a b"', 'url = "/srv"'], 11, "tarballs.0.name"),
        (['name = "a"', 'url = "/srv"', 'newer_than = "five"'], 13, "'five' is not a version of OSCAR"),
        (['name = "a"', 'url = "/srv"', 'release_manager = "nobody"'], 13, "tarballs.0.release_manager"),
        (['name = "a"', 'url = "/srv"', 'parts = ["Base"]'], 13, "tarballs.0.parts"),
        (['name = "a"', 'url = "/srv"', 'keyring = "nowhere"'], 13, "there is no file .*nowhere.*gpg --export"),
        (['name = "a"', 'url = "/srv"', "[[tarballs]]", 'name = "a"', 'url = "/x"'], 14, "the other is on line 11"),
        (['name = "a"'], 10, "tarballs.0.url"),
    ],
)
def test_a_mistake_in_the_table_is_said_with_file_and_line(
    tmp_path: Path, lines: list[str], line: int, why: str
) -> None:
    with pytest.raises(ConfigError, match=rf"farm\.toml:{line}: .*{why}"):
        site_of(tmp_path, *lines)


def test_a_place_whose_releases_no_cell_would_test_is_a_mistake(tmp_path: Path) -> None:
    site = site_of(tmp_path, 'name = "releases"', 'url = "/srv"')
    with pytest.raises(ConfigError, match=r"no cell of .*matrix\.toml has the label candidate"):
        site.check_against(load_matrix(default_profiles()))


@pytest.mark.parametrize(
    ("branch", "revision", "taken"),
    [
        ("tarballs/releases", "5.1rc1", True),
        ("tarballs/releases", "5.0b2r6000nightly-20070704#2", True),
        ("tarballs/other", "5.1", False),
        ("trunk", "5916", True),
        ("tarballs/releases", "5.1; rm", False),
    ],
)
def test_a_person_may_force_a_release_of_a_place_of_the_site(
    tmp_path: Path, branch: str, revision: str, taken: bool
) -> None:
    site = site_of(tmp_path, 'name = "releases"', 'url = "/srv"')
    (form,) = button(site, ["a"], {label: ["a"] for label in Label})._config_kwargs["codebases"]
    fields = {field.name: field for field in form.fields}
    try:
        fields["branch"].parse_from_arg(branch)
        fields["revision"].parse_from_arg(revision)
    except ValidationError:
        assert not taken
    else:
        assert taken


class Master:
    """As much of a master as the watcher speaks to; its database outlives it."""

    def __init__(self, basedir: Path) -> None:
        self.basedir = str(basedir)
        self.stored: list[dict[str, Any]] = []
        self.mails: list[tuple[Any, ...]] = []
        self.fails = 0
        self.data = SimpleNamespace(get=self._get, updates=SimpleNamespace(addChange=self._add))

    async def _get(self, path: tuple[str, ...], **_how: Any) -> list[dict[str, Any]]:
        assert path == ("changes",)
        return self.stored

    async def _add(self, **change: Any) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the database is away")
        self.stored.append(change)


class Watched:
    """A folder with releases and the farm that watches it; `start` is what a new master does."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = tmp_path / "at"
        self.at.mkdir()
        self.master = Master(tmp_path)
        self.mail_runs = True
        self.names: list[str] = []
        self.shelf = Shelf(tmp_path, "releases")
        self.table = Tarballs(name="releases", url=str(self.at), release_manager="manager@oscar.test")

        async def at_once(work: Any, *arguments: Any) -> Any:
            return work(*arguments)

        def note(_master: Any, subject: str, _text: str, addresses: tuple[str, ...] = (), **how: Any) -> bool:
            if self.mail_runs:
                self.master.mails.append((subject, *addresses))
                self.names.append(how.get("name", ""))
            return self.mail_runs

        monkeypatch.setattr(threads, "deferToThread", at_once)
        monkeypatch.setattr(tarballs, "notify", note)
        monkeypatch.setattr(looks, "notify_operator", note)
        self.start()

    def start(self) -> None:
        self.watcher = TarballWatcher(name="x", table=self.table, folder=Path(self.master.basedir))
        self.watcher.table, self.watcher.folder = self.table, Path(self.master.basedir)
        self.watcher.parent = cast("Any", SimpleNamespace(master=self.master))

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            asyncio.run(self.watcher.poll())

    def put(self, name: str, content: str) -> None:
        before = (self.at / name).stat().st_mtime_ns if (self.at / name).exists() else 10**18
        (self.at / name).write_text(content)
        os.utime(self.at / name, ns=(before + 10**9, before + 10**9))

    def revisions(self) -> list[str]:
        return [change["revision"] for change in self.master.stored]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched(tmp_path, monkeypatch)
    watched.poll()
    return watched


def test_a_release_becomes_one_change_with_its_files(watched: Watched) -> None:
    watched.put("oscar-base-5.1rc1.tar.gz", "x")
    watched.poll(4)
    (change,) = watched.master.stored
    assert (change["branch"], change["revision"], change["project"]) == ("tarballs/releases", "5.1rc1", "oscar")
    assert change["files"] == ["oscar-base-5.1rc1.tar.gz"]


def test_a_change_that_the_database_did_not_take_is_stored_later_and_one_that_it_took_is_not_stored_again(
    watched: Watched,
) -> None:
    watched.master.fails = 2
    watched.put("oscar-base-5.1.tar.gz", "x")
    watched.poll(3)
    assert watched.revisions() == []
    watched.poll(2)
    assert watched.revisions() == ["5.1"]
    memory = watched.shelf.load()
    memory.sets["5.1"].sent = False  # killed between the database and the note
    watched.shelf.save(memory)
    watched.start()
    watched.poll(2)
    assert watched.revisions() == ["5.1"]


def test_what_is_to_be_mailed_waits_for_the_mail_service(watched: Watched) -> None:
    watched.mail_runs = False
    watched.put("oscar-base-5.1.tar.gz", "one")
    watched.poll(3)
    watched.put("oscar-base-5.1.tar.gz", "two")
    watched.poll(3)
    assert watched.master.mails == []
    watched.mail_runs = True
    watched.start()
    watched.poll(2)
    assert len([mail for mail in watched.master.mails if "has changed" in mail[0]]) == 1


def test_a_mail_that_was_handed_over_when_the_master_was_killed_has_the_same_name_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it goes out once (`test_a_mail_with_a_name_of_its_own_goes_out_once_whatever_its_maker_forgot`)."""
    memory = watched.shelf.load()
    memory.letters = [Letter(subject="one", text="x"), Letter(subject="two", text="x")]
    watched.shelf.save(memory)

    def killed(_shelf: Shelf, _memory: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Shelf, "save", killed)
        asyncio.run(watched.watcher._hand_over(watched.shelf))
    watched.start()
    watched.poll()
    first, again, other = watched.names
    assert first == again != other
    assert len(first) > len("tarballs-")


def test_a_release_that_changes_under_its_name_is_said_to_the_release_manager_and_tested_again(
    watched: Watched,
) -> None:
    watched.put("oscar-base-5.1.tar.gz", "one")
    watched.poll(2)
    watched.put("oscar-base-5.1.tar.gz", "two")
    watched.poll(4)
    assert watched.revisions() == ["5.1", "5.1#2"]
    assert watched.master.mails == [("oscar-base-5.1.tar.gz has changed under its name", "manager@oscar.test")]


def test_looks_that_fail_in_a_row_are_one_mail_and_one_more_when_all_is_well(watched: Watched) -> None:
    watched.at.rename(watched.at.with_name("away"))
    watched.poll(2)
    assert watched.master.mails == []
    watched.poll(3)
    assert [mail[0] for mail in watched.master.mails] == ["the releases releases cannot be read"]
    assert "cannot be read" in watched.watcher.trouble
    watched.at.with_name("away").rename(watched.at)
    watched.poll(2)
    assert [mail[0] for mail in watched.master.mails][1:] == ["the releases releases can be read again"]
    assert watched.watcher.trouble == ""


def test_a_build_of_a_release_gets_the_files_that_its_cell_needs(watched: Watched, tmp_path: Path) -> None:
    for part in ("base", "srpms", "repo-common-rpms", "repo-rhel-4-x86_64", "repo-fc-5-i386"):
        watched.put(f"oscar-{part}-5.1.tar.gz", part)
    watched.poll(2)
    site = site_of(tmp_path, 'name = "releases"', f'url = "{watched.at}"')
    one = tarball_source(site, tmp_path, "tarballs/releases", "5.1", ("centos-4-x86_64", "rhel-4-x86_64"))
    names = ["oscar-base-5.1.tar.gz", "oscar-repo-common-rpms-5.1.tar.gz", "oscar-repo-rhel-4-x86_64-5.1.tar.gz"]
    assert [file.name for file in one.files] == names
    other = tarball_source(site, tmp_path, "tarballs/releases", "", ("debian-12-x86_64",))
    assert [file.name for file in other.files] == names[:2]
    assert one.identity != other.identity
    assert url_of(site, Asked("", "tarballs/releases", "5.1", tmp_path)) == str(watched.at)
    for branch, revision in (("tarballs/releases", "9.9"), ("tarballs/gone", "5.1"), ("tarballs/../x", "5.1")):
        with pytest.raises(SourceError, match="there are: "):
            tarball_source(site, tmp_path, branch, revision, ())
    (watched.shelf.folder / "seen.json").write_text("{")
    with pytest.raises(HostError):
        tarball_source(site, tmp_path, "tarballs/releases", "5.1", ())


def result(
    cell: str, outcome: Outcome | None, *, stable: bool = True, category: Category = Category.OSCAR
) -> CellResult:
    if outcome is None:
        return CellResult(cell, None)
    verdict = Verdict(
        run_id=cell, cell=cell, source="x", revision="5.1", outcome=outcome, sentence="it broke",
        category=Category.NONE if outcome is Outcome.PASSED else category,
        stability=Stability.STABLE if stable else Stability.UNSTABLE,
    )  # fmt: skip
    return CellResult(cell, verdict, f"http://farm.test/{cell}")


ANSWERS = Category.ANSWERS
PASSED, FAILED, FARM = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("results", "answer"),
    [
        ([result("a", PASSED)], "yes"),
        ([result("a", PASSED), result("b", FAILED, stable=False)], "yes"),
        ([result("a", PASSED), result("b", FAILED)], "no, because OSCAR failed on b"),
        ([result("a", FARM), result("b", FAILED)], "no, because OSCAR failed on b"),
        ([result("a", FARM), result("b", PASSED)], "not known yet, because there is no result about OSCAR from a"),
        ([result("a", FAILED, category=ANSWERS)], "not known yet, because there is no result about OSCAR from a"),
        ([result("a", None)], "not known yet, because there is no result about OSCAR from a"),
        ([result(c, FAILED) for c in "abcde"], "no, because OSCAR failed on a, b, c and 2 more"),
        ([result("a", PASSED, stable=False)], "not known yet, because no stable cell has the label candidate"),
    ],
)  # fmt: skip
def test_only_oscars_own_failure_in_a_stable_cell_holds_a_release_back(results: list[CellResult], answer: str) -> None:
    assert releasable(results) == answer


def test_the_report_begins_with_the_answer_and_lists_every_cell() -> None:
    cells = [result("a", PASSED), result("b", FAILED), result("c", FAILED, stable=False)]
    subject, text = report_text(
        "5.1rc1", "OSCAR 5.1rc1, as tarballs:\nab  oscar-5.1rc1.tar.gz", cells, "http://farm.test/"
    )
    assert subject == "OSCAR 5.1rc1: releasable: no, because OSCAR failed on b"
    lines = text.splitlines()
    assert lines[0] == "releasable: no, because OSCAR failed on b"
    assert any(line.split() == ["a", "passed"] for line in lines)
    assert any(line.startswith("  b ") and "it broke" in line for line in lines)
    assert lines.index("Unstable cells, which hold no release back:") < next(
        number for number, line in enumerate(lines) if line.startswith("  c ")
    )
