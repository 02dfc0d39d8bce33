"""What the first tier says: lines for people, the verdict for mail and web pages, the judgement for the master."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from oscar_steps.judgement import MAX_LISTED, MAX_WORDS, Judgement, ReportedProblem
from oscar_steps.lint.baseline import Comparison, keys_of
from oscar_steps.lint.problems import Problem, Report
from oscar_steps.sources.diffs import PATCH_FILE
from oscar_steps.sources.git import url_words
from oscar_steps.sources.history import Change
from oscar_steps.sources.source import Source
from oscar_steps.textio import printable
from oscar_steps.verdict import LINT, MAX_EVIDENCE_LINES, Category, Evidence, Outcome, Verdict

LOG = "logs/lint.txt"


@dataclass(frozen=True)
class Looked:
    """A tree that was looked at, and the report on the tree before it, if there is one. `change`: None for a folder."""

    source: Source
    change: Change | None
    report: Report
    comparison: Comparison
    before: Report | None
    seconds: float

    @property
    def compared(self) -> bool:
        return self.before is not None

    @property
    def new(self) -> tuple[Problem, ...]:
        """New problems, those that keep the installer from starting first."""
        return tuple(sorted(self.comparison.new, key=lambda problem: problem.of_answers))


def summary_of(looked: Looked) -> str:
    """One line: 'lint: 1 new problem in 143 files, mended: 2, standing: 31, 3.1 s'."""
    report, new = looked.report, len(looked.new)
    head = f"{new or 'no'} {'new ' if looked.compared else ''}problem{'s' if new > 1 else ''}"
    if looked.change and not looked.compared:
        head = "no revision before this one"
    counts = {
        "mended": len(looked.comparison.mended),
        "standing": len(looked.comparison.standing),
        "left alone": len(report.left_alone),
    }
    said = "".join(f", {word}: {count}" for word, count in counts.items() if count)
    return f"lint: {head} in {report.files} file{'s' if report.files != 1 else ''}{said}, {looked.seconds:.1f} s"


def lines_of(looked: Looked, *, everything: bool) -> list[str]:
    """The report, line by line: what is new, what was mended; with `everything` what stands and what was left alone."""
    lines = [str(problem) for problem in looked.new] + _mended(looked)
    if everything:
        lines += [f"standing: {pair.problem}" for pair in looked.comparison.standing]
    if everything or (looked.change is None and not looked.compared):
        lines += map(str, looked.report.left_alone)
    return [*lines, summary_of(looked)]


def _mended(looked: Looked) -> list[str]:
    return [_as_mended(problem) for problem in looked.comparison.mended]


def _as_mended(problem: Problem) -> str:
    return f"mended: {problem}".replace("which this change took away", "which was taken away")


def verdict_of(looked: Looked, run_id: str) -> Verdict:
    """The report as a verdict: what mail and web pages are drawn from."""
    source = looked.source
    outcome, category, sentence = _outcome(looked)
    mended = _mended(looked)
    lines = [*map(str, looked.new), *mended][:MAX_EVIDENCE_LINES]
    return Verdict(
        run_id=run_id,
        cell=LINT,
        source=source.url,
        revision=source.revision,
        tested=source.without_text() if looked.change or source.patch else None,
        outcome=outcome,
        sentence=printable(sentence),
        category=category,
        evidence=(Evidence(file=LOG, first_line=1, lines=tuple(map(printable, lines))),) if lines else (),
        mended=tuple(map(printable, mended[:MAX_EVIDENCE_LINES])),
        seconds=looked.seconds,
        replay=_replay(looked),
    )


def _replay(looked: Looked) -> str:
    words = shlex.join(url_words(looked.source))
    if patch := looked.source.patch:
        strip = f" --strip {patch.strip}" if patch.strip else ""
        return f"oscar-testdriver lint {looked.source.revision} {words} --patch {PATCH_FILE}{strip}"
    if looked.change is None:
        return f"oscar-testdriver lint --tree {looked.source.url}"
    first = looked.change.commits[0].id or looked.change.commits[0].revision
    several = f" --first {first}" if len(looked.change.commits) > 1 else ""
    return f"oscar-testdriver lint {looked.source.revision} {words}{several}"


def _outcome(looked: Looked) -> tuple[Outcome, Category, str]:
    """Only what certainly keeps the installer from starting fails; the first of the problems is the sentence."""
    blamed = [problem for problem in looked.new if not problem.of_answers]
    if any(problem.gates for problem in blamed):
        return Outcome.FAILED, Category.OSCAR, _first_of(looked.new)
    if len(blamed) < len(looked.new):
        answers = [problem for problem in looked.new if problem.of_answers]
        return Outcome.INFRASTRUCTURE, Category.ANSWERS, _first_of([*answers, *blamed])
    if blamed:
        return Outcome.WARNING, Category.OSCAR, _first_of(blamed)
    standing = len(looked.comparison.standing)
    stands = f"; {standing} problem{'s' if standing > 1 else ''} that stood before" if standing else ""
    mended = _mended(looked)
    return Outcome.PASSED, Category.NONE, mended[0] if mended else f"no new problems{stands}"


def _first_of(problems: Iterable[Problem]) -> str:
    first, *others = problems
    more = f" (and {len(others)} more problem{'s' if len(others) > 1 else ''})" if others else ""
    return f"{first}{more}"


def judgement_of(looked: Looked) -> Judgement:
    """What the master keeps of it."""
    # What a change took away is no problem of the tree itself: it follows, so that the others keep their names.
    now = keys_of(dict.fromkeys([*looked.report.problems, *looked.new]))
    change, comparison = looked.change, looked.comparison
    before = keys_of(dict.fromkeys([*(looked.before.problems if looked.before else ()), *comparison.mended]))
    of_tree = {*looked.report.problems}
    return Judgement(
        url=looked.source.url,
        revision=change.revision if change else 0,
        base=change.base if change else 0,
        commit=change.commits[-1].id if change else "",
        chain=change.chain if change else (),
        new=tuple(
            _reported(problem, now[problem], change=change, of_change=problem not in of_tree)
            for problem in looked.new[:MAX_LISTED]
        ),
        mended=tuple(_reported(problem, before[problem]) for problem in comparison.mended[:MAX_LISTED]),
        standing=tuple(
            _reported(pair.problem, now[pair.problem], was=before.get(pair.was, ""))
            for pair in comparison.standing[:MAX_LISTED]
        ),
        dropped=tuple(map(_short, comparison.dropped[:MAX_LISTED])),
    )


def _reported(
    problem: Problem, key: str, *, was: str = "", change: Change | None = None, of_change: bool = False
) -> ReportedProblem:
    commit = change.brought_by(problem.file, problem.because) if change else None
    return ReportedProblem(
        key=_short_key(key),
        was=_short_key(was),
        file=_short(problem.file),
        line=problem.line,
        what=_short(problem.what),
        right=_short(problem.right),
        gates=problem.gates,
        of_answers=problem.of_answers,
        of_change=of_change,
        revision=commit.revision if commit else change.revision if change else 0,
        commit=(commit or change.commits[-1]).id if change else "",
        author=_short(commit.author) if commit else "",
        date=_short(commit.date) if commit else "",
    )


def _short_key(key: str) -> str:
    """Keys that differ still differ when they are shortened."""
    if len(words := printable(key)) <= MAX_WORDS:
        return words
    return f"{words[: MAX_WORDS - 20]}... {hashlib.sha256(words.encode()).hexdigest()[:16]}"


def _short(text: str) -> str:
    return printable(text)[:MAX_WORDS]


def as_json(looked: Looked) -> dict[str, Any]:
    """All of it, for programs."""
    comparison = looked.comparison
    return {
        **asdict(looked.report),
        "seconds": looked.seconds,
        "revision": looked.source.revision,
        "base": (looked.change.base_id or looked.change.base) if looked.change else None,
        "compared": looked.compared,
        "new": [asdict(problem) for problem in looked.new],
        "mended": [asdict(problem) for problem in comparison.mended],
        "standing": [asdict(pair.problem) for pair in comparison.standing],
        "summary": summary_of(looked),
    }
