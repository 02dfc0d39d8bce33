"""The terminal of an OSCAR that is installed by `oscar-config` and `oscar_wizard`: how far did it come, and why?

These programs say by their exit status that they failed, and the farm's script stops there (see `wizard`). So the step
that failed is known, and only its reason has to be found among its lines. No run of this flavour is ever good: what
comes after the wizard's first window has not been done.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from oscar_steps.oscar.answers import wizard
from oscar_steps.oscar.failure import MAX_LINES, Failure
from oscar_steps.oscar.logs.installlog import EventKind, InstallResult, LogEvent
from oscar_steps.oscar.signatures import Group, match
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.oscar.terminal import LineKind, clean, die_line, is_rule, kind_of

_REMEMBERED = 2000
_NOVEL = 100_000
_CONTEXT = 3
_LONGEST_CLAUSE = 300

# What the programs say on their way out, after they have said why.
_ON_THE_WAY_OUT = re.compile(
    r"Please fix error|Unable to bootstrap OSCAR|Failed to complete stage|Error details:|"
    r"BEGIN failed--compilation aborted|Compilation failed in require|.* had (?:too many|compilation) errors|"
    r"Execution of .* aborted"
)
# Perl's warnings look like deaths.
_WARNING = re.compile(
    r"Use of uninitialized |Missing argument in |Redundant argument in |Subroutine .* redefined|"
    r"Name \".*\" used only once|Argument \".*\" isn't numeric|Prototype mismatch|Useless use of |Odd number of |"
    r"Scalar value |Possible |Statement unlikely |Found = in conditional|Unquoted string |\"\w+\" variable .* masks |"
    r".*(?:is experimental|is deprecated|masks earlier)"
)
_LOCATE = re.compile(r"Can't locate (?P<module>[\w/]+)\.pm in @INC")
_NEEDS_MODULE = re.compile(r"ERROR: \S+ needs perl (?P<module>[\w:]+) module")
_FAILED_TEST = re.compile(r"\[FAILED TEST\] (?P<name>[\w.-]+)")
_QUOTED_ERROR = re.compile(r"ERROR: (?P<text>.*?)(?:\\n ?-{5}|$)")
_UNSUPPORTED = re.compile(r"Unsupported distro \((?P<distro>[^)]*)\)")
_HOLDS_THE_STEP = re.compile(r"\[ERROR - oscar[-_](?:config|wizard)\]")
_NAME_A_REPOSITORY = "name a repository as oscar_repository in the answers; OSCAR's own packages need {}"
_SYNTAX = re.compile(r"(?P<what>.{1,200}?) at (?P<file>\S+) line (?P<line>\d+), (?P<near>(?:near|at|within) .*)")
_NOT_COMPILED = re.compile(
    r"BEGIN failed--|Compilation failed in require|.* had compilation errors|Execution of .* aborted"
)
_OF_A_PROGRAM = re.compile(r"E: |ERROR \d+ \(\w+\)")
"""How apt and the database's client say that they failed."""
_APT = (
    (re.compile(r"^(?:W|E): (?:Failed to fetch|The repository )"), "answers"),
    (re.compile(r"satisfy:command-line : Depends: "), "oscar"),
    (re.compile(r" : Depends: |^dpkg: error |^E: "), "answers"),
)
"""What apt says where it cannot install what it was asked for, and whose matter that is."""
_MAKE = re.compile(r"make(?:\[\d+\])?: \*\*\* .*")
_MAKE_MOVES = re.compile(r"(?:Entering|Leaving) directory")


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str
    kind: LineKind
    words: str


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why a step failed: half a sentence, whose fault it is, and the line that shows it."""

    line: int
    clause: str
    category: str = "oscar"
    hint: str = ""
    lost: bool = False
    """A file of OSCAR's own is not where it should have been installed."""


