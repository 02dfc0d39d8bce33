"""The service that searches: each build of a search that ends is the occasion to ask for the next one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from buildbot.data import resultspec
from buildbot.process.results import FAILURE
from buildbot.util import service
from twisted.internet import defer
from twisted.python import log

from oscar_steps.bisect.search import Answer, Ask, Kind, Search
from oscar_steps.master.bisect import letter
from oscar_steps.master.bisect.case import Case, Step, case_of, open_cases, runs_of, steps_of
from oscar_steps.master.history.record import NOT_COUNTED
from oscar_steps.master.history.store import History
from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.schedules.names import BISECT
from oscar_steps.repositories import Git
from oscar_steps.signature import signature_of
from oscar_steps.verdict import Outcome

BISECT_SERVICE = "oscar-bisect"
PRIORITY = -10
"""Of the builds of a search: whatever else waits begins before."""
_NOTED = "oscar_steps.bisect"
_MISSED_SECONDS = 86400.0
_LOOK_BACK = 300
_NOT_YET_FLAKY = 10
"""A rate of flakes is believed after so many runs."""


class BisectService(service.BuildbotService):
    """Begins a search when a cell turned red with several candidates, and ends it with one mail."""

    name = BISECT_SERVICE
    git: tuple[Git, ...] = ()
    """The git repositories of the site."""
    _consumer: Any = None

    def checkConfig(self, git: tuple[Git, ...] = ()) -> None:
        """The site has checked it."""

    async def reconfigService(self, git: tuple[Git, ...] = ()) -> None:
        self.git = git
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
        elif build["results"] == FAILURE:
            await self._go_on(build["buildid"])

    async def _catch_up(self) -> None:
        """What a master that ended has not done: the next step of each search, and searches that never began."""
        builds = await self.master.data.get(
            ("builds",), filters=[resultspec.Filter("results", "eq", [FAILURE])], order=["-buildid"], limit=_LOOK_BACK
        )
        since = time.time() - _MISSED_SECONDS
        red = [b["buildid"] for b in builds if b["complete_at"] and b["complete_at"].timestamp() > since]
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
        case = await case_of(self.master, build, self.git)
        if case is None:
            return
        steps = await steps_of(self.master, build)
        if any(step.verdict is None for step in steps):
            return
        if (why := await self._ends_early(case, steps)) is not None:
            await self._note(build, why)
            return
        rate = await History(self.master).flake_rate(case.cell)
        flake = rate.flaky / rate.of if rate.of >= _NOT_YET_FLAKY else 0.0
        answer = Search(len(case.candidates), flake=flake).next(runs_of(case, steps))
        if isinstance(answer, Ask):
            await self._ask(case, answer, len(steps) + 1)
        else:
            await self._tell(case, steps, answer)

    async def _ends_early(self, case: Case, steps: Sequence[Step]) -> str | None:
        """Why there is nothing more to search for; None: there is."""
        if any(step.verdict is not None and step.verdict.outcome is Outcome.CANCELLED for step in steps):
            return "a person stopped it"
        if await self._healed(case):
            return "it was mended meanwhile"
        if not steps and (other := await self._searched_for_already(case)):
            return f"the search for the cause of the build {other} looks for the same fault"
        return None

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

    async def _ask(self, case: Case, ask: Ask, number: int) -> None:
        log.msg(f"search for the cause of the build {case.build}: {case.names[ask.position]}, {ask.why}")
        more = {**case.wishes, BISECT: [case.build, ask.position], NOT_COUNTED: True}
        await self.master.data.updates.addBuildset(
            waited_for=False,
            scheduler=BISECT,
            sourcestamps=[{**case.stamp, "revision": case.revisions[ask.position]}],
            reason=f"search for what broke build {case.number}, run {number}: {ask.why}",
            properties={name: (value, "Bisect") for name, value in more.items()},
            builderids=[case.builder],
            priority=PRIORITY,
        )

    async def _tell(self, case: Case, steps: Any, answer: Answer) -> None:
        """One mail. It has the case's name in the spool: one that was not noted is not there twice."""
        mail = self.master.service_manager.namedServices.get(MAIL_SERVICE)
        if mail is not None and answer.kind is not Kind.GONE:
            body = letter.text(self.master, case, steps, answer)
            name, logins = f"bisect-{case.build}", letter.logins(case, answer)
            if not await mail.send_to_logins(name, letter.subject(case, answer), body, logins):
                return  # it ends meanwhile: the next start tells it
        await self._note(case.build, answer.sentence(case.names))

    async def _noted(self, build: int) -> str:
        state = self.master.db.state
        said: str = await state.getState(await state.getObjectId(str(build), _NOTED), "answer", "")
        return said

    async def _note(self, build: int, answer: str) -> None:
        log.msg(f"the search for the cause of the build {build} is over: {answer}")
        state = self.master.db.state
        await state.setState(await state.getObjectId(str(build), _NOTED), "answer", answer[:300])
