"""The matrix names only what exists, and says file and line when it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.job import CellPlan, Job, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix

SOURCE = Source(url="svn://host/oscar/trunk", revision="1")


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    write(tmp_path / "profiles", row())
    return tmp_path / "profiles"


def row(more: str = "", *, version: str = '"12"', architecture: str = '"x86_64"') -> str:
    end = f", {more}" if more else ""
    return f'{{distribution = "debian", version = {version}, architecture = {architecture}{end}}}'


def write(profiles: Path, *rows: str, top: str = "") -> None:
    """A matrix whose first entry is on line 6, less by `top`."""
    lines = [
        'defaults.image = "{distribution}-{version}-{architecture}"',
        'defaults.cluster = "head-and-two-nodes"',
        'defaults.answers = "debian-12"',
        "variants = {network = {boot = 'network'}, many = {nodes = 4}}",
        "cell = [",
        *(f"    {row}," for row in rows),
        "]",
    ]
    (profiles / "matrix.toml").write_text(top + "\n".join(lines) + "\n")


def complaint(profiles: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_matrix(profiles)
    assert not error.value.hint
    return error.value.explain().removeprefix(f"{profiles}/")


def test_the_shipped_matrix_loads_with_all_that_it_names() -> None:
    matrix = load_matrix(default_profiles())
    for cell in matrix.cells:
        assert matrix.image(cell).packages
        assert matrix.answers(cell).partition_file
        assert "<cluster" in matrix.cluster_xml(cell)
        plan = CellPlan.of(matrix, cell, Timeouts())
        assert plan.job(f"{cell.name}-r1-b1", SOURCE).cell == cell.name
    assert matrix.cells[0].name == "debian-12-x86_64"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('image = "debian-99"', "image 'debian-99' does not exist ({p}/images/debian-99.toml is missing); the cell"),
        ('cluster = "none"', "cluster 'none' does not exist ({p}/clusters/none.xml is missing); the cell"),
        ('answers = "fedora"', "answers 'fedora' does not exist ({p}/answers/fedora.toml is missing); the cell"),
    ],
)
def test_a_file_that_is_missing_is_named_with_the_line_the_cell_and_the_files_there_are(
    profiles: Path, more: str, words: str
) -> None:
    write(profiles, row(), row(more, version='"13"'))
    if not more.startswith("image"):
        shutil.copy(profiles / "images/debian-12-x86_64.toml", profiles / "images/debian-13-x86_64.toml")
    said = complaint(profiles)
    assert said.startswith(f"matrix.toml:7: {words.format(p=profiles)} debian-13-x86_64 needs it")
    folder, ending = ("clusters", ".xml") if more.startswith("cluster") else ("images", ".toml")
    folder = "answers" if more.startswith("answers") else folder
    first = sorted(path.stem for path in (profiles / folder).iterdir() if path.suffix == ending)[0]
    assert f"there are: {first}" in said


def test_the_line_of_a_pattern_is_said_beside_the_line_of_the_entry_that_it_does_not_fit(profiles: Path) -> None:
    write(profiles, row(), row(version='"99"'))
    said = complaint(profiles)
    assert said.startswith("matrix.toml:7: image 'debian-99-x86_64' does not exist ")
    assert "the cell debian-99-x86_64 needs it (image is set on line 1)" in said


def test_a_folder_and_a_link_to_nowhere_are_no_files(profiles: Path) -> None:
    (profiles / "images/a.toml").mkdir()
    (profiles / "images/b.toml").symlink_to("nowhere")
    for name in "ab":
        write(profiles, row(f'image = "{name}"'))
        assert f"image '{name}' does not exist" in complaint(profiles)


def test_nodes_that_boot_from_the_network_need_a_private_network(profiles: Path) -> None:
    cluster = profiles / "clusters/head-and-two-nodes.xml"
    text = cluster.read_text().replace(
        "<nic1><type>VLAN</type><mac>52:54:00:00:00:12", "<nic1><type>TUN/TAP</type><mac>52:54:00:00:00:12"
    )
    cluster.write_text(text)
    load_matrix(profiles)
    write(profiles, row('variants = ["network"]'))
    line = text[: text.index("<name>oscarnode2")].count("\n")
    assert complaint(profiles) == (
        'matrix.toml:4: boot = "network" of the cell debian-12-x86_64.network needs a NIC of the type VLAN in every '
        f"compute node; oscarnode2 has none ({cluster}:{line})"
    )


def test_more_nodes_than_the_cluster_has_need_a_last_node_with_a_number(profiles: Path) -> None:
    cluster = profiles / "clusters/head-and-two-nodes.xml"
    cluster.write_text(cluster.read_text().replace("<name>oscarnode2<", "<name>last<"))
    write(profiles, row("nodes = 2"))
    load_matrix(profiles)
    write(profiles, row('variants = ["many"]'))
    said = complaint(profiles)
    assert said.startswith("matrix.toml:4: nodes = 4 of the cell debian-12-x86_64.many makes more nodes than ")
    assert said.endswith("has (2); the last one's name, 'last', has to end in a number for that")


@pytest.mark.parametrize(("labels", "line"), [('labels = ["nightly"]', 7), ("", 7)])
def test_a_cell_whose_image_is_unproven_does_not_run_by_itself(profiles: Path, labels: str, line: int) -> None:
    recipe = profiles / "images/debian-12-x86_64.toml"
    other = profiles / "images/other.toml"
    other.write_text(recipe.read_text().replace("debian-12-x86_64", "other") + "unproven = true\n")
    image = 'image = "other", variants = ["network"]'
    write(profiles, row(), row(", ".join(filter(None, (image, labels))), version='"13"'))
    said = complaint(profiles)
    assert said.startswith(
        f"matrix.toml:{line}: labels: the image other is unproven, so the cell debian-13-x86_64 must not run by itself"
    )
    assert said.endswith(f"; write labels = [], or unproven = false into {other} after a green run")
    write(profiles, row(), row(f"{image}, labels = []", version='"13"'))
    assert [cell.labels for cell in load_matrix(profiles).cells] == [("nightly",), (), ()]


def test_a_missing_matrix_and_an_unknown_cell_are_one_sentence(profiles: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no cell 'fedora-6-i386' .*there are: debian-12-x86_64"):
        load_matrix(profiles).cell("fedora-6-i386")
    with pytest.raises(ConfigError, match="no such file"):
        load_matrix(tmp_path / "nowhere")


def test_every_file_is_read_once_however_many_cells_name_it(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = 'image = "debian-12-x86_64", labels = [], variants = ["network", "many"]'
    write(profiles, row(settings, version='["1", "2", "3"]'))
    matrix = load_matrix(profiles)
    read: list[str] = []
    monkeypatch.setattr("oscar_steps.tomlfile.read_regular", lambda path: read.append(path.name) or path.read_bytes())
    plans = [CellPlan.of(matrix, cell, Timeouts()) for cell in matrix.cells]
    assert len(plans) == 9
    assert len(read) == len(set(read))
    assert {"debian-12-x86_64.toml", "debian-12.toml"} <= set(read)
    assert plans[0].image is plans[8].image


def test_an_image_of_another_architecture_is_refused(profiles: Path) -> None:
    write(profiles, row('image = "debian-12-x86_64"', architecture='"i386"'))
    matrix = load_matrix(profiles)
    with pytest.raises(ConfigError) as error:
        matrix.image(matrix.cells[0])
    said = f"{profiles}/images/debian-12-x86_64.toml: this image is for x86_64, but the cell debian-12-i386 is not"
    assert str(error.value).startswith(said)


def test_a_job_survives_writing_and_reading(tmp_path: Path) -> None:
    matrix = load_matrix(default_profiles())
    job = CellPlan.of(matrix, matrix.cells[0], Timeouts()).job("a-r1", SOURCE)
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "../x"}'])
def test_a_broken_job_is_one_sentence_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(ConfigError, match=r"job\.json: "):
        Job.load(tmp_path / "job.json")
