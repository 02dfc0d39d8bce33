"""Labels decide when a cell runs, also all cells of a label at once; an unstable cell's red blames no commit."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from buildbot.schedulers.base import ReconfigurableBaseScheduler as BaseScheduler
from buildbot.schedulers.forcesched import CollectedValidationError, ForceScheduler, ValidationError
from twisted.internet import defer

from oscar_steps.job import CellPlan, Source
from oscar_steps.master.builders import build_builders, build_plans, cell_factories
from oscar_steps.master.reports.facts import Before, BuildNote, ChangeNote
from oscar_steps.master.schedules.all import build_schedulers
from oscar_steps.master.schedules.force import AS_BUTTON, LABEL, branch_field, button
from oscar_steps.master.schedules.names import FIND
from oscar_steps.master.steps.report import headline
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.repositories import Git
from oscar_steps.site import Mail, Site
from oscar_steps.verdict import LINT, Category, Outcome, Stability, Stage, Verdict
from oscar_steps.words import UNSTABLE, Label
from tests.unit.master.books import bad_logins, recipients

MATRIX = """\
defaults = {image = "debian-12-x86_64", cluster = "head-and-two-nodes", answers = "debian-12"}
variants.network = {boot = "network", labels = ["nightly", "weekly"], hypervisor = "Kvm"}
[[cell]]
distribution = "a"
version = "1"
architecture = "x86_64"
labels = ["smoke", "nightly", "candidate"]
variants = ["network"]
[[cell]]
distribution = "a"
version = "2"
architecture = "x86_64"
labels = ["weekly", "candidate"]
nodes = 4
timeout_factor = 2
[[cell]]
distribution = "a"
version = "3"
architecture = "x86_64"
labels = []
stability = "unstable"
owner = "eric@x.org"
"""
MAIL = Mail.model_validate(
    {"from": "farm@x.org", "operator": "op@x.org", "domain": "x.org", "developers": "list@x.org"}
)


def site(weekly: str = "wednesday") -> Site:
    schedule = {"weekly": weekly}
    return Site.model_validate(
        {"repository": {"url": "svn://h/oscar"}, "worker": [{"name": "w"}], "schedule": schedule}
    )


@pytest.fixture
def plans(tmp_path: Path) -> Sequence[CellPlan]:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    (tmp_path / "profiles/matrix.toml").write_text(MATRIX)
    return build_plans(site(), load_matrix(tmp_path / "profiles"))


def starts(made: Sequence[Any]) -> dict[str, list[str]]:
    return {each.name: each._config_kwargs["builderNames"] for each in made}


def test_each_label_has_its_scheduler_and_starts_its_cells_alone(plans: Sequence[CellPlan]) -> None:
    found = starts(build_schedulers(site(), plans))
    every = ["a-1-x86_64", "a-1-x86_64.network", "a-2-x86_64", "a-3-x86_64"]
    assert found == {
        "force": every,
        FIND: every,
        LINT: [LINT],
        "commit": ["a-1-x86_64"],
        "nightly": ["a-1-x86_64", "a-1-x86_64.network"],
        "weekly": ["a-2-x86_64"],  # the other weekly one has its night in any case
    }


def test_a_label_that_no_cell_has_makes_no_scheduler(plans: Sequence[CellPlan]) -> None:
    assert [*starts(build_schedulers(site(), plans[3:]))] == ["force", FIND, LINT]


def test_the_weekly_cells_run_in_one_night_of_the_week(plans: Sequence[CellPlan]) -> None:
    weekly = build_schedulers(site("wednesday"), plans)[-1]
    settings = weekly._config_kwargs
    weekly.hour, weekly.minute, weekly.dayOfWeek = settings["hour"], settings["minute"], settings["dayOfWeek"]
    last = datetime(2026, 11, 29, 2, 30).timestamp()
    nights = []
    for _week in range(2):
        following: list[float] = []
        weekly.getNextBuildTime(last).addCallback(following.append)
        last = following[0]
        nights.append(f"{datetime.fromtimestamp(last):%a %d %H:%M}")
    assert nights == ["Wed 02 02:30", "Wed 09 02:30"]


def test_builders_are_tagged_by_label_and_say_that_a_cell_is_unstable(plans: Sequence[CellPlan]) -> None:
    builders = {builder.name: builder for builder in build_builders(site(), tuple(plans))}
    assert builders["a-1-x86_64.network"].tags == ["a", "x86_64", "network", "nightly", "weekly"]
    assert builders["a-3-x86_64"].tags == ["a", "x86_64", "unstable"]
    assert UNSTABLE in builders["a-3-x86_64"].description
    assert UNSTABLE not in builders["a-1-x86_64"].description


def test_the_page_of_a_cell_with_an_unproven_image_says_so(plans: Sequence[CellPlan]) -> None:
    plan = plans[-1]
    unproven = dataclasses.replace(plan, image=plan.image.model_copy(update={"unproven": True}))
    proven, marked = build_builders(site(), (plans[0], unproven))[:2]
    assert "unproven" in marked.tags and "unproven" not in proven.tags
    assert "its image is unproven" in marked.description and "unproven" not in proven.description


@pytest.fixture
def forced(plans: Sequence[CellPlan], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fill in the form: which builders are asked for."""
    force = next(each for each in build_schedulers(site(), plans) if each.name == "force")
    asked: list[Any] = []

    def asks(_self: Any, _owner: Any, builderNames: Any = None, builderid: Any = None, **_wishes: Any) -> Any:
        asked.append(builderNames or builderid)
        return defer.succeed(None)

    monkeypatch.setattr(ForceScheduler, "force", asks)
    monkeypatch.setattr(ForceScheduler, "reconfigService", lambda _self, **_settings: defer.succeed(None))
    force.reconfigService(**force._config_kwargs)

    def form(**fields: str) -> Any:
        force.force("ann", builderid=7, **{name: [value] for name, value in fields.items()})
        return asked[-1]

    return form


