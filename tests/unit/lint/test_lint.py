"""The first tier over the stand-in's tree: clean as it is, and each fault of that kind named with its file and line."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from demo.faults import FaultBook
from demo.repository import apply_patch
from oscar_steps.lint import check
from oscar_steps.lint.check import check_tree, one_a_line
from oscar_steps.lint.confine import SECONDS_PER_FILE, Task
from oscar_steps.lint.problems import Problem, Report
from oscar_steps.lint.tree import Tree

STANDIN = Path(__file__).parents[2] / "oscar_standin"
Change = Callable[[Path], None]

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)


@pytest.fixture(autouse=True)
def only_what_changed_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds matter here: the rest compiles in the test of the tree as it is. All of it, where a file is gone."""
    good, every = Tree(STANDIN / "tree").files, check._tasks

    def changed(tree: Tree) -> Iterator[Task]:
        lost = good.keys() - tree.files.keys()
        return (
            t for t in every(tree) if lost or t.path not in good or tree.files[t.path].content != good[t.path].content
        )

    monkeypatch.setattr(check, "_tasks", changed)


def replaced(path: str, old: str, new: str) -> Change:
    def change(tree: Path) -> None:
        file = tree / path
        text = file.read_text()
        assert old in text, f"{path} has changed: '{old}' is not in it"
        file.write_text(text.replace(old, new, 1))

    return change


def begun_with(path: str, code: str, beside: str = "", text: str = "") -> Change:
    """`code` behind the first line of a script; `text` in a new file `beside` it."""

    def change(tree: Path) -> None:
        if beside:
            (tree / beside).write_text(text)
        first, rest = (tree / path).read_text().split("\n", 1)
        (tree / path).write_text(f"{first}\n{code}\n{rest}")

    return change


