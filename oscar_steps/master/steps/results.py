"""From exit statuses and verdicts to Buildbot's results: each mapped on purpose, everything unknown is an exception.

Green means that the run's own verdict says `passed` and no stage said otherwise. Red (FAILURE) means OSCAR. Orange
(WARNINGS) is the first tier's: something new is wrong, and the clusters are installed anyway. Purple
(EXCEPTION) means the farm, or its host. RETRY, as pink as CANCELLED, is Buildbot's own, for a lost worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from buildbot.process.results import (
    CANCELLED,
    EXCEPTION,
    FAILURE,
    SKIPPED,
    SUCCESS,
    WARNINGS,
    statusToString,
    worst_status,
)
from pydantic import ValidationError

from oscar_steps.master.history.record import TESTED as TESTED
from oscar_steps.master.history.record import VERDICT as VERDICT
from oscar_steps.master.history.record import source_in
from oscar_steps.sources.source import Source
from oscar_steps.verdict import LINT, Category, ExitStatus, Outcome, Stage, Verdict

RUN_ID = "run_id"
CELL_OWNER = "cell_owner"
"""Build property: a mail address that gets the mails about this cell's results, too."""
RUN_DIRECTORY = "run_directory"
"""Build property: where the worker keeps this run. Set once the worker has the job; without it no stage can run."""
SOURCE_URL = "source_url"
EXACT_REVISION = "exact_revision"

RESULT_OF_STATUS: dict[int, int] = {
    ExitStatus.PASSED: SUCCESS,
    ExitStatus.FAILED: FAILURE,
    ExitStatus.INFRASTRUCTURE: EXCEPTION,
    ExitStatus.CANCELLED: CANCELLED,
    ExitStatus.NOT_REACHED: SKIPPED,
}
LINT_RESULT_OF_STATUS = RESULT_OF_STATUS | {ExitStatus.WARNING: WARNINGS}
"""The first tier alone may warn: a cell has passed, or it has not."""
RESULT_OF_OUTCOME: dict[Outcome, int] = {
    Outcome.PASSED: SUCCESS,
    Outcome.WARNING: WARNINGS,
    Outcome.FAILED: FAILURE,
    Outcome.INFRASTRUCTURE: EXCEPTION,
    Outcome.CANCELLED: CANCELLED,
}


def stage_result(stage: Stage, status: int | None, so_far: int) -> int:
    """Buildbot's result of a stage whose command ended with exit status `status` (None: it did not end).

    A finding about OSCAR stands, whatever happens to extract-logs or teardown after it: that is a warning then.
    """
    result = EXCEPTION if status is None else RESULT_OF_STATUS.get(status, EXCEPTION)
    if stage.always_runs and so_far == FAILURE and result in (FAILURE, EXCEPTION):
        return WARNINGS
    return result


def is_run_of(cell: str, name: str) -> bool:
    """Whether a run directory of this name is of a build of the cell: CELL-SOURCE-bNUMBER, see `Source.short`.

    The beginning of the name may be another cell's, too.
    """
    return re.fullmatch(rf"{re.escape(cell)}-[rgt][^-]*-b[0-9]+", name) is not None


@dataclass(frozen=True)
class RunIdentity:
    """What a verdict must say about itself; the master's own verdicts say it where a run left none."""

    run_id: str
    cell: str
    source: str
    revision: str
    tested: Source | None = None

    @classmethod
    def of_build(cls, cell: str, number: int, get: Callable[[str], Any]) -> RunIdentity:
        """What is known of the run of a build by now. `get` gives a property of the build by its name, or None."""
        return cls(
            run_id=str(get(RUN_ID) or f"{cell}-b{number}"),
            cell=cell,
            source=str(get(SOURCE_URL) or ""),
            revision=str(get(EXACT_REVISION) or get("revision") or ""),
            tested=source_in(get(TESTED)),
        )

    def verdict(
        self, outcome: Outcome, sentence: str, *, hint: str = "", category: Category = Category.FARM
    ) -> Verdict:
        """A verdict of the master's own."""
        return Verdict(
            run_id=self.run_id,
            cell=self.cell,
            source=self.source,
            revision=self.revision,
            tested=self.tested,
            outcome=outcome,
            sentence=sentence,
            hint=hint,
            category=category,
        )


def read_verdict(identity: RunIdentity, text: str | None) -> Verdict:
    """The verdict in `text` (None: the worker has no such file); an infrastructure one where that cannot be used."""
    if text is None:
        return identity.verdict(
            Outcome.INFRASTRUCTURE, "the run left no verdict.json: the testing driver ended before it wrote one"
        )
    try:
        verdict = Verdict.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
        return identity.verdict(Outcome.INFRASTRUCTURE, f"the run's verdict cannot be used: {where}: {first['msg']}")
    if verdict.run_id != identity.run_id:
        return identity.verdict(
            Outcome.INFRASTRUCTURE, f"the run directory holds the verdict of another run, {verdict.run_id}"
        )
    if verdict.outcome is Outcome.WARNING and identity.cell != LINT:
        return identity.verdict(Outcome.INFRASTRUCTURE, "the run's verdict is a warning, which no cell may end with")
    if identity.cell == LINT and identity.tested is not None:  # the first tier does not know the branch
        return verdict.model_copy(update={"tested": identity.tested})
    return verdict


def agreed(verdict: Verdict, stages_say: int, step: str) -> Verdict:
    """The build's verdict: the run's own, unless the stages (their worst was `step`) ended worse than it says."""
    if worst_status(RESULT_OF_OUTCOME[verdict.outcome], stages_say) == RESULT_OF_OUTCOME[verdict.outcome]:
        return verdict
    if stages_say == WARNINGS:
        return verdict
    if stages_say == CANCELLED:
        return verdict.model_copy(update={"outcome": Outcome.CANCELLED, "sentence": "the build was stopped"})
    sentence = f"{step} ended with '{statusToString(stages_say)}', although the run's verdict is '{verdict.outcome}'"
    return verdict.model_copy(
        update={
            "outcome": Outcome.INFRASTRUCTURE,
            "category": Category.FARM,
            "sentence": sentence,
            "hint": f"the verdict said: {verdict.sentence}",
        }
    )


def lost_worker(identity: RunIdentity, worker: str) -> Verdict:
    """The verdict of a build whose worker was lost (result RETRY: Buildbot starts it again)."""
    return identity.verdict(
        Outcome.INFRASTRUCTURE,
        f"the connection to the worker {worker} was lost during the build; it starts again when a worker is free",
        category=Category.HOST,
    )
