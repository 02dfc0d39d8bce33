"""The table of faults: what counts as right, and what is kept for the next time. The driver is a fake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from demo import fault_table, replays
from demo.__main__ import _chosen
from demo.fault_table import COLUMNS, NONE, Proving, Row
from demo.faults import GOOD, Fault, FaultBook
from demo.judge import Finished, complaints
from demo.rest import Build
from demo.sighting import Lookout, Sighting, seconds_until
from oscar_steps.errors import ConfigError, UserError
from oscar_steps.verdict import Category, Evidence, Outcome, Stage, Verdict

BARRIER = "wait-nodes/barrier, oscar"
FAULT = Fault(
    title="a", stage=Stage.WAIT_NODES, oscar_stage="barrier", words=("panicked", "disk|CD"), line="Kernel panic"
)
EVIDENCE = (Evidence(file="console/oscarnode1.log", first_line=1, lines=("Kernel panic",)),)
RIGHT = Verdict(
    run_id="r", cell="c", source="s", revision="2",
    outcome=Outcome.FAILED, stage=Stage.WAIT_NODES, oscar_stage="barrier", category=Category.OSCAR,
    sentence="oscarnode1 panicked when it came from its disk", evidence=EVIDENCE,
)  # fmt: skip
PASSED = Verdict(run_id="r", cell="c", source="s", revision="1", outcome=Outcome.PASSED, sentence="good")

WRONG = {
    "outcome": (FAULT, {"outcome": Outcome.INFRASTRUCTURE}, "it is infrastructure, not failed"),
    "stage": (FAULT, {"stage": Stage.FINALIZE}, f"it should say {BARRIER}, not finalize/barrier, oscar"),
    "oscar_stage": (
        FAULT,
        {"oscar_stage": "test"},
        f"it should say {BARRIER}, not wait-nodes/test, oscar",
    ),
    "no word": (FAULT, {"sentence": "oscarnode1 panicked"}, "the sentence does not say 'disk|CD'"),
    "no evidence": (FAULT, {"evidence": ()}, "there is no evidence"),
    "passed": (FAULT, {"outcome": Outcome.PASSED}, "it is passed, not failed"),
    "red": (GOOD, {}, "it is failed, not passed"),
    "category": (
        FAULT.model_copy(update={"category": Category.ANSWERS}),
        {"outcome": Outcome.INFRASTRUCTURE, "category": Category.FARM},
        "it should say wait-nodes/barrier, answers, not wait-nodes/barrier, farm",
    ),
}


@pytest.mark.parametrize(("fault", "change", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_what_is_not_as_expected_is_said(fault: Fault, change: dict[str, object], complaint: str) -> None:
    assert fault.complaints(RIGHT.model_copy(update=change)) == [complaint]


def test_what_is_as_expected_is_right() -> None:
    assert FAULT.complaints(RIGHT) == []
    assert GOOD.complaints(PASSED) == []
    assert FAULT.complaints(RIGHT.model_copy(update={"sentence": "It PANICKED, after it came from its cd"})) == []


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('title = "a"\n', "say either the stage that fails, or passes = true"),
        ('title = "a"\nstage = "finalize"\npasses = true\n', "say either the stage that fails, or passes = true"),
        ('title = "a"\nstage = "finalise"\n', "book/faults.toml:3: stage: Input should be 'create-image'"),
        ('title = "a"\nstage = "finalize"\nwhose = "mine"\n', "faults.toml:4: whose: there is no such setting"),
        ('title = "a"\nstage = "finalize"\nline = "("\n', "faults.toml:4: line: no regular expression: missing )"),
    ],
)
def test_a_wrong_entry_is_answered_with_file_and_line(tmp_path: Path, entry: str, complaint: str) -> None:
    book = tmp_path / "book"
    book.mkdir()
    (book / "faults.toml").write_text(f"[one]\n{entry}")
    with pytest.raises(ConfigError) as error:
        FaultBook(book)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("pxe-fails-silently", "needs nodes that boot over the network"),
        ("package-not-recognized", "is not blamed on a commit: no author gets a mail"),
    ],
)
def test_the_demo_refuses_what_it_cannot_show(name: str, complaint: str) -> None:
    with pytest.raises(UserError, match=f"the fault '{name}' {complaint}"):
        _chosen(name)
    assert _chosen("node-panics").stage is Stage.WAIT_NODES


def test_what_is_no_fault_has_to_be_green_in_the_demo() -> None:
    fault = Fault(title="a", passes=True)
    build = Build(1, "http://127.0.0.1/", True, 0)
    assert complaints(Finished(2, build, PASSED, None), fault) == ["no mail to the committer arrived"]
    assert complaints(Finished(2, build, RIGHT, Path("mail")), fault) == [
        f"the build should be green, but it is 'success' (failed): {RIGHT.sentence}"
    ]


def test_the_line_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "console").mkdir()
    lookout = Lookout(tmp_path, "Kernel panic")
    lookout.look()
    for name in ("oscarnode1.qemu.log", "oscarnode2.log"):
        (tmp_path / "console" / name).write_bytes(b"booting\nKernel pa")
        lookout.look()
    assert lookout.sighting is None
    for name in ("oscarnode1.qemu.log", "oscarnode2.log"):
        with (tmp_path / "console" / name).open("ab") as console:
            console.write(b"nic - not syncing\r\nand more\n")
    lookout.look()
    assert lookout.sighting is not None
    assert (lookout.sighting.file, lookout.sighting.line) == ("console/oscarnode2.log", "Kernel panic - not syncing")


def test_seconds_count_from_the_line_and_are_never_negative() -> None:
    now = datetime.now().astimezone()
    sighting = Sighting(time=now, file="f", line="l")
    assert seconds_until(sighting, (now + timedelta(seconds=2.5)).isoformat()) == 2.5
    assert seconds_until(sighting, (now - timedelta(seconds=0.1)).isoformat()) == 0.0
    assert seconds_until(None, now.isoformat()) is None


# Says what the file `say` next to it holds, as its verdict; a run that is asked about says `again`.
DRIVER = """\
import json, sys
from datetime import datetime
from pathlib import Path
here = Path(__file__).parent
if sys.argv[1] == "verdict":
    print((here / "again").read_text())
    sys.exit(10)
