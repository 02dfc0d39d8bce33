"""The matrix names only what exists, and says file and line when it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.job import Job
from oscar_steps.matrix.cells import default_profiles, load_matrix


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    return tmp_path / "profiles"


def change(profiles: Path, old: str, new: str) -> None:
    path = profiles / "matrix.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_shipped_matrix_loads_with_all_that_it_names() -> None:
    matrix = load_matrix(default_profiles())
    for cell in matrix.cells:
        assert matrix.image(cell).packages
        assert matrix.answers(cell).partition_file
        assert "<cluster" in matrix.cluster_xml(cell)
    assert [cell.name for cell in matrix.cells] == ["debian-12-x86_64"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('image = "debian-12-x86_64"', 'image = "debian-99"', r"matrix\.toml:\d+: image 'debian-99' does not exist"),
        ('cluster = "head-and-two-nodes"', 'cluster = "none"', r"cluster 'none' does not exist"),
        (
            "every_commit = true",
            'every_commit = "perhaps"',
            r"matrix\.toml:\d+: cell\.0\.every_commit: give true or false",
        ),
        ("every_commit = true", "evry_commit = true", r"cell\.0\.evry_commit: there is no such setting"),
        ('version = "12"', "version = ", r"matrix\.toml: .*line \d+"),
    ],
)
def test_a_mistake_in_the_matrix_is_told_with_file_and_line(profiles: Path, old: str, new: str, words: str) -> None:
    change(profiles, old, new)
    with pytest.raises(ConfigError, match=words):
        load_matrix(profiles)


def test_the_line_is_the_one_of_the_mistake(profiles: Path) -> None:
    change(profiles, 'cluster = "head-and-two-nodes"', 'cluster = "none"')
    lines = (profiles / "matrix.toml").read_text().splitlines()
    with pytest.raises(ConfigError) as error:
        load_matrix(profiles)
    number = next(n for n, line in enumerate(lines, 1) if line.startswith('cluster = "none"'))
    assert f"matrix.toml:{number}:" in str(error.value)


def test_a_cell_that_is_there_twice_is_refused(profiles: Path) -> None:
    text = (profiles / "matrix.toml").read_text()
    cell = text[text.index("\n[[cell]]") :]
    (profiles / "matrix.toml").write_text(text + "\n" + cell)
    with pytest.raises(ConfigError, match="is there twice"):
        load_matrix(profiles)


def test_a_missing_matrix_and_an_unknown_cell_are_one_sentence(profiles: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no cell 'fedora-6-i386' .*there are: debian-12-x86_64"):
        load_matrix(profiles).cell("fedora-6-i386")
    with pytest.raises(ConfigError, match="no such file"):
        load_matrix(tmp_path / "nowhere")


def test_a_job_survives_writing_and_reading(tmp_path: Path) -> None:
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    job = Job.model_validate(
        {
            "run_id": "a-r1",
            "cell": cell.name,
            "source": {"url": "svn://host/oscar/trunk", "revision": "1"},
            "image": matrix.image(cell),
            "cluster_xml": matrix.cluster_xml(cell),
            "answers": matrix.answers(cell),
        }
    )
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "../x"}'])
def test_a_broken_job_is_one_sentence_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(ConfigError, match=r"job\.json: "):
        Job.load(tmp_path / "job.json")
