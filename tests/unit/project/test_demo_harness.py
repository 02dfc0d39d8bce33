"""The demo's harness: it must not call a build good that is not, and must leave nothing behind."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import children
from demo.children import MARK, Child
from demo.errors import ChildEnded, FaultUnknown, PortInUse, ToolFailed
from demo.faults import Fault, FaultBook
from demo.follow import Follower
from demo.judge import Finished, complaints
from demo.mailsink import MailSink, body_of, read_mail
from demo.ports import LOOPBACK, claim
from demo.repository import Repository, apply_patch, edit_readme
from demo.rest import Build, Master
from oscar_steps.errors import ToolMissing
from oscar_steps.verdict import Outcome, Stage, Verdict

FAULT = Fault(title="the image cannot be built", stage=Stage.START_INSTALL, words=("image",))


def build(results: int) -> Build:
    return Build(1, "http://127.0.0.1/", True, results)


def verdict(outcome: Outcome, stage: Stage | None = None) -> Verdict:
    return Verdict(run_id="r", cell="c", source="s", revision="2", outcome=outcome, sentence="so it was", stage=stage)


def mail(directory: Path, body: str) -> Path:
    message = EmailMessage()
    message["Subject"] = "subject"
    message.set_content(body)
    path = directory / "001.eml"
    path.write_bytes(bytes(message))
    return path


def test_a_green_build_with_its_mail_is_good(tmp_path: Path) -> None:
    assert complaints(Finished(2, build(0), verdict(Outcome.PASSED), mail(tmp_path, "passed")), None) == []


def test_a_green_build_without_mail_is_not_good() -> None:
    assert complaints(Finished(2, build(0), verdict(Outcome.PASSED), None), None) == [
        "no mail to the committer arrived"
    ]


def test_a_green_build_without_verdict_is_not_good(tmp_path: Path) -> None:
    assert "no verdict" in complaints(Finished(2, build(0), None, mail(tmp_path, "passed")), None)[0]


def test_a_fault_that_turns_red_at_its_stage_and_is_told_is_good(tmp_path: Path) -> None:
    told = mail(tmp_path, "failed at start-install\nbuilding the image failed\n")
    assert complaints(Finished(2, build(2), verdict(Outcome.FAILED, Stage.START_INSTALL), told), FAULT) == []


def test_a_fault_that_turns_red_elsewhere_is_not_good(tmp_path: Path) -> None:
    told = mail(tmp_path, "failed at start-install\nbuilding the image failed\n")
    wrong = complaints(Finished(2, build(2), verdict(Outcome.FAILED, Stage.CHECKOUT), told), FAULT)
    assert wrong == ["it should have failed at start-install, not at checkout: so it was"]


def test_a_fault_called_the_farms_own_is_not_good(tmp_path: Path) -> None:
    told = mail(tmp_path, "failed at start-install\nbuilding the image failed\n")
    wrong = complaints(Finished(2, build(4), verdict(Outcome.INFRASTRUCTURE, Stage.START_INSTALL), told), FAULT)
    assert wrong == ["the build should have failed, but it is 'exception' (infrastructure)"]


def test_a_mail_that_says_the_cause_too_late_is_not_good(tmp_path: Path) -> None:
    told = mail(tmp_path, "failed at start-install\n" + "...\n" * 20 + "image\n")
    wrong = complaints(Finished(2, build(2), verdict(Outcome.FAILED, Stage.START_INSTALL), told), FAULT)
    assert len(wrong) == 1 and "do not say 'image'" in wrong[0]


def test_an_unknown_fault_is_answered_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "faults.toml").write_text(
        '[one]\ntitle = "a"\nstage = "finalize"\n[two]\ntitle = "b"\nstage = "checkout"\n'
    )
    with pytest.raises(FaultUnknown, match="there is no fault 'three'; there are: one, two"):
        FaultBook(tmp_path)["three"]


def test_a_port_in_use_is_answered_with_who_holds_it() -> None:
    holder = f"is in use by .*process {os.getpid()}"
    with socket.create_server((LOOPBACK, 0)) as server, pytest.raises(PortInUse, match=holder):
        claim(server.getsockname()[1], hint="choose another")


def test_a_mail_becomes_a_file(tmp_path: Path) -> None:
    sink = MailSink(tmp_path / "mails")
    try:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = "hello", "a@oscar.test", "b@oscar.test"
        message.set_content("text\n")
        with smtplib.SMTP(LOOPBACK, sink.port, timeout=10) as client:
            client.send_message(message)
        path = sink.wait_for(lambda mail: mail["Subject"] == "hello", 10)
        assert path == tmp_path / "mails" / "001.eml"
        assert body_of(read_mail(path)) == "text\n"
        assert sink.wait_for(lambda mail: mail["Subject"] == "another", 0.01) is None
    finally:
        sink.close()


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "README").write_text("first\n")
    (tree / "install_cluster").write_text("#!/bin/sh\necho good\n")
    (tree / "install_cluster").chmod(0o755)
    (tree / "ignored.o").write_text("svn would leave it out by default\n")
    return tree


def patch_file(path: Path, file: str, old: str, new: str) -> Path:
    path.write_text(f"--- a/{file}\n+++ b/{file}\n@@ -1,2 +1,2 @@\n #!/bin/sh\n-{old}\n+{new}\n")
    return path


def test_commits_arrive_with_their_author_and_faults_do_not_add_up(tmp_path: Path, standin: Path) -> None:
    bad = patch_file(tmp_path / "bad.patch", "install_cluster", "echo good", "echo bad")
    worse = patch_file(tmp_path / "worse.patch", "install_cluster", "echo good", "echo worse")
    repository = Repository(tmp_path / "svn", standin, users=("demo", "developer"))
    local = (tmp_path / "svn" / "oscar").as_uri()
    server = repository.serve(tmp_path / "svnserve.log", dict(os.environ))
    try:
        assert repository.commit("developer", "break the import", apply_patch(worse), upon=1) == 2
        good = repository.commit("demo", "harmless", edit_readme, upon=1)
        assert repository.commit("developer", "break", apply_patch(bad), upon=good) == 4
        assert repository.commit("developer", "break again", apply_patch(worse), upon=good) == 5
        with pytest.raises(ToolFailed, match="'patch -p1' failed with status 1"):
            repository.commit("developer", "does not apply", apply_patch(worse))
    finally:
        server.stop(5)
    log = [line.split(" | ")[:2] for line in children.run("svn", "log", "-q", local).splitlines() if line[0] == "r"]
    assert log == [["r5", "developer"], ["r4", "developer"], ["r3", "demo"], ["r2", "developer"], ["r1", "demo"]]
    assert children.run("svn", "cat", f"{local}/trunk/install_cluster") == "#!/bin/sh\necho worse\n"
    assert children.run("svn", "cat", f"{local}/trunk/README").startswith("first\nA line more")
    assert "ignored.o" in children.run("svn", "list", f"{local}/trunk")
    children.run("svn", "export", "--quiet", f"{local}/trunk/install_cluster", tmp_path / "exported")
    assert os.access(tmp_path / "exported", os.X_OK)


def test_a_server_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    child = Child(
        "the server", ["sh", "-c", "echo cannot go on; exit 3"], log=tmp_path / "log", cwd=tmp_path, environment={}
    )
    with pytest.raises(ChildEnded, match="the server ended with status 3: cannot go on"):
        child.wait_until(lambda: False, "listening", 10)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ToolMissing, match="'no-such-program' is not installed"):
        children.run("no-such-program")


def test_children_and_grandchildren_of_a_killed_farm_are_found_by_their_mark(tmp_path: Path) -> None:
    mark = str(tmp_path)
    code = (
        "import os, sys, time; from pathlib import Path; from demo.children import Child;"
        "Child('x', ['sh', '-c', 'setsid sleep 300 & sleep 300'], log=Path('log'), cwd=Path('.'),"
        "      environment=dict(os.environ)); print('up', flush=True); time.sleep(300)"
    )
    environment = {**os.environ, MARK: mark, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    farm = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    assert farm.stdout and farm.stdout.readline() == b"up\n"
    try:
        while len([process for process in children.marked(mark) if process.name() == "sleep"]) < 2:
            assert farm.poll() is None
        farm.send_signal(signal.SIGKILL)
        farm.wait()
        (orphan, *_others) = found = children.wait_for_none(mark, 1)
        assert "sleep" in {process.name() for process in found}, "a process of its own session outlives the kill ..."
        assert orphan.pid not in (os.getpid(), farm.pid)
        assert "sh" not in {process.name() for process in found}, "... but the server itself does not"
    finally:
        farm.stdout.close()
        for process in children.marked(mark):
            process.kill()
        psutil.wait_procs(children.marked(mark), timeout=5)


class FakeMaster(Master):
    """Two looks at a build with one step: the second finds it complete."""

    def __init__(self) -> None:
        self.looks = 0

    def build(self, build_id: int) -> Build:
        self.looks += 1
        return Build(build_id, "page", self.looks > 1, 0 if self.looks > 1 else None)

    def steps(self, build_id: int) -> list[dict[str, Any]]:
        assert build_id == 1
        done = self.looks > 1
        step = {"stepid": 1, "name": "checkout", "number": 0, "started_at": 1, "results": 2 if done else None}
        later = {"stepid": 2, "name": "never begun", "number": 1, "started_at": None, "results": None}
        return [{**step, "complete": done, "state_string": "no such revision"}, later]

    def logs(self, step_id: int) -> list[dict[str, Any]]:
        assert step_id == 1, "a step that has not begun has no logs"
        return [{"logid": 7, "type": "s", "num_lines": len(self._all())}, {"logid": 8, "type": "t", "num_lines": 9}]

    def lines(self, log_id: int, first: int, count: int) -> list[str]:
        assert log_id == 7
        return self._all()[first : first + count]

    def _all(self) -> list[str]:
        lines = ["hargv: oscar-testdriver", "ochecking out", 'o@@oscar {"summary": "50 %"}', "o"]
        return lines if self.looks < 2 else [*lines, "esvn: E160006"]


def test_progress_shows_each_line_once_and_no_structured_one() -> None:
    shown: list[str] = []
    Follower(FakeMaster(), Build(1, "page", False, None), shown.append).to_the_end(20)
    assert shown == [
        "== checkout",
        "   checking out",
        "   svn: E160006",
        "   checkout: failure: no such revision",
    ]
