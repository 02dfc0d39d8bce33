"""A stand-in for `oscar-testdriver`: it honours the contract of `stage` (lines, exit statuses, files), without VMs.

What it plays is in the file `scenario` beside the folder of runs, as JSON: {"stage": ..., "play": ...}. The play
`by-revision` has the lists `fail` (revisions that fail) and `infrastructure` (those whose first run does not count); in
`first-fails` the first run of each revision fails, and later ones play `then`. `sentence` is what a bad run says.
`image` is the key of the base image of today; without it no run has an image, and `images key` fails. `packages` (a
list of packages) is an image, too; in `by-package` a run fails whose image has the line `breaks`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oscar_steps.job import Job
    from oscar_steps.verdict import ImageReport, Outcome, Stage, Verdict

PROBLEM = "src/cli/main_cli:15: perl: syntax error"
SENTENCE = "oscarnode2 stopped in mid-pull: 41 MB came, then nothing for 150 s <script>alert(1)</script>"
PASSED = 0


def packages_of(job: dict[str, Any], scenario: dict[str, Any], beside: Path) -> str:
    """The packages of this run's image. Each image that was ever used is kept under its key."""
    images = beside / "images"
    images.mkdir(exist_ok=True)
    text = (images / job["image_key"]).read_text() if job["image_key"] else str(scenario.get("packages", ""))
    lines = [line.split() for line in text.splitlines()]
    wanted = job["image_versions"]
    text = "".join(f"{name} {wanted.get(name, version)} {more}\n" for name, version, more in lines)
    (images / key_of(text)).write_text(text)
    return text


def key_of(packages: str) -> str:
    """The key of the image with these packages."""
    return hashlib.sha256(packages.encode()).hexdigest()


def verdict(job: Job, outcome: Outcome, stage: Stage | None, sentence: str, image: ImageReport | None) -> Verdict:
    """What the run says in the end."""
    # The models take half a second, and most stages need none: imported where they are.
    from oscar_steps.testdriver.record.verdicts import replay_command
    from oscar_steps.verdict import (
        Category,
        Evidence,
        NodeReport,
        Outcome,
        Stage,
        StageReport,
        StageResult,
        Verdict,
    )

    failed = outcome is not Outcome.PASSED
    result = StageResult(outcome.value)
    return Verdict(
        run_id=job.run_id,
        cell=job.cell,
        source=job.source.url,
        revision=job.source.revision,
        tested=job.source.without_text(),
        outcome=outcome,
        sentence=sentence if failed else "the cluster was installed and tested",
        stage=stage,
        stability=job.stability,
        image=image,
        category=Category.OSCAR if outcome is Outcome.FAILED else Category.NONE,
        evidence=(Evidence(file="console/oscarnode2.log", first_line=2, lines=("rsync: read error", "é\x07")),)
        if failed
        else (),
        nodes=(
            NodeReport(name="oscarnode1", state="up", since=201.4),
            NodeReport(name="oscarnode2", state="pulling image", since=96.0, note="\x1b[31mrsync error\x1b[0m"),
        ),
        stages=tuple(StageReport(stage=each, result=result, seconds=12.3) for each in Stage),
        seconds=110.7,
        replay=replay_command(job),
    )


def leave_files(run: Path) -> None:
    """A run's files, some of them not nice."""
    for name in ("console", "logs", "disks"):
        (run / name).mkdir(exist_ok=True)
    (run / "console/oscarnode2.log").write_text("booting\nrsync: read error\n<script>alert(1)</script>\n")
    (run / "logs/index.html").write_text("<script>alert(1)</script>")
    (run / "logs/passwd").unlink(missing_ok=True)
    (run / "logs/passwd").symlink_to("/etc/passwd")
    (run / "disks/head.qcow2").write_bytes(b"disk")
    (run / "events.jsonl").write_text("{}\n")


