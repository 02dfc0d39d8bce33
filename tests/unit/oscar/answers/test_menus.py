"""Menus are read out of Perl sources: in every layout that OSCAR has had, and in ones that it may have some day."""

from __future__ import annotations

import asyncio
import io
import random
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_steps.errors import UserError
from oscar_steps.oscar.answers.answers import AnswerKind, NodeAddress, render_answers
from oscar_steps.oscar.answers.check import AnswerFile, check_answers
from oscar_steps.oscar.answers.menuitems import ITEMS, MenuStage, find, item, plain
from oscar_steps.oscar.answers.menus import LAYOUTS, MENUS_2007, Menus, MenuUnreadable, is_menu_file, read_menus
from oscar_steps.oscar.answers.wordlists import word_lists
from oscar_steps.testdriver.stages.checkout import fetch_sources, read_or_show, texts_of

STANDIN = Path(__file__).parents[3] / "oscar_standin" / "tree"

Labels = list[tuple[int, str]]

SMALL: dict[str, Any] = {
    "image_name": "oscarimage", "partition_file": "oscarsamples/scsi.disk", "ip_assignment": "static",
    "post_install_action": "reboot", "install_mode": "systemimager-rsync", "domain": "oscardomain",
    "base_name": "oscarnode", "starting_number": 1, "padding": 0, "head_address": "10.0.0.1",
    "first_address": "10.0.0.2", "netmask": "255.255.255.0", "selector": (), "boot": "cdrom",
    "nodes": (NodeAddress("oscarnode1", "52:54:00:00:01:01"),),
}  # fmt: skip
"""A cluster with one node."""


def printed(labels: Labels) -> str:
    """The 2006 and 2007 way: one string a line, values between, and a copy with '#' for the recording."""
    shown = " .\n".join(f'    "{n}) {label}: $vars{{x{n}}}\\n"' for n, label in labels)
    key = " .\n".join(f'    "#{n}) {label}: $vars{{x{n}}}\\n"' for n, label in labels)
    return f"sub menu\n{{\n# 9) Image name of long ago\nprint LOG {key};\nprint {shown} .\n    '>  ';\n}}\n"


def here_document(labels: Labels) -> str:
    return "my $MENU = <<'END';\n" + "".join(f"{n}.  {label}\n" for n, label in labels) + "END\n"


def table(labels: Labels) -> str:
    return "my %label = (" + ", ".join(f"{n} => '{label}'" for n, label in labels) + ");\n"


def reversed_table(labels: Labels) -> str:
    return "my %number = (" + ", ".join(f"'{label}' => {n}" for n, label in labels) + ");\n"


def records(labels: Labels) -> str:
    return "our @menu = (\n" + "".join(f'  [{n}, "{label}", \\&do_{n}],\n' for n, label in labels) + ");\n"


def named_records(labels: Labels) -> str:
    return "our @menu = (\n" + "".join(f"  {n} => {{\n    label => '{label}' }},\n" for n, label in labels) + ");\n"


def formatted(labels: Labels) -> str:
    return "".join(f'printf("%2d) %s\\n", {n}, "{label}");\n' for n, label in labels)


def brackets(labels: Labels) -> str:
    return 'print <<"END";\n' + "".join(f"  [{n}] {label} ....... $value[{n}]\n" for n, label in labels) + "END\n"


def one_string(labels: Labels) -> str:
    return 'print "' + "\\n".join(f"{n} - {label}" for n, label in labels) + '\\n";\n'


def several_lines(labels: Labels) -> str:
    return 'print "Choose:\n' + "".join(f"  {n}: {label}\n" for n, label in labels) + '> ";\n'


def plain_list(labels: Labels) -> str:
    return "my @items = (\n" + ",\n".join(f"  '{label}'" for _, label in labels) + "\n);\n"


def list_of_hashes(labels: Labels) -> str:
    entries = ",\n".join(f"  {{ label => '{label}', ask => \\&ask, list => ['a', 'b'] }}" for _, label in labels)
    return f"my @items = (undef,\n{entries},\n);\n"


