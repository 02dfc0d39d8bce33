"""Entries make a product of cells, less what they exclude; each mistake has its line and says what would be right."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.cell import Cell
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.rows import MOST_CELLS, MatrixText
from oscar_steps.words import Label, Stability

TOP = """\
defaults.image = "{distribution}-{version}-{architecture}"
defaults.cluster = "two"
defaults.answers = "all"
distributions.debian-testing = {stability = "unstable", real = "debian-14"}
distributions.almalinux = {compatible = "rhel-{version}", labels = ["weekly"]}
variants.network = {boot = "network", labels = []}
variants.four = {nodes = 4, timeout_factor = 2}
"""
PLAIN = '{distribution = "debian", version = "testing", architecture = "x86_64"}'
ALMA = '{distribution = "almalinux", version = ["9", "10"], architecture = "x86_64"}'


def read(tmp_path: Path, *rows: str, top: str = TOP) -> dict[str, Cell]:
    path = tmp_path / "matrix.toml"
    path.write_text(f"{top}cell = [\n" + "".join(f"    {row},\n" for row in rows) + "]\n", encoding="utf-8")
    return {name: made.cell for name, made in MatrixText(path).made.items()}


def complaint(tmp_path: Path, *rows: str, top: str = TOP) -> str:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, *rows, top=top)
    said = error.value.explain().removeprefix(f"{tmp_path}/")
    assert "\n" not in said
    return said


def entry(more: str) -> str:
    return f'{{distribution = "debian", version = ["11", "12", "testing"], architecture = ["x86_64", "i386"], {more}}}'


def test_one_entry_is_the_product_of_its_axes_less_what_it_excludes(tmp_path: Path) -> None:
    exclude = 'exclude = [{version = "testing", architecture = "i386"}, {version = ["11"], architecture = "x86_64"}]'
    names = read(tmp_path, entry(exclude), ALMA)
    assert [*names] == [
        "debian-11-i386", "debian-12-x86_64", "debian-12-i386", "debian-testing-x86_64",
        "almalinux-9-x86_64", "almalinux-10-x86_64",
    ]  # fmt: skip


_WORDS = st.lists(st.from_regex(r"\A[a-z0-9]{1,4}\Z"), min_size=1, max_size=4, unique=True)
_ARCHITECTURES = st.lists(
    st.sampled_from(["x86_64", "i386", "aarch64", "ppc64le"]), min_size=1, max_size=4, unique=True
)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), distributions=_WORDS, versions=_WORDS, architectures=_ARCHITECTURES, variants=st.booleans())
def test_an_entry_equals_a_plain_product_with_exclusions(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    distributions: list[str],
    versions: list[str],
    architectures: list[str],
    variants: bool,
) -> None:
    axes = {"distribution": distributions, "version": versions, "architecture": architectures}
    places = [*product(*axes.values())]
    one = st.fixed_dictionaries({}, optional={axis: st.sampled_from(values) for axis, values in axes.items()})
    exclusions = data.draw(st.lists(one, max_size=3))
    named = [dict(zip(axes, place, strict=True)) for place in places]
    left = ["-".join(cell.values()) for cell in named if not any(gone.items() <= cell.items() for gone in exclusions)]

    def table(values: dict[str, str]) -> str:
        return "{" + ", ".join(f'{key} = "{value}"' for key, value in values.items()) + "}"

    listed = ", ".join(f"{axis} = {json.dumps(values)}" for axis, values in axes.items())
    chosen = json.dumps(["four"] if variants else [])
    row = f"{{{listed}, exclude = [{', '.join(map(table, exclusions))}], variants = {chosen}}}"
    folder = tmp_path_factory.mktemp("matrix")
    top = "\n".join(line for line in TOP.splitlines() if not line.startswith("distributions")) + "\n"
    if not left:
        assert "excludes all cells" in complaint(folder, row, top=top)
        return
    ends = ("", ".four") if variants else ("",)
    assert [*read(folder, row, top=top)] == [name + end for name in left for end in ends]


def test_the_last_layer_that_has_a_setting_counts(tmp_path: Path) -> None:
    cells = read(tmp_path, entry('variants = ["network", "four"], timeout_factor = 3'), ALMA)
    plain, network, four = (cells[f"debian-12-x86_64{end}"] for end in ("", ".network", ".four"))
    assert (plain.labels, plain.boot, plain.nodes, plain.timeout_factor) == ((Label.NIGHTLY,), None, None, 3)
    assert (network.labels, network.boot, network.timeout_factor) == ((), "network", 3)
    assert (four.labels, four.nodes, four.timeout_factor) == ((Label.NIGHTLY,), 4, 2)
    testing = cells["debian-testing-i386.four"]
    assert (testing.stability, testing.real, testing.compatible) == (Stability.UNSTABLE, "debian-14", "debian-14")
    assert plain.stability is Stability.STABLE
    alma = cells["almalinux-9-x86_64"]
    assert (alma.real, alma.compatible, alma.labels) == ("almalinux-9", "rhel-9", (Label.WEEKLY,))
    assert alma.image == "almalinux-9-x86_64"
    stable = read(tmp_path, PLAIN.replace("}", ', stability = "stable"}'), ALMA)
    assert stable["debian-testing-x86_64"].stability is Stability.STABLE, "the entry comes after its distribution"


@pytest.mark.parametrize("version", ["testing", "unstable", "24.04", "15.6", "42.3", "9"])
def test_versions_of_all_distributions_are_legal(tmp_path: Path, version: str) -> None:
    row = f'{{distribution = "redhat-el", version = "{version}", architecture = "x86_64"}}'
    assert f"redhat-el-{version}-x86_64" in read(tmp_path, row, PLAIN, ALMA)


OLD = "cell.0.every_commit: every_commit and nightly are labels now;"
LONG = "a" * 60
_MISTAKES = [
    (entry('labels = ["nightly", "smok"]'), "cell.0.labels.1: Input should be 'smoke', 'nightly', 'weekly'"),
    (entry('labels = ["smoke", "smoke"]'), "cell.0.labels: 'smoke' is there twice; leave one out"),
    (entry('lables = ["smoke"]'), "cell.0.lables: there is no such setting"),
    (entry("every_commit = true"), f'{OLD} in place of every_commit write labels = ["smoke", "nightly"]'),
    (entry("every_commit = true, nightly = false"),
     f'{OLD} in place of every_commit and nightly write labels = ["smoke"]'),
    (entry("nightly = false"), f"{OLD.replace('0.every_commit', '0.nightly')} in place of nightly write labels = []"),
    (entry('stability = "shaky"'), "cell.0.stability: Input should be 'stable' or 'unstable'"),
    (entry('owner = "eric"'), "cell.0.owner: 'eric' is not a mail address; it has to be USER@HOST"),
    (entry("timeout_factor = 0"), "cell.0.timeout_factor: Input should be greater than or equal to 0.1"),
    (entry("timeout_factor = inf"), "cell.0.timeout_factor: this number cannot be used"),
    (entry("nodes = 0"), "cell.0.nodes: Input should be greater than or equal to 1"),
    (entry('boot = "pxe"'), "cell.0.boot: Input should be 'cdrom' or 'network'"),
    (entry('hypervisor = "qemu"'), "cell.0.hypervisor: Input should be 'Qemu', 'Kvm', 'Xen',"),
    (entry('image = "{distro}-{version}"'), "cell.0.image: {distro} is not a placeholder; there are {distribution},"),
    (entry('image = "{version"'), "cell.0.image: '{version' has a brace without its other one"),
    (entry('image = "{}"'), "cell.0.image: {} is not a placeholder"),
    (entry('image = "../../etc/passwd"'), "cell.0.image: '../../etc/passwd' is not a name; write letters, digits"),
    (entry('cluster = ".."'), "cell.0.cluster: '..' is not a name"),
    (entry('answers = ""'), "cell.0.answers: '' is not a name"),
    (entry('answers = "débian"'), "cell.0.answers: 'd\\xe9bian' is not a name"),
    (entry('image = "a\\u0007b"'), "cell.0.image: the character '\\x07' cannot be in a setting; leave it out"),
    (entry('variants = ["netwrok"]'), "cell.0.variants.0: the variant 'netwrok' is not in [variants]; there are:"),
    (entry('variants = ["four", "four"]'), "cell.0.variants: 'four' is there twice"),
    (entry('exclude = [{version = "13"}]'), "cell.0.exclude.0: this excludes no cell of its entry; take it out, or"),
    (entry("exclude = [{}]"), "cell.0.exclude: this excludes all cells of its entry; take the entry out"),
    (entry('exclude = [{verison = "12"}]'), "cell.0.exclude.0.verison: there is no such setting"),
    (PLAIN.replace('"testing"', "[]"), "cell.0.version: give at least one value"),
    (PLAIN.replace('"testing"', "24.04"), 'cell.0.version.0: give text in quotes, such as "text"'),
    (PLAIN.replace('"testing"', "[12]"), 'cell.0.version.0: give text in quotes, such as "text"'),
    (PLAIN.replace('"testing"', '["12", "12"]'), "cell.0.version: '12' is there twice; leave one out"),
    (PLAIN.replace('"testing"', '"12-1"'), "cell.0.version.0: '12-1' cannot be used; write small letters, digits"),
    (PLAIN.replace('"testing"', '".."'), "cell.0.version.0: '..' cannot be used"),
    (PLAIN.replace('"testing"', '"é"'), "cell.0.version.0: '\\xe9' cannot be used"),
    (PLAIN.replace('"debian"', '"Debian"'), "cell.0.distribution.0: 'Debian' cannot be used; write small letters"),
    (PLAIN.replace('"debian"', '"a/b"'), "cell.0.distribution.0: 'a/b' cannot be used"),
    (PLAIN.replace("x86_64", "amd64"), "cell.0.architecture.0: Input should be 'x86_64', 'i386', 'aarch64'"),
    (PLAIN.replace('"debian"', f'"{LONG}"'), f"cell.0: the name {LONG}-testing-x86_64 is too long for a cell"),
    ('{distribution = "debian", version = "12"}', "cell.0.architecture: this setting is missing, and has no default"),
    ('"debian"', "cell.0: give a table of settings"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), _MISTAKES)
def test_a_mistake_in_an_entry_has_its_line_and_says_what_would_be_right(tmp_path: Path, row: str, said: str) -> None:
    assert complaint(tmp_path, row, PLAIN, ALMA).startswith(f"matrix.toml:9: {said}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('distributions.debain = {stability = "unstable"}', "distributions.debain: no cell is of 'debain'; write a"),
        ("distributions.debian-13 = {}", "distributions.debian-13: no cell is of 'debian-13'; write a"),
        ("defaults.labels = 'nightly'", 'defaults.labels: give a list, such as ["one", "two"]'),
        ("defaults.distribution = 'debian'", "defaults.distribution: there is no such setting"),
        ("variants.x.version = '13'", "variants.x.version: there is no such setting"),
        ("variants.a-b = {}", "variants.a-b: 'a-b' cannot be used; write small letters, digits and _, such as network"),
        ("cells = []", "cells: there is no such setting"),
    ],
)  # fmt: skip
def test_a_mistake_before_the_entries_has_its_line(tmp_path: Path, line: str, said: str) -> None:
    assert complaint(tmp_path, PLAIN, ALMA, top=f"{TOP}{line}\n").startswith(f"matrix.toml:8: {said}")


def test_a_cell_that_two_entries_make_is_refused_with_both_lines(tmp_path: Path) -> None:
    said = complaint(tmp_path, PLAIN, ALMA, entry("nodes = 3"))
    assert (
        said
        == "matrix.toml:11: cell.2: the cell debian-testing-x86_64 is there twice; the entry on line 9 makes it, too"
    )


def test_a_setting_that_a_cell_needs_and_nothing_gives_is_missed_at_its_entry(tmp_path: Path) -> None:
    top = TOP.replace('defaults.cluster = "two"\n', "\n")
    said = complaint(tmp_path, PLAIN, ALMA, top=top)
    assert said == "matrix.toml:9: cell.0: cluster is missing; give it here or in [defaults]"


def test_tables_with_a_setting_a_line_are_the_same_and_their_lines_are_found(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    text = TOP + '[[cell]]\ndistribution = "debian"\nversion = [\n  "testing",\n  "12",\n]\narchitecture = "x86_64"\n'
    text += "[[cell]]\n" + ALMA[1:-1].replace(", a", "\na").replace(", v", "\nv") + "\n"
    path.write_text(text)
    assert len(MatrixText(path).made) == 4
    path.write_text(text.replace('  "12"', '  "1/2"'))
    with pytest.raises(ConfigError, match=r"matrix\.toml:12: cell\.0\.version\.1: '1/2' cannot be used"):
        MatrixText(path)


def test_a_product_without_end_is_refused_at_once(tmp_path: Path) -> None:
    numbers = ", ".join(f'"{number}"' for number in range(3000))
    row = f'{{distribution = [{numbers}], version = [{numbers}], architecture = "x86_64"}}'
    said = complaint(tmp_path, PLAIN, ALMA, row)
    assert said == f"matrix.toml:11: cell.2: with this entry there are more than {MOST_CELLS} cells, the farm's limit"


def test_1500_cells_of_one_entry_take_less_than_a_second(tmp_path: Path) -> None:
    numbers = ", ".join(f'"{number}"' for number in range(750))
    row = f'{{distribution = "many", version = [{numbers}], architecture = ["x86_64", "i386"]}}'
    begun = process_time()
    assert len(read(tmp_path, row, PLAIN, ALMA)) == 1503
    assert process_time() - begun < 1


def test_the_example_of_the_page_makes_the_cells_that_the_page_says(tmp_path: Path) -> None:
    page = (default_profiles().parent / "docs/matrix-format.md").read_text(encoding="utf-8")
    path = tmp_path / "matrix.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    made = MatrixText(path).made
    assert [made[name].row for name in made].count(0) == 5
    assert [made[name].row for name in made].count(2) == 6
    assert made["almalinux-9-x86_64.network"].cell.compatible == "rhel-9"
