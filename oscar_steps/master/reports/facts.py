"""Who gets which mail: at most one per build, made from the verdict alone.

- `failed`: OSCAR failed. The authors of the changes that this build was made for get the mail, and those of earlier
  changes that this cell could not test until now because the farm failed; nobody else. A forced build's mail goes to
  the person who forced it, a nightly one's to the developers' list.
- `warning` (first tier only): the authors get a mail. It says that the clusters are installed anyway.
- `passed`: a mail goes out only if the build before it on the same branch had failed ('fixed'), or if the site says
  `always`. In the first tier 'fixed' means that a problem is mended which kept an earlier commit from its cells. The
  author of that commit gets the mail, too.
- Of an unstable cell the authors get no mail: it goes to the developers' list (without one: to the operator).
- The owner of a cell gets each of these mails, too, and those about the distribution and the answers.
- `infrastructure`: the farm, the distribution or the site's answers failed. The operator gets the mail. A commit's cell
  is then retried (`again.py`): the operator gets a mail about the first failure, and one when the farm gives up.
- Of a release's cells nobody gets these mails but the cell's owner: the release has one report (`candidate.py`).
- A red that is repeated (`history/repeat.py`) has one mail, when the second result is there. If that is green, the red
  is flaky: the mail goes where that about an unstable cell goes.
- `cancelled`: nobody gets a mail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from buildbot.process.results import CANCELLED, FAILURE, RETRY, SKIPPED, SUCCESS, WARNINGS, Results
from buildbot.reporters import utils
from pydantic import ValidationError

from oscar_steps.job import JOB_FILE
from oscar_steps.master.again import TRIED_AGAIN, TRIES_BEFORE
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.durability.restarts import RESTARTED
from oscar_steps.master.history.record import NOT_COUNTED, SAME_AS
from oscar_steps.master.history.repeat import Second, second_of
from oscar_steps.master.history.store import History, note_now
from oscar_steps.master.history.table import Rate
from oscar_steps.master.reports.directory import AddressBook
from oscar_steps.master.reports.distribution import changed_since_good
from oscar_steps.master.schedules.names import ASKERS_MISTAKE, CANDIDATE, CELLS, CHANGES, NIGHTLY, PATCH_OF, WEEKLY
from oscar_steps.master.steps.report import GO_ON, headline
from oscar_steps.master.steps.results import (
    CELL_OWNER,
    EXACT_REVISION,
    RUN_DIRECTORY,
    VERDICT,
    RunIdentity,
    lost_worker,
)
from oscar_steps.master.watch.git import MERGED_AUTHORS
from oscar_steps.master.web.run_files import run_url
from oscar_steps.master.web.standing import GATED_BEFORE
from oscar_steps.signature import signature_of
from oscar_steps.site import Mail
from oscar_steps.sources.source import short_name
from oscar_steps.textio import one_line
from oscar_steps.verdict import LINT, Category, Outcome, Stability, Verdict
from oscar_steps.words import UNSTABLE

_LOOK_BACK = 20
_MOST_NIGHTS = 200
_MOST_BLAMED = 100
"""At most this many people get mail about one build. Somebody may push a history of years at once."""
_FARMS_OWN = "the farm or a host failed"
_NOT_OSCAR = {
    Category.DISTRIBUTION: "the distribution's packages are broken",
    Category.ANSWERS: "the site's answers do not fit this OSCAR",
}
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # plain text
    keep_trailing_newline=True,
)
_templates.filters["line"] = one_line


@dataclass(frozen=True)
class ChangeNote:
    """A commit, as far as a mail speaks of it."""

    revision: str
    author: str
    message: str
    link: str = ""
    merged: tuple[str, ...] = ()
    """Whose commits a merge brought."""

    @property
    def authors(self) -> tuple[str, ...]:
        return (self.author, *self.merged)

    @property
    def name(self) -> str:
        """'r5916', or the beginning of a commit's id."""
        return short_name(self.revision)


@dataclass(frozen=True)
class Before:
    """The last build on the same branch that said something about OSCAR."""

    number: int
    revision: str
    passed: bool

    def __str__(self) -> str:
        return f"build {self.number} ({short_name(self.revision)}) {'passed' if self.passed else 'had failed too'}"


