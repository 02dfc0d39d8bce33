"""What `events.jsonl` says of a run: how far it came, what became of its nodes, what went wrong first, and when.

Only the file is read, so that a run that goes on, one that is over and one from an archive have the same history. A
line that cannot be understood is left out. That makes no run better, because a good run must have every stage's end.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from oscar_steps.oscar.flavour import FlavourName
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.testdriver.record.events import Event, read_events
from oscar_steps.verdict import Category, Evidence, ImageReport, NodeReport, Outcome, Stage, StageReport, StageResult


@dataclass(frozen=True)
class Recorded:
    """The first thing that went wrong, as the run itself wrote it down."""

    stage: Stage
    error: str
    sentence: str
    hint: str
    outcome: Outcome
    category: Category
    oscar_stage: str
    evidence: tuple[Evidence, ...]
    facts: dict[str, float | str]


@dataclass
class EventHistory:
    """A run as its events show it; see the module's docstring."""

    events: list[Event]
    stages: dict[Stage, StageReport] = field(default_factory=dict)
    stage: Stage | None = None
    """The last stage that began."""
    steps: list[str] = field(default_factory=list)
    """What that stage was waiting for, innermost last."""
    failure: Recorded | None = None
    nodes: dict[str, list[tuple[str, float, str]]] = field(default_factory=dict)
    flavour: FlavourName | None = None
    """Of the OSCAR whose installer was started; None: none was."""
    began: dict[str, float] = field(default_factory=dict)
    """Stages of OSCAR's installer, and how many seconds into the run each began."""
    ended: dict[str, float] = field(default_factory=dict)
    image: ImageReport | None = None
    vms_left: int | None = None
    """Virtual machines that outlived a killed run; None: this is not known."""

    @property
    def last(self) -> Event:
        """The last sign of life. (A post-mortem is written by the command that finds the run dead.)"""
        return next((event for event in reversed(self.events) if event.kind != "post-mortem"), self.events[0])

    @property
    def day(self) -> datetime.date:
        """The day of the run. The verdict counts what was known on that day, whenever it is made."""
        with suppress(ValueError):
            return datetime.date.fromisoformat(self.events[0].stamp[:10])
        return datetime.date.max

    @property
    def is_over(self) -> bool:
        """Whether the run itself came to its end; otherwise its process was killed."""
        return len(self.stages) == len(Stage)

    def node_reports(self) -> tuple[NodeReport, ...]:
        return tuple(
            NodeReport(
                name=name,
                state=states[-1][0],
                since=states[-1][1],
                history=tuple((state, since) for state, since, _note in states),
                note=states[-1][2],
            )
            for name, states in self.nodes.items()
        )

    def stage_reports(self) -> tuple[StageReport, ...]:
        """Every stage of the run; the one that a killed run was in is the farm's fault, later ones were not reached."""
        lost = StageResult.INFRASTRUCTURE
        return tuple(
            self.stages.get(stage)
            or StageReport(stage=stage, result=lost if stage is self.stage else StageResult.NOT_REACHED)
            for stage in Stage
        )

    def install_seconds(self, stage: InstallStage) -> float | None:
        """How long a stage of OSCAR's installer took; None where that is not known."""
        if (began := self.began.get(stage)) is None:
            return None
        later = [when for other, when in self.began.items() if InstallStage(other).position > stage.position]
        ended = self.ended.get(stage, min(later, default=None))
        return None if ended is None else round(ended - began, 1)


def read_event_history(run_directory: Path) -> EventHistory | None:
    """The history of the run, or None where it has not begun."""
    events = read_events(run_directory)
    if not events:
        return None
    # What follows the run's own verdict was not there when that was made; only a post-mortem comes without one.
    end = next((number for number, event in enumerate(events) if event.kind == "verdict"), len(events))
    history = EventHistory(events[:end] or events)
    for event in history.events:
        with suppress(KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError):
            if event.kind in _TAKE:
                _TAKE[event.kind](history, event)
    return history


def _stage_started(history: EventHistory, event: Event) -> None:
    history.stage, history.steps = Stage(event.data["stage"]), []


def _stage_ended(history: EventHistory, event: Event) -> None:
    stage = Stage(event.data["stage"])
    seconds = float(event.data.get("seconds", 0.0))
    history.stages[stage] = StageReport(stage=stage, result=StageResult(event.data["result"]), seconds=seconds)


def _step_begun(history: EventHistory, event: Event) -> None:
    history.steps.append(event.text)


def _step_over(history: EventHistory, _event: Event) -> None:
    history.steps.pop()


def _image(history: EventHistory, event: Event) -> None:
    history.image = ImageReport(key=str(event.data["digest"]), manifest=str(event.data.get("manifest", "")))


def _node(history: EventHistory, event: Event) -> None:
    state = (str(event.data["state"]), round(float(event.elapsed), 3), str(event.data.get("note", "")))
    history.nodes.setdefault(str(event.data["node"]), []).append(state)


def _installer_started(history: EventHistory, event: Event) -> None:
    history.flavour = FlavourName(event.data.get("flavour", FlavourName.INSTALL_CLUSTER))


def _installer(history: EventHistory, event: Event) -> None:
    stage, what = InstallStage(event.data["stage"]), event.data["what"]
    if what == "stage-started":
        history.began.setdefault(stage, event.elapsed)
    elif what in ("stage-passed", "certain-failure"):
        history.ended.setdefault(stage, event.elapsed)


# What the first runs wrote of a failure had its class alone.
_OF_CLASS = {
    "InstallerFailed": (Outcome.FAILED, Category.OSCAR),
    "InstallerHung": (Outcome.FAILED, Category.OSCAR),
    "NodeFailed": (Outcome.FAILED, Category.OSCAR),
    "Cancelled": (Outcome.CANCELLED, Category.NONE),
}


_EVIDENCE = TypeAdapter(tuple[Evidence, ...])


def _failure(history: EventHistory, event: Event) -> None:
    if history.failure is not None:
        return  # what went wrong later is a consequence, or no part of the verdict
    data = event.data
    sentence, _, hint = event.text.partition("\n  ")
    error = str(data.get("error", ""))
    outcome, category = _OF_CLASS.get(error, (Outcome.INFRASTRUCTURE, Category.HOST))
    history.failure = Recorded(
        stage=Stage(data["stage"]),
        error=error,
        sentence=sentence,
        hint=hint,
        outcome=Outcome(data.get("outcome", outcome)),
        category=Category(data.get("category", category)),
        oscar_stage=str(data.get("oscar_stage", "")),
        evidence=_EVIDENCE.validate_python(data.get("evidence", ())),
        facts=dict(data.get("facts", {})),
    )


def _post_mortem(history: EventHistory, event: Event) -> None:
    history.vms_left = int(event.data["vms_left"])


_TAKE: dict[str, Callable[[EventHistory, Event], None]] = {
    "stage-started": _stage_started,
    "stage-ended": _stage_ended,
    "step": _step_begun,
    "step-done": _step_over,
    "step-broken": _step_over,
    "image": _image,
    "node": _node,
    "installer-started": _installer_started,
    "installer": _installer,
    "failure": _failure,
    "post-mortem": _post_mortem,
}
