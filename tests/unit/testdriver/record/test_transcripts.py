"""What OSCAR's installer writes when it fails, trap by trap, and what the farm says of it.

`transcripts/good.txt` is a good run in a notation of its own, that of `transcripts/cases.toml` as well: `== TITLE` is a
section with its rules (`== TITLE\\n` one with a line's end of its own), `--> TITLE` a subsection,
`@result LABEL | STATUS | VERDICT` a line of `testprint`, `@apitest VERDICT NAME` one of apitest, `\\b` and `\\e` the
control characters. Each case is that run with an edit, and is read in both formats in which OSCAR has written its log,
unless it is a trap of one of them.

Each directory of `transcripts` is a whole terminal with what the farm has to say of it, as
`oscar-testdriver transcript` writes them.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_steps.oscar.failure import MAX_LINES, Failure
from oscar_steps.oscar.logs.installlog import EventKind, InstallLog, InstallResult
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.oscar.terminal import LogFormat, clean
from oscar_steps.testdriver.record.rejudge import hang
from oscar_steps.testdriver.record.transcript import CASE_FILE, read_case

HERE = Path(__file__).parents[2] / "transcripts"
FORMATS: tuple[Literal["2007", "later"], ...] = ("2007", "later")
EDITS = {"drop", "replace", "after", "cut", "tail", "times"}
EXPECTED = {"passes", "stage", "category", "says", "shows", "hint", "certain"}
CIRCUMSTANCES = {"name", "format", "status", "ends", "boot", "from_banner"}

Case = dict[str, Any]


@functools.cache
def good() -> tuple[str, ...]:
    return tuple((HERE / "good.txt").read_text(encoding="utf-8").splitlines())


@functools.cache
def cases() -> tuple[Case, ...]:
    return tuple(tomllib.loads((HERE / "cases.toml").read_text(encoding="utf-8"))["case"])


def edited(case: Case) -> list[str]:
    """The lines of a case, in the notation. An edit that names a line which is not there is a mistake in the case."""
    lines = list(good())
    for old in case.get("drop", ()):
        lines.remove(old)
    for old, new in case.get("replace", {}).items():
        at = lines.index(old)
        lines[at : at + 1] = new.splitlines()
    for old, new in case.get("after", {}).items():
        at = lines.index(old) + 1
        lines[at:at] = new.splitlines()
    if "cut" in case:
        del lines[lines.index(case["cut"]) :]
    return lines + case.get("tail", "").splitlines() * case.get("times", 1)


def written(lines: list[str] | tuple[str, ...], form: str) -> list[str]:
    """The lines as OSCAR writes them in that format."""
    return [line for short in lines for line in _written(short, form)]


def _written(short: str, form: str) -> Iterator[str]:
    line = short.replace("\\b", "\b").replace("\\e", "\x1b")
    if line.startswith("== "):
        rule = "=" * (77 if form == "2007" else 80)
        title, end, _ = line.partition("\\n")
        yield from ("", rule, title, *([""] if end else []), rule, *([""] if form == "2007" else []))
    elif line.startswith("--> ") and form == "later":
        title = line.removeprefix("--> ")
        dashes = max(80 - 2 - len(title), 2)
        yield f"{'-' * (dashes // 2)} {title} {'-' * (dashes - dashes // 2)}"
    elif line.startswith("@result "):
        label, status, verdict = (part.strip() for part in line.removeprefix("@result ").split("|"))
        running = f"{label[:21]:<21} {'running':<21}"
        yield f"{running}\x1b[1G{label[:21]:<21} {status[:21]:<21}[\x1b[1m\x1b[31m{verdict}\x1b[0m]"
    elif line.startswith("@apitest "):
        _, verdict, name = line.split()
        yield f"[\x1b[00;31m{verdict}\x1b[0m]       2007-06-14 05:20:00   {name}"
    else:
        yield line


def read(lines: list[str], case: Case) -> tuple[InstallLog, Failure | None, bool]:
    """The log, what it says of the run, and whether a failure was certain before the end."""
    log = InstallLog(
        expected_nodes=2,
        boot=case.get("boot", "cdrom"),
        image_name="oscarimage",
        from_banner=case.get("from_banner", False),
    )
    events = [event for line in lines for event in log.feed(line)]
    certain = any(event.kind is EventKind.CERTAIN_FAILURE for event in events)
    how, _, amount = case.get("ends", "").partition(" ")
    return log, hang(log, how, float(amount)) if how else log.conclude(case.get("status", 0)), certain


def forms(case: Case) -> tuple[str, ...]:
    return (case["format"],) if "format" in case else FORMATS


ALL = [pytest.param(case, form, id=f"{case['name']} ({form})") for case in cases() for form in forms(case)]
BAD = [param for param in ALL if not param.values[0].get("passes")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_a_case_is_written_as_it_should_be(case: Case) -> None:
    assert set(case) <= EDITS | EXPECTED | CIRCUMSTANCES
    assert case.get("passes") or {"stage", "category", "says"} <= set(case)
    assert [other["name"] for other in cases()].count(case["name"]) == 1


def test_there_is_a_case_for_every_trap() -> None:
    assert len(cases()) >= 80
    assert {case["stage"] for case in cases() if "stage" in case} == {stage.value for stage in InstallStage}


@pytest.mark.parametrize("form", FORMATS)
def test_the_good_run_is_good_in_either_format(form: str) -> None:
    log, failure, certain = read(written(good(), form), {})
    assert (failure, certain) == (None, False)
    assert log.format is {"2007": LogFormat.ARROWS, "later": LogFormat.TYPED}[form] or form == "later"
    assert set(log.results(None).values()) == {InstallResult.PASSED}


@pytest.mark.parametrize(("case", "form"), ALL)
def test_stage_category_and_sentence_are_right(case: Case, form: str) -> None:
    lines = written(edited(case), form)
    log, failure, certain = read(lines, case)
    if case.get("passes"):
        assert failure is None
        return
    assert failure is not None
    assert (failure.stage.value, failure.category) == (case["stage"], case["category"]), failure.sentence
    assert case["says"] in failure.sentence
    assert case.get("hint", "") in failure.hint
    assert "\n" not in failure.sentence
    assert certain is case.get("certain", certain)
    hung = log.results(failure)[failure.stage] is InstallResult.HUNG
    assert hung is ("ends" in case or "times" in case)


@pytest.mark.parametrize(("case", "form"), BAD)
def test_the_evidence_is_the_lines_of_the_log_and_holds_the_one_that_tells(case: Case, form: str) -> None:
    lines = written(edited(case), form)
    _, failure, _ = read(lines, case)
    assert failure is not None
    shown = failure.lines
    assert len(shown) <= MAX_LINES
    if shown:
        first = failure.first_line - 1
        assert shown == tuple(clean(line) for line in lines[first : first + len(shown)])
    if "shows" in case:
        told = [line for line in _written(case["shows"], form) if line.strip("=")]
        assert told and all(clean(line) in shown for line in told)


RECORDED = sorted(path.parent for path in HERE.glob(f"*/{CASE_FILE}"))


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case.name)
def test_a_recorded_case_is_judged_as_it_should_be(case: Path) -> None:
    expected = read_case(case)
    judgement = expected.judge(case)
    assert judgement is not None
    failure = judgement.failure
    if expected.passes:
        assert failure is None
        return
    assert failure is not None
    assert (failure.stage.value, failure.category) == (expected.stage, expected.category), failure.sentence
    assert expected.says and expected.says in failure.sentence
    assert expected.hint in failure.hint
    assert expected.shows in "\n".join(failure.lines)
    assert failure.hung is bool(expected.ends)


# -- what no sequence of lines can do ----------------------------------------------------------------------------------


FAILED = [(case, form) for case in cases() for form in forms(case) if not {"passes", "ends", "times"} & set(case)]


def as_bad(draw: st.DataObject) -> tuple[list[str], Case]:
    case, form = draw.draw(st.sampled_from(FAILED))
    return written(edited(case), form), case


def required(form: str) -> list[int]:
    """Lines of the good run without which it is not good: found by trying."""
    lines = written(good(), form)
    return [at for at in range(len(lines)) if read(lines[:at] + lines[at + 1 :], {})[1] is not None]


REQUIRED = {form: required(form) for form in FORMATS}


@pytest.mark.parametrize("form", FORMATS)
def test_each_stage_has_lines_that_it_cannot_do_without(form: str) -> None:
    assert len(REQUIRED[form]) >= 30


@settings(deadline=None)
@given(st.data())
def test_a_failed_run_that_is_cut_stays_failed(data: st.DataObject) -> None:
    lines, case = as_bad(data)
    cut = data.draw(st.integers(0, len(lines)))
    assert read(lines[:cut], case)[1] is not None


@settings(deadline=None)
@given(st.data())
def test_a_good_run_that_is_cut_anywhere_is_not_good(data: st.DataObject) -> None:
    text = "\n".join(written(good(), data.draw(st.sampled_from(FORMATS))))
    cut = data.draw(st.integers(0, len(text.rstrip(" -")) - 1))
    assert read(text[:cut].split("\n"), {})[1] is not None


@settings(deadline=None)
@given(st.data())
def test_a_good_run_that_lost_lines_it_cannot_do_without_is_not_good(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(FORMATS))
    gone = data.draw(st.sets(st.sampled_from(REQUIRED[form]), min_size=1))
    lines = [line for at, line in enumerate(written(good(), form)) if at not in gone]
    assert read(lines, {})[1] is not None


@settings(deadline=None)
@given(st.data())
def test_a_required_line_that_is_garbled_proves_nothing(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(FORMATS))
    lines = written(good(), form)
    at = data.draw(st.sampled_from([at for at in REQUIRED[form] if lines[at].strip("=")]))
    letters = st.characters(exclude_categories=["L"])
    lines[at] = "".join(data.draw(letters) if letter.isalpha() else letter for letter in lines[at])
    assert read(lines, {})[1] is not None


@settings(deadline=None)
@given(st.data())
def test_a_failed_run_that_is_garbled_elsewhere_stays_failed(data: st.DataObject) -> None:
    lines, case = as_bad(data)
    _, failure, _ = read(lines, case)
    assert failure is not None
    elsewhere = [at for at, line in enumerate(lines) if line and clean(line) not in failure.lines]
    for at in data.draw(st.lists(st.sampled_from(elsewhere), max_size=8)) if elsewhere else ():
        raw = bytearray(lines[at].encode())
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        lines[at] = raw.decode("utf-8", "replace") or "?"
    assert read(lines, case)[1] is not None


@settings(deadline=None)
@given(st.data())
def test_a_failure_that_was_certain_is_not_made_good_by_what_follows(data: st.DataObject) -> None:
    lines, case = as_bad(data)
    _, failure, certain = read(lines, case)
    start = data.draw(st.integers(0, len(good())))
    tail = written(good()[start:], data.draw(st.sampled_from(FORMATS)))
    again = read(lines + tail, case | {"status": 0})[1]
    if certain:
        assert failure is not None and again is not None
        assert again.stage is failure.stage


@settings(deadline=None)
@given(st.data())
def test_a_failed_run_with_lines_twice_or_left_out_is_never_good(data: st.DataObject) -> None:
    lines, case = as_bad(data)
    factors = data.draw(st.lists(st.integers(0, 2), min_size=len(lines), max_size=len(lines)))
    _, failure, certain = read(lines, case)
    telling = failure.lines if failure and certain else ()
    kept = [line for line, n in zip(lines, factors, strict=True) for _ in range(1 if clean(line) in telling else n)]
    if certain:
        assert read(kept, case)[1] is not None
    else:
        doubled = [line for line, n in zip(lines, factors, strict=True) for _ in range(max(n, 1))]
        assert read(doubled, case)[1] is not None


MUST_PASS = ("SSH ping test", "SSH server->node")
SECOND = "@result SSH server->node | | PASSED"


def judged(results: list[str], form: str) -> Failure | None:
    """What is said of the good run with these lines of its two tests, which must both have passed."""
    lines = list(good())
    at = lines.index("@result SSH ping test | | PASSED")
    before, after = written(lines[:at], form), written(lines[at + 1 :], form)
    log = InstallLog(expected_nodes=2, boot="cdrom", image_name="oscarimage", tests=MUST_PASS)
    for line in (*before, *results, *after):
        log.feed(line)
    return log.conclude(0)


@settings(deadline=None)
@given(st.data())
def test_a_test_that_must_pass_and_failed_is_never_good_however_its_line_is_garbled(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(FORMATS))
    passed, second = written(["@result SSH ping test | | PASSED"], form), written([SECOND], form)
    assert judged([*passed, *second], form) is None
    raw = bytearray(second[0].replace("PASSED", data.draw(st.sampled_from(["FAILED", "SKIPPED"]))).encode())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=12)):
        raw[at] = data.draw(st.integers(0, 255))
    garbled = raw[: data.draw(st.integers(0, len(raw)))].decode("utf-8", "replace")
    failure = judged([*passed, *garbled.split("\n")], form)
    assert failure is not None
    assert failure.stage is InstallStage.TEST


@pytest.mark.parametrize("line", ["@result TORQUE node check | | FAILED", "@apitest FAIL ssh_validate.apt"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_verdict_that_lost_letters_is_no_pass(line: str, form: str) -> None:
    (whole,) = written([line], form)
    passed = written(["@result SSH ping test | | PASSED", SECOND], form)
    word = "FAILED" if "FAILED" in line else "FAIL"
    for at in range(len(word)):
        for damaged in (word[:at] + "?" + word[at + 1 :], word[:at] + word[at + 1 :]):
            failure = judged([*passed, whole.replace(word, damaged)], form)
            assert failure is not None and failure.stage is InstallStage.TEST, damaged
    assert judged([*passed, "Starting TORQUE Server: [  OK  ]", "see [the manual]"], form) is None


def stages_of(form: str) -> list[InstallStage]:
    """The stage that each line of the good run belongs to."""
    log = InstallLog(expected_nodes=2, boot="cdrom", image_name="oscarimage")
    return [log.stage for line in written(good(), form) if log.feed(line) or True]


@settings(deadline=None)
@given(st.data())
def test_lines_of_two_stages_that_changed_places_are_not_good(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(FORMATS))
    lines, stages = written(good(), form), stages_of(form)
    speaking = [at for at in REQUIRED[form] if "===" not in lines[at]]
    one, other = data.draw(st.lists(st.sampled_from(speaking), min_size=2, max_size=2, unique=True))
    lines[one], lines[other] = lines[other], lines[one]
    assert read(lines, {})[1] is not None or stages[one] is stages[other]


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(), st.sampled_from(good())), max_size=40), st.sampled_from(FORMATS))
def test_any_lines_at_all_are_read_and_raise_nothing(lines: list[str], form: str) -> None:
    for case in ({}, {"ends": "silent 300"}, {"ends": "flooded 1000000"}, {"status": 3}):
        assert read(written(lines, form), case)[1] is not None


@given(st.lists(st.binary(max_size=80), max_size=30))
def test_bytes_that_are_no_text_are_read_as_well(chunks: list[bytes]) -> None:
    assert read([chunk.decode("utf-8", "replace") for chunk in chunks], {})[1] is not None