@dataclass(frozen=True)
class BuildNote:
    """All that a mail is made of."""

    verdict: Verdict
    scheduler: str
    owner: str
    changes: tuple[ChangeNote, ...]
    before: Before | None
    build_url: str
    base: str
    has_files: bool
    gated_before: tuple[str, ...] = ()
    """Of the first tier: logins whose commits were kept from their cells by a problem that this commit mends."""
    cell_owner: str = ""
    """The mail address of who looks after the cell; '': nobody in particular."""
    distribution: str = ""
    """What changed in the distribution since the cell's last good run."""
    patch_of: str = ""
    """The login of the developer whose patch was tested; '': there was none."""
    goes_on: bool = False
    """Of a patch's first tier: its cells begin now, so that this is not the end."""
    askers_mistake: bool = False
    """What was asked for does not exist, or cannot be used."""
    known_already: bool = False
    """The operator got a mail about the first failure, and another retry follows."""
    repeats: bool = False
    """It repeats a red build."""
    second: Second | None = None
    """What became of the repetition of this red build."""
    second_url: str = ""
    known_to_them: bool = False
    """Another build has tested the same before, and all authors of these changes are authors of those, too."""
    rate: Rate = field(default_factory=Rate)
    """How often this failure has come and gone in this cell."""

    @property
    def authors(self) -> tuple[str, ...]:
        """Of its commits, and of those that merges brought."""
        return tuple(author for change in self.changes for author in change.authors)

    @property
    def flaky(self) -> bool:
        """Red, and green when it was repeated."""
        return self.verdict.outcome is Outcome.FAILED and self.second is not None and self.second.passed

    @property
    def blames(self) -> bool:
        """Whether a red says something about the commits."""
        return self.verdict.stability is Stability.STABLE and not self.flaky

    @property
    def fixed(self) -> bool:
        if self.verdict.outcome is not Outcome.PASSED or self.patch_of:
            return False
        if self.verdict.cell == LINT:  # it compares two revisions: nothing new says nothing of the tree
            return bool(self.gated_before)
        return self.before is not None and not self.before.passed

    @property
    def by_itself(self) -> bool:
        """Whether the farm began it, by the clock or for a commit, and nobody forced it."""
        return self.scheduler in (NIGHTLY, WEEKLY) or bool(self.changes)

    @property
    def result(self) -> str:
        """The first line: how it ended, and where."""
        verdict = self.verdict
        if verdict.outcome is Outcome.PASSED:
            return "fixed: passes again" if self.fixed else "passed"
        where = f"{verdict.outcome.value}{f' at the stage {verdict.stage.value}' if verdict.stage else ''}"
        if verdict.outcome is Outcome.WARNING:
            return f"{where}: {GO_ON}"
        if verdict.outcome is Outcome.FAILED and not self.blames:
            passed = f"flaky: {where}, and passed when it was repeated; it is blamed on no commit"
            return passed if self.flaky else f"{where}; {UNSTABLE}"
        if verdict.outcome is Outcome.INFRASTRUCTURE and self.askers_mistake:
            return "not tested: what was asked for cannot be used"
        if verdict.outcome is Outcome.INFRASTRUCTURE:
            return f"{where}: {_NOT_OSCAR.get(verdict.category, _FARMS_OWN)}; this says nothing about OSCAR"
        return where

    @property
    def subject(self) -> str:
        verdict = self.verdict
        what = "fixed" if self.fixed else f"flaky: {headline(verdict)}" if self.flaky else headline(verdict)
        what = f"your patch: {what}" if self.patch_of else what
        return f"[oscar-farm] {verdict.cell}{f' {verdict.short}' if verdict.revision else ''}: {what}"

    @property
    def text(self) -> str:
        files = run_url(self.base, self.verdict.run_id) if self.has_files else ""
        return _templates.get_template("report.txt.j2").render(
            verdict=self.verdict,
            result=self.result,
            changes=self.changes,
            distribution=self.distribution,
            repeated=self._repeated,
            second_url=self.second_url,
            rate=self.rate,
            before=str(self.before) if self.before and self.verdict.outcome is Outcome.FAILED else "",
            build_url=self.build_url,
            base=self.base,
            run_files=files,
            job_url=f"{files}{JOB_FILE}" if files and self.verdict.cell != LINT else "",
        )

    @property
    def _repeated(self) -> str:
        """The second result, in words."""
        second = self.second
        if second is None:
            return ""
        if second.verdict is None or second.build is None:
            return second.why or "the repetition ended without a verdict"
        said = second.verdict
        how = "passed" if second.passed else f"{said.outcome.value}: {said.sentence}"
        if said.outcome is Outcome.FAILED:
            same = signature_of(said) == signature_of(self.verdict)
            how = "failed in the same way" if same else f"failed in another way: {said.sentence}"
        return f"build {second.build['number']} {how}"


