"""The torment's judge finds what was planted, and its plan follows from the seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from demo.torment import records
from demo.torment.commits import load_commit
from demo.torment.judge import Attempt, Due, Posted, losses, once_each
from demo.torment.plan import AUTHORS, EVENTS, MESSAGES, NAMES, Commit, make_plan

DUE = {2: Due("passed", "demo@oscar.test"), 3: Due("failed", "operator@oscar.test")}
BUILDS = [Attempt(1, 2, "passed"), Attempt(2, 3, "infrastructure"), Attempt(3, 3, "failed")]
MAILS = [
    Posted("<a>", 1, ("demo@oscar.test",)),
    Posted("<b>", 2, ("operator@oscar.test",)),
    Posted("<c>", 3, ("operator@oscar.test",)),
]


def test_a_farm_that_lost_nothing_has_no_losses() -> None:
    assert losses(DUE, BUILDS, MAILS) == []


def test_a_lost_verdict_is_found_with_what_was_tried() -> None:
    assert losses(DUE, BUILDS[:2], MAILS[:2]) == ["r3: its verdict is lost (build 2 infrastructure)"]
    assert losses(DUE, BUILDS[1:], MAILS[1:]) == ["r2: its verdict is lost (never built)"]


def test_a_doubled_verdict_is_found() -> None:
    more = Posted("<d>", 4, ("demo@oscar.test",))
    assert losses(DUE, [*BUILDS, Attempt(4, 2, "passed")], [*MAILS, more]) == ["r2: 2 verdicts (builds 1, 4)"]


def test_a_wrong_verdict_is_found() -> None:
    wrong = [Attempt(1, 2, "failed"), *BUILDS[1:]]
    assert losses(DUE, wrong, MAILS) == ["r2: build 1 says failed, passed is right"]


def test_a_verdict_of_no_commit_is_found() -> None:
    assert losses(DUE, [*BUILDS, Attempt(4, 0, "passed")], MAILS) == ["r0: build 4 has no commit"]


def test_a_lost_mail_is_found() -> None:
    assert losses(DUE, BUILDS, MAILS[1:]) == ["r2: the mail of build 1 to demo@oscar.test is lost"]


def test_a_mail_to_somebody_else_is_found() -> None:
    wrong = [Posted("<a>", 1, ("x@oscar.test",)), *MAILS[1:]]
    assert losses(DUE, BUILDS, wrong) == ["r2: the mail of build 1 went to x@oscar.test, demo@oscar.test is right"]


def test_a_doubled_mail_is_found_by_its_build() -> None:
    again = Posted("<z>", 1, ("demo@oscar.test",))
    assert losses(DUE, BUILDS, [*MAILS, again]) == ["r2: 2 mails of build 1 to demo@oscar.test"]


def test_what_comes_twice_under_one_message_id_a_receiver_keeps_once() -> None:
    assert once_each([*MAILS, MAILS[1]]) == (MAILS, 1)
    other = Posted("<b>", 2, ("demo@oscar.test",))
    assert once_each([*MAILS, other]) == ([*MAILS, other], 0), "to somebody else it is another mail"


def test_the_same_seed_is_the_same_plan_and_another_is_not() -> None:
    assert make_plan(7, 5, 50) == make_plan(7, 5, 50)
    assert make_plan(7, 5, 50) != make_plan(8, 5, 50)


def test_thirty_minutes_have_every_kind_of_event_author_message_and_verdict() -> None:
    plan = make_plan(1, 30, 300)
    assert len(plan.commits) == 300
    assert {event.name for event in plan.events} == set(EVENTS)
    assert {commit.author for commit in plan.commits} == {author for author, _ in AUTHORS}
    assert {commit.message for commit in plan.commits} == set(MESSAGES)
    assert {commit.kind for commit in plan.commits} == {"good", "bad", "tried-again"}


def test_two_minutes_have_every_kind_of_event_and_thirty_have_each_many_times() -> None:
    for seed in range(20):
        assert {event.name for event in make_plan(seed, 2, 10).events} == set(EVENTS)
        counts = Counter(event.name for event in make_plan(seed, 30, 300).events)
        assert set(counts.values()) == {15}


def test_a_build_that_was_cut_short_after_its_verdict_says_nothing(tmp_path: Path) -> None:
    database = tmp_path / "state.sqlite"
    with records.opened(database) as connection:
        connection.executescript(_BUILDS_OF_A_MASTER)
    assert records.tested(database, "c") == [Attempt(1, 2, ""), Attempt(2, 2, "passed")]


_BUILDS_OF_A_MASTER = """
CREATE TABLE builders (id, name);
CREATE TABLE builds (id, number, builderid, results, complete_at);
CREATE TABLE build_properties (buildid, name, value);
INSERT INTO builders VALUES (1, 'c');
INSERT INTO builds VALUES (1, 1, 1, 5, 100), (2, 2, 1, 0, 200), (3, 3, 1, NULL, NULL);
INSERT INTO build_properties VALUES
    (1, 'revision', '"2"'), (1, 'verdict', '{"outcome": "passed"}'),
    (2, 'revision', '"2"'), (2, 'verdict', '{"outcome": "passed"}');
"""


def test_every_hostile_commit_gets_into_a_real_repository_as_it_is(tmp_path: Path) -> None:
    repository = tmp_path / "r"
    subprocess.run(["svnadmin", "create", repository], check=True)
    subprocess.run(["svn", "mkdir", "-q", "-m", "trunk", f"{repository.as_uri()}/trunk"], check=True)
    kinds = [(author, MESSAGES[number % len(MESSAGES)]) for number, (author, _) in enumerate(AUTHORS)]
    for number, (author, message) in enumerate(kinds):
        commit = Commit(0, author, "", message, f"{NAMES[number % len(NAMES)]}-{number}", "good")
        assert load_commit(repository, commit) == number + 2
        for name, value in (("svn:author", author), ("svn:log", message)):
            command = ["svnlook", "propget", "--revprop", "-r", str(number + 2), repository, name]
            said = subprocess.run(
                command, check=True, capture_output=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin"}
            )
            assert said.stdout == value.encode()


_MOUNTS = """
import sys, time
from demo.torment import disk
disk.begin_in_own_namespace([sys.executable, "-c", *[sys.argv[1]] * 2, sys.argv[2]])
disk.run("mount", "-t", "tmpfs", "torment", sys.argv[2])
open(f"{sys.argv[2]}/inside", "w").close()
print("mounted", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_torment_that_is_killed_leaves_no_mount(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MOUNTS, _MOUNTS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "mounted\n"
        assert Path(f"/proc/{process.pid}/root{tmp_path}/inside").exists()
        process.kill()
    assert not (tmp_path / "inside").exists()
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


_FILLS = """
import pathlib, sys, threading
from demo.torment import disk, records
folder = pathlib.Path(sys.argv[2])
disk.begin_in_own_namespace([sys.executable, "-c", *[sys.argv[1]] * 2, sys.argv[2]])
disk.run("mount", "-t", "tmpfs", "-o", disk._SIZE, "torment", folder)
records.opened(folder / records.DATABASE).__enter__()
full = threading.Event()
def write():
    with open(folder / "log", "wb", buffering=0) as log:
        try:
            while True:
                log.write(bytes(4096))
        except OSError:
            full.set()
threading.Thread(target=write, daemon=True).start()
with disk.full(folder):
    print(full.wait(20), flush=True)
(folder / "after").write_text("there is room again")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_fills_although_the_master_writes_all_the_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FILLS, _FILLS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
