"""The table of the matrix: which cells run, and what is written of them. The driver is a fake."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from demo import replays
from demo.farm import CHECKOUT
from demo.matrix_table import COLUMNS, Asked, Row, main, page
from demo.replays import markdown
from oscar_steps.errors import ConfigError
from oscar_steps.images import foreign
from oscar_steps.job import JOB_FILE, CellPlan, Source, Timeouts
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.verdict import ImageReport, Outcome, Stage, StageReport, StageResult, Verdict

CELL = load_matrix(CHECKOUT / "profiles").cells[0].name

STAGES = tuple(
    StageReport(stage=stage, result=StageResult.PASSED, seconds=seconds)
    for stage, seconds in (
        (Stage.CREATE_IMAGE, 101.4), (Stage.BOOT_HEADNODE, 30.0), (Stage.START_INSTALL, 100.0), (Stage.BOOT_NODES, 5.0),
        (Stage.WAIT_NODES, 50.0), (Stage.FINALIZE, 10.0), (Stage.TEARDOWN, 1.0),
    )
)  # fmt: skip
GREEN = Verdict(
    run_id=f"{CELL}-again-20261130-021500-71", cell=CELL, source="s", revision="1", outcome=Outcome.PASSED,
    sentence="good", stages=STAGES, seconds=301.2, image=ImageReport(key="0123456789abcdef" * 4),
)  # fmt: skip
NO_IMAGE = GREEN.model_copy(
    update={
        "outcome": Outcome.INFRASTRUCTURE,
        "sentence": "the mirror | has no suite",
        "stages": STAGES[:1],
        "image": None,
    }
)

# Leaves what a run leaves. Its verdict is what the file `say` beside it holds; without one it ends without a verdict.
DRIVER = """\
import shutil, sys
from pathlib import Path
here = Path(__file__).parent
job, runs = Path(sys.argv[2]), Path(sys.argv[4])
run = runs / f"run-{len(list(runs.iterdir()))}"
run.mkdir()
shutil.copyfile(job, run / "job.json")
print("no room")
if (here / "say").exists():
    shutil.copyfile(here / "say", run / "verdict.json")