job, runs = json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[4])
with (here / "revisions").open("a") as file:
    file.write(job["source"]["revision"] + "\\n")
run = runs / f"{job['run_id']}-again-{len(list(runs.iterdir()))}"
(run / "console").mkdir(parents=True)
print("about to say something")
(run / "console/oscarnode1.log").write_text("Kernel panic - not syncing\\n")
stamp = datetime.now().astimezone().isoformat()
(run / "events.jsonl").write_text(json.dumps({"time": stamp, "elapsed": 1, "kind": "failure", "text": "so"}) + "\\n")
if (here / "say").exists():
    (run / "verdict.json").write_text((here / "say").read_text())
"""


class Fakes:
    """The fake driver's directory, and a book with one fault."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "driver.py").write_text(DRIVER)
        self.book = FaultBook(self._book())

    def _book(self) -> Path:
        book = self.directory / "book"
        book.mkdir()
        (book / "faults.toml").write_text(
            '[panics]\ntitle = "a"\nstage = "wait-nodes"\noscar_stage = "barrier"\nwords = ["panicked"]\n'
            'line = "Kernel panic"\n'
        )
        (book / "panics.patch").write_text("--- a/VERSION\n+++ b/VERSION\n@@ -1,0 +1,1 @@\n+# broken\n")
        return book

    def say(self, verdict: Verdict, again: Verdict | None = None) -> None:
        (self.directory / "say").write_text(verdict.model_dump_json())
        (self.directory / "again").write_text((again or verdict).model_dump_json())

    @property
    def revisions(self) -> list[str]:
        return (self.directory / "revisions").read_text().split()


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    for module in (fault_table, replays):
        monkeypatch.setattr(module, "DRIVER", (sys.executable, str(tmp_path / "driver.py")))
    return Fakes(tmp_path)


