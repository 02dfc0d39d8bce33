"""Patches by Buildbot's own `buildbot try`, and commits that come while a cell is busy; only the driver is a fake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.children import run
from demo.farm import _PASSWORD, USERS, Farm
from demo.mailsink import body_of, read_mail
from oscar_steps.verdict import LINT
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import (
    cell_id,
    commit,
    complete_after,
    force,
    last_build,
    mails_to,
    play,
    standing,
)

AUTHOR, DEVELOPER = USERS


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = Farm(tmp_path_factory.mktemp("farm") / "f", driver=[sys.executable, str(FAKE_DRIVER)])
    farm.try_users = (DEVELOPER,)
    with nothing_to_install(tmp_path_factory.mktemp("standin")), farm:
        play(farm, "pass")
        commit(farm)
        yield farm


@pytest.fixture
def copy(farm: Farm, tmp_path: Path) -> Path:
    """A working copy with a change that is in no repository."""
    run("svn", "checkout", "--quiet", f"{farm.repository.url}/trunk", tmp_path / "wc")
    with (tmp_path / "wc/README").open("a") as readme:
        readme.write("A line that nobody has committed.\n")
    return tmp_path / "wc"


def buildbot_try(farm: Farm, copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    login = ("--connect=pb", f"--master=127.0.0.1:{farm.try_port}", f"--username={DEVELOPER}", f"--passwd={_PASSWORD}")
    if not any(word.startswith("--diff") for word in words):
        (copy.parent / "mine.diff").write_text(run("svn", "diff", cwd=copy))
        words = (f"--diff={copy.parent / 'mine.diff'}", "--baserev=2", *words)
    command = [str(Path(sys.executable).parent / "buildbot"), "try", *login, *words]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=60)


def mails(farm: Farm) -> list[str]:
    return sorted(path.name for path in (farm.directory / "mails").glob("*.eml"))


def last_mail(farm: Farm) -> str:
    """The developer's last mail, on one line. Those before it, of other tests, are there already."""
    return " ".join("".join(mails_to(farm, DEVELOPER)[-1:]).split())