def written(path: str, text: str, mode: int = 0o644) -> Change:
    def change(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
        (tree / path).chmod(mode)

    return change


def mode(path: str, bits: int) -> Change:
    return lambda tree: (tree / path).chmod(bits)


def removed(path: str) -> Change:
    return lambda tree: (tree / path).unlink()


def lint(tree: Path, *changes: Change) -> Report:
    for change in changes:
        change(tree)
    return check_tree(tree)


def only(report: Report) -> Problem:
    assert len(report.problems) == 1, "\n".join(map(str, report.problems)) or report.summary
    return report.problems[0]


def test_the_stand_in_as_it_is_has_no_problem_and_nothing_is_left_alone(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    report = check_tree(tree)
    assert report.problems == ()
    assert report.left_alone == ()
    assert report.files > 60
    assert report.summary.startswith(f"lint: no problem in {report.files} files, ")


FAULTS = (
    ("main-cli-does-not-compile", "src/cli/main_cli", 15, 'syntax error, near "my "'),
    ("preflight-fails", "scripts/system-sanity.d/selinux-check.pl", 6, 'syntax error, near "exit"'),
)


@pytest.mark.parametrize(("fault", "file", "line", "words"), FAULTS)
def test_faults_of_the_stand_in_that_do_not_compile(tree: Path, fault: str, file: str, line: int, words: str) -> None:
    found = only(lint(tree, apply_patch(STANDIN / "faults" / f"{fault}.patch")))
    assert (found.file, found.line) == (file, line)
    assert words in found.what


def test_the_fault_book_says_which_faults_the_first_tier_sees_and_it_sees_no_other(tmp_path: Path) -> None:
    """The others fail when they run: what cannot be judged is left alone."""
    said = {}
    for patch in sorted((STANDIN / "faults").glob("*.patch")):
        copy = shutil.copytree(STANDIN / "tree", tmp_path / patch.stem, symlinks=True)
        if found := lint(copy, apply_patch(patch)).blamed:
            said[patch.stem] = found[0].file
    assert said == {name: fault.lint for name, fault in FaultBook(STANDIN / "faults").faults.items() if fault.lint}


SWITCH = """my $v = 'a'; my @l = (1, 2);
switch ($v) {
    case "a"    { print "{"; }
    case [1, 2] { print 1 }
    case (@l)   { print 2; }
    case OSCAR::Defs::KIND() {
        print 2; }
    else { print 3 } }"""
GIVEN = """sub of { my ($x) = @_;
    given ($x) { when ('a') { return 1 }
        when "b" { return 2 }
        when [1, 2] { return 3 } default { return 4 } } }"""
DYING = """package OSCAR::Dying;
use base qw(Exporter); die 'not root' if $ENV{USER} eq 'root';
our @EXPORT = qw(dying); sub dying { 1 } 1;
"""
TWO = "package OSCAR::Two; use base qw(Exporter); our @EXPORT = qw(two); sub two ($$) { return 2 } 1;\n"
CONFLICT = "<<<<<<< .mine\nour $x = 1;\n=======\nour $x = 2;\n>>>>>>> .r12\n"
CLI = "src/cli/selector_cli"
CASES: tuple[tuple[str, Change, str, int, str], ...] = (
    ("undeclared variable", begun_with(CLI, "use strict; $nowhere = 1;"), CLI, 2, 'Global symbol "$nowhere"'),
    (
        "syntax error in a module",
        begun_with("lib/OSCAR/MAC.pm", "sub broken { if (1 { } }"),
        "lib/OSCAR/MAC.pm",
        2,
        "syntax error",
    ),
    (
        "a name that a module does not export",
        replaced(CLI, "use OSCAR::Logger;", "use OSCAR::Logger qw(oscar_log_chapter);"),
        CLI,
        0,
        '"oscar_log_chapter" is not exported by the OSCAR::Logger module',
    ),
    ("unterminated string", begun_with(CLI, "my $x = q{abc;"), CLI, 0, "Can't find string terminator"),
    (
        "undeclared variable beside a module that is missing here",
        begun_with(CLI, 'use strict; use XML::Simple; my $list = XMLin("x"); print $lisst;'),
        CLI,
        2,
        'Global symbol "$lisst"',
    ),
    (
        "the same, where nobody knows what the module exports",
        begun_with(CLI, "use strict; use SIS::Image;\nmy $list = list_image(); print $lisst;"),
        CLI,
        3,
        'Global symbol "$lisst"',
    ),
    (
        "syntax error in a script that uses Qt",
        begun_with(CLI, 'use Qt; sub c { my ($p)=@_; process"unselect $p"); }'),
        CLI,
        2,
        "syntax error",
    ),
    (
        "syntax error in perl of 2007",
        begun_with(CLI, "my @x; if (defined(@x)) { }\nforeach my $y qw(a b) { print $y; }\nif (1 { }"),
        CLI,
        4,
        "syntax error",
    ),
    (
        "syntax error in a script that uses Switch",
        begun_with(CLI, "use Switch;\n" + SWITCH + "\nif (1 { }"),
        CLI,
        11,
        "syntax error",
    ),
    (
        "syntax error in a script that uses Switch with other words",
        begun_with(CLI, "use Switch 'Perl5', 'Perl6';\n" + GIVEN + "\n\n\nif (1 { }"),
        CLI,
        9,
        "syntax error",
    ),
    (
        "an error behind a module that dies when it is loaded",
        begun_with(CLI, "use strict; use OSCAR::Dying;\n$nowhere = 1;", "lib/OSCAR/Dying.pm", DYING),
        CLI,
        3,
        'Global symbol "$nowhere"',
    ),
    (
        "wrong number of arguments for a module's function",
        begun_with(CLI, "use OSCAR::Two;\ntwo(1);", "lib/OSCAR/Two.pm", TWO),
        CLI,
        3,
        "Not enough arguments for OSCAR::Two::two",
    ),
    (
        "a module that lacks its end",
        begun_with(CLI, "use OSCAR::Two;\ntwo(1, 2);", "lib/OSCAR/Two.pm", TWO.replace("1;\n", "@EXPORT > 1;\n")),
        "lib/OSCAR/Two.pm",
        0,
        "does not end with a true value",
    ),
    (
        "a file handle and a comma",
        begun_with(CLI, "use strict;\nprintf(OUT, 'x');"),
        CLI,
        3,
        "No comma allowed after filehandle",
    ),
    (
        "a use that has no end",
        begun_with(CLI, "use Carp\n\nmy $x = join('', 'a', 'b');"),
        CLI,
        2,
        "its ';' is missing",
    ),
    ("conflict marker", begun_with(CLI, CONFLICT), CLI, 2, "conflict marker '<<<<<<< .mine'"),
    (
        "conflict in a list of packages",
        written("oscarsamples/x.rpmlist", CONFLICT),
        "oscarsamples/x.rpmlist",
        1,
        "conflict",
    ),
    (
        "shell",
        replaced("scripts/setup_pxe", "exec", "if true; then exec"),
        "scripts/setup_pxe",
        0,
        "bash: syntax error",
    ),
    ("not executable", mode("scripts/post_install", 0o644), "scripts/post_install", 0, "src/cli/main_cli:"),
    ("not executable, relative", mode(CLI, 0o644), CLI, 0, "not executable, but src/cli/main_cli:"),
    ("installer not executable", mode("install_cluster", 0o644), "install_cluster", 0, "not executable"),
    ("main_cli not executable", mode("src/cli/main_cli", 0o644), "src/cli/main_cli", 0, "install_cluster:"),
    (
        "a check that would silently be lost",
        mode("scripts/system-sanity.d/su-check.pl", 0o644),
        "scripts/system-sanity.d/su-check.pl",
        0,
        "leaves it out",
    ),
    (
        "missing script",
        removed("scripts/wizard_prep"),
        "install_cluster",
        0,
        "'./wizard_prep', which is not in the tree",
    ),
    ("missing script, by a variable", removed("scripts/post_install"), "src/cli/main_cli", 0, "post_install"),
    ("missing tool in backticks", removed("dist/get-oscar-version.sh"), "install_cluster", 0, "get-oscar-version.sh"),
    ("missing VERSION", removed("VERSION"), "VERSION", 0, "is missing"),
    ("CRLF", written("scripts/x", "#!/bin/sh\r\ntrue\r\n", 0o755), "scripts/x", 1, "CRLF"),
    ("byte order mark", written("scripts/x", "\ufeff#!/bin/sh\n", 0o755), "scripts/x", 1, "byte order mark"),
    ("relative interpreter", written("scripts/x", "#!perl\n1;\n", 0o755), "scripts/x", 1, "is not an absolute path"),
    ("XML", written("testing/x/a.apb", '<a><b of="1" to "2"/></a>\n'), "testing/x/a.apb", 1, "not well-formed"),
    ("XML", written("packages/x/config.xml", "<a>\n&oscar;</a>\n"), "packages/x/config.xml", 2, "undefined entity"),
    ("XML", written("doc/x/sample.xml", "<a>\n<b></c>\n</a>\n"), "doc/x/sample.xml", 2, "mismatched tag"),
    (
        "a date with a letter too many",
        written("packages/x/config.xml", '<a>\n<changelogEntry date="2009-07-1x2T02:37:01-05:00"/></a>'),
        "packages/x/config.xml",
        2,
        "the entry's date '2009-07-1x2T02:37:01-05:00' is not a date with a time",
    ),
    (
        "a second changelog",
        written("packages/x/config.xml", "<a>\n<changelog/>\n<changelog/>\n<changelog/></a>"),
        "packages/x/config.xml",
        3,
        "a second <changelog>",
    ),
    ("XML", written("packages/x/config.xml", "<a>\n<b>\n</a>\n"), "packages/x/config.xml", 3, "mismatched tag"),
    (
        "XML in an encoding that nobody knows",
        written("packages/x/config.xml", '<?xml version="1.0" encoding="none-99"?><a/>'),
        "packages/x/config.xml",
        1,
        "unknown encoding: none-99",
    ),
    (
        "perl in a file whose name has blanks",
        written("scripts/a b c", "#!/usr/bin/perl\nmy $x = ;\n", 0o755),
        "scripts/a b c",
        2,
        'perl: syntax error, near "= ;"',
    ),
    (
        "shell in a file whose name has blanks",
        written("scripts/a b c", "#!/bin/sh\nif true; fi\n", 0o755),
        "scripts/a b c",
        2,
        "bash: syntax error",
    ),
    ("python", written("scripts/x", "#!/usr/bin/python3\nif True\n", 0o755), "scripts/x", 2, "python: expected ':'"),
    (
        "an item of a menu is missing",
        replaced("lib/OSCAR/CLI_MAC.pm", "8)  Build AutoInstall CD\n", ""),
        "lib/OSCAR/CLI_MAC.pm",
        0,
        "has no item 'Build AutoInstall CD'",
    ),
    (
        "two items of a menu have one number",
        replaced("lib/OSCAR/CLI_MAC.pm", "9)  Setup network boot", "8)  Setup network boot"),
        "lib/OSCAR/CLI_MAC.pm",
        0,
        "have the same number 8",
    ),
)


@pytest.mark.parametrize(("change", "file", "line", "words"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_kind_of_problem_is_said_with_file_and_line(
    tree: Path, change: Change, file: str, line: int, words: str
) -> None:
    """`line` 0: any."""
    found = only(lint(tree, change))
    assert found.file == file
    assert line in (0, found.line)
    assert words in str(found)
    assert found.right


QT = """use strict; use Qt; use Qt::isa qw(Qt::Dialog); use Qt::attributes qw(label count);
use Qt::slots go => ['int'];
sub NEW { label = Qt::Label(this, "l"); Qt::Object::connect(label, SIGNAL "clicked()", this, SLOT "go()"); }
sub few { return 1 if (count <= 0); emit went(); this->{x} = 1; }"""
DIES = "package OSCAR::Died;\nuse DBI;\ndie 'no database' unless DBI->connect;\n1;\n"
ONE = """package OSCAR::One;
use strict; use base qw(Exporter); our @EXPORT = qw(one);
use OSCAR::Two; sub one { two } 1;
"""


def _other(match: re.Match[str]) -> str:
    return {"One": "Two", "Two": "One", "one": "two", "two": "one"}[match[0]]


def one_and_two(tree: Path) -> None:
    for path, text in (("One", ONE), ("Two", re.sub(r"(?i)one|two", _other, ONE))):
        (tree / f"lib/OSCAR/{path}.pm").write_text(text)


LOOKS_FIRST = 'system("$ENV{OSCAR_HOME}/scripts/x") if -x "$ENV{OSCAR_HOME}/scripts/x";'
GOOD: tuple[tuple[str, Change], ...] = (
    ("Switch", begun_with(CLI, "use Switch;\n" + SWITCH)),
    ("Switch with other words", begun_with(CLI, "use Switch 'Perl5', 'Perl6';\n" + GIVEN)),
    (
        "a function of a module that died first",
        begun_with(CLI, "use strict; use OSCAR::Dying; dying 1;", "lib/OSCAR/Dying.pm", DYING),
    ),
    ("words that Qt makes", begun_with(CLI, QT)),
    ("constants of a missing module", begun_with(CLI, "use strict; use Qt; my $x=Qt::Left; use A qw(:a); my $y=C;")),
    ("a module that is missing here", begun_with(CLI, "use Qt; use SIS::Client qw(list $x); my @a = list;")),
    ("what a missing module may export", begun_with(CLI, "use strict; use SIS::Image;\nmy @a = list;")),
    ("a command of a missing module's", begun_with(CLI, "use PackMan;\nsmart_install 'x', 'y';")),
    ("a missing base class", begun_with(CLI, "package Foo; use base qw(Tk::Frame); package main;")),
    ("use lib of OSCAR_HOME in BEGIN", begun_with(CLI, 'BEGIN { unshift @INC, "$ENV{OSCAR_HOME}/lib" }')),
    ("perl of 2007", begun_with(CLI, "my @x; if (defined(@x)) { } foreach my $y qw(a b) { print $y }")),
    ("a module that dies when it is loaded", written("lib/OSCAR/Died.pm", DIES)),
    ("a module that is linked at run time", begun_with(CLI, "use OSCAR::oda;\nsymlink('a', 'oda.pm');")),
    ("a name put together at run time", begun_with(CLI, 'system("$ENV{OSCAR_HOME}/scripts/post_" . "x");')),
    ("a file that is looked for first", begun_with(CLI, LOOKS_FIRST)),
    ("a file written at run time", begun_with(CLI, 'system("$ENV{OSCAR_HOME}/tmp/made");')),
    ("a comment that names a script", begun_with(CLI, '# system("$ENV{OSCAR_HOME}/scripts/gone");')),
    ("a script handed to a shell", begun_with(CLI, 'system("sh $ENV{OSCAR_HOME}/share/node/mkinitrd");')),
    ("modules that use each other", one_and_two),
    ("python of 2007", written("scripts/x", "#!/usr/bin/python\nprint 'x'\n", 0o755)),
    ("an entity of the book's", written("doc/x/part.xml", "<para>\n&oscar; is it</para>\n")),
    ("a part of a book", written("doc/x/part.xml", "<para>x</para>\n<para>y</para>\n")),
    ("a rule of equal signs", written("README.more", "Title\n=======\n<<<<<<< only one marker\n")),
    ("bashism in /bin/sh", written("scripts/x", "#!/bin/sh\na=(1 2)\n", 0o755)),
    ("a link to nowhere", lambda tree: (tree / "lib/OSCAR/oda.pm").symlink_to("/nowhere")),
    ("a name with a blank", written("scripts/a b", "#!/usr/bin/perl\n1;\n", 0o755)),
)  # fmt: skip


@pytest.mark.parametrize("change", [case[1] for case in GOOD], ids=[case[0] for case in GOOD])
def test_what_cannot_be_judged_is_left_alone(tree: Path, change: Change) -> None:
    report = lint(tree, change)
    assert report.problems == ()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("#!/bin/bash\nshopt -s extglob\nrm -f !(*.rpm)\n", True),
        ("#!/bin/bash\nrm -f !(*.rpm)\n", False),
        ("#!/bin/bash\nshopt -s extglob\nif true; then\n", False),
        ("#!/bin/sh\neval 'exec perl -x -wS $0 ${1+\"$@\"}'\n  if 0;\n#!perl\nforeach my $x (1) { print $x }\n", True),
        ("#!/usr/bin/env python3\ntype A = int\n", True),
        ("#!/usr/bin/env python3\ndef f[T](x: T): pass\n", True),
        ("#!/usr/bin/env python3\nif True\n", False),
    ],
)
def test_a_script_is_read_as_its_interpreter_reads_it_or_left_alone(tree: Path, text: str, right: bool) -> None:
    (tree / "scripts" / "of-its-own").write_text(text)
    assert [problem.file for problem in check_tree(tree).problems] == ([] if right else ["scripts/of-its-own"])


BROKEN = """package OSCAR::Broken;
use strict; use base qw(Exporter); our @EXPORT = qw(broken $said);
sub broken { if (1 { } }
our @kept;
sub other { 1 }
1;
"""


def test_a_module_that_does_not_compile_hides_nothing_of_who_loads_it(tree: Path) -> None:
    code = "use strict; use OSCAR::Broken; use SIS::Image;\nbroken(1); $said = other_thing();\nprint @kept;"
    report = lint(tree, begun_with(CLI, code, "lib/OSCAR/Broken.pm", BROKEN))
    assert [(found.file, found.line) for found in report.problems] == [("lib/OSCAR/Broken.pm", 3), (CLI, 4)]
    assert "@kept" in report.problems[1].what


def test_what_a_module_that_does_not_compile_may_export_is_granted_and_nothing_else(tree: Path) -> None:
    code = "use strict; use OSCAR::Broken;\nbroken(1); broken 2; print $said, OSCAR::Broken::other();\nnever_there();"
    report = lint(tree, begun_with(CLI, code, "lib/OSCAR/Broken.pm", BROKEN))
    assert [(found.file, found.line) for found in report.problems] == [("lib/OSCAR/Broken.pm", 3), (CLI, 4)]
    assert "never_there" in report.problems[1].what


def test_a_real_error_is_seen_beside_a_module_that_is_missing_here(tree: Path) -> None:
    found = only(lint(tree, begun_with(CLI, "use SIS::Image;\nmy @a = list_image\nmy $b = 1;")))
    assert (found.file, found.line) == (CLI, 4)


@pytest.mark.parametrize(
    ("change", "gates"),
    [
        (begun_with("src/cli/main_cli", "if (1 { }"), True),
        (begun_with("lib/OSCAR/MAC.pm", "sub broken { if (1 { } }"), True),
        (begun_with("src/cli/main_cli", "use strict; $nowhere = 1;"), True),
        (begun_with("src/cli/main_cli", "use strict; use SIS::Image; $nowhere = 1;"), False),
        (begun_with("testing/test_cluster", "if (1 { }"), False),
    ],
)
def test_what_does_not_compile_gates_where_the_cells_pass_and_nothing_that_is_missing_here_could_mend_it(
    tree: Path, change: Change, gates: bool
) -> None:
    assert only(lint(tree, change)).gates is gates


def test_a_compilation_that_does_not_end_is_ended_and_the_other_files_are_still_judged(tree: Path) -> None:
    began = time.monotonic()
    broken = replaced("testing/test_cluster", "my @packages", "my @packages ))")
    report = lint(tree, begun_with(CLI, "BEGIN { sleep 1000 }"), broken)
    first, second = report.problems
    assert str(first).startswith(f"{CLI}: its compilation did not end within {SECONDS_PER_FILE} s")
    assert second.file == "testing/test_cluster"
    assert time.monotonic() - began < SECONDS_PER_FILE + 30


def test_a_fork_bomb_harms_nobody_and_is_called_what_it_is(tree: Path) -> None:
    found = only(lint(tree, begun_with(CLI, "BEGIN { fork while 1 }")))
    assert found.file == CLI
    assert "starts processes that stay" in found.what or "did not end" in found.what


def test_a_compilation_that_eats_memory_is_ended(tree: Path) -> None:
    found = only(lint(tree, begun_with(CLI, "BEGIN { my $x = 'x' x 1_000_000_000; }")))
    assert "needs more than 512 MiB" in found.what


def test_a_compilation_can_neither_write_nor_kill_nor_reach_the_network(tree: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"""BEGIN {{
        open(my $x, '>', '{mark}') and die 'written'; kill 9, -1; kill 9, getppid;
        use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0);
    }}"""
    report = lint(tree, begun_with(CLI, code))
    assert not mark.exists()
    assert [one.file for one in report.left_alone] == [CLI]
    assert report.problems == ()


def test_one_mistake_that_is_said_in_two_ways_is_one_problem() -> None:
    final, symbol = (Problem("lib/OSCAR/A.pm", 3, f"perl: {what}", "x") for what in ("Final $ should", "Global symbol"))
    surely, elsewhere = replace(symbol, gates=True), replace(symbol, line=4)
    assert list(one_a_line([final, surely, elsewhere, surely])) == [surely, elsewhere]


@pytest.mark.parametrize("name", [b"a\nb", b"a\033[2Jb", b"a\xffb"], ids=["two lines", "escape", "not UTF-8"])
def test_a_name_that_no_line_can_show_is_left_alone_with_its_cause(tree: Path, name: bytes) -> None:
    (tree / "scripts" / os.fsdecode(name)).write_text("#!/usr/bin/perl\nmy $x = ;\n")
    report = check_tree(tree)
    assert report.problems == ()
    assert [alone.why for alone in report.left_alone] == ["its name has characters that no line can show"]