"""


class Fake:
    """The command with the fake driver, and the folder where its runs are."""

    def __init__(self, directory: Path) -> None:
        self.say_file = directory / "say"
        self.runs = directory / "runs"
        self.page = directory / "new" / "matrix.md"

    def say(self, verdict: Verdict) -> None:
        self.say_file.write_text(verdict.model_dump_json())

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["--runs", str(self.runs), *words])

    @property
    def count(self) -> int:
        return len(list((self.runs / CELL).glob("run-*")))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "driver.py").write_text(DRIVER)
    monkeypatch.setattr(replays, "DRIVER", (sys.executable, str(tmp_path / "driver.py")))
    return Fake(tmp_path)


def test_a_cell_is_run_as_the_matrix_says_and_its_row_is_of_its_verdict(fake: Fake) -> None:
    fake.say(GREEN)
    done = fake.run("--only", CELL)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == f"[1] {CELL}: passed after 301 s"
    assert done.output.splitlines()[-1] == "1 of 1 green"
    job = json.loads(next((fake.runs / CELL).glob(f"run-*/{JOB_FILE}")).read_text())
    assert job["cell"] == CELL
    assert job["timeouts"] == Timeouts().model_dump()


def test_all_packages_that_the_cells_need_are_named_before_the_first_run(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    gone = ("qemu-system-aarch64", "qemu-aarch64-static", "arch-test")
    monkeypatch.setattr(shutil, "which", lambda name, **how: None if name in gone else which(name, **how))
    monkeypatch.setattr(foreign, "_is_registered", lambda _name: True)
    fake.say(GREEN)
    done = fake.run("--only", f"{CELL},debian-12-aarch64,debian-13-aarch64")
    said, command = done.stderr.splitlines()[:2]
    assert said == (
        "matrix: this host lacks qemu-system-aarch64, qemu-aarch64-static, arch-test "
        "for the cells debian-12-aarch64, debian-13-aarch64"
    )
    assert command == "  apt-get install qemu-system-arm qemu-user-static arch-test"
    assert fake.count == 1, "the others are run"
    assert fake.run("--only", CELL).stderr == ""


def test_a_run_that_came_to_its_end_is_not_run_again_when_resumed(fake: Fake) -> None:
    fake.say(GREEN.model_copy(update={"outcome": Outcome.CANCELLED}))
    fake.run("--only", CELL)
    fake.say(GREEN)
    fake.run("--only", CELL, "--resume")
    assert fake.count == 2, "what was cancelled is run again"
    assert fake.run("--only", CELL, "--resume").exit_code == 0
    assert fake.count == 2
    fake.run("--only", CELL)
    assert fake.count == 3


def test_a_cell_that_is_not_green_is_a_row_with_the_reason(fake: Fake) -> None:
    fake.say(NO_IMAGE)
    done = fake.run("--only", CELL, "--markdown", str(fake.page))
    assert done.exit_code == 1
    row = next(line for line in fake.page.read_text().splitlines() if line.startswith(f"| {CELL} |"))
    assert row == (
        f"| {CELL} | infrastructure | CD | 2 | - | 101 | - | - | 301 | 2026-11-30 | the mirror \\| has no suite |"
    )


def test_the_page_has_every_cell_also_those_that_did_not_run_and_comes_from_several_folders(
    fake: Fake, tmp_path: Path
) -> None:
    fake.say(GREEN)
    fake.run("--only", CELL)
    done = fake.run("--no-run", "--runs", f"{tmp_path / 'none'},{fake.runs}", "--markdown", str(fake.page))
    assert fake.count == 1
    text = fake.page.read_text()
    cells = load_matrix(CHECKOUT / "profiles").cells
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:] == [
        "---",
        *(cell.name for cell in cells),
    ]
    assert f"| {CELL} | passed | CD | 2 | 0123456789ab | 101 | 30 | 165 | 301 | 2026-11-30 |  |" in text
    assert f"1 of {len(cells)} cells are green" in text
    assert done.exit_code == (0 if len(cells) == 1 else 1)


def test_a_run_made_by_hand_counts_where_it_is_the_newest(fake: Fake, tmp_path: Path) -> None:
    fake.say(NO_IMAGE)
    fake.run("--only", CELL)
    by_hand = tmp_path / "by-hand" / "run"
    shutil.copytree(next((fake.runs / CELL).glob("run-*")), by_hand)
    GREEN.save(by_hand)
    folders = f"{fake.runs},{by_hand.parent}"
    assert fake.run("--no-run", "--only", CELL, "--runs", folders).exit_code == 0
    GREEN.model_copy(update={"cell": "another"}).save(by_hand)
    assert fake.run("--no-run", "--only", CELL, "--runs", folders).exit_code == 1


def test_a_run_made_by_hand_does_not_count_where_its_nodes_boot_otherwise(fake: Fake) -> None:
    fake.say(GREEN)
    assert fake.run("--only", CELL).exit_code == 0
    file = next((fake.runs / CELL).glob("run-*")) / JOB_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "network"}))
    assert fake.run("--no-run", "--only", CELL).exit_code == 1


def test_a_driver_without_a_verdict_is_said_with_its_last_words(fake: Fake) -> None:
    done = fake.run("--only", CELL)
    assert done.exit_code == 1
    assert "not run after - s: the driver ended with status 0: no room" in done.output


def test_an_unknown_cell_is_refused_before_anything_runs(fake: Fake) -> None:
    done = fake.run("--only", "debian-3-vax")
    assert done.exit_code == 64
    assert "there is no cell 'debian-3-vax'" in done.output
    assert not fake.runs.exists()


def test_nodes_and_way_of_booting_are_the_job_s_own_and_jobs_of_other_versions_are_read(tmp_path: Path) -> None:
    matrix = load_matrix(CHECKOUT / "profiles")
    plan = CellPlan.of(matrix, matrix.cells[0], Timeouts())
    job = json.loads(
        plan.job(CELL, Source(url="svn://s/trunk", revision="1"), nodes=5, boot="network").model_dump_json()
    )
    (tmp_path / JOB_FILE).write_text(json.dumps({**job, "image": "of another version", "later": 1}))
    assert Row(CELL, GREEN, Asked.load(tmp_path)).cells()[2:4] == ("network", "5")
    (tmp_path / JOB_FILE).write_text("{}")
    with pytest.raises(ConfigError, match="is not the job of a run: 1 validation error"):
        Asked.load(tmp_path)


def test_a_cell_without_a_run_is_a_row_that_says_so() -> None:
    assert page([Row(CELL)]).splitlines()[-1] == (
        f"| {CELL} | not run | {'- | ' * (len(COLUMNS) - 3)}no run of it has a verdict |"
    )


def test_in_a_log_the_table_has_a_cells_name_and_image_in_one_line(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    fake.say(GREEN)
    lines = fake.run("--only", CELL).output.splitlines()[1:]
    assert [line for line in lines if CELL in line and "0123456789ab" in line and "2026-11-30" in line]


def test_a_page_keeps_the_row_of_a_cell_that_was_not_run_again(fake: Fake) -> None:
    others = [cell.name for cell in load_matrix(CHECKOUT / "profiles").cells if cell.name != CELL]
    old = ("passed", "CD", "2", "-", "1", "2", "3", "4", "2026-01-02", "")
    red = ("infrastructure", "network", "3", "-", "1", "2", "3", "4", "2026-01-02", "it says a|b")
    rows = [(CELL, *old), (others[0], *old), (others[1], *red)]
    fake.page.parent.mkdir()
    fake.page.write_text(f"# The matrix\n\n{markdown(COLUMNS, rows)}")
    fake.say(NO_IMAGE)
    fake.run("--only", CELL, "--markdown", str(fake.page))
    text = fake.page.read_text()
    assert markdown(rows[1], [rows[2]]).splitlines()[0] in text
    assert markdown(rows[2], []).splitlines()[0] in text
    assert f"| {CELL} | infrastructure |" in text
    assert f"| {others[2]} | not run |" in text
    assert f"1 of {len(others) + 1} cells are green" in text


def test_a_page_whose_table_has_other_columns_lends_no_row() -> None:
    old = markdown(("cell", "outcome"), [(CELL, "passed")])
    assert f"| {CELL} | not run |" in page([Row(CELL)], old)
