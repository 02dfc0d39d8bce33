"""The master from commit to mail, with a real Subversion server, worker and mail sink; only the driver is a fake."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from demo.farm import USERS, Farm
from demo.judge import Finished
from demo.mailsink import body_of, read_mail
from oscar_steps.testdriver.cli.farm_job import load_job
from oscar_steps.verdict import LINT, Outcome
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install

DEVELOPER = USERS[1]
MASTER_SECONDS = 60.0
"""It writes to its database before it answers."""
CANCELLED, RETRY, SKIPPED = 6, 5, 3


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with (
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        Farm(tmp_path_factory.mktemp("farm") / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm,
    ):
        yield farm


def play(farm: Farm, name: str, stage: str = "wait-nodes", **more: Any) -> None:
    (farm.directory / "scenario").write_text(json.dumps({"play": name, "stage": stage, **more}))


def commit(farm: Farm) -> Finished:
    return farm.follow(farm.commit_harmless(DEVELOPER), DEVELOPER, lambda _line: None, seconds=60)


def mails_to(farm: Farm, address: str) -> list[str]:
    paths = sorted((farm.directory / "mails").glob("*.eml"))
    return [str(mail["Subject"]) for mail in map(read_mail, paths) if address in str(mail["To"])]


def lint_mails(farm: Farm, revision: int) -> list[Any]:
    """The first tier's mails about a revision."""
    mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
    return [mail for mail in mails if mail["X-Oscar-Farm-Builder"] == LINT and f"r{revision}:" in mail["Subject"]]


def standing(farm: Farm) -> dict[str, Any]:
    url = f"{farm.master.base}plugins/standing/?format=json"
    found: dict[str, Any] = httpx.get(url, trust_env=False, timeout=MASTER_SECONDS).json()
    return found


def cell_id(farm: Farm) -> str:
    return str(farm.master._get("builders", "builders", name=farm.cell)[0]["builderid"])


def order(farm: Farm, path: str, method: str, **parameters: Any) -> None:
    """Tell the master to do something. Now and then it cuts its answer short; it has done it then."""
    message = {"id": 1, "jsonrpc": "2.0", "method": method, "params": parameters}
    with suppress(httpx.RemoteProtocolError):
        url = f"{farm.master.base}api/v2/{path}"
        httpx.post(url, json=message, trust_env=False, timeout=MASTER_SECONDS).raise_for_status()


def force(farm: Farm, **parameters: Any) -> None:
    order(farm, "forceschedulers/force", "force", builderid=cell_id(farm), **parameters)


def last_build(farm: Farm) -> dict[str, Any]:
    """The cell's last build."""
    builds = farm.master._get(f"builders/{cell_id(farm)}/builds", "builds", order="-buildid", limit=1)
    return builds[0] if builds else {}


def complete_after(farm: Farm, number: int) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        build = last_build(farm)
        return build if build["number"] > number and build["complete"] else None

    return eventually(found, 90)


def test_a_good_commit_is_green_and_its_author_is_told(farm: Farm) -> None:
    play(farm, "pass")
    done = commit(farm)
    assert done.build.result_name == "success"
    assert done.verdict and done.verdict.outcome is Outcome.PASSED
    assert done.mail and f"r{done.revision}: passed" in str(read_mail(done.mail)["Subject"])
    assert farm.master.property(done.build.build_id, "got_revision") == str(done.revision)


def test_a_commit_is_looked_at_before_its_cluster_is_installed_and_only_the_cluster_is_told(farm: Farm) -> None:
    play(farm, "pass")
    done = commit(farm)
    first = farm.master.build_of(done.revision, LINT)
    assert first and first.result_name == "success"
    assert first.build_id < done.build.build_id
    title = next(step for step in farm.master.steps(first.build_id) if step["name"] == LINT)["state_string"]
    assert title == "lint: no problem"
    told = [read_mail(path) for path in (farm.directory / "mails").glob("*.eml")]
    assert [mail["X-Oscar-Farm-Builder"] for mail in told if f"r{done.revision}:" in mail["Subject"]] == [farm.cell]