class WizardLog:
    """The state of one installation, as far as its terminal tells. Feed it whole lines, in order, each exactly once."""

    def __init__(self) -> None:
        self.stage = InstallStage.PREFLIGHT
        self.failure: Failure | None = None
        self.lines = 0
        self.news = 0
        """The last line that said something which this stage had not said before: none for long is no progress."""
        self._started: list[InstallStage] = []
        self._step: deque[_Line] = deque(maxlen=_REMEMBERED)
        self._known: set[int] = set()
        self._needs = ""
        self._survived = ""
        """What make stopped at in a folder although its status was good: a loop in a Makefile forgets it."""
        self._at_the_screen = False
        self._loops: Counter[str] = Counter()

    def feed(self, line: str) -> tuple[LogEvent, ...]:
        """Take the next line of the terminal; what it tells, mostly nothing."""
        self.lines += 1
        text = clean(line)
        if (seen := hash(line)) not in self._known:
            self.news = self.lines
            if len(self._known) < _NOVEL:
                self._known.add(seen)
        if text.startswith(f"{wizard.NEEDS_MARK} "):
            self._needs = text.removeprefix(f"{wizard.NEEDS_MARK} ")
        word = text.removeprefix(f"{wizard.STEP_MARK} ")
        if word != text and word in _STEPS and InstallStage(word) not in self._started:
            return self._start(InstallStage(word))
        kind, words, _ = kind_of(text)
        self._step.append(_Line(self.lines, text, kind, words))
        if text in wizard.LOOPS and self.failure is None:
            return self._loop(text)
        if kind is LineKind.SUBSECTION:
            return (LogEvent(EventKind.NOTE, self.stage, self.lines, words),)
        return ()

    def _start(self, stage: InstallStage) -> tuple[LogEvent, ...]:
        events = []
        if self._started:
            if stopped := _make_stop(self._step):
                self._survived = f"; before that, while {wizard.DOING[self.stage]}: {stopped.clause}"
            events.append(LogEvent(EventKind.STAGE_PASSED, self.stage, self.lines, wizard.DOING[self.stage]))
        self.stage = stage
        self._started.append(stage)
        self._step.clear()
        self._known.clear()
        return (*events, LogEvent(EventKind.STAGE_STARTED, stage, self.lines, wizard.DOING[stage]))

    def _loop(self, text: str) -> tuple[LogEvent, ...]:
        """A known endless loop is certain long before its log is too large."""
        self._loops[text] += 1
        if self._loops[text] < wizard.REPEATS:
            return ()
        before = _complaint(list(self._step), self._needs)
        context = f"; before that it said: {before.clause}" if before else ""
        reason = _Reason(before.line if before else self.lines - 15, "", before.category if before else "oscar")
        sentence = f"{wizard.FAILED[self.stage]}: {wizard.LOOPS[text]}{context}"
        self.failure = self._fail(reason, sentence, hung=True)
        return (LogEvent(EventKind.CERTAIN_FAILURE, self.stage, self.lines, self.failure.sentence, self.failure),)

    def conclude(self, exit_status: int | None) -> Failure:
        """The verdict on the whole terminal. Never a good run: the rest of the installation is behind a screen."""
        if self.failure is None:
            self.failure = self._conclude(exit_status)
        return self.failure

    def _conclude(self, exit_status: int | None) -> Failure:
        lines = [line for line in self._step if line.text.strip()]
        if self.stage is InstallStage.SELECT and (at := _screen(lines)) is not None:
            self._at_the_screen = True
            return self._fail(_Reason(at, "", "answers", _SCREEN_HINT), wizard.NEEDS_A_SCREEN)
        reason = _reason(lines, self._needs)
        ended = "it ended" if exit_status is None else f"it ended with status {exit_status}"
        if reason is None:
            last = f"; it last said '{lines[-1].text.strip()[:200]}'" if lines else " without a message"
            reason = _Reason(self.lines, f"{ended}{last}")
        elif exit_status == 0:
            reason = _Reason(reason.line, f"{ended}, and said: {reason.clause}", reason.category, reason.hint)
        context = self._survived if reason.lost else ""
        return self._fail(reason, f"{wizard.FAILED[self.stage]}: {reason.clause}{context}")

    def results(self, failure: Failure | None) -> dict[InstallStage, InstallResult]:
        """How each stage ended; those behind the wizard's windows were not reached, by whatever OSCAR."""
        found = dict.fromkeys(InstallStage, InstallResult.NOT_REACHED)
        found |= dict.fromkeys(self._started[:-1], InstallResult.PASSED)
        del found[InstallStage.CONFIGURE]
        if failure is not None and not self._at_the_screen:
            found[self.stage] = InstallResult.HUNG if failure.hung else InstallResult.FAILED
        return found

    # -- an installer that comes to no end -----------------------------------------------------------------------------

    def hung(self, silent_seconds: float) -> Failure:
        """The failure of an installer that has written nothing for `silent_seconds`."""
        return self._stuck(f"OSCAR's installer has been silent for {silent_seconds:.0f} s")

    def flooded(self, size: int) -> Failure:
        """The failure of an installer that has written `size` bytes without getting on."""
        words = f"OSCAR's installer has written {size / 2**20:.0f} MiB without ending"
        return self._stuck(words, repeated=True)

    def overdue(self, seconds: float) -> Failure:
        """The failure of an installer that has gone on for `seconds` without coming to an end."""
        return self._stuck(f"OSCAR's installer has not ended within {seconds:.0f} s")

    def repeating(self, seconds: float) -> Failure:
        """The failure of an installer that has said nothing new for `seconds`, although it goes on writing."""
        return self._stuck(f"OSCAR's installer has said nothing new for {seconds:.0f} s", repeated=True)

    def _stuck(self, words: str, *, repeated: bool = False) -> Failure:
        if self.failure is not None:
            return self.failure
        said = [line.text.strip() for line in self._step if line.text.strip()]
        sentence = f"{words} while {wizard.DOING[self.stage]}"
        if said:
            line = Counter(said[-MAX_LINES:]).most_common(1)[0][0] if repeated else said[-1]
            sentence += f"; it {'repeats' if repeated else 'last said'} '{line[:200]}'"
        return self._fail(_Reason(self.lines - 15, ""), sentence, hung=True)

    def _fail(self, reason: _Reason, sentence: str, *, hung: bool = False) -> Failure:
        first = max(reason.line - _CONTEXT, 1)
        shown = [line for line in self._step if line.number >= first][:MAX_LINES]
        return Failure(
            stage=self.stage,
            sentence=sentence,
            category=reason.category,
            hint=reason.hint,
            lines=tuple(line.text for line in shown),
            first_line=shown[0].number if shown else 0,
            hung=hung,
        )


