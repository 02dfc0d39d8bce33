"""Mails: the right people, the right words first, and nothing of a guest's that could do harm."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.master.history.repeat import Second
from oscar_steps.master.history.table import Rate
from oscar_steps.master.reports import facts
from oscar_steps.master.reports.facts import Before, BuildNote, ChangeNote, people_of
from oscar_steps.master.schedules.names import CHANGES as CHANGES_OF_A_BUILD
from oscar_steps.master.steps.results import RunIdentity, lost_worker
from oscar_steps.master.watch.git import MERGED_AUTHORS
from oscar_steps.site import Mail
from oscar_steps.sources.source import Source
from oscar_steps.verdict import LINT, Category, Evidence, Outcome, Stage, Verdict
from tests.unit.master.books import bad_logins, recipients

MAIL = Mail.model_validate(
    {"from": "farm@x.org", "operator": "op@x.org", "domain": "x.org", "developers": "list@x.org"}
)
CHANGES = (ChangeNote("6", "eric", "Clean up"), ChangeNote("7", "geoffroy", "Fix\nthe rest"))


def note(
    outcome: Outcome, *, sentence: str = "the cluster test failed", stage: Stage | None = Stage.FINALIZE
) -> BuildNote:
    verdict = Verdict(
        run_id="c-r7-b1",
        cell="debian-12-x86_64",
        source="svn://h/oscar/trunk",
        revision="7",
        outcome=outcome,
        sentence=sentence,
        stage=stage,
    )
    return BuildNote(
        verdict=verdict,
        scheduler="commit",
        owner="",
        changes=CHANGES,
        before=None,
        build_url="http://h/#/builders/1/builds/1",
        base="http://h/",
        has_files=True,
    )


def test_a_failure_goes_to_the_authors_of_its_changes() -> None:
    assert recipients(note(Outcome.FAILED), MAIL) == ("eric@x.org", "geoffroy@x.org")


def test_a_failure_of_a_merge_goes_to_the_authors_of_what_it_brought_too() -> None:
    merge = ChangeNote("0" * 40, "Ann <ann@h.org>", "Merge", merged=("Bob <bob@h.org>", "Bad <böd@h.org>"))
    failed = dataclasses.replace(note(Outcome.FAILED), changes=(merge,))
    assert recipients(failed, MAIL) == ("ann@h.org", "bob@h.org")
    ((login, why),) = bad_logins(failed, MAIL)
    assert login == "Bad <böd@h.org>" and "ASCII" in why


def test_a_history_of_many_authors_that_is_pushed_at_once_goes_to_the_list_of_developers() -> None:
    def red(authors: int, commits: int = 1, merged: int = 0) -> BuildNote:
        others = tuple(f"M{n} <m{n}@h.org>" for n in range(merged))
        made = [
            ChangeNote("0" * 40, f"A{n % authors} <a{n % authors}@h.org>", "x", merged=others) for n in range(commits)
        ]
        return dataclasses.replace(note(Outcome.FAILED), changes=tuple(made))

    mail = MAIL.model_copy(update={"developers": "dev@x.org"})
    assert len(recipients(red(100, 3000), mail)) == 100
    assert recipients(red(101, 3000), mail) == ("dev@x.org",)
    assert recipients(red(2, 2, merged=99), mail) == ("a0@h.org", "a1@h.org")


def test_the_first_failure_of_a_new_cell_is_told_as_well() -> None:
    assert note(Outcome.FAILED).before is None
    assert recipients(note(Outcome.FAILED), MAIL)


def test_the_operator_hears_of_the_first_try_and_of_the_last_but_not_of_those_between() -> None:
    first = note(Outcome.INFRASTRUCTURE)
    assert recipients(dataclasses.replace(first, known_already=False), MAIL) == ("op@x.org",)
    assert recipients(dataclasses.replace(first, known_already=True), MAIL) == ()
    result = dataclasses.replace(note(Outcome.FAILED), known_already=True)
    assert recipients(result, MAIL) == ("eric@x.org", "geoffroy@x.org"), "the true result is told in any case"


def test_the_farms_own_fault_goes_to_the_operator_alone() -> None:
    assert recipients(note(Outcome.INFRASTRUCTURE), MAIL) == ("op@x.org",)


@pytest.mark.parametrize(
    ("category", "words"),
    [
        (Category.DISTRIBUTION, "the distribution's packages are broken"),
        (Category.ANSWERS, "the site's answers do not fit this OSCAR"),
        (Category.HOST, "the farm or a host failed"),
    ],
)
def test_what_is_not_oscars_is_called_what_it_is_and_no_committer_hears_of_it(category: Category, words: str) -> None:
    told = note(Outcome.INFRASTRUCTURE)
    told = dataclasses.replace(told, verdict=told.verdict.model_copy(update={"category": category}))
    assert told.result == f"infrastructure at the stage finalize: {words}; this says nothing about OSCAR"
    assert recipients(told, MAIL) == ("op@x.org",)


def test_a_good_build_is_told_when_it_was_red_before_or_when_the_site_says_always() -> None:
    good = note(Outcome.PASSED, stage=None)
    fixed = dataclasses.replace(good, before=Before(3, "6", passed=False))
    assert recipients(good, MAIL) == ()
    assert recipients(fixed, MAIL) == ("eric@x.org", "geoffroy@x.org")
    assert fixed.subject == "[oscar-farm] debian-12-x86_64 r7: fixed"
    assert recipients(good, MAIL.model_copy(update={"always": True})) == ("eric@x.org", "geoffroy@x.org")


def of_first_tier(outcome: Outcome, **more: object) -> BuildNote:
    told = note(outcome, stage=None, sentence="scripts/a:3: starts './gone'")
    verdict = told.verdict.model_copy(update={"cell": LINT, **more})
    return dataclasses.replace(told, verdict=verdict, scheduler=LINT)


def test_a_warning_goes_to_the_authors_and_says_that_the_cells_run_all_the_same() -> None:
    warning = of_first_tier(Outcome.WARNING)
    assert recipients(warning, MAIL) == ("eric@x.org", "geoffroy@x.org")
    assert warning.subject == (
        "[oscar-farm] lint r7: warning: scripts/a:3: starts './gone'; the clusters are installed anyway"
    )
    assert warning.text.splitlines()[:2] == [
        "warning: the clusters are installed anyway",
        "scripts/a:3: starts './gone'",
    ]


def test_the_longest_warning_still_says_in_its_subject_that_the_cells_run() -> None:
    warning = of_first_tier(Outcome.WARNING, sentence="scripts/a:3: " + "x" * 900)
    assert warning.subject.endswith("...; the clusters are installed anyway")
    assert len(warning.subject) < 200


def test_who_was_kept_from_the_cells_hears_when_another_commit_mends_that() -> None:
    mended = of_first_tier(Outcome.PASSED, mended=("mended: scripts/a:3: starts './gone'",))
    assert recipients(mended, MAIL) == (), "a problem that held nobody up is mended in silence"
    fixed = dataclasses.replace(mended, gated_before=("jane",))
    assert recipients(fixed, MAIL) == ("eric@x.org", "geoffroy@x.org", "jane@x.org")
    assert fixed.subject == "[oscar-farm] lint r7: fixed"
    warning = dataclasses.replace(of_first_tier(Outcome.WARNING), gated_before=("jane",))
    assert "jane@x.org" in recipients(warning, MAIL)


def test_who_was_kept_from_the_cells_hears_nothing_of_a_failure_that_is_another_commits() -> None:
    failed = dataclasses.replace(of_first_tier(Outcome.FAILED), gated_before=("jane",))
    assert recipients(failed, MAIL) == ("eric@x.org", "geoffroy@x.org")


def test_the_first_tier_does_not_call_a_commit_fixed_because_it_brought_nothing_new() -> None:
    quiet = dataclasses.replace(of_first_tier(Outcome.PASSED), before=Before(3, "6", passed=False))
    assert not quiet.fixed
    assert recipients(quiet, MAIL) == ()


def test_nobody_is_told_of_a_stopped_build() -> None:
    assert recipients(note(Outcome.CANCELLED), MAIL) == ()


def test_a_nightly_failure_blames_no_author() -> None:
    nightly = dataclasses.replace(note(Outcome.FAILED), scheduler="nightly", changes=())
    assert recipients(nightly, MAIL) == ("list@x.org",)


def test_a_forced_build_goes_to_whoever_forced_it() -> None:
    forced = dataclasses.replace(note(Outcome.FAILED), scheduler="force", changes=(), owner="rm@x.org")
    assert recipients(forced, MAIL) == ("rm@x.org",)
    mistyped = dataclasses.replace(
        forced, verdict=note(Outcome.INFRASTRUCTURE).verdict.model_copy(update={"category": Category.FARM})
    )
    assert recipients(mistyped, MAIL) == ("rm@x.org",)


def test_authors_without_an_address_do_not_silence_the_failure() -> None:
    unknown = MAIL.model_copy(update={"domain": ""})
    assert recipients(note(Outcome.FAILED), unknown) == ("list@x.org",)


def test_the_subject_of_a_build_whose_worker_was_lost_in_the_middle_says_nothing_of_its_beginning() -> None:
    lost = lost_worker(RunIdentity(run_id="c-r7-b1", cell="c", source="svn://h/oscar", revision="7"), "w1")
    subject = dataclasses.replace(note(Outcome.INFRASTRUCTURE), verdict=lost).subject
    assert subject.startswith("[oscar-farm] c r7: infrastructure: the connection to the worker w1 was lost")


def test_the_subject_is_one_line_with_cell_revision_stage_and_sentence() -> None:
    subject = note(Outcome.FAILED, sentence="bad\r\nBcc: all@x.org \x1b[31mred\x1b[0m").subject
    assert subject == "[oscar-farm] debian-12-x86_64 r7: failed at finalize: bad Bcc: all@x.org red"


def test_the_first_lines_say_result_stage_and_sentence() -> None:
    first = note(Outcome.FAILED).text.splitlines()
    assert first[:2] == ["failed at the stage finalize", "the cluster test failed"]


def test_every_change_is_named_with_author_and_message() -> None:
    text = note(Outcome.FAILED).text
    assert "r6 by eric: Clean up" in text
    assert "r7 by geoffroy: Fix the rest" in text


def test_evidence_has_file_and_lines_and_no_control_characters() -> None:
    failed = note(Outcome.FAILED)
    evidence = (Evidence(file="logs/oscarinstall.log", first_line=40, lines=("one\x07", "x" * 999)),)
    text = dataclasses.replace(failed, verdict=failed.verdict.model_copy(update={"evidence": evidence})).text
    assert "logs/oscarinstall.log:40-41" in text
    assert "    one\n" in text
    assert max(len(line) for line in text.splitlines()) < 900
    assert "http://h/plugins/runs/c-r7-b1/logs/oscarinstall.log" in text


@pytest.mark.parametrize(("passed", "words"), [(False, "build 3 (r6) had failed too"), (True, "build 3 (r6) passed")])
def test_a_failure_says_what_was_before(passed: bool, words: str) -> None:
    assert words in dataclasses.replace(note(Outcome.FAILED), before=Before(3, "6", passed=passed)).text


HOSTILE = ["jürgen", "jane doe", "", "a\nBcc: all@x.org", "a,b@c.org", "<x@y>", "`id`", "$HOME", "a;b"]


@pytest.mark.parametrize("login", HOSTILE)
def test_a_login_that_makes_no_address_drops_only_itself_and_is_named(login: str) -> None:
    batch = dataclasses.replace(note(Outcome.FAILED), changes=(*CHANGES, ChangeNote("8", login, "x")))
    assert recipients(batch, MAIL) == ("eric@x.org", "geoffroy@x.org")
    assert [name for name, _fault in bad_logins(batch, MAIL)] == [login]
    alone = dataclasses.replace(batch, changes=(ChangeNote("8", login, "x"),))
    assert recipients(alone, MAIL) == ("list@x.org",)
    assert recipients(alone, MAIL.model_copy(update={"developers": ""})) == ("op@x.org",)
    known = MAIL.model_copy(update={"people": {login: "j@x.org"}})
    assert recipients(alone, known) == ("j@x.org",)
    assert bad_logins(alone, known) == ()


def test_a_mail_says_how_to_repeat_the_very_run_from_the_pages_that_have_its_job() -> None:
    told = note(Outcome.FAILED)
    told = dataclasses.replace(
        told, verdict=told.verdict.model_copy(update={"replay": "oscar-testdriver run --cell c"})
    )
    replay = "    oscar-testdriver replay http://h/plugins/runs/c-r7-b1/job.json\n"
    assert replay in told.text
    assert told.text.index(replay) < told.text.index("    oscar-testdriver run --cell c\n")
    no_job = dataclasses.replace(told, has_files=False)
    of_lint = dataclasses.replace(told, verdict=told.verdict.model_copy(update={"cell": LINT}))
    for other in (no_job, of_lint):
        assert "oscar-testdriver replay" not in other.text
        assert "    oscar-testdriver run --cell c\n" in other.text


def test_a_mail_names_what_changed_in_the_distribution() -> None:
    changed = dataclasses.replace(note(Outcome.FAILED), distribution="since the last good run (r5) 1 package changed")
    assert "\nPackages  since the last good run (r5) 1 package changed\n" in changed.text
    assert "Packages" not in note(Outcome.FAILED).text


def patched(outcome: Outcome, **more: Any) -> BuildNote:
    """A developer's patch, in a cell whose last build was red and which has an owner."""
    before = Before(number=1, revision="6", passed=False)
    whole = {"patch_of": "geoffroy", "changes": (), "owner": "geoffroy", "before": before, "cell_owner": "c@x.org"}
    return dataclasses.replace(note(outcome), **(whole | more))


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.WARNING, Outcome.FAILED])
def test_the_result_of_a_patch_goes_to_its_developer_and_to_nobody_else(outcome: Outcome) -> None:
    assert recipients(patched(outcome), MAIL) == ("geoffroy@x.org",)
    assert recipients(patched(outcome, patch_of="stranger@"), MAIL) == ()
    assert "your patch: " in patched(outcome).subject
    assert "fixed" not in patched(outcome).subject


