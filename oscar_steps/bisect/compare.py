"""Two runs side by side, in plain words: how each ended, where they parted, and what else is different."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oscar_steps import manifest
from oscar_steps.textio import one_line
from oscar_steps.verdict import NodeReport, Outcome, Verdict

_INDENT = "    "
_EVIDENCE_LINES = 8
_LONGEST_EVIDENCE = 200
_LONGEST_LINE = 500
"""Characters. A line may be the name of a folder, which nobody can use when it is cut."""
_PACKAGES = 20
_SHOWN = 8
_LONGEST_VALUE = 60
_NO_SETTINGS = ("run_id", "cell", "source", "image_key", "known_issues")
"""Fields of a job that are not compared as settings: they have lines of their own, or they decide nothing."""
_NOTABLE_SECONDS = 20.0
_NOTABLE_FACTOR = 1.5


@dataclass(frozen=True)
class Side:
    """One of the two. `packages`: the list of its image's packages; None: it was not kept. `job`: its job, as JSON."""

    verdict: Verdict
    packages: str | None = None
    link: str = ""
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.verdict.short


def compare(left: Side, right: Side) -> list[str]:
    """The lines of the report; `left` is the earlier one, or the good one."""
    found = [*_ends(left), *_ends(right)]
    found += _parting(left.verdict, right.verdict)
    found += _durations(left, right)
    found += _what_was_tested(left.verdict, right.verdict)
    found += _settings(left.job, right.job)
    found += _worlds(left, right)
    return [_INDENT * line.startswith(_INDENT) + one_line(line, _LONGEST_LINE) for line in found]


def _ends(side: Side) -> Iterator[str]:
    verdict = side.verdict
    place = f" at {verdict.stage}" if verdict.stage and verdict.outcome is not Outcome.PASSED else ""
    yield f"{side.name} {verdict.outcome}{place}: {verdict.sentence}"
    yield f"{_INDENT}run {verdict.run_id}, {verdict.seconds:.0f} s"
    if side.link:
        yield f"{_INDENT}{side.link}"
    if verdict.outcome is Outcome.PASSED:
        return
    for piece in verdict.evidence[:1]:
        yield f"{_INDENT}{piece.file}, lines {piece.first_line} to {piece.last_line}:"
        for line in [line for line in piece.lines if line.strip()][-_EVIDENCE_LINES:]:
            yield f"{_INDENT}| {one_line(line, _LONGEST_EVIDENCE)}"


def _parting(left: Verdict, right: Verdict) -> Iterator[str]:
    """The first step that the one has done and the other has not: of OSCAR's installer, then of each node."""
    ends = ({each.stage: each.result for each in side.installer} for side in (left, right))
    if words := _first_difference(*ends):
        yield f"OSCAR's installer: the first difference is {words}"
    nodes = [{node.name: node for node in side.nodes} for side in (left, right)]
    alike = dict[str, list[str]]()
    for name in sorted(nodes[0].keys() & nodes[1].keys()):
        if words := _node_words(nodes[0][name], nodes[1][name]):
            alike.setdefault(words, []).append(name)
    for words, names in alike.items():
        more = f" and {len(names) - 1} more" if len(names) > 2 else " and ".join(["", *names[1:]])
        yield f"node{'s' if more else ''} {names[0]}{more}: {words}"


def _first_difference(left: Mapping[str, str], right: Mapping[str, str]) -> str:
    for stage in (*left, *(stage for stage in right if stage not in left)):
        was, now = left.get(stage, "not reached"), right.get(stage, "not reached")
        if was != now:
            return f"{stage}: {was}, then {now}"
    return ""


def _node_words(left: NodeReport, right: NodeReport) -> str:
    reached = [[state for state, _ in node.history] or [node.state] for node in (left, right)]
    if reached[0] == reached[1] or left.state == right.state:
        return ""  # by the network or from its disk: it came to the same end
    missing = next((state for state in reached[0] if state not in reached[1]), "")
    if missing:
        return f"'{missing}' was reached, and then it was not; the end was '{right.state}'"
    return f"the end was '{left.state}', then '{right.state}'"


def _durations(left: Side, right: Side) -> Iterator[str]:
    before = {each.stage: each for each in left.verdict.stages}
    for now in right.verdict.stages:
        was = before.get(now.stage)
        if was is None or was.result != now.result:
            continue
        short, long = sorted((was.seconds, now.seconds))
        if long - short > _NOTABLE_SECONDS and long > short * _NOTABLE_FACTOR:
            yield f"the stage {now.stage} took {was.seconds:.0f} s, then {now.seconds:.0f} s"


def _what_was_tested(left: Verdict, right: Verdict) -> Iterator[str]:
    if left.cell != right.cell:
        yield f"two cells: {left.cell}, then {right.cell}"
    if left.tested and right.tested and left.tested.identity == right.tested.identity:
        yield f"both tested the same: {left.tested}"
    elif left.source != right.source:
        yield f"two places: {left.source}, then {right.source}"
    before, now = (list(map(str, side.tested.externals)) if side.tested else [] for side in (left, right))
    if before != now:
        yield f"the externals{_values(before, now)}"


def _settings(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[str]:
    """What the two jobs had different, beside source and image."""
    if not left or not right:
        return
    before, now = (dict(_flat({k: v for k, v in job.items() if k not in _NO_SETTINGS})) for job in (left, right))
    found = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    for name in found[:_SHOWN]:
        yield f"the job's {name}{_values(before.get(name), now.get(name))}"
    if len(found) > _SHOWN:
        yield f"and {len(found) - _SHOWN} more settings of the two jobs differ"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _flat(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def _values(before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        words = [f"+ {each}" for each in now if each not in before]
        words += [f"- {each}" for each in before if each not in now]
        return f": {', '.join(words) or 'their order'}"
    values = ["nothing" if each in (None, "") else str(each) for each in (before, now)]
    short = all(len(value) <= _LONGEST_VALUE and "\n" not in value for value in values)
    return f": {values[0]}, then {values[1]}" if short else " differs"


def _worlds(left: Side, right: Side) -> Iterator[str]:
    keys = [side.verdict.image.key if side.verdict.image else "" for side in (left, right)]
    if not all(keys):
        return
    if keys[0] == keys[1]:
        yield f"both had the same base image ({keys[0][:12]})"
    elif left.packages is None or right.packages is None:
        yield "the base images differ; their packages were not kept"
    else:
        yield from _packages(manifest.changes(left.packages, right.packages))


def _packages(found: Sequence[manifest.Change]) -> Iterator[str]:
    yield f"the base images differ: {manifest.summary(found).partition(':')[0]}"
    yield from (f"{_INDENT}{change}" for change in found[:_PACKAGES])
    if len(found) > _PACKAGES:
        yield f"{_INDENT}and {len(found) - _PACKAGES} more"