def test_a_commit_that_does_not_compile_is_told_in_seconds_and_no_cluster_is_installed(farm: Farm) -> None:
    play(farm, "lint-fails", author=DEVELOPER)
    number = last_build(farm)["number"]
    done = commit(farm)
    assert done.build.result_name == "failure"
    assert done.mail is not None
    mail = read_mail(done.mail)
    assert f"lint r{done.revision}: failed: src/cli/main_cli:15: perl: syntax error" in " ".join(
        mail["Subject"].split()
    )
    assert body_of(mail).splitlines()[:2] == ["failed", "src/cli/main_cli:15: perl: syntax error"]
    assert "logs/lint.txt:1" in body_of(mail)
    steps = {step["name"]: step["results"] for step in farm.master.steps(done.build.build_id)}
    assert steps["cells"] == SKIPPED
    assert farm.master.build_of(done.revision, farm.cell) is None
    assert last_build(farm)["number"] == number


def test_a_problem_that_stands_is_on_its_page_with_who_brought_it_and_in_no_mail_and_holds_nothing_up(
    farm: Farm,
) -> None:
    play(farm, "lint-stands")
    done = commit(farm)
    assert done.build.result_name == "success"
    assert lint_mails(farm, done.revision) == []
    branch = standing(farm)["branches"]["trunk"]
    assert branch["revision"] == done.revision
    (entry,) = branch["problems"].values()
    assert (entry["author"], entry["file"], entry["gates"]) == (DEVELOPER, "src/cli/main_cli", True)
    page = httpx.get(f"{farm.master.base}plugins/standing/", trust_env=False, timeout=MASTER_SECONDS)
    assert page.headers["content-type"].startswith("text/html")
    assert f"r{entry['revision']}, {DEVELOPER}" in page.text


def test_who_broke_the_installer_hears_when_another_commit_mends_it(farm: Farm) -> None:
    play(farm, "lint-mends")
    revision = farm.commit_harmless(USERS[0])
    (mail,) = eventually(lambda: lint_mails(farm, revision))
    assert "fixed" in mail["Subject"]
    assert DEVELOPER in str(mail["To"]) and USERS[0] in str(mail["To"])
    assert "mended: src/cli/main_cli:15: perl: syntax error" in " ".join(body_of(mail).split())
    assert standing(farm)["branches"]["trunk"]["problems"] == {}
    farm.master.wait_for_build(revision, farm.cell, 120)

    def cell_ends() -> bool:
        build = farm.master.build_of(revision, farm.cell)
        return build is not None and build.complete

    assert eventually(cell_ends, 90)


def test_a_commit_with_a_warning_runs_its_cell_and_its_author_gets_one_mail_that_says_so(farm: Farm) -> None:
    play(farm, "lint-warns", author=DEVELOPER)
    done = commit(farm)
    assert done.build.result_name == "success", "the cell ran"
    first = farm.master.build_of(done.revision, LINT)
    assert first and first.result_name == "warnings"
    (mail,) = eventually(lambda: lint_mails(farm, done.revision))
    assert "warning: src/cli/main_cli:15: perl: syntax error" in " ".join(mail["Subject"].split())
    assert " ".join(mail["Subject"].split()).endswith("; the clusters are installed anyway")
    assert body_of(mail).splitlines()[0] == "warning: the clusters are installed anyway"
    assert DEVELOPER in str(mail["To"])
    play(farm, "lint-stands")
    again = commit(farm)
    assert lint_mails(farm, again.revision) == []


# After a fault of the farm its worker is given nothing for 10 seconds, then 20, 40, until a build ends well: such tests
# do not follow each other.