def test_a_patch_that_cannot_be_used_is_its_developers_mistake_and_a_fault_of_the_farm_is_the_operators() -> None:
    mistake = patched(Outcome.INFRASTRUCTURE, askers_mistake=True)
    assert recipients(mistake, MAIL) == ("geoffroy@x.org",)
    assert mistake.text.startswith("not tested: what was asked for cannot be used\n")
    assert recipients(patched(Outcome.INFRASTRUCTURE), MAIL) == ("geoffroy@x.org", "op@x.org")


def test_the_first_tier_of_a_patch_is_silent_where_its_cells_begin_now() -> None:
    assert recipients(patched(Outcome.PASSED, goes_on=True), MAIL) == ()
    assert recipients(patched(Outcome.FAILED, goes_on=True), MAIL) == ("geoffroy@x.org",)
    assert recipients(patched(Outcome.CANCELLED), MAIL) == ()


def repeated(outcome: Outcome | None, **second: object) -> BuildNote:
    red = note(Outcome.FAILED, sentence="oscarnode2 panicked")
    said = None if outcome is None else red.verdict.model_copy(update={"outcome": outcome, **second})
    build = None if outcome is None else {"number": 9}
    return dataclasses.replace(
        red, second=Second(build, said, why="gone"), second_url="http://h/9" if build else "", rate=Rate(3, 50)
    )