NUMBERED_LAYOUTS: list[Callable[[Labels], str]] = [
    printed, here_document, table, reversed_table, records, named_records, formatted, brackets, one_string,
    several_lines,
]  # fmt: skip
PATHS = {
    "2006 and 2007": {
        MenuStage.BUILD: "src/cli/build_oscar_image_cli",
        MenuStage.DEFINE: "src/cli/define_oscar_clients_cli",
        MenuStage.NETWORK: "lib/OSCAR/CLI_MAC.pm",
    },
    "network menu in MAC.pm": {
        MenuStage.BUILD: "src/cli/build_oscar_image_cli",
        MenuStage.DEFINE: "src/cli/define_oscar_clients_cli",
        MenuStage.NETWORK: "lib/OSCAR/MAC.pm",
    },
    "since 2008": {
        MenuStage.BUILD: "scripts/cli/build_oscar_image_cli",
        MenuStage.DEFINE: "scripts/cli/define_oscar_clients_cli",
        MenuStage.NETWORK: "lib/OSCAR/CLI_MAC.pm",
    },
    "never seen": {
        MenuStage.BUILD: "lib/OSCAR/CLI/Image.pm",
        MenuStage.DEFINE: "tools/define_cli",
        MenuStage.NETWORK: "scripts/network_menu",
    },
}


def labels_of(menus: Menus, stage: MenuStage) -> Labels:
    return sorted((number, label) for label, number in menus.of(stage).numbers.items())


WORDS = {
    MenuStage.BUILD: "my @ways = qw(static dhcp replicant);\nmy @actions = qw(reboot shutdown beep kexec);\n",
    MenuStage.DEFINE: "",
    MenuStage.NETWORK: "our @modes = qw(systemimager-rsync\n    systemimager-multicast systemimager-bt);\n",
}


def tree(write: Callable[[Labels], str], paths: str = "2006 and 2007", menus: Menus = MENUS_2007) -> dict[str, str]:
    return {
        path: "#!/usr/bin/perl\nuse strict;\n" + write(labels_of(menus, stage)) + WORDS[stage] + "1;\n"
        for stage, path in PATHS[paths].items()
    }


def numbers(menus: Menus) -> dict[MenuStage, dict[str, int]]:
    return {stage: dict(menus.of(stage).numbers) for stage in MenuStage}


@pytest.mark.parametrize("write", [*NUMBERED_LAYOUTS, plain_list, list_of_hashes])
@pytest.mark.parametrize("paths", PATHS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=["2007", "2006"])
def test_menus_are_read_in_every_layout(write: Callable[[Labels], str], paths: str, layout: Menus) -> None:
    files = tree(write, paths, layout)
    assert all(is_menu_file(path) for path in files)
    read = read_menus(files)
    assert numbers(read) == numbers(layout)
    for stage in MenuStage:
        for label, place in read.of(stage).places.items():
            assert place.file == PATHS[paths][stage]
            assert label in files[place.file].split("\n")[place.line - 1], (label, place)


@settings(max_examples=60)
@given(seed=st.integers(), write=st.sampled_from(NUMBERED_LAYOUTS))
def test_any_numbering_of_the_labels_is_read_back(seed: int, write: Callable[[Labels], str]) -> None:
    """Numbers of any order: what is read is what was written."""
    chance = random.Random(seed)
    files, wanted = {}, {}
    for stage, path in PATHS["since 2008"].items():
        labels = sorted(
            (number, one.label) for number, one in zip(chance.sample(range(1, 30), 12), ITEMS[stage], strict=False)
        )
        files[path], wanted[stage] = write(labels) + WORDS[stage], {label: number for number, label in labels}
    assert numbers(read_menus(files)) == wanted


def test_the_stand_ins_menus_are_read_in_its_own_spelling() -> None:
    paths = (path for path in STANDIN.rglob("*") if path.is_file())
    files = {str(path.relative_to(STANDIN)): path.read_text(errors="replace") for path in paths}
    menus = read_menus({path: text for path, text in files.items() if is_menu_file(path)})
    assert numbers(menus) == numbers(MENUS_2007)
    assert menus.network.places["Setup Network Boot"].text == "Setup network boot"
    assert menus.choices.install_mode == ("systemimager-rsync", "systemimager-multicast", "systemimager-bt")
    assert not menus.asks_configurator