def lint(revision: str, url: str, directory: str) -> int:
    """The first tier: it finds, mends or lets stand one problem, or breaks down, only where the scenario says so."""
    from oscar_steps.judgement import Judgement, ReportedProblem
    from oscar_steps.verdict import LINT, Category, Evidence, ExitStatus, Outcome, Verdict

    run = Path(directory)
    scenario = json.loads((run.parent.parent / "scenario").read_text())
    play = scenario["play"]
    if play == "lint-breaks":
        raise RuntimeError("a bug of the driver's")
    if play == "patch-refused":
        return refused(run, revision, url)
    outcome = {"lint-fails": Outcome.FAILED, "lint-warns": Outcome.WARNING}.get(play, Outcome.PASSED)
    bad, gates = outcome is not Outcome.PASSED, play in ("lint-fails", "lint-stands")
    mended = (f"mended: {PROBLEM}",) if play == "lint-mends" else ()
    lines = (PROBLEM,) if bad else mended
    (run / "logs").mkdir(parents=True)
    (run / "logs/lint.txt").write_text(f"{PROBLEM}\n")
    number = int(revision) if revision.isdecimal() else 1
    commit = "" if revision.isdecimal() else revision
    told = ReportedProblem(key="a", file="src/cli/main_cli", line=15, what="perl: syntax error", right="x", gates=gates)
    brought = told.model_copy(update={"revision": number, "author": scenario.get("author", ""), "commit": commit})
    Judgement(
        url=url,
        revision=number,
        base=number - 1,
        commit=commit,
        new=(brought,) if bad else (),
        mended=(told,) if mended else (),
        standing=(told.model_copy(update={"was": "a"}),) if play == "lint-stands" else (),
    ).save(run)
    Verdict(
        run_id=run.name,
        cell=LINT,
        source=url,
        revision=revision,
        outcome=outcome,
        sentence=PROBLEM if bad else "no new problems",
        category=Category.OSCAR if bad else Category.NONE,
        evidence=(Evidence(file="logs/lint.txt", first_line=1, lines=lines),) if lines else (),
        mended=mended,
    ).save(run)
    print("@@oscar " + json.dumps({"summary": "lint: 1 problem in 143 files, 3.1 s" if bad else "lint: no problem"}))
    return ExitStatus.of(outcome)


def refused(run: Path, revision: str, url: str) -> int:
    """The first tier could not apply a developer's patch."""
    from oscar_steps.verdict import LINT, Category, ExitStatus, Outcome, Verdict

    sentence = "the patch 01234567 of developer does not apply: 'README' is not in the tree"
    Verdict(
        run_id=run.name,
        cell=LINT,
        source=url,
        revision=revision,
        outcome=Outcome.INFRASTRUCTURE,
        sentence=sentence,
        category=Category.FARM,
    ).save(run)
    return ExitStatus.USAGE


def played(scenario: dict[str, Any], job: dict[str, Any], beside: Path) -> str:
    """The play of this run; all stages of one run have the same."""
    revision = str(job["source"]["revision"])
    if scenario["play"] == "first-fails":
        return "fail" if is_first_run(revision, job, beside) else str(scenario["then"])
    if scenario["play"] == "by-package":
        return "fail" if scenario["breaks"] in packages_of(job, scenario, beside).splitlines() else "pass"
    if scenario["play"] != "by-revision":
        return str(scenario["play"])
    if revision in map(str, scenario["infrastructure"]) and is_first_run(revision, job, beside):
        return "infrastructure"
    return "fail" if revision in map(str, scenario["fail"]) else "pass"


def is_first_run(revision: str, job: dict[str, Any], beside: Path) -> bool:
    """Whether no other run of this revision has begun before."""
    first = beside / f"first-run-of-{revision}"
    with suppress(FileExistsError), first.open("x") as file:
        file.write(job["run_id"])
    return first.read_text() == str(job["run_id"])


