"""OSCAR's installer, followed line by line on its terminal: which stage is it in, and can the run still be good?

A run is good only if every stage said what a good run says. When it is not, the culprit is the earliest stage without
its milestones, never the step that the last error names: OSCAR goes on after a failed image build, and then complains
about the nodes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from oscar_steps.oscar import hook
from oscar_steps.oscar.failure import MAX_LINES, Cause, Failure, headline
from oscar_steps.oscar.logs.milestones import DEATH, USER_TESTS, Milestone, StageRule, stage_rules
from oscar_steps.oscar.logs.sanity import REFUSED, HeadNodeChecks, verdict_of
from oscar_steps.oscar.signatures import Weight, match, match_loop
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.oscar.terminal import (
    WITHOUT_DASHES,
    CheckResult,
    LineKind,
    LogFormat,
    as_named,
    check_result,
    clean,
    die_line,
    is_noise,
    is_rule,
    kind_of,
)
from oscar_steps.textio import some
from oscar_steps.words import NodeBoot

_REMEMBERED = 1000
_NOVEL = 100_000
_REPEATS = 100
_CONTEXT = 3


class EventKind(StrEnum):
    """What a line of the log means for the run."""

    STAGE_STARTED = "stage-started"
    STAGE_PASSED = "stage-passed"
    CERTAIN_FAILURE = "certain-failure"
    BARRIER_REACHED = "barrier-reached"
    BARRIER_WAITING = "barrier-waiting"
    NOTE = "note"


class InstallResult(StrEnum):
    """How one stage of the installer ended."""

    PASSED = "passed"
    FAILED = "failed"
    HUNG = "hung"
    NOT_REACHED = "not-reached"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Something that the log says. `line` counts from 1; `failure` is there when the kind is a certain failure."""

    kind: EventKind
    stage: InstallStage
    line: int
    text: str
    failure: Failure | None = None


