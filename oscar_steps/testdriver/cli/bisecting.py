"""A search by hand, over commits or over the packages of two images: its runs are below one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click

from oscar_steps import manifest
from oscar_steps.bisect.compare import Side
from oscar_steps.bisect.images import Images
from oscar_steps.bisect.search import Answer, Ask, Run, Search, Seen
from oscar_steps.bisect.seen import is_fault, other_faults, seen, seen_of_image
from oscar_steps.errors import FarmError, SourceError, UserError
from oscar_steps.job import JOB_FILE, Job, Source
from oscar_steps.sources.externals import Memory
from oscar_steps.sources.resolve import externals_at
from oscar_steps.sources.source import Patch
from oscar_steps.textio import one_line, printable
from oscar_steps.verdict import VERDICT_FILE, Category, Outcome, Stage, Verdict

Execute = Callable[[Path, Job, Path], Verdict]


class Places(Protocol):
    """What a search goes over. Position 0 is the last good one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the positions, for people."""

    def place(self, job: Job) -> int | None:
        """The position that this job tests; None: it is of another search."""

    def job(self, position: int, done: Sequence[tuple[int, Verdict]]) -> Job:
        """The job of a position, without its name; `done`: the runs until now, and their positions.

        Raises SourceError where the position cannot be tested, HostError where that is not known.
        """

    def seen(self, verdict: Verdict, bad: Verdict | None) -> Seen:
        """What a run says of the fault of the run `bad`."""


@dataclass
class Commits:
    """One source after the other, all on one image: so nothing else differs.

    The exact externals of a position are asked for when it is first wanted; all of its runs have the same.
    """

    template: Job
    sources: tuple[Source, ...]
    names: tuple[str, ...]
    patch: Patch | None = None
    """A fix that is applied to each of them; one to which it does not apply is tested as it is."""
    memory: Memory = field(default_factory=Memory)
    exact: dict[int, Source] = field(default_factory=dict)
    """The positions that have been asked for, with their externals."""

    def place(self, job: Job) -> int | None:
        if job.cell != self.template.cell or (job.source.patch and job.source.patch != self.patch):
            return None
        theirs = job.source.model_copy(update={"patch": None})
        plain = theirs.model_copy(update={"externals": ()}).identity
        position = next((number for number, each in enumerate(self.sources) if each.identity == plain), None)
        if position is None:
            return None
        if theirs.externals:  # what a commit elsewhere has changed since then is not mixed into this search
            self.exact.setdefault(position, theirs)
        try:
            return position if self._exact(position).identity == theirs.identity else None
        except SourceError:
            return None

    def _exact(self, position: int) -> Source:
        """Raises SourceError where nobody can check it out, HostError where the server does not say."""
        if position not in self.exact:
            source = self.sources[position]
            if source.kind == "svn":
                externals = externals_at(source.url, source.revision, self.memory)
                source = source.model_copy(update={"externals": externals})
            self.exact[position] = source
        return self.exact[position]

    def job(self, position: int, done: Sequence[tuple[int, Verdict]]) -> Job:
        used = next((verdict.image.key for _, verdict in done if verdict.image), "")
        refused = any(place == position and patch_refused(verdict) for place, verdict in done)
        source = self._exact(position).model_copy(update={"patch": None if refused else self.patch})
        return self.template.model_copy(update={"source": source, "image_key": self.template.image_key or used})

    def seen(self, verdict: Verdict, bad: Verdict | None) -> Seen:
        return seen(verdict, bad)


def patch_refused(verdict: Verdict) -> bool:
    """Whether the run ended because its patch did not apply."""
    patched = verdict.tested is not None and verdict.tested.patch is not None
    return patched and verdict.stage is Stage.CHECKOUT and verdict.category is Category.FARM


@dataclass(frozen=True)
class Packages:
    """One source on each of the images."""

    template: Job
    images: Images

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.names

    def place(self, job: Job) -> int | None:
        if (job.cell, job.source.identity) != (self.template.cell, self.template.source.identity):
            return None
        theirs = {"image_key": job.image_key, "image_versions": job.image_versions}
        return next((n for n in range(len(self.names)) if self.images.wanted(n) == theirs), None)

    def job(self, position: int, done: Sequence[tuple[int, Verdict]]) -> Job:  # noqa: ARG002 - each has its own image
        return self.template.model_copy(update=self.images.wanted(position))

    def seen(self, verdict: Verdict, bad: Verdict | None) -> Seen:
        return seen_of_image(verdict, bad)


@dataclass
class Bisect:
    """A search whose runs are below one folder: what is there counts, so it goes on where it stopped."""

    folder: Path
    places: Places
    search: Search
    new_id: Callable[[str, Source], str]
    images: Path
    execute: Execute
    like: Verdict | None = None
    """A run that has the fault; None: the bad revision's first red run says what is looked for."""
    done: list[tuple[int, Verdict]] = field(default_factory=list)

    def load(self) -> None:
        """What earlier runs said. One that did not come to its end says nothing. Raises HostError."""
        found = list[tuple[float, int, Verdict]]()
        for path in self.folder.glob(f"*/{VERDICT_FILE}"):
            try:
                verdict, job, when = Verdict.load(path.parent), Job.load(path.parent / JOB_FILE), path.stat().st_mtime
            except (FarmError, OSError):
                continue
            position = self.places.place(job)
            if position is not None and verdict.outcome is not Outcome.CANCELLED:
                found.append((when, position, verdict))
        self.done = [(position, verdict) for _, position, verdict in sorted(found, key=lambda each: each[:2])]

    @property
    def bad(self) -> Verdict | None:
        """The run whose fault is looked for."""
        last = len(self.places.names) - 1
        return self.like or next((run for position, run in self.done if position == last and is_fault(run)), None)

    @property
    def runs(self) -> list[Run]:
        return [Run(position, self._seen(run)) for position, run in self.done if not patch_refused(run)]

    def _seen(self, verdict: Verdict) -> Seen:
        return self.places.seen(verdict, self.bad)

    def go_on(self) -> Answer | None:
        """Run what is needed to the answer; None: a person ended it."""
        if self.done:
            click.echo(f"{len(self.done)} runs are there already, in {self.folder}")
        self._check_patch()
        while isinstance(step := self.search.next(self.runs), Ask):
            click.echo(f"run {len(self.done) + 1}: {printable(self.places.names[step.position])}: {step.why}")
            try:
                job = self._job(step.position)
            except SourceError as error:
                self.done.append((step.position, _not_tested(self.places.names[step.position], error)))
                click.echo(f"    not tested: {printable(one_line(error.sentence))}")
                continue
            click.echo(f"    {self.folder / job.run_id}")
            verdict = self.execute(self.folder / job.run_id, job, self.images)
            if verdict.outcome is Outcome.CANCELLED:
                return None
            self.done.append((step.position, verdict))
            if patch_refused(verdict):
                self._check_patch()
                click.echo(f"    {printable(one_line(verdict.sentence))}; it is tested as it is")
                continue
            said = self._seen(verdict)
            words = verdict.sentence if said is not Seen.GOOD or verdict.outcome is not Outcome.PASSED else "passed"
            click.echo(f"    {said} after {verdict.seconds:.0f} s: {printable(one_line(words))}")
        return step

    def _check_patch(self) -> None:
        """Raises UserError for the bad revision: without its patch it shows the fault that is known already."""
        last = len(self.places.names) - 1
        refused = [run.sentence for position, run in self.done if position == last and patch_refused(run)]
        if refused:
            raise UserError(refused[-1], hint="make the patch against the bad revision")

    @property
    def others(self) -> list[Verdict]:
        """Runs with other faults than the one that is looked for, one of each."""
        return other_faults((run for _, run in self.done), self.bad)

    def _job(self, position: int) -> Job:
        job = self.places.job(position, self.done)
        return job.model_copy(update={"run_id": self.new_id(job.cell, job.source)})

    def sides(self, answer: Answer) -> tuple[Side, Side] | None:
        """The two runs beside the answer: the last one without the fault, and the first one with it."""
        wanted = ((answer.first - 1, Seen.GOOD), (answer.last, Seen.BAD))
        found = list[Side]()
        for place, kind in wanted:
            runs = [run for position, run in self.done if (position, self._seen(run)) == (place, kind)]
            if runs:
                found.append(side_of(self.folder / runs[-1].run_id, runs[-1]))
        return (found[0], found[1]) if len(found) == 2 else None


def _not_tested(name: str, error: SourceError) -> Verdict:
    return Verdict(
        run_id="-",
        cell="-",
        source="-",
        revision=name,
        outcome=Outcome.INFRASTRUCTURE,
        category=Category.FARM,
        sentence=error.sentence,
    )


def side_of(directory: Path, verdict: Verdict) -> Side:
    """What is kept of a run."""
    job = dict[str, Any]()
    with suppress(FarmError, OSError):  # an archive may be without it, or of another version
        job = Job.load(directory / JOB_FILE).model_dump(mode="json")
    return Side(verdict, manifest.read_manifest(directory / manifest.MANIFEST_FILE), str(directory), job)