def test_the_words_that_this_oscar_accepts_are_read_too() -> None:
    files = tree(printed)
    build, network = "src/cli/build_oscar_image_cli", "lib/OSCAR/CLI_MAC.pm"
    files[build] = files[build].replace("shutdown beep kexec", "beep shutdown")
    files[network] = files[network].replace(WORDS[MenuStage.NETWORK], "")
    files["lib/OSCAR/MAC.pm"] = "our @install_mode_options = qw(systemimager-rsync\n    systemimager-smoke);\n"
    choices = read_menus(files).choices
    assert choices.post_install_action == ("reboot", "beep", "shutdown")
    assert choices.install_mode == ("systemimager-rsync", "systemimager-smoke")
    assert choices.ip_assignment == ("static", "dhcp", "replicant")


@pytest.mark.parametrize(
    ("stage", "list_", "words"),
    [
        (MenuStage.BUILD, "my @ways = qw(static dhcp replicant);\n", "no list of the ways to assign addresses"),
        (MenuStage.BUILD, "my @actions = qw(reboot shutdown beep kexec);\n", "no list of the actions after the inst"),
        (MenuStage.NETWORK, WORDS[MenuStage.NETWORK], "no list of the installation modes that this OSCAR accepts"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_and_never_that_of_2007(
    stage: MenuStage, list_: str, words: str
) -> None:
    files = tree(printed)
    path = PATHS["2006 and 2007"][stage]
    files[path] = files[path].replace(list_, "")
    with pytest.raises(MenuUnreadable, match=f"^{path}: {words}"):
        read_menus(files)


MADE = [
    ('our @modes = qw(None);\npush @modes, "Rsync";\n', ("None", "Rsync")),
    ("our @modes = ('None');\npush(@modes, qw(Rsync Bittorrent)) if -x '/usr/bin/rsync';\n", None),
    ('our @modes;\npush @modes, "None" ;\npush @modes, "Rsync" if -x "/usr/bin/rsync";\n', ("None", "Rsync")),
    ("our @modes = qw(None);\npush (@modes, OSCAR::Ways::open());\n", ("None", "Bittorrent", "Rsync")),
    ('my @modes = qw/red green/;\nmy @modes = qw/rsync/;\npush @other, "bt";\n', ("rsync",)),
    ('my @modes = ("systemimager-rsync", $another);\n', ("systemimager-rsync",)),
]


@pytest.mark.parametrize(("made", "modes"), MADE)
def test_modes_that_are_made_when_oscar_runs_are_read(made: str, modes: tuple[str, ...] | None) -> None:
    files = tree(printed)
    network = PATHS["2006 and 2007"][MenuStage.NETWORK]
    files[network] = files[network].replace(WORDS[MenuStage.NETWORK], made)
    files |= {f"lib/OSCAR/Ways/WAY_{name}.pm": "1;" for name in ("None", "Rsync", "Bittorrent")}
    choices = read_menus(files).choices
    assert choices.install_mode == (modes or ("None", "Rsync", "Bittorrent"))
    assert choices.mode("systemimager-rsync").lower().endswith("rsync")
    assert choices.mode("Rsync") == choices.mode("systemimager-rsync")
    assert choices.mode("None") == ("None" if "None" in choices.install_mode else "")


@pytest.mark.parametrize(
    "made", ["push(@modes, OSCAR::Nowhere::open());", "push @modes, @found;", "push @modes, $one;"]
)
def test_modes_that_come_from_outside_the_tree_are_told_with_their_place(made: str) -> None:
    files = tree(printed)
    network = PATHS["2006 and 2007"][MenuStage.NETWORK]
    files[network] = files[network].replace(WORDS[MenuStage.NETWORK], f"our @modes = qw(None);\n{made}\n")
    with pytest.raises(MenuUnreadable, match=rf"^{network}:\d+: OSCAR makes its installation modes when it runs"):
        read_menus(files)


@pytest.mark.parametrize("unit", ["@a=qw(", "@a=(", "push @a,", "@a=(a::", '@a=("', "@a=(" + "a" * 590])
def test_any_text_has_its_lists_at_once(unit: str) -> None:
    began = time.process_time()
    word_lists({"lib/x.pm": (unit * (1 << 18))[: 1 << 18]}, "lib/x.pm")
    assert time.process_time() - began < 5


def test_the_mode_is_answered_in_the_words_of_the_oscar_that_is_tested() -> None:
    files = tree(printed)
    network = PATHS["2006 and 2007"][MenuStage.NETWORK]
    made = 'our @modes = qw(None);\npush @modes, "Rsync";\n'
    files[network] = files[network].replace(WORDS[MenuStage.NETWORK], made)
    text = render_answers(**SMALL, menus=read_menus(files)).files["/root/farm/network.txt"]
    assert text.startswith("3\nRsync\n4\n")
    with pytest.raises(UserError, match="install_mode is 'systemimager-bt'; OSCAR knows None, Rsync"):
        render_answers(**SMALL | {"install_mode": "systemimager-bt"}, menus=read_menus(files))


@pytest.mark.parametrize(("line", "asks"), [("system('./configurator_cli');", True), ("# ./configurator_cli", False)])
def test_the_configurator_of_2008_is_noticed(line: str, asks: bool) -> None:
    assert read_menus(tree(printed) | {"src/cli/main_cli": line + "\n"}).asks_configurator is asks


def test_a_question_of_its_own_is_not_taken_for_the_menu() -> None:
    files = tree(printed)
    files["lib/OSCAR/CLI_MAC.pm"] += 'print "1)  Finish\\n" . "2)  Manually assign MACs\\n";\n'
    assert read_menus(files).network.number("Finish") == 10


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        ("src/cli/build_oscar_image_cli", "Disk Partition File", "Disk Partitioning",
         "src/cli/build_oscar_image_cli:19: the menu of the step 'build' has no item 'Disk Partition File'; there is "
         "'Disk Partitioning'"),
        ("lib/OSCAR/CLI_MAC.pm", "Build AutoInstall CD", "Burn",
         "lib/OSCAR/CLI_MAC.pm:16: the menu of the step 'network' has no item 'Build AutoInstall CD'"),
        ("src/cli/build_oscar_image_cli", "Distro", "Package File",
         "src/cli/build_oscar_image_cli:16: 'Package file' is ambiguous in the menu of the step 'build': 2) Package "
         "file, and in line 17 3) Package File"),
        ("src/cli/build_oscar_image_cli", '"3) Distro', '"2) Distro',
         "src/cli/build_oscar_image_cli:17: in the menu of the step 'build', 'Distro' and 'Package file' (line 16) "
         "have the same number 2"),
    ],
)  # fmt: skip
def test_a_label_that_is_missing_or_ambiguous_is_told_with_its_place(path: str, old: str, new: str, words: str) -> None:
    files = tree(printed)
    assert old in files[path]
    files[path] = files[path].replace(old, new)
    with pytest.raises(MenuUnreadable) as caught:
        read_menus(files)
    assert caught.value.sentence == words
    assert caught.value.category == "answers"


def test_no_menu_at_all_names_what_was_looked_for() -> None:
    with pytest.raises(MenuUnreadable, match=r"looked for src/cli/build_oscar_image_cli and scripts/cli/build_oscar"):
        read_menus({"scripts/x": "print 'hello';\n"})
    with pytest.raises(MenuUnreadable, match=r"^src/cli/build_oscar_image_cli: no menu of the step 'build'"):
        read_menus(tree(printed) | {"src/cli/build_oscar_image_cli": "exit 1;\n"})


def test_two_menus_that_differ_are_not_guessed_between() -> None:
    files = tree(printed)
    other = files["src/cli/build_oscar_image_cli"].replace("3) Distro", "13) Distro")
    with pytest.raises(MenuUnreadable, match=r"differ in 'Distro': src/cli/.*:\d+ and scripts/cli/.*:\d+"):
        read_menus(files | {"scripts/cli/build_oscar_image_cli": other})


def test_every_spelling_belongs_to_one_item_of_its_menu() -> None:
    for stage in MenuStage:
        spellings = [spelling for one in ITEMS[stage] for spelling in one.spellings]
        assert len(spellings) == len(set(spellings))
        assert all(find(stage, one.label) is one is item(stage, one.label) for one in ITEMS[stage])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Image name: oscarimage", "image name"),
        ("  The  Image-Name [x]", "image name"),
        ("Set up Network Boot...", "setup network boot"),
        ("Finish\\n", "finish"),
        ("Padding $x", "padding"),
    ],
)
def test_labels_are_compared_without_value_case_and_punctuation(text: str, label: str) -> None:
    assert plain(text) == label