_STEPS = frozenset(stage.value for stage in wizard.DOING)

_SCREEN_HINT = "OSCAR was installed and its head node prepared without one; docs/oscar-today.md says what it lacks"


def _screen(lines: Sequence[_Line]) -> int | None:
    """The line in which the wizard asks for a screen, where this is all that it asks for."""
    asked = next((line.number for line in lines if wizard.NO_SCREEN.search(line.text)), None)
    others = any(True for _ in _failed_tests(lines))
    return None if others else asked


def _reason(lines: Sequence[_Line], needs: str) -> _Reason | None:
    """Why the step with these lines failed, by the rule that explains most."""
    for find in (_not_installed, _depends, _checks, _missing_module, _unsupported, _death, _complaint, _make):
        if (reason := find(lines, needs)) is not None:
            return reason
    return None


def _not_installed(lines: Sequence[_Line], _needs: str) -> _Reason | None:
    for line in lines:
        if line.text.startswith(f"{wizard.MISSING_MARK} "):
            name = line.text.removeprefix(f"{wizard.MISSING_MARK} ")
            return _Reason(line.number, f"it ended with status 0, but did not install the program {name}", lost=True)
    return None


def _depends(lines: Sequence[_Line], _needs: str) -> _Reason | None:
    """What OSCAR's packages depend on. OSCAR's is only what its own control file names and no repository has."""
    begun = next((at for at, line in enumerate(lines) if line.text == wizard.DEPENDS_MARK), None)
    if begun is None or any(line.text == f"{wizard.DEPENDS_MARK} there" for line in lines):
        return None
    apt = lines[begun + 1 :]
    for pattern, blame in _APT:
        for line in apt:
            if pattern.search(line.text):
                words = " ".join(line.text.split())[:_LONGEST_CLAUSE].replace("satisfy:command-line", "debian/control")
                return _Reason(line.number, f"what they depend on could not be installed first: {words}", blame)
    return None