def test_a_person_starts_one_cell_or_all_cells_of_a_label(forced: Any) -> None:
    assert forced(revision="") == 7
    assert forced(label=AS_BUTTON, revision="") == 7
    assert forced(label="candidate", revision="12") == ["a-1-x86_64", "a-2-x86_64"]
    assert forced(label="weekly", revision="12") == ["a-1-x86_64.network", "a-2-x86_64"]


def test_all_cells_of_a_label_get_the_same_revision(forced: Any) -> None:
    with pytest.raises(CollectedValidationError) as error:
        forced(label="candidate", revision=" ")
    assert error.value.errors["revision"].startswith("give a revision")


@pytest.mark.parametrize("branch", ["git/oscar/a\ud800", None, 5, {"a": 1}, "git/oscar/ma\u202ein"])
def test_what_is_no_name_of_a_branch_is_refused_in_a_sentence_whatever_a_script_sends(branch: Any) -> None:
    table = {"git": [{"name": "oscar", "url": "git://h/o"}], "worker": [{"name": "w"}]}
    form = branch_field(Site.model_validate(table))
    assert form.parse_from_arg("git/oscar/caf\u00e9") == "git/oscar/caf\u00e9"
    with pytest.raises(ValidationError, match="is not valid; give one of"):
        form.parse_from_arg(branch)


@pytest.mark.parametrize("reason", ["x" * 151, "a\x00b", "a\ud800b"])
def test_a_reason_that_a_database_does_not_take_is_refused(reason: str) -> None:
    form = button(site(), ["a"], {label: ["a"] for label in Label})._config_kwargs["reason"]
    assert form.parse_from_arg("why not: ünïcode,\ntwo lines") == "why not: ünïcode,\ntwo lines"
    with pytest.raises(ValidationError, match="is not valid; give at most 150 letters"):
        form.parse_from_arg(reason)


@pytest.mark.parametrize(
    ("branch", "revision", "why"),
    [
        ("git/oscar/main", "0a1b2c3", ""),
        ("git/oscar/topic/x", "rel-5.1", ""),
        ("git/oscar/main", "", ""),
        ("trunk", "12", ""),
        ("trunk", "0a1b2c3", "give the number of a revision"),
        ("git/oscar/main", "-rf", "a commit's id or a tag"),
        ("git/other/main", "", "give one of trunk, branches/NAME, tags/NAME, git/oscar/BRANCH"),
        ("git/oscar/a b", "", "give one of"),
    ],
)
def test_a_person_names_a_branch_of_git_and_a_revision_of_its_kind(
    plans: Sequence[CellPlan], monkeypatch: pytest.MonkeyPatch, branch: str, revision: str, why: str
) -> None:
    both = site().model_copy(update={"git": (Git(name="oscar", url="git://h/oscar"),)})
    force = next(each for each in build_schedulers(both, plans) if each.name == "force")
    made: list[Any] = []
    monkeypatch.setattr(
        type(force), "addBuildsetForSourceStampsWithDefaults", lambda _self, **said: made.extend(said["sourcestamps"])
    )
    monkeypatch.setattr(BaseScheduler, "reconfigService", lambda _self, **_settings: defer.succeed(None))
    monkeypatch.setattr(type(force), "master", None)
    force.reconfigService(**force._config_kwargs)
    done = defer.ensureDeferred(force.force("ann", builderNames=["a-1-x86_64"], branch=[branch], revision=[revision]))
    failed: list[Any] = []
    done.addErrback(failed.append)
    assert done.called
    said = str(failed[0].value.errors) if failed else ""
    assert why in said and bool(why) is bool(said), said
    if not why:
        (stamp,) = made
        repository = "git://h/oscar" if branch.startswith("git/") else "svn://h/oscar"
        assert (stamp["branch"], stamp["revision"], stamp["repository"]) == (branch, revision, repository)


def test_the_form_offers_the_labels_that_cells_have(plans: Sequence[CellPlan]) -> None:
    force = next(each for each in build_schedulers(site(), plans) if each.name == "force")
    which = next(field for field in force._config_kwargs["properties"] if field.name == LABEL)
    assert which.choices == [AS_BUTTON, "smoke", "nightly", "weekly", "candidate"]