def test_a_patch_is_tested_with_what_its_developer_asked_for_and_told_to_nobody_else(farm: Farm, copy: Path) -> None:
    before, number, stood = mails(farm), last_build(farm)["number"], standing(farm)
    done = buildbot_try(farm, copy, "--wait", f"--builder={farm.cell}", "--properties=nodes=3", "--who=demo@oscar.test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{LINT}: success (" in done.stdout
    assert f"{farm.cell}: success (" in done.stdout
    build = last_build(farm)
    assert (build["number"], build["results"]) == (number + 1, 0)
    name = farm.master.property(build["buildid"], "run_id")
    job = json.loads((farm.runs / name / "job.json").read_text())
    assert job["nodes"] == 3
    assert "+A line that nobody has committed." in job["source"]["patch"]["text"]
    assert job["source"]["patch"]["who"] == DEVELOPER
    assert f"-r{job['source']['revision']}.p{job['source']['patch']['sha256'][:8]}-b" in name
    (new,) = eventually(lambda: sorted({*mails(farm)} - {*before}))
    mail = read_mail(farm.directory / "mails" / new)
    assert mail["To"] == f"{DEVELOPER}@oscar.test"
    assert ": your patch: passed" in " ".join(mail["Subject"].split())
    assert standing(farm) == stood


def test_a_red_patch_makes_no_red_of_the_cell(farm: Farm, copy: Path) -> None:
    play(farm, "fail")
    before = len(mails_to(farm, "operator")), len(mails_to(farm, AUTHOR))
    done = buildbot_try(farm, copy, "--wait", "--quiet")
    assert done.returncode == 1
    assert f"{farm.cell}: failure (failed at wait-nodes" in done.stdout, done.stdout
    eventually(lambda: "your patch: failed at wait-nodes" in last_mail(farm))
    play(farm, "pass")
    after = commit(farm)
    assert after.mail and "fixed" not in str(read_mail(after.mail)["Subject"])
    assert (len(mails_to(farm, "operator")), len(mails_to(farm, AUTHOR))) == before


def test_a_patch_that_does_not_apply_is_its_developers_mistake_and_installs_no_cluster(farm: Farm, copy: Path) -> None:
    play(farm, "patch-refused")
    number, before = last_build(farm)["number"], len(mails_to(farm, "operator"))
    done = buildbot_try(farm, copy, "--wait", "--quiet")
    assert done.returncode == 1
    assert "does not apply: 'README' is not in the tree" in done.stdout
    eventually(lambda: "does not apply" in last_mail(farm))
    assert last_build(farm)["number"] == number
    assert len(mails_to(farm, "operator")) == before


@pytest.mark.parametrize(
    ("words", "patch", "said"),
    [
        ((), "--- ../x\n+++ ../x\n@@ -1 +1 @@\n-a\n+b\n", "line 1: '../x' is not in the tree itself"),
        (("--builder=none-such",), "x", "there is no cell 'none-such'"),
        (("--properties=changes=1",), "x", "the property 'changes' cannot be set"),
        (("--baserev=last",), "x", "'last' is no revision"),
        ((), "", "the patch is empty"),
        (("--branch=tarballs/ftp",), "x", "a patch is tested on a revision of the repository, not on a release"),
    ],
    ids=["path", "cell", "property", "revision", "nothing", "release"],
)
def test_what_cannot_be_tested_is_one_sentence_to_who_asked(
    farm: Farm, tmp_path: Path, words: tuple[str, ...], patch: str, said: str
) -> None:
    (tmp_path / "a.diff").write_text(patch)
    before = len(mails_to(farm, DEVELOPER))
    buildbot_try(farm, tmp_path, f"--diff={tmp_path / 'a.diff'}", *words)
    eventually(lambda: len(mails_to(farm, DEVELOPER)) > before)
    paths = sorted((farm.directory / "mails").glob("*.eml"))
    last = [mail for mail in map(read_mail, paths) if DEVELOPER in str(mail["To"])][-1]
    first, second, *_ = body_of(last).splitlines()
    assert first == "not tested: what was asked for cannot be used"
    assert said in second


def test_a_patch_in_the_form_is_looked_at_before_anything_is_asked_for(farm: Farm) -> None:
    wishes = {"branch": "trunk", "nodes": "0", "revision": "1", "username": f"{DEVELOPER}@oscar.test"}
    with pytest.raises(httpx.HTTPStatusError) as refused:
        force(farm, **wishes, patch_body="--- ../x\n+++ ../x\n@@ -1 +1 @@\n-a\n+b\n")
    assert "line 1: '../x' is not in the tree itself" in refused.value.response.text
    good = "--- README\n+++ README\n@@ -1 +1 @@\n-a\n+b\n"
    with pytest.raises(httpx.HTTPStatusError) as refused:
        force(farm, **(wishes | {"revision": ""}), patch_body=good)
    assert "the revision that your patch is made for" in refused.value.response.text
    play(farm, "pass")
    number = last_build(farm)["number"]
    force(farm, **wishes, patch_body=good, patch_level="0", patch_of="somebody-else")
    build = complete_after(farm, number)
    assert farm.master.property(build["buildid"], "patch_of") == f"{DEVELOPER}@oscar.test"
    assert farm.master.property(build["buildid"], "tested")["patch"]["who"] == f"{DEVELOPER}@oscar.test"
    assert (build["results"], farm.master.property(build["buildid"], "exact_revision")) == (0, "1")


def test_the_cluster_of_a_forced_build_is_kept_until_it_is_let_go_and_who_wanted_it_hears_how_to_reach_it(
    farm: Farm,
) -> None:
    wishes = {"branch": "trunk", "nodes": "0", "username": f"{DEVELOPER}@oscar.test"}
    for hours, label, said in (("9", "", "give 0 to 8"), ("-1", "", "give 0 to 8"), ("1", "smoke", "of one cell")):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            force(farm, **wishes, keep_hours=hours, label=label, revision="2")
        assert said in refused.value.response.text
    play(farm, "fail")
    number = last_build(farm)["number"]
    force(farm, **wishes, revision="2", keep_hours="2")
    eventually((farm.directory / "kept").exists, 60)
    build = last_build(farm)
    assert build["number"] == number + 1 and not build["complete"]
    eventually(
        lambda: "the cluster is kept for 2 h" in [s["state_string"] for s in farm.master.steps(build["buildid"])]
    )

    def kept() -> Any:
        found = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
        return next((mail for mail in found if "is kept on" in " ".join(str(mail["Subject"]).split())), None)

    mail = eventually(kept)
    assert {*mail["To"].split(", ")} == {f"{DEVELOPER}@oscar.test", "operator@oscar.test"}
    run = farm.runs / farm.master.property(build["buildid"], "run_id")
    assert f"oscar-testdriver ssh {run}\n" in body_of(mail)
    assert f"oscar-testdriver destroy {run}\n" in body_of(mail)
    assert "The build so far: failure" in body_of(mail)
    (farm.directory / "let-go").touch()
    done = complete_after(farm, number)
    assert (done["results"], "failed at wait-nodes" in done["state_string"]) == (2, True)
    (farm.directory / "let-go").unlink()
    play(farm, "pass")


def test_of_the_commits_that_come_while_a_cell_is_busy_the_newest_is_tested_for_all_their_authors(farm: Farm) -> None:
    play(farm, "wait")
    number = last_build(farm)["number"]
    farm.commit_harmless(DEVELOPER)
    eventually(lambda: (farm.directory / "waiting").exists(), 90)
    older = farm.commit_harmless(AUTHOR)
    newest = farm.commit_harmless(DEVELOPER)

    def waiting() -> bool:
        requests = farm.master._get("buildrequests", "buildrequests", builderid=cell_id(farm), complete="false")
        return len(requests) == 3

    eventually(waiting, 90)
    (farm.directory / "go").touch()
    build = complete_after(farm, number + 1)
    assert (build["number"], build["results"]) == (number + 2, 0)
    assert farm.master.property(build["buildid"], "exact_revision") == str(newest)
    assert farm.master.build_of(older, farm.cell) is None

    def told() -> list[str]:
        found = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
        return [
            str(mail["To"]) for mail in found if f"{farm.cell} r{newest}: passed" in " ".join(mail["Subject"].split())
        ]

    (to,) = eventually(told)
    assert {f"{AUTHOR}@oscar.test", f"{DEVELOPER}@oscar.test"} == {*to.split(", ")}
