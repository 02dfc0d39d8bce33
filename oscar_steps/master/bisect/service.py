"""The service that searches: each build of a search that ends is the occasion to ask for the next one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from buildbot.data import resultspec
from buildbot.process.results import FAILURE
from buildbot.util import service
from pydantic import TypeAdapter
from twisted.internet import defer
from twisted.python import log

from oscar_steps.bisect.images import Images
from oscar_steps.bisect.search import Answer, Ask, Kind, Search
from oscar_steps.bisect.seen import NOT_THE_COMMITS
from oscar_steps.errors import UserError
from oscar_steps.master.bisect import letter
from oscar_steps.master.bisect.case import (
    MAX_CANDIDATES,
    STOPPED,
    Asked,
    Case,
    Step,
    case_of,
    is_bad,
    last_buildset,
    open_cases,
    runs_of,
    steps_of,
)
from oscar_steps.master.bisect.worlds import Elsewhere, Worlds, around, hopeless, image_runs, worlds
from oscar_steps.master.history.record import NOT_COUNTED, Result
from oscar_steps.master.history.store import History
from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.schedules.names import BISECT, BISECT_SERVICE, IMAGE_WANTED, ONLY_ON, PATCH_OF
from oscar_steps.repositories import Git
from oscar_steps.signature import signature_of
from oscar_steps.sources.source import short_name
from oscar_steps.textio import one_line
from oscar_steps.verdict import Outcome

PRIORITY = -10
"""Of the builds of a search: whatever else waits begins before."""
_NOTED = "oscar_steps.bisect"
_MISSED_SECONDS = 86400.0
_LOOK_BACK = 300
_MANY = 1000
_WORLDS = TypeAdapter(Worlds)
_NOT_YET_FLAKY = 10
"""A rate of flakes is believed after so many runs."""


class BisectService(service.BuildbotService):
    """Begins a search when a cell turned red with several candidates, or a person asks for it, and ends it with one
    mail. Not `automatic`: only when a person asks.
    """

    name = BISECT_SERVICE
    automatic = True
    git: tuple[Git, ...] = ()
    """The git repositories of the site."""
    _consumer: Any = None

    def checkConfig(self, **_settings: Any) -> None:
        """The site has checked it."""

    async def reconfigService(self, automatic: bool = True, git: tuple[Git, ...] = ()) -> None:
        self.automatic, self.git = automatic, git
        if self._consumer is None:
            self._turn = defer.DeferredLock()
            self._consumer = await self.master.mq.startConsuming(self._heard, ("builds", None, "finished"))
            defer.ensureDeferred(self._catch_up()).addErrback(log.err, "searches that were under way")

    async def stopService(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await defer.maybeDeferred(consumer.stopConsuming)
        await super().stopService()

    def _heard(self, _key: Any, build: dict[str, Any]) -> Any:
        return defer.ensureDeferred(self._ended(build)).addErrback(log.err, "a build that a search may need")

    async def _ended(self, build: dict[str, Any]) -> None:
        said = await self.master.data.get(("builds", build["buildid"], "properties"))
        if BISECT in said:
            await self._go_on(int(said[BISECT][0][0]))
        elif build["results"] == FAILURE and self.automatic:
            await self._go_on(build["buildid"])

    async def _catch_up(self) -> None:
        """What a master that ended has not done: the next step of each search, and searches that never began."""
        builds = await self.master.data.get(
            ("builds",), filters=[resultspec.Filter("results", "eq", [FAILURE])], order=["-buildid"], limit=_LOOK_BACK
        )
        since = time.time() - _MISSED_SECONDS
        red = [b["buildid"] for b in builds if b["complete_at"] and b["complete_at"].timestamp() > since]
        red = red if self.automatic else []
        for build in sorted({*red, *await open_cases(self.master)}):
            await self._go_on(build)

    async def _go_on(self, build: int) -> None:
        """The next step of the search for this red build, if there is one. A search that fails harms nothing else."""
        await self._turn.run(lambda: defer.ensureDeferred(self._guarded(build)))

    async def _guarded(self, build: int) -> None:
        try:
            if self._consumer is not None and not await self._noted(build):
                await self._step(build)
        except Exception as error:  # broad on purpose: see `_go_on`; the next start tries again
            log.err(error, f"the search for the cause of the build {build} could not go on")

    async def _step(self, build: int) -> None:
        asked = await self._asked(build)
        case = await case_of(self.master, build, self.git, asked)
        steps = await steps_of(self.master, build, asked.after if asked else 0)
        if case is None:
            if steps:
                await self._note(build, "the farm does not know any more what it was to search for")
            return
        if any(step.verdict is None for step in steps):
            return
        if (why := await self._ends_early(case, steps)) is not None:
            await self._note(build, why)
            return
        answer = (await self._search(case, len(case.candidates))).next(runs_of(case, steps))
        if isinstance(answer, Ask):
            await self._ask(case, answer, len(steps) + 1)
        elif answer.kind is Kind.BEFORE:
            await self._elsewhere(case, steps, answer)
        else:
            await self._tell(case, steps, answer)

    async def _search(self, case: Case, candidates: int) -> Search:
        rate = await History(self.master).flake_rate(case.cell)
        return Search(candidates, flake=rate.flaky / rate.of if rate.of >= _NOT_YET_FLAKY else 0.0)

    async def _elsewhere(self, case: Case, steps: list[Step], answer: Answer) -> None:
        """No commit did it: what else differs is named, or searched for."""
        found = await self._worlds(case, steps)
        which: Answer | None = None
        if why := hopeless(steps):
            found = replace(found, why_not=why)
        elif found.images is not None:
            search = await self._search(case, len(found.images.upgrades) + 1)
            step = search.next(image_runs(case, steps, found.images))
            if isinstance(step, Ask):
                await self._ask_image(case, step, found.images, found.worker, len(steps) + 1)
                return
            which = step
        await self._tell(case, steps, answer, Elsewhere(found, which))

    async def _worlds(self, case: Case, steps: list[Step]) -> Worlds:
        """What was found when this was asked first: the lists of packages need not be kept for as long as a search."""
        state = self.master.db.state
        number, name = (
            await state.getObjectId(str(case.build), _NOTED),
            f"worlds {case.asked.after if case.asked else 0}",
        )
        if kept := await state.getState(number, name, None):
            return _WORLDS.validate_python(kept)
        red = next(s for s in steps if not s.of_image and s.position == 0 and s.verdict and is_bad(case, s.verdict))
        able = await self.master.data.get(("builders", case.builder, "workers"))
        good, now = [await around(self.master, build) for build in (case.good.build, red.build)]
        found = worlds(good, now, [each["name"] for each in able])
        await state.setState(number, name, _WORLDS.dump_python(found, mode="json"))
        return found

    async def _ends_early(self, case: Case, steps: Sequence[Step]) -> str | None:
        """Why there is nothing more to search for; None: there is."""
        if any(step.verdict is not None and step.verdict.outcome is Outcome.CANCELLED for step in steps):
            return STOPPED
        if case.asked:
            return None
        if await self._healed(case):
            return "it was mended meanwhile"
        if not steps and (other := await self._searched_for_already(case)):
            return f"the search for the cause of the build {other} looks for the same fault"
        return None

    async def ask_for(self, builder: int, branch: str, bad: str, good: str, who: str) -> tuple[int, dict[int, int]]:
        """Begin a search that a person asks for: what broke the cell's build of `bad` ('': the last red one)?

        Gives the buildset and the request of its first run. Raises UserError where there is nothing to search for, or a
        search for it goes on already.
        """
        return await self._turn.run(lambda: defer.ensureDeferred(self._begin(builder, branch, bad, good, who)))

    async def _begin(self, builder: int, branch: str, bad: str, good: str, who: str) -> tuple[int, dict[int, int]]:
        cell = (await self.master.data.get(("builders", builder)))["name"]
        red = await self._red(cell, branch, bad)
        if red is None:
            named = f"of {short_name(bad)} " if bad else ""
            raise UserError(f"{cell} has no build {named}on {branch} that failed", hint="'Test a revision' makes one")
        await self._refuse_second(red)
        asked = Asked(who, good, await last_buildset(self.master))
        case = await case_of(self.master, red.build, self.git, asked)
        if case is None:
            start = short_name(good) if good else "a build that passed"
            what = f"between {start} and {red.source} there are not 1 to {MAX_CANDIDATES} commits on {branch}"
            raise UserError(what, hint="name the revision at which it was good")
        state = self.master.db.state
        number = await state.getObjectId(str(red.build), _NOTED)
        await state.setState(number, "asked", [asked.who, asked.good, asked.after])
        await state.setState(number, "answer", "")
        step = (await self._search(case, len(case.candidates))).next([])
        assert isinstance(step, Ask)
        return await self._ask(case, step, 1)

    async def _red(self, cell: str, branch: str, bad: str) -> Result | None:
        """The cell's last red build of that revision ('': of any); no step of a search, and no patch's."""
        for each in await History(self.master).results_of(cell, branch, _MANY, counted=False):
            if not each.signature or each.category in NOT_THE_COMMITS or bad not in ("", each.revision):
                continue
            said = await self.master.data.get(("builds", each.build, "properties"))
            if not {BISECT, PATCH_OF} & {*said}:
                return each
        return None

    async def _refuse_second(self, red: Result) -> None:
        """Raise UserError where a search for the same fault in the same cell goes on."""
        for build in (await open_cases(self.master))[-_LOOK_BACK:]:
            if await self._noted(build):
                continue
            other = await History(self.master).result_of(build)
            if other is not None and (other.cell, other.signature) == (red.cell, red.signature):
                asked = await self._asked(build)
                count = len(await steps_of(self.master, build, asked.after if asked else 0))
                what = f"a search for what broke {other.source} (build {other.number}) goes on already"
                raise UserError(f"{what}: {count} of its builds so far", hint="stop its build, and the search ends")

    async def _asked(self, build: int) -> Asked | None:
        state = self.master.db.state
        kept = await state.getState(await state.getObjectId(str(build), _NOTED), "asked", None)
        return Asked(*kept) if kept else None

    async def _searched_for_already(self, case: Case) -> int:
        """The build of another cell with the same fault at the same revision, which came first; 0: there is none."""
        state = self.master.db.state
        fault = f"{signature_of(case.verdict)} {case.verdict.revision}"
        number = await state.getObjectId(fault, _NOTED)
        first = int(await state.getState(number, "build", 0))
        if not first:
            await state.setState(number, "build", case.build)
        return first if first != case.build else 0

    async def _healed(self, case: Case) -> bool:
        """Whether the cell has passed since, on the same branch."""
        branch = str(case.stamp["branch"] or "")
        last = await History(self.master).results_of(case.cell, branch, 20)
        return any(each.build > case.build and each.outcome == Outcome.PASSED.value for each in last)

    async def _ask(self, case: Case, ask: Ask, number: int) -> tuple[int, dict[int, int]]:
        words = f"{case.names[ask.position]}, {ask.why}"
        more = {BISECT: [case.build, ask.position]}
        return await self._build(case, case.revisions[ask.position], words, ask.why, number, more)

    async def _ask_image(self, case: Case, ask: Ask, images: Images, worker: str, number: int) -> None:
        """The revision that was good, on an image with some of the new packages."""
        more = {BISECT: [case.build, ask.position, "image"], IMAGE_WANTED: images.wanted(ask.position)}
        words = f"{case.names[0]} on {images.at(ask.position)}"
        await self._build(case, case.good.revision, words, words, number, {**more, ONLY_ON: worker})

    async def _build(
        self, case: Case, revision: str, words: str, why: str, number: int, more: dict[str, Any]
    ) -> tuple[int, dict[int, int]]:
        log.msg(f"search for the cause of the build {case.build}: {words}")
        properties = {**case.wishes, **more, NOT_COUNTED: True}
        made: tuple[int, dict[int, int]] = await self.master.data.updates.addBuildset(
            waited_for=False,
            scheduler=BISECT,
            sourcestamps=[{**case.stamp, "revision": revision}],
            reason=one_line(f"search for what broke build {case.number}, run {number}: {why}", 200),
            properties={name: (value, "Bisect") for name, value in properties.items()},
            builderids=[case.builder],
            priority=PRIORITY,
        )
        return made

    async def _tell(self, case: Case, steps: list[Step], answer: Answer, elsewhere: Elsewhere | None = None) -> None:
        """One mail. It has the case's name in the spool: one that was not noted is not there twice."""
        mail = self.master.service_manager.namedServices.get(MAIL_SERVICE)
        if mail is not None and (case.asked or answer.kind is not Kind.GONE):
            good = (await around(self.master, case.good.build)).verdict
            written = letter.Letter(self.master, case, steps, answer, elsewhere, good)
            name = f"bisect-{case.build}" + (f"-{case.asked.after}" if case.asked else "")
            sent = mail.send_to_logins(
                name, written.subject, await written.text(), written.logins, developers=written.is_developers
            )
            if not await sent:
                return  # it ends meanwhile: the next start tells it
        await self._note(case.build, elsewhere.sentence if elsewhere else answer.sentence(case.names))

    async def _noted(self, build: int) -> str:
        state = self.master.db.state
        said: str = await state.getState(await state.getObjectId(str(build), _NOTED), "answer", "")
        return said

    async def _note(self, build: int, answer: str) -> None:
        log.msg(f"the search for the cause of the build {build} is over: {answer}")
        state = self.master.db.state
        await state.setState(await state.getObjectId(str(build), _NOTED), "answer", answer[:300])