def test_a_cells_settings_reach_its_job_and_a_persons_wishes_come_before_them(plans: Sequence[CellPlan]) -> None:
    source = Source(url="svn://h/oscar/trunk", revision="1")
    _plain, network, four, unstable = plans
    assert (network.job("r", source).boot, network.job("r", source).hypervisor) == ("network", "Kvm")
    assert network.job("r", source, boot="cdrom").boot == "cdrom"
    assert (four.job("r", source).nodes, four.job("r", source, nodes=1).nodes) == (4, 1)
    assert unstable.job("r", source).stability is Stability.UNSTABLE
    one, two = site().timeouts, four.job("r", source).timeouts
    assert {getattr(two, name) / value for name, value in one if name not in ("lease", "room")} == {2.0}
    assert (two.lease, two.room) == (one.lease, one.room)


def test_a_stage_of_a_slow_cell_may_take_longer_before_the_master_stops_it(plans: Sequence[CellPlan]) -> None:
    factories = cell_factories(plans, site())
    limits = [
        {step.buildStep().maxTime for step in factory.steps if step.buildStep().name in [*Stage]}
        for factory in (factories[plan.cell.timeout_factor] for plan in plans[1:3])
    ]
    assert limits == [{4 * 3600}, {8 * 3600}]


def note(outcome: Outcome, stability: Stability = Stability.UNSTABLE, *, cell_owner: str = "eric@x.org") -> BuildNote:
    verdict = Verdict(
        run_id="c-r7-b1", cell="a-3-x86_64", source="svn://h/oscar/trunk", revision="7", outcome=outcome,
        sentence="the cluster test failed", stage=Stage.FINALIZE, stability=stability,
    )  # fmt: skip
    changes = (ChangeNote("7", "geoffroy", "Fix"),)
    return BuildNote(
        verdict=verdict, scheduler="commit", owner="", changes=changes, before=None, build_url="http://h/", base="http://h/",
        has_files=True, cell_owner=cell_owner,
    )  # fmt: skip


def test_the_red_of_an_unstable_cell_goes_to_the_list_and_the_cells_owner_and_to_no_committer() -> None:
    assert recipients(note(Outcome.FAILED), MAIL) == ("list@x.org", "eric@x.org")
    assert recipients(note(Outcome.FAILED, cell_owner=""), MAIL) == ("list@x.org",)
    operator_alone = MAIL.model_copy(update={"developers": ""})
    assert recipients(note(Outcome.FAILED, cell_owner=""), operator_alone) == ("op@x.org",)


def test_the_red_of_a_stable_cell_goes_to_the_committer_and_the_cells_owner() -> None:
    assert recipients(note(Outcome.FAILED, Stability.STABLE), MAIL) == ("geoffroy@x.org", "eric@x.org")


def test_an_unstable_cell_that_passes_writes_to_nobody_but_when_it_is_fixed() -> None:
    always = MAIL.model_copy(update={"always": True})
    green = note(Outcome.PASSED)
    assert recipients(green, always) == ()
    fixed = dataclasses.replace(green, before=Before(6, "6", passed=False))
    assert recipients(fixed, always) == ("list@x.org", "eric@x.org")
    assert recipients(note(Outcome.PASSED, Stability.STABLE), always) == ("geoffroy@x.org", "eric@x.org")


def test_a_committer_whose_address_cannot_be_used_is_no_trouble_of_an_unstable_cell() -> None:
    odd = {"changes": (ChangeNote("7", "ge off", "Fix"),)}
    assert bad_logins(dataclasses.replace(note(Outcome.FAILED, Stability.STABLE), **odd), MAIL)
    assert not bad_logins(dataclasses.replace(note(Outcome.FAILED), **odd), MAIL)


def test_the_owner_hears_of_a_broken_distribution_and_not_of_a_broken_host() -> None:
    purple = note(Outcome.INFRASTRUCTURE, Stability.STABLE)
    for category, expected in ((Category.DISTRIBUTION, ("op@x.org", "eric@x.org")), (Category.HOST, ("op@x.org",))):
        verdict = purple.verdict.model_copy(update={"category": category})
        assert recipients(dataclasses.replace(purple, verdict=verdict), MAIL) == expected


def test_who_forced_an_unstable_cell_gets_its_result() -> None:
    forced = dataclasses.replace(note(Outcome.FAILED), owner="ann@x.org", changes=(), scheduler="force")
    assert recipients(forced, MAIL) == ("ann@x.org", "eric@x.org")


def test_mail_and_page_say_that_the_cell_is_unstable() -> None:
    red = note(Outcome.FAILED)
    assert red.text.splitlines()[0] == f"failed at the stage finalize; {UNSTABLE}"
    assert headline(red.verdict) == "failed at finalize (unstable cell): the cluster test failed"
    assert "unstable" not in note(Outcome.FAILED, Stability.STABLE).text
    assert "unstable" not in headline(note(Outcome.PASSED).verdict)
