"""Whether a tree can be installed by its command line, seen in the tree; each way in which it cannot, with place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from oscar_steps.errors import AnswersRefused
from oscar_steps.oscar.flavour import FlavourName, flavour_of
from oscar_steps.testdriver.lookahead import texts_below

STANDIN = Path(__file__).parents[2] / "oscar_standin" / "tree"

OPTIONS = "'help' => \\$help, 'cli' => \\$cli, 'opkgselector=s' => \\$a, 'buildimage=s' => \\$b, "
ALL = f"GetOptions({OPTIONS}'defineclients=s' => \\$c, 'networkclients=s' => \\$d, 'bootscript=s' => \\$e);"
INSTALLER = f"""#!/usr/bin/perl
# it starts "./scripts/long-gone" no more
{ALL}
if (system("./scripts/sanity")) {{ die "no\\n"; }}
print "you should run  ./scripts/start_over\\n";
my $cmd = "cd $ENV{{OSCAR_HOME}}/scripts && ./prepare";
!system($cmd) or die;
chdir("src/cli") or die("Couldn't chdir");
$cmd = "./main_cli";
"""
MAIN = """#!/usr/bin/perl
my $bootscript = "$ENV{OSCAR_HOME}/src/cli/wait.pl";
my $cmd = "./choose_cli";
!system($cmd) or die;
$cmd = "$ENV{OSCAR_HOME}/scripts/install $interface";
my $cmd = $ENV{OSCAR_HOME} . "/scripts/complete";
system("/sbin/ifconfig $interface");
"""
TREE = {
    "install_cluster": INSTALLER,
    "scripts/sanity": "",
    "scripts/prepare": "",
    "scripts/install": "",
    "scripts/complete": "",
    "src/cli/main_cli": MAIN,
    "src/cli/choose_cli": "",
}


def test_a_tree_with_all_that_the_command_line_starts_is_installed_by_it() -> None:
    assert flavour_of(TREE).name is FlavourName.INSTALL_CLUSTER
    flavour_of(TREE).check()
    assert flavour_of(texts_below(STANDIN)).name is FlavourName.INSTALL_CLUSTER


def test_an_installer_that_puts_its_own_directory_before_each_file_is_known() -> None:
    prefixing = INSTALLER.replace("my $cmd", '$a = $cwd . "/$a" if($a !~ /$cwd/ && $a ne "");\nmy $cmd', 1)
    later = INSTALLER.replace("my $cmd", '$a = $cwd . "/$a" if($a !~ /^\\// && $a ne "");\nmy $cmd', 1)
    told = INSTALLER.replace("my $cmd", "# it was $a !~ /$cwd/\nmy $cmd", 1)
    for installer, prefixes in ((prefixing, True), (later, False), (told, False), (INSTALLER, False)):
        assert flavour_of(TREE | {"install_cluster": installer}).prefixes_paths is prefixes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"install_cluster": None}, "there is no install_cluster in its top folder"),
        (
            {"install_cluster": INSTALLER.replace(ALL, "")},
            "install_cluster:1 does not take --cli, --opkgselector, --buildimage, --defineclients, --networkclients, "
            "--bootscript",
        ),
        (
            {"install_cluster": INSTALLER.replace(ALL, "$ENV{UI} = 'cli';\nGetOptions('cli' => \\$cli);")},
            "install_cluster:4 does not take --opkgselector, --buildimage, --defineclients, --networkclients, "
            "--bootscript",
        ),
        (
            {"install_cluster": INSTALLER.replace(", 'bootscript=s' => \\$e", "")},
            "install_cluster:3 does not take --bootscript",
        ),
        ({"scripts/sanity": None}, "install_cluster:4 starts scripts/sanity, which this tree does not have"),
        ({"scripts/prepare": None}, "install_cluster:6 starts scripts/prepare, which this tree does not have"),
        ({"src/cli/main_cli": None}, "install_cluster:8 starts src/cli/main_cli, which this tree does not have"),
        ({"src/cli/choose_cli": None}, "src/cli/main_cli:3 starts src/cli/choose_cli, which this tree does not have"),
        ({"scripts/install": None}, "src/cli/main_cli:5 starts scripts/install, which this tree does not have"),
        ({"scripts/complete": None}, "src/cli/main_cli:6 starts scripts/complete, which this tree does not have"),
    ],
)
def test_what_is_missing_is_named_with_file_and_line(change: dict[str, str | None], reason: str) -> None:
    tree = {path: text for path, text in (TREE | change).items() if text is not None}
    flavour = flavour_of(tree)
    assert (flavour.name, flavour.reason) == (FlavourName.NONE, reason)
    with pytest.raises(AnswersRefused, match="this OSCAR cannot be installed by its command line") as raised:
        flavour.check()
    assert (raised.value.category, reason in raised.value.sentence) == ("answers", True)


def test_steps_that_are_looked_for_where_the_command_line_was_once_are_missing() -> None:
    moved = """my $path;
if (defined $ENV{OSCAR_HOME}) {
    $path = "$ENV{OSCAR_HOME}/src/cli/";
} else {
    $path = "/usr/bin";
}
my $bootscript = "$path/wait.pl";
my $cmd = "$path/choose_cli";
"""
    tree = {path: text for path, text in TREE.items() if not path.startswith("src/")}
    tree |= {"install_cluster": INSTALLER.replace("src/cli", "scripts/cli"), "scripts/cli/choose_cli": ""}
    tree["scripts/cli/main_cli"] = moved
    assert flavour_of(tree).reason == "scripts/cli/main_cli:8 starts src/cli/choose_cli, which this tree does not have"
    tree["scripts/cli/main_cli"] = moved.replace("src/cli", "scripts/cli")
    assert flavour_of(tree).name is FlavourName.INSTALL_CLUSTER


@pytest.mark.parametrize(
    "harmless",
    [
        'if (system("./scripts/gone") == 1) { die; }',  # a script that is not there ends with another status
        '# system("./scripts/gone");',
        'print "run ./scripts/gone\\n";',
        'system("./packages/gone/setup");',  # no folder that is read
        'system("$ENV{OSCAR_HOME}/testing/gone");',
        'system("$unknown/gone");',
        'system("ln -s ./scripts/gone x");',
        'my $cmd = "$selector_script --file x";',
    ],
)
def test_what_ends_nothing_or_is_not_plain_is_not_called_missing(harmless: str) -> None:
    assert flavour_of(TREE | {"install_cluster": INSTALLER + harmless}).name is FlavourName.INSTALL_CLUSTER


@pytest.mark.parametrize("text", ["", "\0" * 50_000, "GetOptions(" * 20_000, 'system("' * 20_000, "$cmd=" * 20_000])
def test_any_text_has_an_answer_at_once(text: str) -> None:
    began = time.process_time()
    assert flavour_of({"install_cluster": text}).name is FlavourName.NONE
    assert flavour_of(TREE | {"src/cli/main_cli": text}).name is FlavourName.INSTALL_CLUSTER
    assert time.process_time() - began < 5
