"""The list of standing problems: who brought each, what becomes of it, and the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from oscar_steps import judgement
from oscar_steps.judgement import Judgement, ReportedProblem
from oscar_steps.master.web.standing import STANDING_FILE, Standing, load, note_judgement, page_data, take
from oscar_steps.master.web.standing_page import age_of, html_of

TRUNK = "trunk"
DAY = 86400.0


def told(key: str, *, was: str = "", gates: bool = False, revision: int = 0, author: str = "") -> ReportedProblem:
    return ReportedProblem(
        key=key,
        was=was,
        file=f"scripts/{key}",
        line=3,
        what="starts './gone'",
        right="it has to be there",
        gates=gates,
        revision=revision,
        author=author,
        date="2007-06-15T12:00:00.000000Z" if revision else "",
    )


def judged(revision: int, **found: tuple[ReportedProblem, ...]) -> Judgement:
    return Judgement(url="svn://host/oscar/trunk", revision=revision, base=revision - 1, **found)


def after(*judgements: Judgement) -> Standing:
    standing = Standing()
    for said in judgements:
        take(standing, TRUNK, said, now=1.0)
    return standing


def test_a_new_problem_stands_from_then_on_with_the_commit_that_brought_it() -> None:
    new = told("a", revision=5, author="jane")
    standing = after(judged(5, new=(new,)), judged(6, standing=(told("a", was="a"),)))
    entry = standing.branches[TRUNK].problems["a"]
    assert (entry.revision, entry.author, entry.date[:4]) == (5, "jane", "2007")


def test_a_problem_keeps_its_commit_when_it_gets_another_name() -> None:
    new = told("a", revision=5, author="jane")
    standing = after(judged(5, new=(new,)), judged(6, standing=(told("b", was="a"),)))
    assert list(standing.branches[TRUNK].problems) == ["b"]
    assert standing.branches[TRUNK].problems["b"].author == "jane"


def test_what_stood_already_is_known_to_be_older_than_the_first_revision_that_was_looked_at() -> None:
    branch = after(judged(5, standing=(told("a", was="a"),)), judged(6, standing=(told("a", was="a"),))).branches[TRUNK]
    assert (branch.first, branch.problems["a"].seen, branch.problems["a"].revision) == (5, 5, 0)


def test_a_mended_problem_stands_no_longer_and_who_was_kept_from_the_cells_by_it_hears() -> None:
    standing = after(judged(5, new=(told("a", gates=True, revision=5, author="jane"),)))
    assert take(standing, TRUNK, judged(6, mended=(told("a"),)), now=1.0) == ("jane",)
    assert standing.branches[TRUNK].problems == {}
    assert take(standing, TRUNK, judged(6, mended=(told("a"),)), now=1.0) == ("jane",), "the same build, begun anew"
    assert take(standing, TRUNK, judged(7), now=1.0) == ()


@pytest.mark.parametrize("gates", [True, False])
def test_of_a_problem_that_kept_nobody_from_the_cells_nobody_hears(gates: bool) -> None:
    before = judged(5, standing=(told("a", was="a", gates=True),))
    if not gates:
        before = judged(5, new=(told("a", revision=5, author="jane"),))
    assert take(after(before), TRUNK, judged(6, mended=(told("a"),)), now=1.0) == ()


def test_a_problem_that_was_hidden_for_a_while_keeps_its_commit() -> None:
    standing = after(judged(5, new=(told("a", revision=5, author="jane"),)), judged(6), judged(7))
    assert standing.branches[TRUNK].problems == {}
    take(standing, TRUNK, judged(8, standing=(told("a"),)), now=1.0)
    branch = standing.branches[TRUNK]
    assert (branch.problems["a"].author, branch.hidden) == ("jane", {})


TAKEN = ReportedProblem(
    key="scripts/a: uses X",
    file="scripts/a",
    line=3,
    what="uses X, which this change took away",
    right="it has to be there",
    gates=True,
    of_change=True,
    revision=5,
    author="jane",
)


def test_what_a_commit_took_away_stands_until_it_is_back_and_its_author_hears() -> None:
    standing = after(judged(5, new=(TAKEN,)), judged(6), judged(7))
    assert standing.branches[TRUNK].problems[TAKEN.key].author == "jane"
    assert take(standing, TRUNK, judged(8, mended=(TAKEN,)), now=1.0) == ("jane",)
    assert (standing.branches[TRUNK].problems, standing.branches[TRUNK].hidden) == ({}, {})


def test_what_a_commit_took_away_is_mended_when_its_user_uses_it_no_more() -> None:
    standing = after(judged(5, new=(TAKEN,)))
    said = judged(6).model_copy(update={"dropped": ("scripts/a: uses X",)})
    assert take(standing, TRUNK, said, now=1.0) == ("jane",)
    assert (standing.branches[TRUNK].problems, standing.branches[TRUNK].hidden) == ({}, {})


def test_what_a_commit_took_away_is_off_the_list_with_its_user_and_nobody_hears() -> None:
    standing = after(judged(5, new=(TAKEN,)))
    assert take(standing, TRUNK, judged(6).model_copy(update={"dropped": ("scripts/a",)}), now=1.0) == ()
    take(standing, TRUNK, judged(7), now=1.0)
    assert standing.branches[TRUNK].problems == {}


def test_the_page_names_no_author_where_it_may_be_one_of_several() -> None:
    page = html_of({"trouble": "", **after(judged(5, new=(told("a", revision=5),))).model_dump()}, 0.0)
    assert "one of several commits up to r5" in page


def test_an_older_revision_that_is_looked_at_again_changes_nothing() -> None:
    standing = after(judged(6, new=(told("a", revision=6, author="jane"),)))
    before = standing.model_dump()
    assert take(standing, TRUNK, judged(4, new=(told("b", revision=4),)), now=2.0) == ()
    assert standing.model_dump() == before


def test_a_branch_has_the_problems_of_its_origin_with_the_commits_that_brought_them() -> None:
    standing = after(judged(5, new=(told("a", revision=5, author="jane"),)))
    take(standing, "branches/b", judged(6, standing=(told("a", was="a"),)), now=1.0)
    assert standing.branches["branches/b"].problems["a"].author == "jane"


def test_the_list_survives_a_restart_and_a_file_that_is_spoiled_is_told_and_begun_anew(tmp_path: Path) -> None:
    assert note_judgement(tmp_path, TRUNK, judged(5, new=(told("a", revision=5, author="jane"),))) == ((), "")
    assert load(tmp_path).branches[TRUNK].problems["a"].author == "jane"
    (tmp_path / STANDING_FILE).write_text('{"branches": 5')
    assert page_data(tmp_path)["trouble"]
    _, trouble = note_judgement(tmp_path, TRUNK, judged(6, standing=(told("a", was="a"),)))
    assert str(tmp_path / STANDING_FILE) in trouble
    assert (tmp_path / "standing.spoiled").read_text() == '{"branches": 5'
    data = page_data(tmp_path)
    assert (data["trouble"], data["branches"][TRUNK]["problems"]["a"]["revision"]) == ("", 0)
    assert data["begun_anew"] > 0


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/dev/null")], ids=["folder", "device"])
def test_what_is_no_file_is_put_aside_as_well(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / STANDING_FILE)
    assert note_judgement(tmp_path, TRUNK, judged(5))[1]
    assert load(tmp_path).branches[TRUNK].revision == 5


def test_the_page_says_of_each_problem_where_it_is_who_brought_it_and_its_age() -> None:
    new = told("a", gates=True, revision=5, author="<jane>")
    standing = after(judged(5, new=(new,), standing=(told("b", was="b"),)))
    now = 1182859200.0  # 2007-06-26
    page = html_of({"trouble": "", **standing.model_dump()}, now)
    assert "scripts/a:3" in page and "r5, &lt;jane&gt;" in page and "11 days" in page
    assert "1 of them keeps the installer from starting" in page
    assert "a revision before r5, the first one that was checked" in page
    assert page.index("scripts/a") < page.index("scripts/b"), "what keeps the installer from starting comes first"


def test_the_page_without_anything_says_so() -> None:
    assert "No revision has been checked yet" in html_of({"trouble": "", **Standing().model_dump()}, 0.0)


@pytest.mark.parametrize(
    ("days", "words"), [(0.01, "less than an hour"), (0.1, "2 hours"), (1, "1 day"), (40, "1 month"), (800, "2 years")]
)
def test_an_age_is_told_in_its_largest_unit(days: float, words: str) -> None:
    assert age_of("1970-01-01T00:00:00Z", days * DAY) == words
    assert age_of("nonsense", 0) == ""


def test_a_judgement_is_not_written_longer_than_the_master_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "MAX_BYTES", 2000)
    said = judged(5, new=tuple(told(f"a{number}", revision=5) for number in range(50)))
    said.save(tmp_path)
    written = (tmp_path / "lint.json").read_bytes()
    assert len(written) <= 2000
    assert Judgement.model_validate_json(written).new[:2] == said.new[:2]


def test_a_judgement_is_written_as_the_master_reads_it(tmp_path: Path) -> None:
    said = judged(5, new=(told("a", revision=5),))
    said.save(tmp_path)
    assert Judgement.model_validate(json.loads((tmp_path / "lint.json").read_text())) == said


def commit(number: int) -> str:
    return f"{number:040x}"


def of_git(place: int, *chain: int, **found: tuple[ReportedProblem, ...]) -> Judgement:
    """Of the first commit of `chain`; the others came before it on the branch."""
    ids = tuple(map(commit, chain))
    return Judgement(url="git://host/oscar", revision=place, base=max(place - 1, 0), commit=ids[0], chain=ids, **found)


def brought(key: str, place: int, number: int) -> ReportedProblem:
    return told(key, revision=place, author="Ada <ada@h>").model_copy(update={"commit": commit(number)})


def test_a_commit_of_git_is_named_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    several = told("b", revision=7).model_copy(update={"commit": commit(0xDD << 128)})
    first = of_git(6, 0xCC << 128, standing=(told("c"),))
    new = brought("a", 7, 0xDD << 128)
    then = of_git(7, 0xDD << 128, 0xCC << 128, new=(new, several), standing=(told("c", was="c"),))
    note_judgement(tmp_path, "git/oscar/main", first, 1)
    note_judgement(tmp_path, "git/oscar/main", then, 2)
    html = html_of(page_data(tmp_path), now=0.0)
    assert "<p>000000dd0000: 3 problems</p>" in html
    assert "000000dd0000, Ada</td>" in html
    assert "one of several commits up to 000000dd0000" in html
    assert "a revision before 000000cc0000, the first one that was checked" in html
    assert "r7" not in html and "r6" not in html


def test_no_address_of_a_commits_author_is_on_the_page_or_in_its_json(tmp_path: Path) -> None:
    note_judgement(tmp_path, TRUNK, of_git(1, 1, new=(brought("a", 1, 1), brought("b", 1, 1))), 1)
    gating = brought("c", 2, 2).model_copy(update={"gates": True})
    note_judgement(tmp_path, TRUNK, of_git(2, 2, 1, new=(gating,), mended=(told("b"),)), 2)
    note_judgement(tmp_path, TRUNK, of_git(3, 3, 2, 1, mended=(gating,), standing=(told("d"),)), 3)
    assert load(tmp_path).branches[TRUNK].gated_before == ("Ada <ada@h>",)
    data = page_data(tmp_path)
    assert "Ada" in json.dumps(data) and "ada@h" not in json.dumps(data) + html_of(data, now=0.0)


def test_after_a_forced_push_the_branch_is_what_was_pushed() -> None:
    standing = Standing()
    taken_away = brought("use", 3, 3).model_copy(update={"of_change": True})
    take(standing, TRUNK, of_git(2, 2, 1, new=(brought("a", 2, 2),)), 1.0, change=1)
    take(standing, TRUNK, of_git(3, 3, 2, 1, new=(taken_away,), standing=(told("a", was="a"),)), 1.0, change=2)
    take(standing, TRUNK, of_git(2, 9, 1, standing=(told("a", was="a"),)), 1.0, change=3)
    branch = standing.branches[TRUNK]
    assert (branch.revision, branch.commit, branch.first, branch.change) == (2, commit(9), 2, 3)
    assert {key: entry.author for key, entry in branch.problems.items()} == {"a": "Ada <ada@h>"}
    assert branch.hidden == {}


@pytest.mark.parametrize("place", [1, 2, 3])
def test_an_older_commit_of_git_or_one_of_another_branch_that_a_person_asks_for_changes_nothing(place: int) -> None:
    standing = Standing()
    take(standing, TRUNK, of_git(2, 2, 1, new=(brought("a", 2, 2),)), 1.0, change=5)
    before = standing.model_copy(deep=True)
    take(standing, TRUNK, of_git(place, place + 6, 1), 2.0)
    take(standing, TRUNK, of_git(1, 1), 2.0, change=4)
    assert standing == before


def test_a_newer_commit_of_git_that_a_person_asks_for_counts() -> None:
    standing = Standing()
    take(standing, TRUNK, of_git(2, 2, 1, new=(brought("a", 2, 2),)), 1.0, change=5)
    take(standing, TRUNK, of_git(3, 3, 2, 1, mended=(told("a"),)), 2.0)
    assert (standing.branches[TRUNK].commit, standing.branches[TRUNK].change) == (commit(3), 5)
    assert standing.branches[TRUNK].problems == {}