def test_a_red_that_was_green_when_repeated_is_flaky_and_its_mail_blames_nobody() -> None:
    flaky = repeated(Outcome.PASSED)
    assert recipients(flaky, MAIL) == ("list@x.org",)
    assert bad_logins(flaky, MAIL) == ()
    assert flaky.subject == "[oscar-farm] debian-12-x86_64 r7: flaky: failed at finalize: oscarnode2 panicked"
    assert flaky.text.startswith(
        "flaky: failed at the stage finalize, and passed when it was repeated; it is blamed on no"
    )
    assert "Repeated  build 9 passed\n          http://h/9\n" in flaky.text
    assert "of the last 50 runs of this cell that passed or failed, 3 were red in this way" in flaky.text


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (repeated(Outcome.FAILED), "build 9 failed in the same way"),
        (repeated(Outcome.FAILED, sentence="no DHCP"), "build 9 failed in another way: no DHCP"),
        (repeated(Outcome.INFRASTRUCTURE, sentence="the disk is full"), "build 9 infrastructure: the disk is full"),
        (repeated(None), "gone"),
    ],
)
def test_a_red_that_was_not_green_when_repeated_goes_to_the_authors_with_both_results(
    second: BuildNote, words: str
) -> None:
    assert not second.flaky
    assert recipients(second, MAIL) == ("eric@x.org", "geoffroy@x.org")
    assert second.subject.endswith("failed at finalize: oscarnode2 panicked")
    assert f"Repeated  {words}\n" in second.text