def _checks(lines: Sequence[_Line], _needs: str) -> _Reason | None:
    """OSCAR's own checks of the head node. One that crashes is OSCAR's; what one finds is the head node's."""
    failed = list(_failed_tests(lines))
    if not failed:
        return None
    names = ", ".join(f"{name} ({why})" if why else name for name, why, _ in failed)
    crashed = any(not why for _, why, _ in failed)
    hint = "" if crashed else "The checks are OSCAR's; what they find is the head node's base image or its answers."
    return _Reason(failed[0][2], f"checks of the head node failed: {names}", "oscar" if crashed else "farm", hint)


def _failed_tests(lines: Sequence[_Line]) -> Iterator[tuple[str, str, int]]:
    """Name, what it says, and line of every check that failed, but for the one that asks for a screen."""
    for index, line in enumerate(lines):
        if not (test := _FAILED_TEST.search(line.text)) or test["name"].startswith(wizard.SCREEN_CHECK):
            continue
        said = ""
        for below in lines[index + 1 : index + 12]:
            if is_rule(below.text) or _FAILED_TEST.search(below.text):
                break
            if error := _QUOTED_ERROR.search(below.text):
                said = " ".join(error["text"].replace("\\n", " ").split()).rstrip("'\" -")
                break
            if (option := re.search(r"Option \S+ in \S+ should be '[^'\\]*'", below.text)) is not None:
                said = option[0]
                break
        yield test["name"], said[:120], line.number


def _missing_module(lines: Sequence[_Line], needs: str) -> _Reason | None:
    """A Perl module that is not there: of another package, or of this tree."""
    for line in lines:
        found = _LOCATE.search(line.text) or _NEEDS_MODULE.search(line.text)
        if not found:
            continue
        module = found["module"].replace("::", "/")
        died = die_line(line.text)
        where = f" ({died.file} line {died.line})" if died else ""
        package = _package_of(module)
        if package and needs:
            clause = f"{module}.pm is missing{where}: the package {package} has it, and no repository was named"
            return _Reason(line.number, clause, "answers", _NAME_A_REPOSITORY.format(needs))
        if package:
            clause = f"{module}.pm is missing{where}: the package {package} has it, and nothing has installed it"
            return _Reason(line.number, clause, hint="debian/control says what OSCAR's packages depend on")
        ours = "a file of OSCAR's own tree by its name" if module.startswith("OSCAR/") else "no package is known for it"
        return _Reason(line.number, f"{module}.pm is missing{where}: {ours}", lost=True)
    return None


def _package_of(module: str) -> str:
    """The Debian package that has a module, by its name or one of the folders above it."""
    parts = module.split("/")
    names = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((wizard.PACKAGES[name] for name in names if name in wizard.PACKAGES), "")


def _unsupported(lines: Sequence[_Line], _needs: str) -> _Reason | None:
    for line in lines:
        if found := _UNSUPPORTED.search(line.text):
            clause = f"{found['distro']} is not among the distributions in share/etc/supported_distros.txt"
            return _Reason(
                line.number, clause, "answers", "the farm sets up `distro` of the answers, else the cell's name"
            )
    return None


def _death(lines: Sequence[_Line], _needs: str) -> _Reason | None:
    """What killed a Perl program since OSCAR last said that it was getting on.

    What OSCAR says goes through a pipe and may come after what Perl says of its death. So where nothing stands at the
    end, the whole step is looked at.
    """
    block = _since_progress(lines)
    complained = any(line.kind is LineKind.COMPLAINT for line in lines)
    return _died(block) or (None if complained else _died(lines))