@settings(max_examples=60)
@given(text=st.text(max_size=300))
def test_no_source_whatever_breaks_the_reader(text: str) -> None:
    files = tree(printed) | {"lib/OSCAR/MAC.pm": text, "scripts/cli/x": "@x = (" + text}
    assert numbers(read_menus(files)) == numbers(MENUS_2007)


def test_an_archive_of_sources_becomes_texts() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in (("./lib/OSCAR/MAC.pm", b"# f\xfcr\n"), ("./src/cli/main_cli", "ü\n".encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert texts_of(data.getvalue()) == {"lib/OSCAR/MAC.pm": "# für\n", "src/cli/main_cli": "ü\n"}


class LocalTree:
    """Stands for the head node: its commands run here."""

    async def read(self, command: str) -> bytes:
        ended = await asyncio.to_thread(subprocess.run, ["sh", "-c", command], capture_output=True, check=True)
        return bytes(ended.stdout)


def test_the_head_nodes_tree_is_read_with_one_command(tmp_path: Path) -> None:
    shutil.copytree(STANDIN, tmp_path / "oscar tree")
    (tmp_path / "oscar tree" / "src/cli/.svn").mkdir()
    (tmp_path / "oscar tree" / "src/cli/.svn/build_cli").write_text(here_document([(9, "Image name"), (8, "Distro")]))
    sources = asyncio.run(fetch_sources(LocalTree(), str(tmp_path / "oscar tree")))  # type: ignore[arg-type]
    assert numbers(read_menus(sources)) == numbers(MENUS_2007)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MenuUnreadable, match="this OSCAR has no menu"):
        read_menus(asyncio.run(fetch_sources(LocalTree(), str(tmp_path / "empty"))))  # type: ignore[arg-type]


def test_a_menu_that_is_not_understood_is_shown_with_its_own_lines(tmp_path: Path) -> None:
    sources = {str(path.relative_to(STANDIN)): path.read_text() for path in STANDIN.rglob("*") if path.is_file()}
    menu = "lib/OSCAR/CLI_MAC.pm"
    sources[menu] = sources[menu].replace("8)  Build AutoInstall CD", "8)  Make the installation medium")
    with pytest.raises(MenuUnreadable, match=r"lib/OSCAR/CLI_MAC\.pm:\d+: .*'Build AutoInstall CD'") as raised:
        asyncio.run(read_or_show({path: text for path, text in sources.items() if is_menu_file(path)}, tmp_path))
    (shown,) = raised.value.evidence
    assert shown.file == "menus/CLI_MAC.pm"
    assert "8)  Make the installation medium" in shown.lines
    kept = (tmp_path / shown.file).read_text().splitlines()
    assert tuple(kept[shown.first_line - 1 : shown.last_line]) == shown.lines


@pytest.mark.parametrize("write", [printed, here_document, table])
@pytest.mark.parametrize("paths", PATHS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=["2007", "2006"])
@pytest.mark.parametrize("boot", ["cdrom", "network"])
@pytest.mark.parametrize("count", [1, 2, 16, 128])
def test_answers_for_every_size_boot_and_layout(
    count: int, boot: str, layout: Menus, paths: str, write: Callable[[Labels], str]
) -> None:
    menus = read_menus(tree(write, paths, layout))
    digits = len(str(count))
    nodes = [NodeAddress(f"oscarnode{n:0{digits}d}", f"52:54:00:00:01:{n:02X}") for n in range(1, count + 1)]
    changed = {"nodes": nodes, "boot": boot, "padding": digits if digits > 1 else 0}
    rendered = render_answers(**SMALL | changed, menus=menus)
    texts = {kind: rendered.files[kind.path()] for kind in AnswerKind}
    moved = 0 if "Delete MACs" in layout.network.numbers else 1
    lines = texts[AnswerKind.NETWORK].split("\n")
    start = [str(3 - moved), "systemimager-rsync", str(4 - moved), "1", "/root/farm/macs.txt", "2"]
    start += [word for node in nodes for word in (node.mac, node.name)]
    assert lines == [*start, "quit", str(6 - moved), str((8 if boot == "cdrom" else 9) - moved), str(10 - moved), ""]
    assert texts[AnswerKind.MACS].count("\n") == count
    assert texts[AnswerKind.DEFINE].split("\n")[6:8] == ["4", str(count)]
    assert ("\n6\n3\n" in texts[AnswerKind.DEFINE]) == (count == 128)
    files = [AnswerFile(kind, kind.path(), text) for kind, text in texts.items()]
    assert check_answers(*files, menus=menus, complete=True) == ()