def people_of(note: BuildNote, mail: Mail) -> set[str]:
    """The logins whose addresses decide who gets the mail about this build; none where it is decided already."""
    outcome = note.verdict.outcome
    if not _is_due(note, mail) or (note.scheduler == CANDIDATE and outcome is not Outcome.INFRASTRUCTURE):
        return set()
    if note.patch_of:
        return {note.patch_of}
    if outcome is Outcome.INFRASTRUCTURE:
        return {note.owner} if note.owner and note.verdict.category is Category.FARM else set()
    authors = _blamed(note) if note.blames else ()
    return {*authors, *filter(None, (note.owner,))}


def _is_due(note: BuildNote, mail: Mail) -> bool:
    """Whether anybody at all gets a mail about this build; of a patch it concerns its developer alone."""
    outcome = note.verdict.outcome
    if note.patch_of:
        return outcome is not Outcome.CANCELLED and not (outcome is Outcome.PASSED and note.goes_on)
    always = mail.always and note.verdict.cell != LINT and note.blames
    if outcome is Outcome.PASSED:
        return note.fixed or always
    if outcome is Outcome.FAILED and note.known_to_them:
        return False
    return outcome is not Outcome.CANCELLED and not (outcome is Outcome.INFRASTRUCTURE and note.known_already)


def _blamed(note: BuildNote) -> list[str]:
    """Logins: the authors of the commits. The author of a mended problem has no part in what this commit breaks."""
    others = note.gated_before if note.verdict.outcome is not Outcome.FAILED else ()
    everybody = [*dict.fromkeys((*note.authors, *others))]
    if len(everybody) > _MOST_BLAMED:  # without those whose commits a merge brought
        everybody = [*dict.fromkeys(change.author for change in note.changes)]
    return everybody if len(everybody) <= _MOST_BLAMED else []


def recipients(note: BuildNote, mail: Mail, book: AddressBook) -> tuple[str, ...]:
    """Addresses that get a mail about this build; none: nobody does."""
    outcome = note.verdict.outcome
    if not _is_due(note, mail):
        return ()
    if note.patch_of:
        return _of_patch(note, mail, book)
    more = (note.cell_owner,) if note.cell_owner else ()
    asked = book.known(note.owner)
    if note.scheduler == CANDIDATE and outcome is not Outcome.INFRASTRUCTURE:
        return more  # the release manager gets one report about all cells
    if outcome is Outcome.INFRASTRUCTURE:
        first = asked if asked and note.verdict.category is Category.FARM else mail.operator
        return tuple(dict.fromkeys((first, *(more if note.verdict.category in _NOT_OSCAR else ()))))
    authors = [book.address(login) for login in _blamed(note)] if note.blames else []
    # An address that cannot be used is None here: it drops nobody but itself.
    everybody = (mail.developers or mail.operator,) if note.by_itself else (mail.operator,)
    found = sorted({address for address in (*authors, asked) if address}) or everybody
    return tuple(dict.fromkeys((*found, *more)))


def _of_patch(note: BuildNote, mail: Mail, book: AddressBook) -> tuple[str, ...]:
    """A patch concerns its developer alone: no author, no list. The operator hears of what is the farm's own fault."""
    developer = book.address(note.patch_of)
    farms = note.verdict.outcome is Outcome.INFRASTRUCTURE and not note.askers_mistake
    return tuple(dict.fromkeys(address for address in (developer, mail.operator if farms else None) if address))


def bad_logins(note: BuildNote, mail: Mail, book: AddressBook) -> tuple[tuple[str, str], ...]:
    """Authors to whom no mail about this build can be sent although one is due, each with the reason."""
    nobody_blamed = not note.blames
    none_due = note.verdict.outcome in (Outcome.CANCELLED, Outcome.INFRASTRUCTURE)
    if nobody_blamed or none_due or not recipients(note, mail, book):
        return ()
    logins = [note.patch_of] if note.patch_of else note.authors
    faults = {login: book.fault(login) for login in logins}
    return tuple((login, fault) for login, fault in sorted(faults.items()) if fault)


async def note_of(master: Any, build: dict[str, Any]) -> BuildNote:
    """What a mail about a finished build says. `build` has its properties (`utils.getDetailsForBuild`)."""
    properties = {name: value for name, (value, _source) in build["properties"].items()}
    verdict = _verdict_of(build, properties)
    before, untested = await _before(master, build, properties.get("branch"))
    changes = properties.get(CHANGES) or []
    if changes and verdict.outcome is Outcome.FAILED and verdict.cell != LINT:
        changes = sorted({*untested, *changes})
    notes = await _changes(master, changes)
    second = await second_of(master, build, properties)
    then = second.build if second else None
    if then:
        await note_now(master, build["buildid"], then["buildid"])
    return BuildNote(
        repeats=REPEAT_OF in properties,
        second=second,
        second_url=utils.getURLForBuild(master, then["builderid"], then["number"]) if then else "",
        rate=await History(master).flake_rate(verdict.cell, signature_of(verdict)) if second else Rate(),
        verdict=verdict,
        distribution=await changed_since_good(master, build, verdict),
        scheduler=str(properties.get("scheduler", "")),
        owner=str(properties.get("owner", "")),
        cell_owner=str(properties.get(CELL_OWNER) or ""),
        changes=notes,
        known_to_them=await _known_to_all(master, properties.get(SAME_AS), notes),
        patch_of=str(properties.get(PATCH_OF) or ""),
        goes_on=bool(properties.get(CELLS)),
        askers_mistake=bool(properties.get(ASKERS_MISTAKE)),
        before=before,
        build_url=utils.getURLForBuild(master, build["builder"]["builderid"], build["number"]),
        base=master.config.buildbotURL,
        known_already=bool(properties.get(TRIES_BEFORE) and properties.get(TRIED_AGAIN)),
        gated_before=tuple(map(str, properties.get(GATED_BEFORE) or ())),
        has_files=RUN_DIRECTORY in properties and VERDICT in properties,
    )


async def _known_to_all(master: Any, earlier: int | None, notes: Iterable[ChangeNote]) -> bool:
    """Whether the authors of these changes have had the mail about the build whose result this one has."""
    if earlier is None:
        return False
    said = await master.data.get(("builds", earlier, "properties"))
    before = await _changes(master, (said or {}).get(CHANGES, ((),))[0] or [])
    authors, told = ({author for change in each for author in change.authors} for each in (notes, before))
    return bool(authors) and authors <= told


def _verdict_of(build: dict[str, Any], properties: dict[str, Any]) -> Verdict:
    identity = RunIdentity.of_build(build["builder"]["name"], build["number"], properties.get)
    if build["results"] == RETRY and RESTARTED in properties:
        return identity.verdict(Outcome.CANCELLED, "the master was restarted; the build begins again")
    if build["results"] == RETRY:
        return lost_worker(identity, str(properties.get("workername", "")))
    if VERDICT in properties:
        try:
            return Verdict.model_validate(properties[VERDICT])
        except ValidationError as error:
            return identity.verdict(
                Outcome.INFRASTRUCTURE, f"the build's verdict cannot be used: {error.errors()[0]['msg']}"
            )
    outcome = Outcome.CANCELLED if build["results"] == CANCELLED else Outcome.INFRASTRUCTURE
    return identity.verdict(outcome, f"the build ended without a verdict, as '{Results[build['results']]}'")


async def _changes(master: Any, ids: list[int]) -> tuple[ChangeNote, ...]:
    found = [await master.data.get(("changes", number)) for number in ids]
    return tuple(
        ChangeNote(
            revision=str(change["revision"]),
            author=str(change["author"]),
            message=str(change["comments"]).strip(),
            link=str(change["revlink"] or ""),
            merged=tuple(map(str, (change.get("properties") or {}).get(MERGED_AUTHORS, ((),))[0])),
        )
        for change in found
        if change
    )


async def _before(master: Any, build: dict[str, Any], branch: str | None) -> tuple[Before | None, list[int]]:
    """The build before this one on the same branch that passed or failed; the farm's own faults say nothing.

    And the changes of the builds since then: nobody has seen yet what these did.
    """
    number, untested = build["number"], list[int]()
    looked = 0
    for earlier in range(number - 1, max(0, number - 1 - _MOST_NIGHTS), -1):
        found = await master.data.get(("builders", build["builder"]["builderid"], "builds", earlier))
        if not found or found["results"] == SKIPPED:  # a night in which nothing had changed
            continue
        looked += 1
        if looked > _LOOK_BACK:
            break
        said = await master.data.get(("builds", found["buildid"], "properties"))
        if said.get("branch", (None,))[0] != branch or {PATCH_OF, NOT_COUNTED} & said.keys():
            continue
        if found["results"] in (SUCCESS, WARNINGS, FAILURE):
            revision = str(said.get(EXACT_REVISION, ("?",))[0])
            return Before(number=earlier, revision=revision, passed=found["results"] != FAILURE), untested
        untested += said.get(CHANGES, ((),))[0] or ()
    return None, untested