def _died(lines: Sequence[_Line]) -> _Reason | None:
    """The last death; of several errors of one file that does not compile, the first."""
    deaths = [at for at, line in enumerate(lines) if _death_in(line.text)]
    out = next((at for at, line in enumerate(lines) if _NOT_COMPILED.match(line.text)), None)
    if not deaths:
        return None
    chosen = deaths[-1]
    if out is not None and (before := [at for at in deaths if at < out]):
        chosen = before[-1]
        while chosen - 1 in before:
            chosen -= 1
    said = next((line.text.strip() for line in reversed(lines[:chosen]) if _OF_A_PROGRAM.match(line.text)), "")
    death = _death_in(lines[chosen].text)
    return _Reason(lines[chosen].number, f"{said[:_LONGEST_CLAUSE]}; OSCAR said: {death}" if said else death)


def _death_in(text: str) -> str:
    """What killed a Perl program, by this line, and where; '' for a warning, and for who died of another's death."""
    if _WARNING.match(text) or _ON_THE_WAY_OUT.match(text):
        return ""
    if found := _SYNTAX.match(text):
        return f"{found['what']}, {found['near'][:80]} ({found['file']} line {found['line']})"
    died = die_line(text)
    return f"{died.text.lstrip('=> ')[:_LONGEST_CLAUSE]} ({died.file} line {died.line})" if died and died.text else ""


def _complaint(lines: Sequence[_Line], needs: str) -> _Reason | None:
    """The first of the errors that the step ended with; what a program below OSCAR said before it explains more."""
    own = [line for line in lines if line.kind is LineKind.COMPLAINT and not _ON_THE_WAY_OUT.match(line.words)]
    if not own:
        return None
    block = _since_progress(lines)
    last = [line for line in own if line in block] or own[-1:]
    first = next((line for line in last if _HOLDS_THE_STEP.match(line.text)), last[0])
    said = first.words[:_LONGEST_CLAUSE]
    if (below := _below(block, first.number)) is None:
        return _Reason(first.number, said)
    signature = match(below.text)
    clause, hint = signature.explain(below.text) if signature else ("", "")
    blame = signature.blame if signature else "oscar"
    if needs and signature and signature.group is Group.PACKAGES:
        blame, hint = "answers", _NAME_A_REPOSITORY.format(needs)
    return _Reason(below.number, f"{clause or below.text.strip()[:_LONGEST_CLAUSE]}; OSCAR said: {said}", blame, hint)


def _below(block: Sequence[_Line], end: int) -> _Line | None:
    """What apt or another program said was wrong before line `end`: its own error, else the first line we know."""
    plain = [line for line in block if line.kind is LineKind.PLAIN and line.number < end]
    error = next((line for line in reversed(plain) if _OF_A_PROGRAM.match(line.text)), None)
    return error or next((line for line in plain if (known := match(line.text)) and known.detail > 0), None)


def _make(lines: Sequence[_Line], _needs: str) -> _Reason | None:
    """What `make` ended at. It may have lost an error in a folder before, in a loop; that has ended nothing."""
    chain: list[_Line] = []
    for line in reversed(lines):
        if _MAKE.fullmatch(line.text):
            chain.append(line)
        elif chain and not _MAKE_MOVES.search(line.text):
            break
    return _make_stop([line for line in lines if not chain or line.number <= chain[-1].number], chain[-1:])


def _make_stop(lines: Iterable[_Line], at: Sequence[_Line] = ()) -> _Reason | None:
    """The first error of make's (or the one of `at`): its own line has the place, the line before it the reason."""
    before = ""
    for line in lines:
        if _MAKE.fullmatch(line.text) and (not at or line is at[0]):
            why = f"{before[:_LONGEST_CLAUSE]} ({line.text})" if before else line.text
            return _Reason(line.number, why)
        before = "" if _MAKE_MOVES.search(line.text) else line.text.strip()
    return None


def _since_progress(lines: Sequence[_Line]) -> list[_Line]:
    """The lines since OSCAR last said what it was doing."""
    block: list[_Line] = []
    for line in reversed(lines):
        if line.kind in (LineKind.MESSAGE, LineKind.SUBSECTION):
            if block and not all(_ON_THE_WAY_OUT.match(one.words) for one in block):
                break
            continue
        block.append(line)
    return block[::-1]
