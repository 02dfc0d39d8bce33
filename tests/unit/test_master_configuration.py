"""The configuration: what checkconfig would find, and the rules that every matrix and site must keep."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.config.errors import ConfigErrors
from buildbot.config.master import FileLoader
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SUCCESS, WARNINGS

from oscar_steps.master.schedulers import is_good_commit
from oscar_steps.matrix import default_profiles, load_matrix
from oscar_steps.verdict import LINT, Stage

ROOT = default_profiles().parent
SITE = """\
[repository]
url = "svn://127.0.0.1/oscar"
[mail]
from = "farm@x.org"
operator = "op@x.org"
[[worker]]
name = "worker1"
"""


def base(directory: Path, text: str = SITE) -> Path:
    (directory / "farm.toml").write_text(text)
    secrets = directory / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "worker-worker1").write_text("secret")
    (secrets / "worker-worker1").chmod(0o600)
    return directory


def load(directory: Path) -> Any:
    return FileLoader(str(directory), str(ROOT / "master.cfg")).loadConfig()


def complaints(directory: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as error:
        load(directory)
    return list(error.value.errors)


def test_every_cell_has_a_builder_that_can_be_forced_and_all_stages_in_their_order(tmp_path: Path) -> None:
    configuration = load(base(tmp_path))
    cells = [cell.name for cell in load_matrix(default_profiles()).cells]
    assert [builder.name for builder in configuration.builders] == [*cells, LINT]
    assert sorted(configuration.schedulers["force"].builderNames) == sorted(cells)
    for builder in configuration.builders[:-1]:
        steps = [step.buildStep().name for step in builder.factory.steps]
        assert steps == ["job", *(stage.value for stage in Stage), "report"]


def test_cells_of_every_commit_and_of_the_night_are_scheduled(tmp_path: Path) -> None:
    schedulers = load(base(tmp_path)).schedulers
    cells = load_matrix(default_profiles()).cells
    assert schedulers["commit"].builderNames == [cell.name for cell in cells if cell.every_commit]
    assert schedulers["nightly"].builderNames == [cell.name for cell in cells if cell.nightly]


def test_only_extract_logs_teardown_and_report_run_after_a_failure(tmp_path: Path) -> None:
    for builder in load(base(tmp_path)).builders[:-1]:
        steps = [step.buildStep() for step in builder.factory.steps]
        always = [step.name for step in steps if step.alwaysRun]
        assert always == ["extract-logs", "teardown", "report"]
        assert all(step.haltOnFailure or step.alwaysRun for step in steps)


def test_a_commit_is_looked_at_first_and_then_goes_on_to_its_cells(tmp_path: Path) -> None:
    configuration = load(base(tmp_path))
    assert configuration.schedulers[LINT].builderNames == [LINT]
    steps = [step.buildStep() for step in configuration.builders[-1].factory.steps]
    assert [step.name for step in steps] == [LINT, "report", "cells"]
    assert steps[-1].schedulerNames == ["commit"]


@pytest.mark.parametrize(
    ("scheduler", "so_far", "goes_on"),
    [
        (LINT, SUCCESS, True),
        (LINT, WARNINGS, True),
        (LINT, EXCEPTION, True),  # a fault of the farm's must not keep a commit from its test
        (LINT, FAILURE, False),
        (LINT, CANCELLED, False),
        (LINT, RETRY, False),
        ("force", SUCCESS, False),
    ],
)
def test_only_what_the_first_tier_finds_keeps_a_commit_from_its_cells(
    scheduler: str, so_far: int, goes_on: bool
) -> None:
    step = SimpleNamespace(getProperty={"scheduler": scheduler}.get, build=SimpleNamespace(results=so_far))
    assert is_good_commit(step) is goes_on


def test_a_worker_has_room_for_the_first_tier_beside_its_clusters(tmp_path: Path) -> None:
    configuration = load(base(tmp_path, SITE + "builds = 2\n"))
    assert configuration.workers[0].max_builds == 3
    for builder in configuration.builders:
        limits = [access.lockid.maxCountForWorker for access in builder.locks]
        assert limits == ([] if builder.name == LINT else [{"worker1": 2}])


def test_nothing_listens_beyond_the_loopback_interface(tmp_path: Path) -> None:
    configuration = load(base(tmp_path))
    assert configuration.www["port"] == "tcp:8010:interface=127.0.0.1"
    assert configuration.protocols == {"pb": {"port": "tcp:9989:interface=127.0.0.1"}}


def test_without_a_login_nobody_may_force_unless_the_site_is_open(tmp_path: Path) -> None:
    assert load(base(tmp_path)).www["authz"].allowRules
    assert not load(base(tmp_path, SITE + "[web]\nopen = true\n")).www["authz"].allowRules


def test_builds_are_never_merged(tmp_path: Path) -> None:
    assert load(base(tmp_path)).collapseRequests is False


def test_a_missing_secret_is_one_sentence_that_says_how_to_create_it(tmp_path: Path) -> None:
    shutil.rmtree(base(tmp_path) / "secrets")
    (said,) = complaints(tmp_path)
    assert f"the secret file {tmp_path}/secrets/worker-worker1 (password of the worker worker1) is missing" in said


def test_a_mistake_in_the_site_or_the_matrix_is_one_sentence_with_file_and_line(tmp_path: Path) -> None:
    (said,) = complaints(base(tmp_path, SITE + "[web]\nprot = 1\n"))
    assert said == f"{tmp_path}/farm.toml:9: web.prot: there is no such setting"
    profiles = tmp_path / "profiles"
    shutil.copytree(default_profiles(), profiles)
    matrix = profiles / "matrix.toml"
    matrix.write_text(matrix.read_text().replace('answers = "debian-12"', 'answers = "nothing"'))
    (said,) = complaints(base(tmp_path, 'profiles = "profiles"\n' + SITE))
    assert "answers 'nothing' does not exist" in said


def test_a_mail_account_needs_its_password_file(tmp_path: Path) -> None:
    (said,) = complaints(base(tmp_path, SITE.replace("[[worker]]", 'user = "farm"\n[[worker]]')))
    assert "secrets/mail-password" in said