@pytest.mark.parametrize(
    ("outcome", "more", "asked"),
    [
        (Outcome.PASSED, {}, set()),
        (Outcome.PASSED, {"before": Before(3, "6", passed=False)}, {"eric", "geoffroy", "boss"}),
        (Outcome.CANCELLED, {}, set()),
        (Outcome.FAILED, {}, {"eric", "geoffroy", "boss"}),
        (Outcome.FAILED, {"scheduler": "candidate"}, set()),
        (Outcome.FAILED, {"patch_of": "ann"}, {"ann"}),
        (Outcome.PASSED, {"patch_of": "ann", "goes_on": True}, set()),
        (Outcome.INFRASTRUCTURE, {}, set()),
        (Outcome.INFRASTRUCTURE, {"known_already": True}, set()),
    ],
)
def test_only_addresses_that_decide_who_gets_the_mail_are_asked_for(
    outcome: Outcome, more: dict[str, Any], asked: set[str]
) -> None:
    assert people_of(dataclasses.replace(note(outcome), owner="boss", **more), MAIL) == asked


def test_of_an_unstable_cell_no_author_is_asked_for() -> None:
    red = note(Outcome.FAILED)
    red = dataclasses.replace(red, verdict=red.verdict.model_copy(update={"stability": "unstable"}))
    assert people_of(red, MAIL) == set()