class InstallLog:
    """The state of one installation, as far as its terminal tells. Feed it whole lines, in order, each exactly once.

    The first certain failure stays the failure of the run: later ones are its consequences. With `from_banner` it reads
    the installer's own log file, which begins with the banner.
    """

    def __init__(
        self,
        *,
        expected_nodes: int,
        boot: NodeBoot,
        image_name: str,
        tests: Sequence[str] = (),
        from_banner: bool = False,
    ) -> None:
        self.stage = InstallStage.PREFLIGHT
        self.format: LogFormat | None = None
        self.failure: Failure | None = None
        self.lines = 0
        self.news = 0
        """The last line that said something which this stage had not said before: none for long is no progress."""
        self._image = image_name
        rules = stage_rules(expected_nodes=expected_nodes, boot=boot, image_name=image_name, tests=tests)
        self._rules = {rule.stage: rule for rule in rules}
        self._plain_rules = [
            rule for rule in self._rules.values() if any(mark.kind is LineKind.PLAIN for mark in rule.starts)
        ]
        self._started: set[InstallStage] = set()
        self._passed: set[InstallStage] = set()
        self._seen: dict[Milestone, set[str]] = {}
        self._causes: list[Cause] = []
        self._step = 0
        """Those of `_causes` that were there when the installer went on with the step that it is at now."""
        self._checks = HeadNodeChecks()
        self._spoiled: Failure | None = None
        self._bad_checks: list[tuple[int, CheckResult]] = []
        self._noted: set[str] = set()
        self._recent: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)
        self._title: tuple[int, str] | None = None
        self._after_rule = False
        self._dull: set[str] = set()
        self._known: set[int] = set()
        self._repeats: Counter[int] = Counter()
        self._any_section = False
        self._of_2006 = False
        self._died = ""
        """What OSCAR of 2006 said of a program of its user tests that did not run to its end."""
        self._events: list[LogEvent] = []
        if from_banner:
            self._started.add(InstallStage.PREFLIGHT)
            self._passed.add(InstallStage.PREFLIGHT)

    @property
    def culprit(self) -> InstallStage | None:
        """The earliest stage that has not passed; None when all have."""
        for stage in InstallStage:
            if stage not in self._passed and not (stage.optional and stage not in self._started):
                return stage
        return None

    @property
    def passed(self) -> frozenset[InstallStage]:
        """The stages that have all their milestones."""
        return frozenset(self._passed)

    def results(self, failure: Failure | None) -> dict[InstallStage, InstallResult]:
        """How each stage ended, `failure` being what `conclude` or one of `hung` and its like has said."""
        found = {}
        for stage in InstallStage:
            if failure is not None and stage is failure.stage:
                found[stage] = InstallResult.HUNG if failure.hung else InstallResult.FAILED
            elif stage in self._passed:
                found[stage] = InstallResult.PASSED
            elif not stage.optional or stage in self._started:
                found[stage] = InstallResult.NOT_REACHED
        return found

    def feed(self, line: str) -> tuple[LogEvent, ...]:
        """Take the next line of the terminal capture; what it tells, mostly nothing."""
        self.lines += 1
        self._events = []
        text = clean(line)
        self._recent.append((self.lines, text))
        self._notice_repetition(line, text)
        title, self._title = self._title, None
        after_rule, self._after_rule = self._after_rule, False
        if is_rule(text):
            if title:
                self._any_section = True
                self._observe(title[0], LineKind.SECTION, title[1].removeprefix("== "), title[1])
            else:
                self._after_rule = True
            return tuple(self._events)
        if title and not text:  # Until January 2007 OSCAR's banner has the end of the date's line as well.
            self._title = title
            self._of_2006 = self._of_2006 or title[1].startswith("== Running OSCAR install_cluster script ")
        elif title:  # It looked like a section's title, but no rule came after it.
            self._observe(title[0], LineKind.PLAIN, title[1], title[1])
        if after_rule and text.startswith("== "):
            self._title = (self.lines, text)
        elif text and text not in self._dull and not is_noise(text):
            self._observe_line(text)
        return tuple(self._events)

    def conclude(self, exit_status: int | None) -> Failure | None:
        """The verdict on the whole log, once the installer has ended. None: a good run, and nothing less.

        `exit_status` is None when nobody knows it; then the run is not good either.
        """
        if self.failure is not None:
            return self._all_checks(self.failure)
        culprit = self.culprit
        if culprit is not None:
            if not self.lines:
                return self._fail(culprit, 0, f"it ended{_with_status(exit_status)} without a message")
            why = f"it ended{_with_status(exit_status)} while {culprit.doing}; {self._missing(culprit)}"
            failure = self._fail(culprit, self.lines, why)
            unmarked = self.format is LogFormat.TYPED and not self._any_section
            silent = not self._causes and not self._checks.failed
            return _blind(failure) if unmarked and exit_status == 0 and silent else failure
        if self._spoiled is not None:
            return self._spoiled
        if exit_status != 0:
            why = f"it said that it was successful, and yet it ended{_with_status(exit_status)}"
            return self._fail(InstallStage.DONE, self.lines, why)
        return None

    def hung(self, silent_seconds: float) -> Failure:
        """The failure of an installer that has written nothing for `silent_seconds`."""
        words = f"OSCAR's installer has been silent for {silent_seconds:.0f} s"
        return self.failure or self._stuck(words)

    def flooded(self, size: int) -> Failure:
        """The failure of an installer that has written `size` bytes without getting on."""
        words = f"OSCAR's installer has written {size / 2**20:.0f} MiB into its log without ending"
        return self.failure or self._stuck(words, repeated=True)

    def overdue(self, seconds: float) -> Failure:
        """The failure of an installer that has gone on for `seconds` without coming to the end of its stage."""
        words = f"OSCAR's installer has not ended within {seconds:.0f} s"
        return self.failure or self._stuck(words, repeated=True)

    def repeating(self, seconds: float) -> Failure:
        """The failure of an installer that has said nothing new for `seconds`, although it goes on writing."""
        words = f"OSCAR's installer has said nothing new for {seconds:.0f} s"
        return self.failure or self._stuck(words, repeated=True)

    # -- one line ------------------------------------------------------------------------------------------------------

    def _notice_repetition(self, line: str, text: str) -> None:
        """A known endless loop is certain long before its log is too large."""
        seen = hash(line)  # not of the cleaned text: a progress bar that moves is news
        if seen not in self._known:
            self.news = self.lines
            if len(self._known) < _NOVEL:
                self._known.add(seen)
            return
        self._repeats[seen] += 1
        if (times := self._repeats[seen]) % _REPEATS == 0 and self.failure is None:
            loop = match_loop((text,), self.culprit or InstallStage.DONE)
            if loop is not None and times >= loop.repeats:
                words = f"OSCAR's installer has written '{text.strip()[:80]}' {times} times"
                self._ends_with(self._stuck(words, repeated=True), self.lines)

    def _observe(self, number: int, kind: LineKind, text: str, line: str) -> None:
        self._take_milestone(number, kind, text)
        rule = self._starting(kind, text)
        if rule is not None:
            self._start(rule, number, text)
            self._take_milestone(number, kind, text)
        if line == hook.WAITING and self.stage is InstallStage.BARRIER:
            self._emit(EventKind.BARRIER_WAITING, number, line)
        if self.stage is InstallStage.TEST:
            self._take_death(kind, text)
        if self.stage is InstallStage.TEST and (result := check_result(line)) is not None:
            self._take_check(number, result)
            return
        if rule is None and not (self._checking and self._checks.take(number, line, self._causes)):
            self._take_signature(number, kind, text, line)

    def _observe_line(self, text: str) -> None:
        causes = len(self._causes)
        kind, words, of_format = kind_of(text)
        self.format = self.format or of_format
        if kind is LineKind.PLAIN and self.format is LogFormat.TYPED and len(text) >= WITHOUT_DASHES:
            kind, words = LineKind.MESSAGE, text.strip(" -")
        line = text if kind in (LineKind.PLAIN, LineKind.SUBSECTION) and of_format is not LogFormat.TYPED else words
        self._observe(self.lines, kind, words, line)
        if kind is not LineKind.PLAIN:
            return
        # A flood repeats a few lines a million times: what meant nothing as things stand will mean nothing again.
        if not self._events and causes == len(self._causes) and len(self._dull) < _REMEMBERED:
            self._dull.add(text)

    def _take_milestone(self, number: int, kind: LineKind, text: str) -> None:
        if self.stage not in self._started or self.stage in self._passed:
            return
        milestones = self._rules[self.stage].milestones
        closing = False
        for item in (*milestones, *(self._rules[self.stage].in_2006 or ())):
            if found := item.mark.match(kind, text):
                self._seen.setdefault(item, set()).add(found.group(1) if found.re.groups else "")
                closing = closing or item.closing
        if not milestones or not all(self._has(item) for item in milestones):
            if closing:
                self._certain(self.stage, number, f"{self._missing(self.stage)}, and yet it said '{text}'")
        elif not (self.stage is InstallStage.TEST and self._bad_checks):
            self._pass(self.stage, number, text)

    def _starting(self, kind: LineKind, text: str) -> StageRule | None:
        """The rule of the stage that begins with this line; never one that has begun before, or lies behind."""
        # Hardly any stage begins with a plain line, and a flood is made of them.
        for rule in self._plain_rules if kind is LineKind.PLAIN else self._rules.values():
            stage = rule.stage
            if stage in self._started or stage.position < self.stage.position:
                continue
            if any(mark.match(kind, text) for mark in rule.starts):
                return rule
        return None

    def _start(self, rule: StageRule, number: int, text: str) -> None:
        for stage in InstallStage:
            if stage.position >= rule.stage.position:
                break
            if stage in self._passed or (stage.optional and stage not in self._started):
                continue
            if stage in self._started and self._proven_by_going_on(stage):
                self._pass(stage, number, text)
                continue
            missing = self._missing(stage)
            self._certain(stage, number, f"{missing}, {_going_on(rule.stage)}", went_on=rule.stage)
        self.stage = rule.stage
        self._started.add(rule.stage)
        self._forget()
        self._emit(EventKind.STAGE_STARTED, number, text)
        if rule.stage is InstallStage.BARRIER:
            self._emit(EventKind.BARRIER_REACHED, number, text.partition('"')[2].rstrip('"'))

    def _pass(self, stage: InstallStage, number: int, text: str) -> None:
        self._passed.add(stage)
        self._causes.clear()
        self._step = 0
        self._forget()
        self._events.append(LogEvent(EventKind.STAGE_PASSED, stage, number, text))
        if stage is InstallStage.PREFLIGHT and (context := self._checks.context()):
            self._emit(EventKind.NOTE, number, context)

    def _forget(self) -> None:
        """Forget the lines of the stage before: in another stage the same line is new."""
        self._dull.clear()
        self._known.clear()
        self._repeats.clear()

    def _take_death(self, kind: LineKind, text: str) -> None:
        if USER_TESTS.match(kind, text):
            self._died = ""
            self._forget()
        elif DEATH.search(text):
            self._died = self._died or text.strip()[:80]

    def _take_check(self, number: int, result: CheckResult) -> None:
        if result.verdict == "passed":
            return
        self._bad_checks.append((number, result))
        self._certain(InstallStage.TEST, number, str(result))

    def _take_signature(self, number: int, kind: LineKind, text: str, line: str) -> None:
        stage = self.culprit or InstallStage.DONE
        line = as_named(line)
        signature = match(line, stage)
        if signature is None and line == text and kind in (LineKind.SUBSECTION, LineKind.MESSAGE):
            line = f"--> {text}"  # the catalogue quotes the format of 2007
            signature = match(line, stage)
        if signature is None:
            self._take_die_line(number, text)
            if kind is LineKind.COMPLAINT and die_line(text) is None:
                self._remember(Cause(number, text, "", "oscar", "", 1))
            if kind in (LineKind.SECTION, LineKind.SUBSECTION):
                self._step = len(self._causes)
            return
        clause, hint = signature.explain(line)
        cause = Cause(number, clause, hint, signature.blame, signature.group.value, signature.detail)
        if signature.weight is Weight.CERTAIN and (not self._checking or line.startswith(REFUSED)):
            self._certain(stage, number, clause, cause=cause)
            return
        self._remember(cause)
        if signature.weight is Weight.SPOILS and self._spoiled is None:
            self._spoiled = self._fail(stage, number, clause, cause=cause)
        if signature.id not in self._noted:
            self._noted.add(signature.id)
            self._emit(EventKind.NOTE, number, clause or line.strip())

    def _take_die_line(self, number: int, line: str) -> None:
        """A warning looks like a death: it explains one at most. A program that died says so by its end."""
        if (died := die_line(line)) is not None:
            where = f"{died.file} line {died.line}"
            clause = f"{died.text} ({where})" if died.text else f"an error without a text ({where})"
            self._remember(Cause(number, clause, "", "oscar", "", 0 if died.text else -1))

    def _remember(self, cause: Cause) -> None:
        # A flood repeats itself: what was said before explains no more the second time.
        if len(self._causes) < _REMEMBERED and all(cause.clause != known.clause for known in self._causes[-5:]):
            self._causes.append(cause)

    # -- failures ------------------------------------------------------------------------------------------------------

    def _emit(self, kind: EventKind, number: int, text: str) -> None:
        self._events.append(LogEvent(kind, self.stage, number, text))

    @property
    def _checking(self) -> bool:
        """Whether OSCAR's checks of the head node run: what is said then is theirs, and OSCAR may go on after it."""
        stage = InstallStage.PREFLIGHT
        return self.stage is stage and stage in self._started and stage not in self._passed

    def _proven_by_going_on(self, stage: InstallStage) -> bool:
        if not self._rules[stage].milestones:
            return True
        if not self._has_no_closing_line(stage):
            return False
        if stage is InstallStage.TEST and (self._bad_checks or self._causes or self._died):
            return False
        return all(self._has(item) for item in self._asked_of(stage))

    def _has_no_closing_line(self, stage: InstallStage) -> bool:
        return self._of_2006 and self._rules[stage].in_2006 is not None

    def _asked_of(self, stage: InstallStage) -> tuple[Milestone, ...]:
        """What the stage has to say in a terminal of this age."""
        rule = self._rules[stage]
        if not self._has_no_closing_line(stage):
            return rule.milestones
        return (*(item for item in rule.milestones if not item.closing), *(rule.in_2006 or ()))

    def _has(self, item: Milestone) -> bool:
        return len(self._seen.get(item, ())) >= item.count

    def _missing(self, stage: InstallStage) -> str:
        """What the stage has not said, as a clause."""
        if stage not in self._started:
            return "it never got that far"
        missing = next((item.missing for item in self._asked_of(stage) if not self._has(item)), "")
        if not missing and stage is InstallStage.TEST and self._died:
            missing = f"its test said '{self._died}'"
        return missing or f"it never got beyond {stage.doing}"

    def _certain(
        self,
        stage: InstallStage,
        number: int,
        why: str,
        *,
        cause: Cause | None = None,
        went_on: InstallStage | None = None,
    ) -> None:
        if self.failure is None:
            self._ends_with(self._fail(stage, number, why, cause=cause, went_on=went_on), number)

    def _ends_with(self, failure: Failure, number: int) -> None:
        self.failure = failure
        self._events.append(LogEvent(EventKind.CERTAIN_FAILURE, failure.stage, number, failure.sentence, failure))

    def _fail(
        self,
        stage: InstallStage,
        number: int,
        why: str,
        *,
        cause: Cause | None = None,
        went_on: InstallStage | None = None,
    ) -> Failure:
        """The failure that line `number` shows: its reason is what led to it, else `why`."""
        best, before = self._explaining(stage, cause)
        explained = best is not None and (best.detail > 0 or not why or best.clause == why)
        reason = best.clause if best is not None and explained else why or "it gave no reason"
        context = before if explained else best
        if context is not None:
            reason += f"; before that it said: {context.clause}"
        if explained and went_on is not None:
            reason += f", {_going_on(went_on)}"
        first, lines = self._evidence(best.number if best is not None else number, number)
        hint = next((c.hint for c in (best, cause) if c is not None and c.hint), "")
        if stage is not InstallStage.PREFLIGHT and (heard := self._checks.context()):
            hint = f"{hint.removesuffix('.')}; {heard}" if hint else heard
        group = best.group if best is not None and explained else ""
        return Failure(
            stage=stage,
            sentence=f"{headline(stage, group, self._image, started=stage in self._started)}: {reason}",
            category=best.category if best is not None and explained else "oscar",
            group=group,
            hint=hint,
            lines=lines,
            first_line=first,
        )

    def _explaining(self, stage: InstallStage, cause: Cause | None) -> tuple[Cause | None, Cause | None]:
        """What led to the end, and what had been said before that explains more, without having ended anything.

        OSCAR went on after what it said in an earlier step, so that counts only where the last step says nothing.
        """
        if stage is InstallStage.PREFLIGHT and (checks := verdict_of(self._checks)):
            return checks, None
        last = _most(*self._causes[self._step :], *([cause] if cause is not None else []))
        before = _most(*self._causes[: self._step])
        if last is None or (before is not None and last.detail < 0):
            return before, None
        return last, before if before is not None and before.detail > max(last.detail, 0) else None

    def _evidence(self, cause: int, end: int) -> tuple[int, tuple[str, ...]]:
        """The lines from just before `cause` to `end`, or around `cause` when `end` is too far away."""
        first = max(cause - _CONTEXT, 1)
        last = end if end - first < MAX_LINES else min(first + MAX_LINES - 1, end)
        chosen = [(number, text) for number, text in self._recent if first <= number <= last]
        return (chosen[0][0], tuple(text for _, text in chosen)) if chosen else (0, ())

    def _all_checks(self, failure: Failure) -> Failure:
        """The failure with every failed test in it, when tests are what failed."""
        if failure.stage is not InstallStage.TEST or len(self._bad_checks) < 2:
            return failure
        failed = [str(result) for _, result in self._bad_checks]
        first, lines = self._evidence(self._bad_checks[0][0], self._bad_checks[-1][0])
        sentence = f"{headline(InstallStage.TEST)}: {some(failed, 3)}"
        return replace(failure, sentence=sentence, first_line=first, lines=lines)

    def _stuck(self, words: str, *, repeated: bool = False) -> Failure:
        stage = self.culprit or InstallStage.DONE
        tail = [(number, text) for number, text in self._recent if text.strip()][-MAX_LINES:]
        texts = tuple(text for _, text in tail)
        # In silence only the last line tells where it stands; in a flood all of its lines do.
        loop = match_loop(texts if repeated else texts[-1:], stage)
        sentence = f"{words} while {stage.doing}"
        if loop is not None:
            sentence += f": {loop.sentence}"
        elif texts:
            line = Counter(texts).most_common(1)[0][0] if repeated else texts[-1]
            sentence += f"; it {'repeats' if repeated else 'last said'} '{line.strip()[:200]}'"
        first, lines = self._evidence(max(self.lines - 15, 1), self.lines)
        return Failure(
            stage=stage,
            sentence=sentence,
            category=loop.blame if loop is not None else "oscar",
            hint=loop.hint if loop is not None else "",
            lines=lines,
            first_line=first,
            hung=True,
        )


def _most(*causes: Cause) -> Cause | None:
    """The one that explains most; of equal ones the first."""
    return max((cause for cause in causes if cause.clause), key=lambda c: (c.detail, -c.number), default=None)


def _blind(failure: Failure) -> Failure:
    """The failure of a log of the later format without one section: its stages were not asked for (OSCAR_VERBOSE)."""
    hint = "This OSCAR marks its stages only with OSCAR_VERBOSE=5 in the installer's environment."
    sentence = "OSCAR's installer ended with status 0, but its log has no marks of its stages, so nothing is proven"
    return replace(failure, sentence=sentence, hint=hint, category="farm", group="environment")


def _with_status(exit_status: int | None) -> str:
    return "" if exit_status is None else f" with status {exit_status}"


def _going_on(stage: InstallStage) -> str:
    # What comes before the end is printed only when the command line has ended with status 0.
    if stage is InstallStage.DONE:
        return "and yet its command line ended with status 0"
    return f"and yet OSCAR went on with {stage.doing}"
