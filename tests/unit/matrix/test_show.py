"""`python -m oscar_steps.matrix`: a table, JSON, where each value comes from, and what another matrix has instead."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from oscar_steps.matrix.__main__ import main
from oscar_steps.matrix.cells import default_profiles

MATRIX = """\
defaults.image = "debian-{version}-{architecture}"
defaults.cluster = "head-and-two-nodes"
defaults.answers = "debian-12"
distributions.almalinux = {compatible = "rhel-{version}", stability = "unstable"}
variants.network = {boot = "network", timeout_factor = 1.5}
cell = [
    {distribution = "debian", version = "12", architecture = "x86_64", labels = ["smoke", "nightly"]},
    {distribution = "almalinux", version = "12", architecture = "x86_64", nodes = 3, variants = ["network"]},
]
"""
Said = Callable[..., str]


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    (tmp_path / "profiles/matrix.toml").write_text(MATRIX)
    return tmp_path / "profiles"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], profiles: Path) -> Said:
    def run(*arguments: object, status: int = 0) -> str:
        assert main([str(profiles), *map(str, arguments)]) == status
        out, err = capsys.readouterr()
        assert not (out and err)
        return out + err

    return run


def test_the_table_has_a_line_for_each_cell_with_both_of_oscars_names(said: Said) -> None:
    head, debian, alma, network = said().splitlines()
    assert head.split()[:3] == ["CELL", "LABELS", "STABILITY"]
    assert debian.split()[:3] == ["debian-12-x86_64", "smoke,nightly", "stable"]
    assert network.split()[:6] == ["almalinux-12-x86_64.network", "nightly", "unstable", "network", "3", "-"]
    assert alma.split()[-2:] == ["almalinux-12-x86_64", "rhel-12-x86_64"]


def test_a_cell_with_an_unproven_image_is_marked(said: Said, profiles: Path) -> None:
    recipe = profiles / "images/debian-12-x86_64.toml"
    recipe.write_text(recipe.read_text() + "unproven = true\n")
    matrix = profiles / "matrix.toml"
    labels = 'labels = ["smoke", "nightly"]'
    matrix.write_text("defaults.labels = []\n" + matrix.read_text().replace(labels, "labels = []"))
    assert all("debian-12-x86_64 (unproven)" in line for line in said().splitlines()[1:])
    assert [cell["unproven"] for cell in json.loads(said("--json"))] == [True, True, True]


def test_programs_get_the_same_as_json(said: Said) -> None:
    cells = {cell["name"]: cell for cell in json.loads(said("--json"))}
    network = cells["almalinux-12-x86_64.network"]
    assert (network["variant"], network["boot"], network["nodes"]) == ("network", "network", 3)
    assert network["timeout_factor"] == 1.5
    assert (network["labels"], network["stability"], network["compatible"]) == (
        ["nightly"],
        "unstable",
        "rhel-12-x86_64",
    )


def test_each_value_says_the_line_that_it_comes_from(said: Said) -> None:
    lines = {line.split()[0]: line for line in said("--why", "almalinux-12-x86_64.network").splitlines()}
    assert lines["image"].endswith('debian-12-x86_64  (defaults "debian-{version}-{architecture}", line 1)')
    assert lines["boot"].endswith("network  (variants.network, line 5)")
    assert lines["nodes"].endswith("3  (entry, line 8)")
    assert lines["stability"].endswith("unstable  (distributions.almalinux, line 4)")
    assert lines["labels"].endswith("nightly  (the farm's default)")
    assert lines["hypervisor"].endswith("as the cluster profile says  (no setting)")
    assert lines["owner"].endswith("none  (no setting)")
    as_json = json.loads(said("--json", "--why", "debian-12-x86_64"))
    assert as_json["compatible"] == {"value": "debian-12", "from": "as real"}


def test_the_difference_says_what_comes_goes_and_changes(said: Said, profiles: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(profiles, old)
    assert said("--diff", old) == "no cell comes, goes or changes\n"
    text = MATRIX.replace("nodes = 3", "nodes = 4").replace('"debian", version = "12"', '"debian", version = "13"')
    (old / "matrix.toml").write_text(text)
    (old / "answers/debian-12.toml").write_text('partition_file = "other"\n')
    answers = f"answers: {old}/answers/debian-12.toml -> {profiles}/answers/debian-12.toml, whose content differs"
    assert said("--diff", old).splitlines() == [
        "+ debian-12-x86_64",
        "- debian-13-x86_64",
        "~ almalinux-12-x86_64",
        "    nodes: 4 -> 3",
        f"    {answers}",
        "~ almalinux-12-x86_64.network",
        "    nodes: 4 -> 3",
        f"    {answers}",
    ]
    alone = tmp_path / "alone.toml"
    shutil.copy(old / "matrix.toml", alone)
    found = json.loads(said("--json", "--diff", alone))
    assert found["change"]["almalinux-12-x86_64"] == {"nodes": {"from": "4", "to": "3"}}
    assert [cell["name"] for cell in found["come"]] == ["debian-12-x86_64"]


def test_a_mistake_is_one_sentence_and_64(said: Said, profiles: Path) -> None:
    assert said("--why", "nothing", status=64).startswith("there is no cell 'nothing' in ")
    assert said("--diff", profiles / "nowhere", status=64) == f"{profiles}/nowhere: there is no such file\n"
    assert said("--frobnicate", status=64).endswith("error: unrecognized arguments: --frobnicate\n")
    answers = profiles / "answers/debian-12.toml"
    answers.write_text("partition_fil = 1\n")
    assert said(status=64).startswith(f"{answers}:1: ")
    (profiles / "matrix.toml").write_text("cell = 5")
    assert said(status=64) == f'{profiles}/matrix.toml:1: cell: give a list, such as ["one", "two"]\n'


def test_help_says_what_each_option_does_and_the_exit_statuses(said: Said) -> None:
    text = said("--help")
    assert "--why CELL" in text
    assert "--diff OLD" in text
    assert "Exit status: 0, or 64" in text


def test_a_reader_that_goes_away_is_no_traceback(profiles: Path) -> None:
    versions = ", ".join(f'"{number}"' for number in range(3000))
    row = f'{{distribution = "many", version = [{versions}], architecture = "x86_64", image = "debian-12-x86_64"}}'
    (profiles / "matrix.toml").write_text(MATRIX.replace("cell = [\n", f"cell = [\n{row},\n"))
    with subprocess.Popen(
        [sys.executable, "-m", "oscar_steps.matrix", profiles], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        assert command.stdout
        assert command.stderr
        assert command.stdout.readline().startswith(b"CELL")
        command.stdout.close()
        assert command.stderr.read() == b""
        assert command.wait(60) == 0
