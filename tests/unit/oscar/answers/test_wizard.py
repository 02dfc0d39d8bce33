"""The second flavour: what a tree says of its way in, and the script that drives it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.answers import Answers
from oscar_steps.oscar.answers.wizard import SOURCE, Way, install_script, way_of
from oscar_steps.oscar.flavour import FlavourName, flavour_of
from oscar_steps.oscar.logs.wizardlog import WizardLog
from oscar_steps.testdriver.lookahead import texts_below

CONTROL = """\
Source: oscar

Package: oscar
Depends: zsh | ksh, oscar-core,
 libours (>= 2)

Package: oscar-core
Depends: ${perl:Depends}, libours, dbtool (>= 1.2), imager

Package: libours
Depends: libxml-thing-perl, oscar

Package: oscar-web
Depends: webserver
"""
TREE = {
    "install_cluster": "die 'not any more';",
    "Makefile": "source_tarball: tmp\n\ttrue\ninstall: doc\n\ttrue\n",
    "bin/oscar-config": 'GetOptions("bootstrap|b" => \\$b, "generate-config-file|g" => \\$g, "verbose|v" => \\$v);',
    "bin/oscar_wizard": "use Tk;",
    "debian/control": CONTROL,
}
WAY = Way(makes_tarball=True, makes_config=True, verbose=True, depends="dbtool (>= 1.2)")


def without(*paths: str, **changed: str) -> dict[str, str]:
    return {path: text for path, text in (TREE | changed).items() if path not in paths}


# -- what a tree says --------------------------------------------------------------------------------------------------


def test_a_tree_with_the_later_way_in_has_the_second_flavour_and_says_why_not_the_first() -> None:
    flavour = flavour_of(TREE)
    assert flavour.name is FlavourName.OSCAR_WIZARD
    assert flavour.reason.startswith("install_cluster:1 does not take --cli")
    flavour.check()


def test_a_tree_before_2014_has_the_two_programs_among_its_scripts() -> None:
    tree = {path.replace("bin/", "scripts/"): text for path, text in TREE.items()}
    assert flavour_of(tree).name is FlavourName.OSCAR_WIZARD


@pytest.mark.parametrize(
    "tree",
    [
        without("bin/oscar_wizard"),
        without("bin/oscar-config"),
        without("Makefile"),
        without(Makefile="all:\n\ttrue\n"),
        without(**{"bin/oscar-config": "print 'nothing yet';"}),
    ],
)
def test_a_tree_that_lacks_a_part_of_that_way_has_no_flavour(tree: dict[str, str]) -> None:
    assert way_of(tree) is None
    assert flavour_of(tree).name is FlavourName.NONE


def test_what_the_tree_does_not_know_is_not_asked_of_it() -> None:
    bare = without("debian/control", **{"Makefile": "install:\n", "bin/oscar-config": "GetOptions('bootstrap' => 1)"})
    way = way_of(bare)
    assert way == Way(makes_tarball=False, makes_config=False, verbose=False, depends="")
    script = install_script(way, oscar_home="/opt/oscar", distro="d-1-x86_64", adapter="eth1", repository="")
    assert "source_tarball" not in script
    assert "--verbose" not in script
    assert "generate-config-file" not in script
    assert "make install" in script


def test_packages_from_elsewhere_are_those_of_the_main_package_and_its_siblings_each_once() -> None:
    way = way_of(TREE)
    assert way is not None
    assert way.depends == "zsh | ksh, dbtool (>= 1.2), imager, libxml-thing-perl"


@pytest.mark.parametrize("hostile", ["$(reboot)", "`id`", "a; b", "x'y", "a\nb: c"])
def test_a_hostile_control_file_puts_nothing_into_a_shell(hostile: str) -> None:
    way = way_of(without(**{"debian/control": f"Package: oscar\nDepends: good, {hostile}\n"}))
    assert way is not None
    assert way.depends.split(", ")[0] == "good"
    assert not set(way.depends) & set("$`;'\n")


def test_a_dependency_that_is_long_is_skipped_at_once() -> None:
    hostile = ", ".join(["a" * 20_000 + "!", "b" * 301, "+" * 20_000])
    began = time.monotonic()
    way = way_of(without(**{"debian/control": f"Package: oscar\nDepends: good, {hostile}\n"}))
    assert time.monotonic() - began < 2
    assert way is not None
    assert way.depends == "good"


# -- the script --------------------------------------------------------------------------------------------------------

TOOLS = {
    "make": 'echo "make $*"',
    "oscar-config": 'echo "oscar-config $*"; case "$*" in *bootstrap*) exit ${BOOTSTRAP:-0} ;; esac',
    "oscar_wizard": 'echo "oscar_wizard $*"; exit 1',
    "apt-get": 'echo "apt-get $*"',
    "svn": 'echo "svn $*"',
    "sed": 'echo "sed $*"',
}


def run_script(tmp_path: Path, script: str, *, missing: str = "", bootstrap: int = 0) -> tuple[int, list[str]]:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in TOOLS.items():
        if name != missing:
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
    (tmp_path / "source/tmp/oscar-6").mkdir(parents=True)
    script = script.replace("/etc/apt/sources.list.d", str(tmp_path)).replace(SOURCE, str(tmp_path / "source"))
    ran = subprocess.run(
        ["/bin/sh", "-c", script], env={"PATH": str(tools), "BOOTSTRAP": str(bootstrap)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout.splitlines()


def script_for(tmp_path: Path, way: Way = WAY, repository: str = "") -> str:
    home = str(tmp_path / "oscar")
    return install_script(way, oscar_home=home, distro="debian-12-x86_64", adapter="eth1", repository=repository)


def test_the_script_does_one_step_after_the_other_and_ends_with_the_status_of_the_last(tmp_path: Path) -> None:
    status, said = run_script(tmp_path, script_for(tmp_path))
    assert status == 1
    assert [line for line in said if line.startswith(("@@farm-step", "make", "oscar", "apt", "svn"))] == [
        "@@farm-step preflight",
        f"svn export --quiet --force {tmp_path}/oscar {tmp_path}/source",
        "make source_tarball",
        "make -C tmp/oscar-6/ install",
        "@@farm-step platform",
        "oscar-config --verbose --generate-config-file",
        "oscar-config --verbose --setup-distro debian-12-x86_64",
        "@@farm-step wizard_prep",
        "oscar-config --verbose --bootstrap",
        "@@farm-step select",
        "oscar_wizard install",
    ]
    assert "@@farm-needs dbtool (>= 1.2)" in said


def test_the_script_stops_at_the_step_that_fails(tmp_path: Path) -> None:
    status, said = run_script(tmp_path, script_for(tmp_path), bootstrap=7)
    assert status == 7
    assert not any("wizard install" in line for line in said)


def test_a_program_that_was_not_installed_ends_the_first_step(tmp_path: Path) -> None:
    status, said = run_script(tmp_path, script_for(tmp_path), missing="oscar_wizard")
    assert status == 1
    assert said[-1] == "@@farm-not-there oscar_wizard"


def test_a_repository_is_named_to_apt_and_to_oscar(tmp_path: Path) -> None:
    _, said = run_script(tmp_path, script_for(tmp_path, repository="http://10.0.2.2:8080/oscar bookworm main"))
    assert "apt-get --quiet --yes --no-install-recommends satisfy dbtool (>= 1.2)" in said
    assert any(line.endswith("--use-oscar-repo http://10.0.2.2:8080/oscar+bookworm+main") for line in said)
    assert not any(line.startswith("@@farm-needs") for line in said)
    assert (tmp_path / "oscar.list").read_text() == ("deb [trusted=yes] http://10.0.2.2:8080/oscar bookworm main\n")


@pytest.mark.parametrize("bad", ["oscar", "http://host/x", "http://host/x\nbookworm main", " http://h/x a b"])
def test_a_repository_that_apt_could_not_read_is_refused(bad: str) -> None:
    with pytest.raises((ConfigError, ValueError)):
        Answers(partition_file="scsi.disk", oscar_repository=bad)


SMALL_TREE = {
    "Makefile": (
        "source_tarball:\n\tmkdir -p tmp/oscar-6\n\tcp -r Makefile bin tmp/oscar-6\n"
        "\tsed -i 's/@VERSION@/6/' tmp/oscar-6/bin/oscar-config\n"
        "install:\n\tinstall -m 0755 bin/oscar-config bin/oscar_wizard $(PREFIX)\n"
    ),
    "bin/oscar-config": """#!/bin/sh