def check_that_only_the_operator_is_told(farm: Farm, name: str) -> None:
    play(farm, name)
    before = len(mails_to(farm, DEVELOPER)), len(mails_to(farm, "operator"))
    number = last_build(farm)["number"]
    farm.commit_harmless(DEVELOPER)
    build = complete_after(farm, number)
    assert build["results"] == 4
    assert farm.master.property(build["buildid"], "verdict")["outcome"] == "infrastructure"
    eventually(lambda: len(mails_to(farm, "operator")) > before[1])
    assert len(mails_to(farm, DEVELOPER)) == before[0]


def test_a_run_without_a_verdict_is_the_farms_fault_and_blamed_on_nobody(farm: Farm) -> None:
    check_that_only_the_operator_is_told(farm, "no-verdict")


def test_a_bad_commit_is_red_and_its_mail_says_stage_sentence_and_evidence_first(farm: Farm) -> None:
    play(farm, "fail", bad_teardown=True)
    done = commit(farm)
    assert done.build.result_name == "failure"
    assert done.mail is not None
    body = body_of(read_mail(done.mail))
    first = body.splitlines()
    assert first[0] == "failed at the stage wait-nodes"
    assert "oscarnode2 stopped in mid-pull" in first[1]
    assert "console/oscarnode2.log:2-3" in body
    assert "\x1b" not in body
    (address,) = re.findall(r"oscar-testdriver replay (http://\S+/job\.json)\n", body)
    job = load_job(address)
    assert job.run_id == farm.master.property(done.build.build_id, "run_id")
    assert job.source.revision == str(done.revision)
    steps = [step["name"] for step in farm.master.steps(done.build.build_id) if step["results"] is not None]
    assert steps[-3:] == ["extract-logs", "teardown", "report"]
    assert "finalize" not in steps


def test_the_files_of_a_run_are_text_whatever_the_guest_wrote_and_nothing_else_is_served(farm: Farm) -> None:
    run = farm.master.property(last_build(farm)["buildid"], "run_id")
    base = f"{farm.master.base}plugins/runs/{run}/"
    with httpx.Client(trust_env=False, timeout=MASTER_SECONDS) as client:
        answer = client.get(f"{base}logs/index.html")
        assert answer.text == "<script>alert(1)</script>"
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.get(f"{base}logs/passwd").status_code == 404
        assert client.get(f"{base}disks/head.qcow2").status_code == 404
        assert client.get(f"{farm.master.base}plugins/runs/..%2fsecrets/").status_code == 404


def test_a_monitor_reads_from_the_master_that_all_parts_are_good(farm: Farm) -> None:
    with httpx.Client(trust_env=False, timeout=MASTER_SECONDS) as client:
        answer = client.get(f"{farm.master.base}plugins/health")
        found = answer.json()
        assert (answer.status_code, found["state"]) == (200, "good"), found
        assert found["workers"]["missing"] == []
        assert found["workers"]["connected"]
        assert found["poller"]["last_success"]
        assert found["database"]["seconds"] is not None
        assert client.get(f"{farm.master.base}plugins/health?format=text").text.startswith("good\npoller: good\n")


def test_the_next_good_commit_is_told_as_fixed(farm: Farm) -> None:
    play(farm, "pass")
    done = commit(farm)
    assert done.mail and str(read_mail(done.mail)["Subject"]).endswith(": fixed")


def hanging(farm: Farm) -> dict[str, Any]:
    """A build whose driver hangs in wait-nodes."""
    play(farm, "hang")
    number = last_build(farm)["number"]
    farm.commit_harmless(DEVELOPER)

    def found() -> dict[str, Any] | None:
        build = last_build(farm)
        run = farm.master.property(build["buildid"], "run_id")
        return build if build["number"] > number and run and (farm.runs / run / "hanging").exists() else None

    return eventually(found, 90)