def main() -> int:
    words = sys.argv[1:]
    if words[:2] == ["images", "key"]:
        return image_key(Path(words[2]))
    if words[0] != "stage":
        return lint(words[1], words[3], words[5]) if words[0] == "lint" else PASSED
    stage, run = words[1], Path(words[3])
    job = json.loads((run / "job.json").read_text())
    scenario = json.loads((run.parent.parent / "scenario").read_text())
    play, here = played(scenario, job, run.parent.parent), scenario["stage"] == stage
    print(f"{stage}: {job['source']}")
    print("@@oscar " + json.dumps({"summary": "1 of 2 nodes up" if stage == "wait-nodes" else f"{stage} goes on"}))
    print("@@oscar not json", flush=True)
    if stage == "extract-logs":
        leave_files(run)
    elif stage == "create-image" and "--keep" in words:
        (run / "keep").write_text(words[words.index("--keep") + 1])
    elif stage == "teardown":
        keep(run)
        return tear_down(run, play, scenario, packages_of(job, scenario, run.parent.parent))
    elif here and play == "hang":
        (run / "hanging.new").write_text(str(os.getpid()))
        (run / "hanging.new").rename(run / "hanging")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(exit_status("cancelled")))
        time.sleep(600)
    elif here and play == "wait":
        (run.parent.parent / "waiting").touch()
        while not (run.parent.parent / "go").exists():
            time.sleep(0.05)
    elif here and play != "pass":
        return exit_status(play)
    return PASSED


def image_key(job: Path) -> int:
    """The key of the base image of today; where there is none the mirror is away."""
    from oscar_steps.verdict import ExitStatus

    json.loads(job.read_text())
    if key := json.loads((job.parents[2] / "scenario").read_text()).get("image"):
        print(key)
    return ExitStatus.PASSED if key else ExitStatus.INFRASTRUCTURE


def exit_status(play: str) -> int:
    """How a stage ends in which such a play goes wrong."""
    from oscar_steps.verdict import ExitStatus

    if play == "traceback":
        raise RuntimeError("a bug of the driver's")
    known = {
        "fail": ExitStatus.FAILED,
        "infrastructure": ExitStatus.INFRASTRUCTURE,
        "cancelled": ExitStatus.CANCELLED,
    }
    return known.get(play, ExitStatus.PASSED)


def keep(run: Path) -> None:
    """The cluster of a run that a person keeps, until the file `let-go` is there."""
    if not (run / "keep").exists():
        return
    print("@@oscar " + json.dumps({"summary": f"the cluster is kept for {(run / 'keep').read_text()} h"}), flush=True)
    (run.parent.parent / "kept").touch()
    while not (run.parent.parent / "let-go").exists():
        time.sleep(0.05)


def tear_down(run: Path, play: str, scenario: dict[str, Any], packages: str) -> int:
    """The last stage, which writes the verdict."""
    from oscar_steps.job import JOB_FILE, Job
    from oscar_steps.manifest import MANIFEST_FILE
    from oscar_steps.verdict import ExitStatus, ImageReport, Outcome, Stage

    outcomes = {"fail": Outcome.FAILED, "infrastructure": Outcome.INFRASTRUCTURE, "hang": Outcome.CANCELLED}
    outcome = outcomes.get(play, Outcome.PASSED)
    if play != "no-verdict":
        stage = Stage(scenario["stage"]) if outcome is not Outcome.PASSED else None
        image = ImageReport(key=key) if (key := scenario.get("image", "")) else None
        if packages:
            (run / MANIFEST_FILE).write_text(packages)
            image = ImageReport(key=key_of(packages), manifest=key_of(packages))
        verdict(Job.load(run / JOB_FILE), outcome, stage, scenario.get("sentence", SENTENCE), image).save(run)
    return ExitStatus.INFRASTRUCTURE if play == "fail" and scenario.get("bad_teardown") else ExitStatus.PASSED


if __name__ == "__main__":
    sys.exit(main())
