"""What modules export and do not define; what files call and do not load."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.lint.perl.exports import lost_exports
from oscar_steps.lint.problems import Problem
from tests.unit.lint.perl.test_chain import one, tree_of

UTILS = """package OSCAR::Utils;
use strict;
use base qw(Exporter);
our @EXPORT = qw(
    run_command
    save_file
    );
sub run_command { 1 }
sub save_file { 1 }
sub quiet { 1 }
1;
"""
FILES = {
    "lib/OSCAR/Utils.pm": UTILS,
    "lib/OSCAR/Defs.pm": "package OSCAR::Defs;\nuse base qw(Exporter);\nuse constant NTP => 'ntp';\n"
    "use constant DNS => 'dns';\nour @EXPORT = qw(NTP);\n1;\n",
    "scripts/go": "#!/usr/bin/perl\nuse OSCAR::Defs;\nuse Carp;\nprint NTP();\n",
}


def told(top: Path, changes: dict[str, str], before: dict[str, str] | None = None) -> list[Problem]:
    old = {**FILES, **(before or {})}
    return lost_exports(tree_of(top / "before", old), tree_of(top / "after", {**old, **changes})).problems


def test_a_name_that_is_exported_and_not_defined(tmp_path: Path) -> None:
    changed = {"lib/OSCAR/Utils.pm": UTILS.replace("    save_file", "    save_files")}
    found = one(told(tmp_path, changed))
    assert str(found) == (
        "lib/OSCAR/Utils.pm:6: exports save_files, which it does not define; define it, or export what is meant"
    )
    assert not found.gates


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    );", "    glad\n    );\n*glad = sub { 2 };"),
        ("    );", "    glad\n    );\nuse constant glad => 1;"),
        ("    );", "    glad\n    );\nuse SIS::Client qw(glad);"),
        ("    );", "    glad\n    );\nsub AUTOLOAD { 1 }"),
        ("    );", "    $glad\n    @others\n    );"),
        ("    );", "    # glad\n    );"),
        ("1;\n", "1;\n=head1 USE\n\nour @EXPORT = qw(glad);\n\n=cut\n"),
        ("    save_file", "    &save_file"),
    ],
    ids=["assigned", "constant", "handed on", "autoload", "variables", "a comment", "documentation", "with its sigil"],
)
def test_an_export_that_may_be_right_is_no_problem(tmp_path: Path, old: str, new: str) -> None:
    assert told(tmp_path, {"lib/OSCAR/Utils.pm": UTILS.replace(old, new, 1)}) == []


@pytest.mark.parametrize(
    ("declared", "line", "what"),
    [
        ("package OSCAR::OCA::Detect::SLED;\n", 1, "its package is OSCAR::OCA::Detect::SLED"),
        ("package OCA::Detect::SLED;\n", 1, "its package is OCA::Detect::SLED"),
        ("", 1, "exports functions and has no package"),
    ],
)
def test_a_module_whose_package_is_another_ones(tmp_path: Path, declared: str, line: int, what: str) -> None:
    module = f"{declared}use base qw(Exporter);\nour @EXPORT = qw(detect);\nsub detect {{ 1 }}\n1;\n"
    found = one(told(tmp_path, {"lib/OSCAR/OCA/Detect/SLES.pm": module}))
    assert (found.line, found.what, found.right) == (line, what, "its place is that of OSCAR::OCA::Detect::SLES")


@pytest.mark.parametrize(
    "declared",
    [
        "package OSCAR::OCA::Detect::SLES;",
        "package OCA::Detect::SLES;",
        "package SLES;",
        "package oda;",
        "package OSCAR::Own;\npackage OSCAR::OCA::Detect::SLES;",
        "package Other::Place::SLES;",
        "# no module",
    ],
)
def test_a_package_that_may_be_right_is_no_problem(tmp_path: Path, declared: str) -> None:
    assert told(tmp_path, {"lib/OSCAR/OCA/Detect/SLES.pm": f"{declared}\nsub detect {{ 1 }}\n1;\n"}) == []


def test_a_new_call_of_what_a_module_exports_that_is_not_loaded(tmp_path: Path) -> None:
    found = one(told(tmp_path, {"scripts/go": FILES["scripts/go"] + "run_command('x');\n"}))
    assert str(found) == (
        "scripts/go:5: calls run_command, which lib/OSCAR/Utils.pm exports, and does not load that; use OSCAR::Utils"
    )


def test_a_module_that_is_loaded_no_more_while_its_function_is_called(tmp_path: Path) -> None:
    old = {"scripts/go": "#!/usr/bin/perl\nuse OSCAR::Utils;\nsave_file('x');\n"}
    found = one(told(tmp_path, {"scripts/go": "#!/usr/bin/perl\nsave_file('x');\n"}, old))
    assert (found.line, found.right) == (2, "use OSCAR::Utils")


def test_a_constant_that_its_module_does_not_export(tmp_path: Path) -> None:
    found = one(told(tmp_path, {"scripts/go": FILES["scripts/go"] + "print DNS();\n"}))
    assert (found.line, found.what) == (5, "calls DNS, which lib/OSCAR/Defs.pm defines and does not export")


def test_a_module_that_exports_no_more_what_a_file_which_did_not_change_calls(tmp_path: Path) -> None:
    defs = FILES["lib/OSCAR/Defs.pm"]
    found = one(told(tmp_path / "a", {"lib/OSCAR/Defs.pm": defs.replace("qw(NTP)", "qw(DNS)")}))
    assert (found.file, found.line) == ("scripts/go", 4)
    assert found.what == "calls NTP, which lib/OSCAR/Defs.pm defines and does not export"
    more = {"lib/OSCAR/Defs.pm": defs.replace("qw(NTP)", "qw(NTP DNS)")}
    old = {"lib/OSCAR/Defs.pm": defs.replace("qw(NTP)", "qw(DNS)")}
    assert told(tmp_path / "and the one that exports it again", more, old) == []


def test_a_function_of_perls_own_modules_that_are_not_loaded(tmp_path: Path) -> None:
    found = one(told(tmp_path, {"scripts/go": FILES["scripts/go"] + "copy('a', 'b') or die;\n"}))
    assert (found.line, found.right) == (5, "use File::Copy")


@pytest.mark.parametrize(
    "code",
    [
        "use OSCAR::Utils;\nrun_command('x');",
        "require OSCAR::Utils; OSCAR::Utils->import;\nrun_command('x');",
        "eval 'use OSCAR::Utils';\nrun_command('x');",
        "use Utils;\nrun_command('x');",
        "use SIS::Client qw(run_command);\nrun_command('x');",
        "require 'helpers.pl';\nrun_command('x');",
        "sub run_command { 1 }\nrun_command('x');",
        "$self->run_command('x');",
        "OSCAR::Other::run_command('x');",
        "# run_command('x');",
        "print 'run_command(x)';",
        "quiet('x');",
        "use OSCAR::Utils;\nuse SIS::Image;\nquiet('x');",
        "use SIS::Client;\nrun_command('x');",
        "use SIS::Client;\nprint DNS();",
        "use Carp; use SIS::Client;\nrun_command('x');",
        "BEGIN { require SIS::Client }\nrun_command('x');",
        "use Carp; use SIS::Client qw(run_command);\nrun_command('x');",
        "use_ok('OSCAR::Utils');\nrun_command('x');",
        "use if $] > 5, 'OSCAR::Utils';\nrun_command('x');",
        "require('helpers.pl');\nrun_command('x');",
        "BEGIN { require './helpers.pl' }\nrun_command('x');",
        "do('helpers.pl') or die;\nrun_command('x');",
        "eval q{use SIS::Client};\nrun_command('x');",
        "if (defined &run_command) { run_command('x') }",
        "run_command('x') if defined(&main::run_command);",
        "run_command('x') if main->can('run_command');",
        "use CGI::Carp;\ncroak('x');",
        "use Moose;\nconfess('x');",
        "use Curses;\nmove(1, 2);",
        "use File::Copy::More;\ncopy('a', 'b');",
        "use POSIX;\nbasename('a');",
        "$file->copy('a');",
    ],
)
def test_a_call_that_may_be_right_is_no_problem(tmp_path: Path, code: str) -> None:
    assert told(tmp_path, {"scripts/go": f"{FILES['scripts/go']}{code}\n"}) == []


@pytest.mark.parametrize(
    "code", ["use File::Copy;", "use Tk; use Tk::Pane;", "use Cwd qw(getcwd); use Other::Module qw(some_name);"]
)
def test_modules_that_are_known_do_not_bring_it(tmp_path: Path, code: str) -> None:
    go = FILES["scripts/go"] + code
    assert len(told(tmp_path, {"scripts/go": f"{go}\nrun_command('x');\n"})) == 1


LIST = "our @EXPORT = qw(\n    run_command\n    save_file\n    );"


@pytest.mark.parametrize(
    "exports",
    [
        "our @EXPORT = qw[run_command quiet];",
        "our @EXPORT = qw{run_command quiet};",
        "our @EXPORT = qw<run_command quiet>;",
        "our @EXPORT = qw|run_command quiet|;",
        "our @EXPORT = qw/run_command quiet/;",
        "our @EXPORT = (qw(run_command), qw(quiet));",
        "our @EXPORT = ('run_command', # (old)\n 'quiet');",
        "our @EXPORT = ('run_command', # a; b / c\n 'quiet');",
        "our @EXPORT = qw(run_command # (old)\n quiet);",
        "our @EXPORT = 'run_command';\npush @EXPORT, 'quiet';",
        "our @EXPORT = 'run_command';\npush(@EXPORT, 'quiet');",
        "our @EXPORT = qw(run_command); our @EXPORT_OK = qw(quiet);",
        "our @ISA = ('Exporter'); our @EXPORT = qw(quiet);",
        "BEGIN { our @EXPORT = ('quiet') }",
        "@OSCAR::Utils::EXPORT = ('quiet');",
        "our %EXPORT_TAGS = (all => ['quiet']);\nour @EXPORT = @{$EXPORT_TAGS{all}};",
        "our @EXPORT = (@more, 'quiet');",
        "our @EXPORT = map { lc } qw(QUIET);",
        "(@ISA, @EXPORT) = (['Exporter'], 'quiet');",
        "for my $name (qw(quiet)) { push @EXPORT, $name }",
        "sub import { no strict 'refs'; *{caller() . '::quiet'} = 1 }",
        "*import = \\&Other::import;",
    ],
)
def test_exports_are_read_or_known_to_be_more_than_what_is_read(tmp_path: Path, exports: str) -> None:
    changed = {"scripts/go": FILES["scripts/go"] + "use OSCAR::Utils;\nquiet('x');\n"}
    assert told(tmp_path, changed, {"lib/OSCAR/Utils.pm": UTILS.replace(LIST, exports)}) == []


@pytest.mark.parametrize("exports", [LIST, "our @EXPORT = ('run_command');", "# our @EXPORT = qw(quiet);", ""])
def test_a_function_that_its_module_does_not_export(tmp_path: Path, exports: str) -> None:
    changed = {"scripts/go": FILES["scripts/go"] + "use OSCAR::Utils;\nquiet('x');\n"}
    found = one(told(tmp_path, changed, {"lib/OSCAR/Utils.pm": UTILS.replace(LIST, exports)}))
    assert (found.line, found.what) == (6, "calls quiet, which lib/OSCAR/Utils.pm defines and does not export")


@pytest.mark.parametrize(
    "exports",
    ["our @EXPORT = qw[\n    glad ];", "our @EXPORT = (qw(save_file),\n qw(glad));", "push @EXPORT,\n 'glad';"],
)
def test_a_name_that_is_exported_in_another_way_and_not_defined(tmp_path: Path, exports: str) -> None:
    found = one(told(tmp_path, {"lib/OSCAR/Utils.pm": UTILS.replace(LIST, exports)}))
    assert (found.line, found.what) == (5, "exports glad, which it does not define")


@pytest.mark.parametrize(
    "loads",
    ["use OSCAR::Utils;", "use SIS::Client;", "use OSCAR::Handing;", "require 'helpers.pl';"],
)
def test_a_module_may_export_what_one_that_it_loads_hands_to_it(tmp_path: Path, loads: str) -> None:
    handing = "package OSCAR::Handing;\nour @EXPORT = @OSCAR::Utils::EXPORT;\n1;\n"
    module = f"package OSCAR::All;\nuse base qw(Exporter);\n{loads}\nour @EXPORT = qw(save_file);\n1;\n"
    assert told(tmp_path, {"lib/OSCAR/All.pm": module}, {"lib/OSCAR/Handing.pm": handing}) == []
    changed = {"lib/OSCAR/All.pm": module.replace(loads, "use OSCAR::Defs;")}
    assert len(told(tmp_path / "no", changed, {"lib/OSCAR/Handing.pm": handing})) == 1


def test_a_module_that_hands_on_what_another_exports(tmp_path: Path) -> None:
    handing = "package OSCAR::Handing;\nuse OSCAR::Utils;\nour @EXPORT = @OSCAR::Utils::EXPORT;\n1;\n"
    changed = {"scripts/go": FILES["scripts/go"] + "use OSCAR::Handing;\nsave_file('x');\n"}
    assert told(tmp_path, changed, {"lib/OSCAR/Handing.pm": handing}) == []


def test_what_could_not_be_read_before_is_neither_new_nor_mended(tmp_path: Path) -> None:
    wrong = UTILS.replace("    save_file", "    save_files")
    lost = {"lib/OSCAR/Utils.pm": wrong.replace("sub quiet { 1 }", "sub quiet { 1 ")}
    assert told(tmp_path / "a", {"lib/OSCAR/Utils.pm": wrong}, lost) == []
    assert told(tmp_path / "b", lost, {"lib/OSCAR/Utils.pm": wrong}) == []


def test_a_name_that_two_modules_export_is_nobodys(tmp_path: Path) -> None:
    both = {"lib/OSCAR/Other.pm": UTILS.replace("OSCAR::Utils", "OSCAR::Other")}
    assert told(tmp_path, {"scripts/go": FILES["scripts/go"] + "run_command('x');\n"}, both) == []


def test_what_was_so_before_or_in_a_file_of_another_place_is_not_told(tmp_path: Path) -> None:
    old = {"scripts/go": FILES["scripts/go"] + "run_command('x');\n"}
    assert told(tmp_path / "a", {"scripts/go": f"{old['scripts/go']}print 'more';\n"}, old) == []
    before, after = {**FILES, **old}, {**FILES, "bin/go": f"{old['scripts/go']}print 'more';\n"}
    after.pop("scripts/go")
    assert lost_exports(tree_of(tmp_path / "b", before), tree_of(tmp_path / "c", after)).problems == []


OTHER = "#!/usr/bin/perl\nuse SIS::Client;\nuse OSCAR::Utils;\nrun_command('y');\n"


@pytest.mark.parametrize(
    "other",
    [
        {"scripts/other": OTHER},
        {"scripts/other": OTHER.replace("use OSCAR::Utils;", "sub run_command { 1 }")},
        {"lib/OSCAR/Utils.pm": UTILS.replace("use strict;", "use strict;\nuse SIS::Client;")},
    ],
    ids=["loads both", "defines it", "exports it"],
)
def test_a_module_that_is_not_in_the_tree_does_not_bring_what_others_that_load_it_have_from_elsewhere(
    tmp_path: Path, other: dict[str, str]
) -> None:
    code = "use SIS::Client;\nrun_command('x');\n"
    found = one(told(tmp_path, {"scripts/go": FILES["scripts/go"] + code}, other))
    assert found.what == "calls run_command, which lib/OSCAR/Utils.pm exports, and does not load that"
    more = "use SIS::Image;\n" + code
    assert told(tmp_path / "more", {"scripts/go": FILES["scripts/go"] + more}, other) == []


def test_others_that_load_it_too_and_have_the_name_from_nowhere_else_show_that_it_brings_it(tmp_path: Path) -> None:
    other = {"scripts/other": OTHER.replace("use OSCAR::Utils;\n", "")}
    changed = {"scripts/go": FILES["scripts/go"] + "use SIS::Client;\nrun_command('x');\n"}
    assert told(tmp_path, changed, other) == []


def test_a_function_that_was_renamed_and_is_exported_by_its_old_name(tmp_path: Path) -> None:
    old = UTILS.replace("use strict;", "use strict;\nuse SIS::Client;")
    changed = {"lib/OSCAR/Utils.pm": old.replace("sub save_file ", "sub save_any_file ")}
    found = one(told(tmp_path, changed, {"lib/OSCAR/Utils.pm": old}))
    assert found.what == "exports save_file, which it does not define"


def test_a_module_that_exports_by_another_name_than_that_by_which_it_is_loaded(tmp_path: Path) -> None:
    module = "package Next;\nuse base qw(Exporter);\nour @EXPORT = qw(next_one);\nsub next_one { 1 }\n1;\n"
    found = one(told(tmp_path, {"lib/OSCAR/Next.pm": module}))
    assert found.what == "its package is Next, whose exports 'use OSCAR::Next' does not take"
    by_name = {"scripts/other": "#!/usr/bin/perl\nuse lib 'lib/OSCAR';\nuse Next;\n"}
    assert told(tmp_path / "b", {"lib/OSCAR/Next.pm": module}, by_name) == []
    silent = module.replace("our @EXPORT = qw(next_one);", "our @EXPORT = ();")
    assert told(tmp_path / "c", {"lib/OSCAR/Next.pm": silent}) == []


def _have_it(count: int) -> dict[str, str]:
    text = "#!/usr/bin/perl\nuse OSCAR::Utils;\nrun_command('y');\n"
    return {f"scripts/user{number}": text for number in range(count)}


def test_a_name_of_oscars_own_that_several_have_from_its_module_comes_from_no_other(tmp_path: Path) -> None:
    """The module itself is one of those who have it."""
    changed = {"scripts/go": FILES["scripts/go"] + "use SIS::Client;\nrun_command('x');\n"}
    found = one(told(tmp_path / "a", changed, _have_it(2)))
    assert found.what == "calls run_command, which lib/OSCAR/Utils.pm exports, and does not load that"
    assert told(tmp_path / "b", changed, _have_it(1)) == []
    lacking = {**_have_it(2), "scripts/other": OTHER.replace("use OSCAR::Utils;\n", "")}
    assert told(tmp_path / "c", changed, lacking) == []
    elsewhere = {**_have_it(2), "src/SIS/Client.pm": "package SIS::Client;\nsub run_command { 1 }\n1;\n"}
    assert told(tmp_path / "d", changed, elsewhere) == []
    plain = {path: text.replace("run_command", "croak") for path, text in {**_have_it(4), **changed}.items()}
    assert told(tmp_path / "e", {"scripts/go": plain.pop("scripts/go")}, plain) == []


def test_a_name_that_no_file_but_its_export_says(tmp_path: Path) -> None:
    old = UTILS.replace("use strict;", "use strict;\nuse SIS::Client;")
    wrong = {"lib/OSCAR/Utils.pm": old.replace("    save_file", "    save_fill\n    save_file")}
    found = one(told(tmp_path, wrong, {"lib/OSCAR/Utils.pm": old}))
    assert (found.line, found.what) == (7, "exports save_fill, which it does not define")


def test_what_may_have_been_so_before_is_not_new(tmp_path: Path) -> None:
    """Others who lacked the name have got it from its module since: what stands is no fault of this change."""
    lacking = OTHER.replace("use OSCAR::Utils;\n", "")
    old = {"scripts/other": lacking, "scripts/go": FILES["scripts/go"] + "use SIS::Client;\nrun_command('x');\n"}
    changed = {"scripts/other": OTHER, "scripts/go": old["scripts/go"].replace("use SIS::Client;", "use Carp;")}
    assert told(tmp_path, changed, old) == []


def test_others_that_load_it_too_show_that_it_brings_no_function_of_perls_own_modules(tmp_path: Path) -> None:
    changed = {"scripts/go": FILES["scripts/go"] + "use SIS::Client;\nuse Data::Dumper;\ncopy('a', 'b');\n"}
    other = {"scripts/other": "#!/usr/bin/perl\nuse SIS::Client;\nuse File::Copy;\ncopy('c', 'd');\n"}
    assert (
        one(told(tmp_path / "a", changed, other)).what == "calls copy, which File::Copy exports, and does not load that"
    )
    without = {"scripts/other": other["scripts/other"].replace("use File::Copy;\n", "")}
    assert told(tmp_path / "b", changed, without) == []