# takes generate-config-file, setup-distro and bootstrap
[ "@VERSION@" = 6 ] || { echo "syntax error at oscar-config line 3."; exit 255; }
case "$1" in
    --generate-config-file) echo "OSCAR_NETWORK_INTERFACE = eth0" > $CONFIG ;;
    --setup-distro) echo "[INFO - oscar-config] $2 successfully set up." ;;
    --bootstrap) grep -q "INTERFACE = eth1" $CONFIG && echo "[INFO - oscar-config] Successfully bootstrapped OSCAR" ;;
esac
""",
    "bin/oscar_wizard": """#!/bin/sh
[ -n "$DISPLAY" ] && exit 0
echo "[FAILED TEST] display_check.apt"
echo "' ERROR: Your \\"DISPLAY\\" environment variable is not set,'"
exit 1
""",
}


def test_a_small_tree_goes_from_subversion_to_the_verdict_that_it_needs_a_screen(tmp_path: Path) -> None:
    tree, programs = tmp_path / "tree", tmp_path / "programs"
    for path, text in SMALL_TREE.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    programs.mkdir()
    repository = f"file://{tmp_path}/svn"
    for command in (
        ["svnadmin", "create", str(tmp_path / "svn")],
        ["svn", "import", "-q", "-m", "a small OSCAR", str(tree), f"{repository}/trunk"],
        ["svn", "checkout", "-q", f"{repository}/trunk", str(tmp_path / "oscar")],
    ):
        subprocess.run(command, check=True, timeout=60)
    flavour = flavour_of(texts_below(tmp_path / "oscar"))
    assert flavour.way is not None
    script = install_script(
        flavour.way, oscar_home=str(tmp_path / "oscar"), distro="d-1-x86_64", adapter="eth1", repository=""
    )
    config = tmp_path / "oscar.conf"
    script = script.replace(SOURCE, str(tmp_path / "source")).replace("/etc/oscar/oscar.conf", str(config))
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "PREFIX": str(programs), "CONFIG": str(config)}
    ran = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    log = WizardLog()
    for line in ran.stdout.splitlines():
        log.feed(line)
    assert "needs a screen" in log.conclude(ran.returncode).sentence, ran.stdout + ran.stderr