def test_a_build_that_is_stopped_is_torn_down_and_nobody_is_told(farm: Farm) -> None:
    build = hanging(farm)
    order(farm, f"builds/{build['buildid']}", "stop", reason="enough")
    done = eventually(lambda: farm.master.build(build["buildid"]).complete and farm.master.build(build["buildid"]))
    assert done.results == CANCELLED
    assert farm.master.property(build["buildid"], "verdict")["outcome"] == "cancelled"
    assert [step["name"] for step in farm.master.steps(build["buildid"])][-2:] == ["teardown", "report"]
    told = [read_mail(path)["X-Oscar-Farm-Build"] for path in (farm.directory / "mails").glob("*.eml")]
    assert str(build["number"]) not in told


def test_a_revision_that_does_not_exist_is_said_in_one_sentence_before_anything_starts(farm: Farm) -> None:
    number = last_build(farm)["number"]
    force(farm, branch="trunk", revision="4711", nodes="0", boot="cdrom")
    build = complete_after(farm, number)
    assert (
        " at revision 4711: E160006: No such revision 4711"
        in farm.master.property(build["buildid"], "verdict")["sentence"]
    )
    ran = [step["name"] for step in farm.master.steps(build["buildid"]) if step["results"] not in (None, 3)]
    assert ran == ["worker_preparation", "locks_acquire", "job", "report"]


def test_a_forced_build_tests_the_last_revision_with_the_nodes_asked_for(farm: Farm) -> None:
    play(farm, "pass")
    number = last_build(farm)["number"]
    force(farm, branch="trunk", revision="", nodes="4", boot="network")
    build = complete_after(farm, number)
    assert build["results"] == 0
    run = farm.master.property(build["buildid"], "run_id")
    job = json.loads((farm.runs / run / "job.json").read_text())
    assert (job["nodes"], job["boot"]) == (4, "network")
    assert job["source"]["revision"].isdigit()


def test_all_cells_of_a_label_are_forced_at_one_revision_which_has_to_be_given(farm: Farm) -> None:
    play(farm, "pass")
    number, wishes = last_build(farm)["number"], {"branch": "trunk", "label": "smoke", "nodes": "0"}
    with pytest.raises(httpx.HTTPStatusError) as refused:
        force(farm, **wishes, revision="")
    assert "give a revision" in refused.value.response.text
    lint = str(farm.master._get("builders", "builders", name=LINT)[0]["builderid"])
    order(farm, "forceschedulers/force", "force", **wishes, builderid=lint, revision="1")
    build = complete_after(farm, number)
    assert farm.master.property(build["buildid"], "exact_revision") == "1"
    assert (build["number"], build["results"]) == (number + 1, 0)


def test_a_first_tier_that_breaks_down_keeps_no_commit_from_its_cluster(farm: Farm) -> None:
    before = len(mails_to(farm, DEVELOPER))
    play(farm, "lint-breaks")
    done = farm.follow(farm.commit_harmless(DEVELOPER), DEVELOPER, lambda _line: None, seconds=120)
    assert done.build.result_name == "success"
    first = farm.master.build_of(done.revision, LINT)
    assert first and first.result_name == "exception"
    assert len(mails_to(farm, DEVELOPER)) == before + 1
    eventually(lambda: any("lint" in subject for subject in mails_to(farm, "operator")))


def test_a_driver_that_breaks_down_is_the_farms_fault_and_blamed_on_nobody(farm: Farm) -> None:
    check_that_only_the_operator_is_told(farm, "traceback")


def test_a_worker_that_is_killed_is_the_farms_fault_and_its_build_waits_for_a_worker(farm: Farm) -> None:
    before = len(mails_to(farm, DEVELOPER)), len(mails_to(farm, "operator"))
    build = hanging(farm)
    run = farm.master.property(build["buildid"], "run_id")
    window = psutil.Process(int((farm.runs / run / "hanging").read_text()))
    window.parent().kill()
    done = eventually(lambda: farm.master.build(build["buildid"]).complete and farm.master.build(build["buildid"]))
    window.kill()
    assert done.results == RETRY
    eventually(lambda: len(mails_to(farm, "operator")) > before[1])
    assert "was lost during the build" in mails_to(farm, "operator")[-1]
    assert len(mails_to(farm, DEVELOPER)) == before[0]