def test_a_red_that_its_authors_have_had_a_mail_about_is_told_once_and_a_fix_in_any_case() -> None:
    red = dataclasses.replace(note(Outcome.FAILED), known_to_them=True, cell_owner="owner@x.org")
    assert recipients(red, MAIL) == ()
    fixed = dataclasses.replace(note(Outcome.PASSED), known_to_them=True, before=Before(3, "6", passed=False))
    assert recipients(fixed, MAIL) == ("eric@x.org", "geoffroy@x.org")


def test_a_mail_about_a_commit_of_git_has_its_whole_id_its_branch_and_a_name_in_the_subject() -> None:
    commit, before = "0c35a10cc2" * 4, "dc8ba5dbb6" * 4
    url = "https://h/oscar.git"
    tested = Source(kind="git", url=url, revision=commit, branch="git/oscar/main")
    plain = note(Outcome.FAILED)
    found = dataclasses.replace(
        plain,
        verdict=plain.verdict.model_copy(update={"source": url, "revision": commit, "tested": tested}),
        changes=(ChangeNote(commit, "Ada <ada@x.org>", "Clean up", f"https://h/oscar/commit/{commit}"),),
        before=Before(4, before, passed=True),
    )
    assert found.subject.startswith("[oscar-farm] debian-12-x86_64 g0c35a10cc20c: failed at finalize")
    assert f"Source    {url} g0c35a10cc20c, branch git/oscar/main\n          commit {commit}\n" in found.text
    assert (
        f"Commit    0c35a10cc20c by Ada <ada@x.org>: Clean up\n          https://h/oscar/commit/{commit}\n"
        in found.text
    )
    assert "Before    build 4 (dc8ba5dbb6dc) passed\n" in found.text


@pytest.mark.parametrize(("changes", "known"), [([1], True), ([1, 2], False), ([3], False), ([], False)])
def test_the_authors_of_what_a_merge_brought_have_had_the_mail_only_where_that_merge_was_told(
    changes: list[int], known: bool
) -> None:
    """The build before was for change 1; 2 is a merge of the same author's, which brings somebody else's commits."""
    said = {
        ("builds", 7, "properties"): {CHANGES_OF_A_BUILD: ([1], "Scheduler")},
        **{
            ("changes", number): {
                "revision": "a", "author": author, "comments": "", "revlink": "",
                "properties": {MERGED_AUTHORS: (merged, "Change")} if merged else {},
            }
            for number, author, merged in ((1, "eric", []), (2, "eric", ["bob"]), (3, "geoffroy", []))
        },
    }  # fmt: skip

    async def get(path: Any) -> Any:
        return said[path]

    async def asked() -> bool:
        master = SimpleNamespace(data=SimpleNamespace(get=get))
        return await facts._known_to_all(master, 7, await facts._changes(master, changes))

    assert asyncio.run(asked()) is known