@pytest.fixture
def proving(fakes: Fakes, tmp_path: Path) -> Iterator[Proving]:
    with Proving(tmp_path / "runs", fakes.book).serving() as proving:
        yield proving


def test_a_fault_is_committed_run_and_judged(proving: Proving, fakes: Fakes) -> None:
    fakes.say(RIGHT)
    row = proving.row("panics")
    assert row.wrong == ()
    assert row.certain_after is not None and row.certain_after < 5
    assert row.cells()[:4] == ("panics", BARRIER, BARRIER, "yes")
    fakes.say(PASSED)
    assert proving.row(NONE).wrong == ()
    assert fakes.revisions == ["2", "1"]


def test_a_run_that_came_to_its_end_is_judged_again_and_not_run_again(proving: Proving, fakes: Fakes) -> None:
    fakes.say(RIGHT)
    first = proving.row("panics", resume=True)
    assert proving.row("panics", resume=True) == first
    assert fakes.revisions == ["2"]
    fakes.say(RIGHT, again=RIGHT.model_copy(update={"sentence": "something else"}))
    changed = proving.row("panics", resume=True)
    assert changed.wrong == ("its files give another verdict than the one that was stored",)
    assert fakes.revisions == ["2"]


def test_a_run_that_was_cancelled_is_run_again(proving: Proving, fakes: Fakes) -> None:
    fakes.say(RIGHT.model_copy(update={"outcome": Outcome.CANCELLED}))
    assert proving.row("panics", resume=True).wrong == ("it is cancelled, not failed",)
    fakes.say(RIGHT)
    assert proving.row("panics", resume=True).wrong == ()
    assert fakes.revisions == ["2", "2"], "the same commit, run twice"


@pytest.mark.parametrize(("verdict", "status", "end"), [(PASSED, 0, "1 of 1 right"), (RIGHT, 1, "0 of 1 right")])
def test_the_command_ends_with_0_only_if_all_are_right(
    fakes: Fakes, tmp_path: Path, verdict: Verdict, status: int, end: str
) -> None:
    fakes.say(verdict)
    file = tmp_path / "new" / "table.md"
    words = ["--only", NONE, "--runs", str(tmp_path / "runs"), "--markdown", str(file)]
    done = CliRunner().invoke(fault_table.main, words)
    assert done.exit_code == status, done.output
    assert done.output.splitlines()[0].startswith("[1/1] none: ")
    assert done.output.splitlines()[-1] == end
    assert len(file.read_text().splitlines()) == 3


def test_a_driver_without_a_verdict_is_a_wrong_row_with_its_last_words(proving: Proving) -> None:
    row = proving.row("panics", resume=True)
    assert row.verdict is None
    assert len(row.wrong) == 1 and "the driver ended with status 0: about to say something" in row.wrong[0]
    assert row.cells()[2:7] == ("nothing", f"NO: {row.wrong[0]}", "-", "-", "-")


def test_the_table_is_markdown_whatever_is_said() -> None:
    row = Row("one", FAULT, RIGHT.model_copy(update={"sentence": "this | that"}), (), 0.25, True)
    lines = replays.markdown(COLUMNS, [row.cells()]).splitlines()
    assert lines[1].replace(" ", "") == "|---|---|---|---|---|---|---|---|"
    assert lines[2] == f"| one | {BARRIER} | {BARRIER} | yes | 0 | 0.2 | yes | this \\| that |"


def test_an_unknown_name_is_refused_before_anything_runs(fakes: Fakes) -> None:
    with pytest.raises(UserError, match="there is no fault 'nonsense'; there are: panics"):
        fault_table._names("none,nonsense", fakes.book)
    assert fault_table._names("", fakes.book) == [NONE, "panics"]
