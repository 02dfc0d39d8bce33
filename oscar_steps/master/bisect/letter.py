"""The mail at the end of a search: who did it, and the two runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oscar_steps import manifest
from oscar_steps.bisect.compare import Side, compare
from oscar_steps.bisect.search import Answer, Kind, Seen
from oscar_steps.master.bisect.case import Case, Step, verdict_beside
from oscar_steps.master.web.run_files import RUNS, run_url
from oscar_steps.textio import one_line
from oscar_steps.verdict import Verdict


def subject(case: Case, answer: Answer) -> str:
    if answer.kind is Kind.FOUND:
        return f"{case.cell}: {case.names[answer.first]} broke it"
    return f"{case.cell}: it is not clear which commit broke it"


def logins(case: Case, answer: Answer) -> list[str]:
    """Who gets the mail: the author of what was found, nobody where it is not one commit."""
    return [case.candidates[answer.first - 1].author] if answer.kind is Kind.FOUND else []


def text(master: Any, case: Case, steps: list[Step], answer: Answer) -> str:
    """In plain words."""
    base, last = master.config.buildbotURL, len(case.candidates)
    lines = [
        f"{answer.sentence(case.names)}.",
        "",
        f"The cell {case.cell} was good at {case.names[0]} and failed at {case.names[last]}, with {last} commits",
        f"between. The farm ran {len(steps)} of these revisions again:",
        *(_line(case, step) for step in steps),
        "",
    ]
    if answer.kind is Kind.FOUND and (message := case.candidates[answer.first - 1].message.strip()):
        lines += [f"{case.names[answer.first]} says: {one_line(message, 300)}", ""]
    if answer.kind is Kind.BEFORE:
        lines += ["The commits are innocent. What else is different is named below.", *_farm(case), ""]
    lines += compare(*_sides(master, case, steps, answer))
    page = f"{base}#/builders/{case.builder}/builds/{case.number}"
    return "\n".join([*lines, "", f"The build that failed: {page}", ""])


def _farm(case: Case) -> list[str]:
    changed = case.farm and case.good.farm and case.farm != case.good.farm
    return ["The farm's own program, profiles or recipes have changed since the cell was good."] if changed else []


def _line(case: Case, step: Step) -> str:
    verdict = step.verdict
    words = f"{verdict.outcome}: {verdict.sentence}" if verdict else "not ended"
    return one_line(f"- {case.names[step.position]} {words}", 160)


def _sides(master: Any, case: Case, steps: list[Step], answer: Answer) -> tuple[Side, Side]:
    """The run before, and the run with the fault; where the search has none, those of before it began."""
    good = verdict_beside(case, steps, max(answer.first - 1, 0), Seen.GOOD) or _earlier(case)
    bad = verdict_beside(case, steps, min(answer.last, len(case.candidates)), Seen.BAD) or case.verdict
    return _side(master, good), _side(master, bad)


def _earlier(case: Case) -> Verdict:
    """The last good result, as far as the farm remembers it."""
    good = case.good
    image = {"key": good.image, "manifest": good.packages} if good.image else None
    return Verdict.model_validate(
        {
            "run_id": f"{case.cell}-{good.source}-b{good.number}",
            "cell": case.cell,
            "source": good.url,
            "revision": good.revision,
            "outcome": good.outcome,
            "sentence": good.sentence,
            "image": image,
        }
    )


def _side(master: Any, verdict: Verdict) -> Side:
    folder = Path(master.basedir) / RUNS / verdict.run_id
    known = "/" not in verdict.run_id and folder.is_dir()
    packages = manifest.read_manifest(folder / manifest.MANIFEST_FILE) if known else None
    return Side(verdict, packages, run_url(master.config.buildbotURL, verdict.run_id) if known else "")
