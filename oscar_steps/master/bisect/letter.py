"""The mail at the end of a search: who did it, and the two runs beside each other."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oscar_steps import manifest
from oscar_steps.bisect.compare import Side, compare
from oscar_steps.bisect.search import Answer, Kind, Seen
from oscar_steps.bisect.seen import other_faults
from oscar_steps.errors import FarmError
from oscar_steps.job import JOB_FILE, Job
from oscar_steps.master.bisect.case import Case, Step, verdict_beside
from oscar_steps.master.bisect.worlds import Elsewhere, World, around
from oscar_steps.master.web.run_files import RUNS, run_url
from oscar_steps.repositories import kind_of
from oscar_steps.sources.git import url_words
from oscar_steps.sources.source import Source
from oscar_steps.textio import one_line
from oscar_steps.verdict import Verdict

_LONGEST_JOB = 4 << 20
"""Bytes. It comes from a worker."""


@dataclass(frozen=True)
class Letter:
    """The mail about an answer. `elsewhere`: what was found beside the commits, where none of them did it."""

    master: Any
    case: Case
    steps: list[Step]
    answer: Answer
    elsewhere: Elsewhere | None = None
    good: Verdict | None = None
    """Of the last good build; None: the farm has it no more."""

    @property
    def subject(self) -> str:
        case, answer, elsewhere = self.case, self.answer, self.elsewhere
        if answer.kind is Kind.FOUND:
            return f"{case.cell}: {case.names[answer.first]} broke it"
        if elsewhere is not None and elsewhere.world is not None:
            return one_line(f"{case.cell}: no commit broke it: {elsewhere.sentence}", 200)
        if answer.kind is Kind.GONE:
            return f"{case.cell}: the fault of {case.names[-1]} does not come back"
        return f"{case.cell}: it is not clear which commit broke it"

    @property
    def logins(self) -> list[str]:
        """Who gets the mail: the author of what was found, nobody where it is not one commit; and who asked."""
        case = self.case
        blamed = [case.candidates[self.answer.first - 1].author] if self.answer.kind is Kind.FOUND else []
        return list(dict.fromkeys([*blamed, *([case.asked.who] if case.asked and case.asked.who else [])]))

    @property
    def is_developers(self) -> bool:
        """Whether the developers' list gets it, too: what the distribution broke is nobody's, and concerns all."""
        return self.elsewhere is not None and self.elsewhere.world is World.PACKAGES

    async def text(self) -> str:
        """In plain words."""
        case, answer = self.case, self.answer
        base, last = self.master.config.buildbotURL, len(case.candidates)
        commits = "1 commit" if last == 1 else f"{last} commits"
        was = "was good at" if case.good.build else "is said to be good at"
        lines = [
            *(_elsewhere(self.elsewhere, case) if self.elsewhere else [f"{answer.sentence(case.names)}."]),
            "",
            f"The cell {case.cell} {was} {case.names[0]} and failed at {case.names[last]}, with {commits}",
            f"between. The farm made {len(self.steps)} more builds{_asked(case)}:",
            *(self._line(step) for step in self.steps),
            "",
        ]
        if answer.kind is Kind.FOUND and (message := case.candidates[answer.first - 1].message.strip()):
            lines += [f"{case.names[answer.first]} says: {one_line(message, 300)}", ""]
        beside = self._beside()
        lines += [*compare(*(_side(self.master, run) for run in beside)), *await self._by_hand(*beside)]
        lines += _behind(case, self.steps)
        page = f"{base}#/builders/{case.builder}/builds/{case.number}"
        return "\n".join([*lines, "", f"The build that failed: {page}", ""])

    async def _by_hand(self, *runs: Verdict) -> list[str]:
        """The command that shows the two runs again, where one worker has both."""
        case, steps = self.case, self.steps
        builds = {case.verdict.run_id: case.build, **({self.good.run_id: case.good.build} if self.good else {})}
        builds |= {step.verdict.run_id: step.build for step in steps if step.verdict is not None}
        found = [await around(self.master, builds.get(run.run_id, 0)) for run in runs]
        folders, workers = [each.folder for each in found], {each.worker for each in found}
        if len(workers) > 1 or not all((*folders, *workers)):
            return []
        again = shlex.join(["oscar-testdriver", "compare", *folders])
        return [f"By hand, on the worker {workers.pop()}, as long as it keeps them: {again}"]

    def _beside(self) -> tuple[Verdict, Verdict]:
        """The run before, and the run with the fault; where the search has none, those of before it began."""
        case, answer, elsewhere = self.case, self.answer, self.elsewhere
        earlier = self.good or _earlier(case)
        first, last = max(answer.first - 1, 0), min(answer.last, len(case.candidates))
        if elsewhere is None:
            good = verdict_beside(case, self.steps, first, Seen.GOOD)
            return good or earlier, verdict_beside(case, self.steps, last, Seen.BAD) or case.verdict
        today = verdict_beside(case, self.steps, 0, Seen.BAD) or case.verdict
        if (which := elsewhere.answer) is None or which.kind is not Kind.FOUND:
            return earlier, today
        good = verdict_beside(case, self.steps, which.first - 1, Seen.GOOD, of_image=True)
        return good or earlier, verdict_beside(case, self.steps, which.last, Seen.BAD, of_image=True) or today

    def _line(self, step: Step) -> str:
        verdict, images = step.verdict, self.elsewhere.found.images if self.elsewhere else None
        words = f"{verdict.outcome}: {verdict.sentence}" if verdict else "not ended"
        name = self.case.names[0 if step.of_image else step.position]
        on = f" on {images.at(step.position)}" if step.of_image and images else ""
        return one_line(f"- {name}{on} {words}", 160)


def _asked(case: Case) -> str:
    return f", as {one_line(case.asked.who, 60)} had asked" if case.asked and case.asked.who else ""


def _elsewhere(elsewhere: Elsewhere, case: Case) -> list[str]:
    """What was found beside the commits."""
    found = elsewhere.found
    lines = [
        f"No commit did it: {elsewhere.sentence}.",
        f"{case.names[0]}, which was good, shows the fault now as well.",
    ]
    if found.differ:
        lines += ["", f"Different between that good run and the one of today: {', '.join(found.differ)}."]
    lines += [f"{found.changes}."] if found.changes else []
    lines += [f"No search over the packages is possible: {found.why_not}."] if found.why_not else []
    if images := found.images:
        again = ["oscar-testdriver", "bisect-packages", images.old[:12], images.new[:12], "--cell", case.cell]
        kind = kind_of(str(case.stamp["branch"] or ""))
        again += url_words(Source(kind=kind, url=case.good.url, revision=case.good.revision))
        again += ["--revision", case.good.revision]
        lines += [f"By hand, on the worker {found.worker}: {shlex.join(again)}"]
    return lines


def _behind(case: Case, steps: list[Step]) -> list[str]:
    """Faults that the search has met beside the one that it looked for."""
    met = other_faults((step.verdict for step in steps if step.verdict is not None), case.verdict)
    return ["", "The search has also met another fault:", *map(_fault, met)] if met else []


def _fault(verdict: Verdict) -> str:
    place = f" at {verdict.stage}" if verdict.stage else ""
    return one_line(f"- {verdict.short} failed{place}: {verdict.sentence}", 160)


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
    if "/" in verdict.run_id or not folder.is_dir():
        return Side(verdict)
    packages = manifest.read_manifest(folder / manifest.MANIFEST_FILE)
    return Side(verdict, packages, run_url(master.config.buildbotURL, verdict.run_id), _job(folder / JOB_FILE))


def _job(path: Path) -> dict[str, Any]:
    """The job of a run; {}: it was not kept, or is of another version."""
    with suppress(FarmError, OSError):
        if path.stat().st_size <= _LONGEST_JOB:
            return Job.load(path).model_dump(mode="json")
    return {}
