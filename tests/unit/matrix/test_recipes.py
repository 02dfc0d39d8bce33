"""Image recipes: a family fills up what a recipe leaves out, and each mistake is named where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.job import Job, Source
from oscar_steps.matrix.answers import Answers
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.matrix.recipes import ImageRecipe, load_recipe

FAMILY = """\
kind = "bootstrap"
disk_mib = 1024
network = "ifupdown"
initrd = "initramfs-tools"
pool_folder = "/tftpboot/distro/@NAME@"
packages = ["perl", "file"]
masked_units = ["a.timer"]
origin = "Tiny"
[architecture.x86_64]
native = "amd64"
boot = "bios"
packages = ["linux-image-amd64"]
"""
RECIPE = 'name = "tiny-1"\nfamily = "tiny"\nsuite = "one"\narchitecture = "x86_64"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "families").mkdir()
    (tmp_path / "families/tiny.toml").write_text(FAMILY)
    (tmp_path / "tiny-1.toml").write_text(RECIPE)
    return tmp_path / "tiny-1.toml"


def _with(path: Path, lines: str) -> ImageRecipe:
    path.write_text(RECIPE + lines)
    return load_recipe(path)


def test_a_recipe_is_filled_up_by_its_family_and_by_what_that_says_of_the_architecture(recipe: Path) -> None:
    full = load_recipe(recipe)
    assert full.packages == ("perl", "file", "linux-image-amd64")
    assert (full.native, full.boot, full.pool_folder) == ("amd64", "bios", "/tftpboot/distro/tiny-1")
    assert (full.kind, full.masked_units, full.disk_mib) == ("bootstrap", ("a.timer",), 1024)


def test_a_recipe_changes_a_list_or_replaces_it(recipe: Path) -> None:
    changed = _with(recipe, 'packages_add = ["make"]\npackages_remove = ["file"]\nmasked_units = []\ndisk_mib = 2048\n')
    assert changed.packages == ("perl", "linux-image-amd64", "make")
    assert (changed.masked_units, changed.disk_mib) == ((), 2048)


def test_a_recipe_without_a_family_says_all_itself(tmp_path: Path, recipe: Path) -> None:
    full = load_recipe(recipe)
    alone = tmp_path / "alone/tiny-1.toml"
    alone.parent.mkdir()
    head, _, of_architecture = FAMILY.replace("@NAME@", "tiny-1").partition("[architecture.x86_64]")
    lines = head.replace('"file"]', '"file", "linux-image-amd64"]') + of_architecture.partition("packages")[0]
    alone.write_text(RECIPE.replace('family = "tiny"\n', "") + lines)
    assert load_recipe(alone) == full.model_copy(update={"family": ""})


@pytest.mark.parametrize("keys", ["5", "true", '"KEY"', '["../x", 5]', f'["{"k" * 300}"]'])
def test_names_of_keys_that_are_none_are_a_mistake_in_the_recipe(recipe: Path, keys: str) -> None:
    (recipe.parent / "keys").mkdir()
    with pytest.raises(ConfigError, match=r"tiny-1\.toml:\d+: keys"):
        _with(recipe, f'kind = "rpm"\nrelease = "9"\nrepositories = ["a"]\nkeys = {keys}\n')


def test_a_job_carries_the_complete_recipe(recipe: Path, tmp_path: Path) -> None:
    full = load_recipe(recipe)
    job = Job(
        run_id="a",
        cell="a",
        source=Source(url="svn://127.0.0.1/x", revision="1"),
        image=full,
        cluster_xml="",
        answers=_answers(),
    )
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json").image == full


def _answers() -> Answers:
    matrix = load_matrix(default_profiles())
    return matrix.answers(matrix.cells[0])


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ('builder = "mmdebstrap"\n', 5, 'builder: this setting is called kind now; write kind = "bootstrap"'),
        ('kind = "tarball"\n', 5, "kind: there is no 'tarball'; use one of bootstrap"),
        ("kind = 5\n", 5, "kind: there is no 5; use one of bootstrap"),
        ('network = "netplan"\n', 5, "network: there is no style 'netplan'; there are: cloud-init, ifupdown"),
        ('initrd = "x"\n', 5, "initrd: there is no style 'x'; there are: dracut, initramfs-tools"),
        ('packages_add = "make"\n', 5, 'packages_add: give a list, such as ["one", "two"]'),
        ("packages_add = [5]\n", 5, 'packages_add: give a list, such as ["one", "two"]'),
        ('packages_add = ["make", "make gcc"]\n', 5, "packages_add.1: "),
        ('packages_add = [\n  "make",\n  "make gcc",\n]\npackages_remove = ["file"]\n', 7, "packages_add.1: "),
        ('packages_remove = ["make"]\n', 5, "packages_remove: 'make' is not in the list of {family}; leave it out"),
        ('pakages_add = ["make"]\n', 5, "pakages_add: there is no such setting"),
        ('disk_mib = "big"\n', 5, "disk_mib: give a whole number without quotes, such as 5"),
        (
            'packages_add = ["a\\u0000b"]\n',
            5,
            "packages_add.0: the character '\\x00' cannot be in a setting; leave it out",
        ),
        ('packages = ["--allow-unauthenticated"]\n', 5, "packages"),
        ('pool = ["make gcc"]\n', 5, "pool"),
        ('masked_units = ["../../../x.timer"]\n', 5, "masked_units"),
        ('masked_units = ["serial-getty@.service.d"]\n', 5, "masked_units"),
        (
            'masked_units = ["farm-seed.service"]\n',
            5,
            "masked_units: 'farm-seed.service' cannot be masked",
        ),
        ('masked_units = ["b.timer", "ssh.service"]\n', 5, "masked_units: 'ssh.service' cannot be masked"),
        ('kernel_parameters = ["na\u00efve=1"]\n', 5, "kernel_parameters"),
        ('kernel_parameters = ["quiet\\ninitrd /x"]\n', 5, "kernel_parameters"),
        ('console = "ttyS0\\nx"\n', 5, "console"),
        ('pool_folder = "/tftpboot/../../x"\n', 5, "pool_folder"),
        ('components = ["main [trusted=yes]"]\n', 5, "components"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_by_file_and_line(recipe: Path, lines: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _with(recipe, lines)
    family = recipe.parent / "families/tiny.toml"
    assert caught.value.sentence.startswith(f"{recipe}:{line}: {said.format(family=family)}")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('family = "tiny"', 'family = "tony"', "2: family: there is no 'tony' ({folder}/tony.toml is missing)"),
        ('family = "tiny"', 'family = "../x"', "2: family: there is no '../x' ({folder}/../x.toml is missing)"),
        ('family = "tiny"', f'family = "{"x" * 300}"', "2: family: there is no 'xxx"),
        ('family = "tiny"', "family = [5]", "2: family: there is no [5] ({folder}/[5].toml is missing)"),
        ('"x86_64"', '"s390x"', "4: architecture: {folder}/tiny.toml does not support 's390x'; it supports: x86_64"),
        ('architecture = "x86_64"\n', "", "1: architecture: this setting is missing, and has no default"),
        ('suite = "one"\n', "", "1: suite: this setting is missing, and has no default"),
        ('name = "tiny-1"\n', "", "1: name: this setting is missing, and has no default"),
        ('family = "tiny"\n', "", "1: kind: this setting is missing, and has no default; use one of bootstrap"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(recipe: Path, before: str, after: str, said: str) -> None:
    recipe.write_text(RECIPE.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe)
    assert caught.value.sentence.startswith(f"{recipe}:{said.format(folder=recipe.parent / 'families')}")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"ifupdown"', '"netplan"', "3: network: there is no style 'netplan'; there are: cloud-init, ifupdown"),
        ('"bios"', '"grub"', "11: boot: Input should be 'bios'"),
        ('["a.timer"]', '"a.timer"', '7: masked_units: give a list, such as ["one", "two"]'),
        ("disk_mib = 1024", "disk_mib = 1024\ndisk_mb = 1", "3: disk_mb: there is no such setting"),
        ('"bootstrap"', '"x"', "1: kind: there is no 'x'; use one of bootstrap"),
        ('[architecture.x86_64]', "architecture = 5\n[a.x86_64]", "9: architecture: give a table of settings"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_family_is_named_where_it_stands(recipe: Path, before: str, after: str, said: str) -> None:
    family = recipe.parent / "families/tiny.toml"
    family.write_text(FAMILY.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe)
    assert caught.value.sentence.startswith(f"{family}:{said}")


@pytest.mark.parametrize("path", sorted((default_profiles() / "images").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_ours_is_complete_and_called_as_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem
