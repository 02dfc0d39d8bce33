"""What a change took away while something still uses it, and names in lists of what is not in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.lint.lists.leftout import left_out
from oscar_steps.lint.lists.names import check_lists
from oscar_steps.lint.problems import Problem
from oscar_steps.lint.removed import dropped_uses, removed_but_used
from oscar_steps.lint.tree import Tree
from tests.unit.lint.perl.test_chain import FILES, one, tree_of

MODULE = 'package OSCAR::Say;\nuse strict;\nsub say { print @_; }\nsub shout { print uc("@_"); }\n1;\n'
BEFORE = {**FILES, "lib/OSCAR/Say.pm": MODULE}


def told(
    top: Path, before: dict[str, str], lost: str, changes: dict[str, str] | None = None, externals: tuple[str, ...] = ()
) -> list[Problem]:
    """What is said of the change that takes `lost` away and writes `changes`."""
    after = {path: text for path, text in {**before, **(changes or {})}.items() if path != lost}
    return removed_but_used(
        tree_of(top / "before", before), tree_of(top / "after", after, externals=externals)
    ).problems


def test_a_module_that_the_installer_itself_loads_gates_when_it_is_taken_away(tmp_path: Path) -> None:
    found = one(told(tmp_path, BEFORE, "lib/OSCAR/Say.pm"))
    assert str(found) == (
        "install_cluster:3: uses OSCAR::Say, which this change took away (so do 2 other files); "
        "lib/OSCAR/Say.pm has to be there, unless another package brings it now"
    )
    assert found.gates


def test_a_module_that_the_new_installer_loads_gates_where_the_old_one_has_died(tmp_path: Path) -> None:
    before = {path: text for path, text in BEFORE.items() if path != "scripts/prepare"}
    before["bin/oscar-config"] = "#!/usr/bin/perl\nuse OSCAR::Later;\n"
    found = one(told(tmp_path, before, "lib/OSCAR/Later.pm"))
    assert (found.file, found.line, found.gates) == ("bin/oscar-config", 2, True)


def test_a_module_that_is_loaded_once_packages_are_installed_may_be_one_of_theirs(tmp_path: Path) -> None:
    found = one(told(tmp_path, BEFORE, "lib/OSCAR/Later.pm"))
    assert (found.file, found.line, found.gates) == ("scripts/first", 2, False)


def test_a_module_that_has_another_name_now_gates_and_its_new_name_is_said(tmp_path: Path) -> None:
    before = {**BEFORE, "src/cli/main_cli": FILES["src/cli/main_cli"].replace("OSCAR::Say", "OSCAR::Loud")}
    before["lib/OSCAR/Loud.pm"] = MODULE.replace("OSCAR::Say", "OSCAR::Loud")
    new = {"lib/OSCAR/Noise.pm": MODULE.replace("OSCAR::Say", "OSCAR::Noise")}
    found = one(told(tmp_path, before, "lib/OSCAR/Loud.pm", new))
    assert (found.file, found.right, found.gates) == ("src/cli/main_cli", "it is lib/OSCAR/Noise.pm now", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"src/tools/lib/OSCAR/Later.pm": "package OSCAR::Later; 1;\n"},
        {"scripts/first": "#!/usr/bin/perl\neval { require OSCAR::Later; };\n"},
        {"scripts/first": "#!/usr/bin/perl\n# use OSCAR::Later;\n"},
        {"scripts/first": "#!/usr/bin/perl\n", "scripts/deprecated/first": "#!/usr/bin/perl\nuse OSCAR::Later;\n"},
        {"scripts/prepare": '#!/usr/bin/perl\nsymlink("x/Later.pm", "$lib/OSCAR/Later.pm");\n'},
    ],
    ids=["moved within the tree", "tried", "a comment", "not used any more", "linked at run time"],
)
def test_a_module_that_is_not_missed_is_no_problem(tmp_path: Path, changes: dict[str, str]) -> None:
    assert told(tmp_path, BEFORE, "lib/OSCAR/Later.pm", changes) == []


def test_a_module_that_was_never_in_the_tree_is_no_problem(tmp_path: Path) -> None:
    before = {**BEFORE, "lib/OSCAR/Say.pm": "use OSCAR::PkgMan;\n1;\n", "README": "x\n"}
    assert told(tmp_path, before, "README", {"lib/OSCAR/Later.pm": "use OSCAR::PkgMan;\nuse OSCAR::Other;\n1;\n"}) == []


def test_what_an_external_brings_now_is_not_taken_away(tmp_path: Path) -> None:
    before = {**BEFORE, "lib/OSCAR/Ext/Foo.pm": "1;\n", "scripts/first": "#!/usr/bin/perl\nuse OSCAR::Ext::Foo;\n"}
    lost = "lib/OSCAR/Ext/Foo.pm"
    assert told(tmp_path / "with", before, lost, externals=("lib/OSCAR/Ext",)) == []
    assert len(told(tmp_path / "without", before, lost)) == 1


@pytest.mark.parametrize(("path", "gates"), [("scripts/first", True), ("scripts/window", False)])
def test_a_program_that_is_taken_away_and_still_started(tmp_path: Path, path: str, gates: bool) -> None:
    found = one(told(tmp_path, BEFORE, path))
    assert f"{path} has to be there" in found.right
    assert found.gates is gates


def test_a_program_that_a_module_starts_from_a_folder_nobody_knows(tmp_path: Path) -> None:
    before = {
        **BEFORE,
        "lib/OSCAR/Say.pm": MODULE + 'sub post { system("./post") and die; }\n',
        "scripts/post": "#!/bin/sh\n",
    }
    found = one(told(tmp_path / "gone", before, "scripts/post"))
    assert (found.file, found.line, found.gates) == ("lib/OSCAR/Say.pm", 6, False)
    assert told(tmp_path / "moved", before, "scripts/post", {"bin/post": "#!/bin/sh\n"}) == []


def test_a_program_that_a_script_of_the_shell_names(tmp_path: Path) -> None:
    before = {**BEFORE, "scripts/go": "#!/bin/sh\n# see $OSCAR_HOME/scripts/tool\n$OSCAR_HOME/scripts/tool -v\n"}
    before |= {"scripts/tool": "#!/bin/sh\n"}
    found = one(told(tmp_path, before, "scripts/tool"))
    assert (found.file, found.line) == ("scripts/go", 3)


def test_a_file_that_a_makefile_installs(tmp_path: Path) -> None:
    before = {
        **BEFORE,
        "share/Makefile": "FILES = a\ninstall:\n\tinstall $(FILES) $(DESTDIR)/usr/share\n",
        "share/a": "x\n",
    }
    found = one(told(tmp_path, before, "share/a"))
    assert str(found) == "share/Makefile:1: names 'a', which is not in the tree; share/a has to be there"


MAKEFILE = """NAMES := one two \\
\tthree four
all:
install: all
\tinstall -m 0755 $(NAMES) $(DESTDIR)/usr/bin
"""


def lists(top: Path, makefile: str, *names: str, **more: str) -> list[Problem]:
    files = {"scripts/Makefile": makefile, **{f"scripts/{name}": "x\n" for name in names}, **more}
    return check_lists(tree_of(top, files)).problems


def test_a_makefile_that_names_one_file_too_many(tmp_path: Path) -> None:
    found = one(lists(tmp_path, MAKEFILE, "one", "two", "three"))
    assert str(found) == "scripts/Makefile:2: names 'four', which is not in the tree; scripts/four has to be there"
    assert not found.gates


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("all:", "all:\n\ttest -d four && make -C four"),
        ("all:", "four: four.src\n\tcp four.src four"),
        ("all:", "all:\n\tm4 four.m4 > four"),
        ("three four", "three $(four)"),
        ("$(NAMES)", "*"),
        ("three four", "three # four"),
    ],
    ids=["looked for", "made by a rule", "written by a rule", "a variable", "not used", "a comment"],
)
def test_what_a_makefile_need_not_have_is_no_problem(tmp_path: Path, old: str, new: str) -> None:
    assert lists(tmp_path, MAKEFILE.replace(old, new), "one", "two", "three") == []


def test_a_list_of_what_is_no_file_is_no_problem(tmp_path: Path) -> None:
    """Targets, packages, programs of the host: hardly one of them is a file beside the Makefile."""
    assert lists(tmp_path, MAKEFILE, "one") == []


def test_a_list_of_automake_is_used_without_any_recipe(tmp_path: Path) -> None:
    files = {
        "scripts/Makefile.am": "oscar_DATA = \\\n\tone \\\n\ttwo \\\n\tgone\n",
        "scripts/one": "x\n",
        "scripts/two": "x\n",
    }
    found = one(check_lists(tree_of(tmp_path, files)).problems)
    assert str(found) == "scripts/Makefile.am:4: names 'gone', which is not in the tree; scripts/gone has to be there"


@pytest.mark.parametrize(
    "makefile",
    [
        "CLEANFILES = one two out.log\n",
        "MOSTLYCLEANFILES = one two out.log\n",
        "BUILT_SOURCES = one two made.h\n",
        "BUILT_SOURCES = made.h\nx_SOURCES = one two made.h\n",
        "nodist_x_SOURCES = one two made.h\n",
        "LDADD = libx.la one two\n",
        "x_LDADD = libx.la one two\n",
        "x_la_LIBADD = libx.la one two\n",
        "bin_PROGRAMS = one two three\n",
        "x_SOURCES = one two parse.y parse.h parse.c\n",
        "x_SOURCES = one two scan.l scan.c\n",
    ],
)
def test_what_a_build_makes_need_not_be_in_the_tree(tmp_path: Path, makefile: str) -> None:
    names = ("one", "two", "parse.y", "scan.l")
    assert lists(tmp_path / "plain", f"{makefile}all:\n\techo $({makefile.partition(' ')[0]})\n", *names) == []
    files = {"x/Makefile.am": makefile, **{f"x/{name}": "x\n" for name in names}}
    assert check_lists(tree_of(tmp_path / "automake", files)).problems == []


@pytest.mark.parametrize("made", ["moc_a.cpp", "ui_form.h", "qrc_x.cpp", "sub/moc_a.cpp", "form.h"])
def test_what_qmake_makes_need_not_be_in_the_tree(tmp_path: Path, made: str) -> None:
    files = {"x/x.pro": f"SOURCES = a.cpp b.cpp {made}\nFORMS = form.ui\n", "x/form.ui": "<ui/>\n"}
    files |= {"x/a.cpp": "x\n", "x/b.cpp": "x\n"}
    assert check_lists(tree_of(tmp_path, files)).problems == []


def test_a_project_of_qmake_that_names_a_file_which_is_not_there(tmp_path: Path) -> None:
    files = {
        "src/x/x.pro": "HEADERS += a.h \\\n b.h \\\n c.h\nLIBS = d.h e.h f.h\n",
        "src/x/a.h": "x\n",
        "src/x/c.h": "x\n",
    }
    found = one(check_lists(tree_of(tmp_path, files)).problems)
    assert (found.line, found.right) == (2, "src/x/b.h has to be there")


def test_a_batch_of_tests_that_names_one_which_is_not_there(tmp_path: Path) -> None:
    batch = '<x>\n<test name="a.apt"/>\n<!-- <test name="old.apt"/> -->\n<dep parent="b.apb" child="gone.apt"/>\n</x>\n'
    files = {"testing/w/x.apb": batch, "testing/w/a.apt": "<a/>\n", "testing/w/b.apb": "<b/>\n"}
    found = one(check_lists(tree_of(tmp_path / "a", files)).problems)
    assert (found.file, found.line, found.right) == ("testing/w/x.apb", 4, "testing/w/gone.apt has to be there")
    files["packages/w/testing/gone.apt"] = "<a/>\n"
    assert check_lists(tree_of(tmp_path / "installed beside it", files)).problems == []


def test_a_set_of_packages_that_names_one_which_was_renamed(tmp_path: Path) -> None:
    names = "<packages>\n<opkg>base</opkg>\n<opkg> lan </opkg>\n<opkg>elsewhere</opkg>\n</packages>\n"
    before = {"share/package_sets/Default/x.xml": names, "packages/base/config.xml": "<a/>"}
    assert check_lists(tree_of(tmp_path / "alone", before)).problems == []
    before["packages/lan/config.xml"] = "<a/>"
    assert told(tmp_path / "gone to another repository", before, "packages/lan/config.xml") == []
    found = one(told(tmp_path, before, "packages/lan/config.xml", {"packages/local-area/config.xml": "<a/>"}))
    assert (found.line, found.what) == (3, "names 'lan', which is not in the tree")


GOES_IN = "SUBDIRS := one two\n\nall:\n\tfor dir in ${SUBDIRS} ; do ( cd $$dir ; ${MAKE} all ) ; done\n"


def test_a_folder_that_a_makefile_goes_into_without_one_of_its_own(tmp_path: Path) -> None:
    files = {"lib/Makefile": GOES_IN, "lib/one/Makefile": "all:\n\ttrue\n", "lib/two/x.pm": "1;\n"}
    found = one(check_lists(tree_of(tmp_path, files)).problems)
    assert str(found) == "lib/Makefile:1: goes into 'two', which has no Makefile; lib/two/Makefile has to be there"


@pytest.mark.parametrize("makefile", ["GNUmakefile", "Makefile.in", "Makefile.PL"])
def test_a_folder_whose_makefile_has_another_name_or_is_made(tmp_path: Path, makefile: str) -> None:
    files = {"lib/Makefile": GOES_IN, "lib/one/Makefile": "all:\n\ttrue\n", f"lib/two/{makefile}": "all:\n\ttrue\n"}
    assert check_lists(tree_of(tmp_path, files)).problems == []


def test_folders_that_are_only_copied_need_no_makefile(tmp_path: Path) -> None:
    makefile = GOES_IN.replace("( cd $$dir ; ${MAKE} all )", "cp -r $$dir /x")
    assert (
        check_lists(tree_of(tmp_path, {"lib/Makefile": makefile, "lib/one/a": "x\n", "lib/two/b": "x\n"})).problems
        == []
    )


@pytest.mark.parametrize(
    ("makefile", "line"),
    [
        ("FILES := a \\\n\tb\n c.pm \\\n d.pm\nall:\n\ttrue\n", 3),
        ("FILES = a \\\n\tb\n\tc.pm\n\nall:\n\ttrue\n", 3),
        ("all:\n\ttrue\n\nSCRIPTS := a\nb c\n", 5),
        ("define x\na\nendef\nb c\n", 4),
    ],
    ids=["a list that is not continued", "with a tab before any rule", "behind a rule", "behind a definition"],
)
def test_words_of_a_makefile_that_belong_to_nothing(tmp_path: Path, makefile: str, line: int) -> None:
    found = one(check_lists(tree_of(tmp_path, {"lib/Makefile": makefile})).problems)
    assert (found.line, found.what.partition(":")[0]) == (line, "make")


@pytest.mark.parametrize(
    "line",
    [
        "include x.mk",
        "-include x.mk",
        "ifdef X",
        "else",
        "endif",
        "export PATH",
        "vpath %.c src",
        "$(call x)",
        "@X@",
        "# a \\\nb",
        "all: a\n\n\tb c",
        "define x\na b\nendef",
        "a b:",
        "if COND",
        "X = a \\\n b",
        "\t# a",
        "all:\n\ta \\\nb c",
        "define\tx\na b\nendef",
        "override define x\na b\nendef",
        "export override define x =\na b\nendef",
        "define x\na b\ndefine y\nc d\nendef\ne f\nendef",
        "define x\n\tdefine y\na b\nendef",
        ".if X\n.else\n.endif",
    ],
)
def test_what_make_takes_is_no_problem(tmp_path: Path, line: str) -> None:
    assert check_lists(tree_of(tmp_path, {"lib/Makefile": f"{line}\n"})).problems == []


def test_a_prerequisite_that_is_not_there(tmp_path: Path) -> None:
    order = "# share/prereqs/old\nshare/prereqs/base\nshare/prereqs/gone\nshare/prereqs/tk\n"
    files = {"share/prereqs/prereqs.order": order, "share/prereqs/base/x": "x\n", "share/prereqs/tk/x": "x\n"}
    found = one(check_lists(tree_of(tmp_path, files)).problems)
    assert (found.file, found.line) == ("share/prereqs/prereqs.order", 3)


def test_hostile_lists_are_read_to_their_end(tmp_path: Path) -> None:
    hostile = "A = " + "a \\\n" * 20_000 + "\t$(A)\n" + "B" * 200_000 + "=\n" + "=" * 5_000
    (tmp_path / "Makefile").write_text(hostile)
    assert check_lists(Tree(tmp_path)).problems == []


def test_what_a_changed_file_uses_no_more_is_told_unless_another_file_still_uses_the_module(tmp_path: Path) -> None:
    old = {
        "a": "#!/usr/bin/perl\nuse OSCAR::One;\nuse OSCAR::Two;\nsay_it(1);\n",
        "b": "#!/usr/bin/perl\nuse OSCAR::Two;\n",
        "c": '#!/bin/sh\n. "$OSCAR_HOME/scripts/env.sh"\n',
        "gone": "x\n",
    }
    new = {"a": "#!/usr/bin/perl\n", "b": old["b"], "c": "#!/bin/sh\n"}
    dropped = dropped_uses(tree_of(tmp_path / "before", old), tree_of(tmp_path / "after", new))
    assert {"gone", "a: uses OSCAR::One", "a: calls say_it", "c: names 'scripts/env.sh'"} <= {*dropped}
    assert "a: uses OSCAR::Two" not in dropped


KINDS = {f"lib/{name}.pm": "1;\n" for name in "abcde"}
INSTALLS = "clean:\n\trm -f *~\nFILES := a.pm b.pm c.pm \\\n d.pm e.pm{more}\ninstall:\n\tinstall {files} /usr/lib\n"


def changed_list(top: Path, before: dict[str, str], after: dict[str, str]) -> tuple[list[Problem], list[Problem]]:
    return left_out(tree_of(top / "before", {**KINDS, **before}), tree_of(top / "after", {**KINDS, **after}))


def test_a_new_file_that_the_list_of_all_its_kind_leaves_out(tmp_path: Path) -> None:
    makefile = INSTALLS.format(more="", files="$(FILES)")
    new, mended = changed_list(tmp_path, {"lib/Makefile": makefile}, {"lib/Makefile": makefile, "lib/f.pm": "1;\n"})
    assert str(one(new)) == (
        "lib/Makefile:4: leaves out 'f.pm', and names all others of '*.pm'; what is not named is not installed"
    )
    assert mended == []


def test_the_list_that_names_it_has_mended_it(tmp_path: Path) -> None:
    old = {"lib/Makefile": INSTALLS.format(more="", files="$(FILES)"), "lib/f.pm": "1;\n"}
    new, mended = changed_list(tmp_path, old, {**old, "lib/Makefile": INSTALLS.format(more=" f.pm", files="$(FILES)")})
    assert new == []
    assert "leaves out 'f.pm'" in one(mended).what


def test_one_of_two_that_were_left_out_is_mended_when_the_list_names_it(tmp_path: Path) -> None:
    makefile = {"lib/Makefile": INSTALLS.format(more="", files="$(FILES)")}
    old = {**makefile, "lib/f.pm": "1;\n", "lib/g.pm": "1;\n"}
    new, mended = changed_list(tmp_path, old, {**old, "lib/Makefile": INSTALLS.format(more=" f.pm", files="$(FILES)")})
    assert new == []
    assert "leaves out 'f.pm'" in one(mended).what


def test_a_file_that_is_taken_away_is_left_out_no_more(tmp_path: Path) -> None:
    makefile = {"lib/Makefile": INSTALLS.format(more="", files="$(FILES)")}
    assert len(changed_list(tmp_path, {**makefile, "lib/f.pm": "1;\n"}, makefile)[1]) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"lib/f.pm": "1;\n", "lib/Makefile": INSTALLS.format(more=" f.pm", files="$(FILES)")}),
        ({}, {"lib/f.txt": "x\n"}),
        ({}, {"lib/f.pm": "1;\n", "lib/Makefile": INSTALLS.format(more="", files="*.pm")}),
        ({}, {"lib/f.pm": "1;\n", "lib/Makefile": INSTALLS.format(more="", files="$(FILES)") + "\t# not f.pm\n"}),
        ({"lib/g.pm": "1;\n"}, {"lib/g.pm": "1;\n", "lib/f.pm": "1;\n"}),
        ({"lib/f.pm": "1;\n"}, {"lib/f.pm": "2;\n"}),
    ],
    ids=["listed at once", "of another kind", "all are taken", "said so", "not the only one", "it was so before"],
)
def test_a_file_that_need_not_be_in_the_list(tmp_path: Path, old: dict[str, str], new: dict[str, str]) -> None:
    makefile = {"lib/Makefile": INSTALLS.format(more="", files="$(FILES)")}
    assert changed_list(tmp_path, {**makefile, **old}, {**makefile, **new}) == ([], [])


def test_a_call_of_what_a_module_has_at_last_is_no_problem_any_more(tmp_path: Path) -> None:
    user = {"scripts/a": "#!/usr/bin/perl\nuse OSCAR::M;\nOSCAR::M::do_it(1);\nOSCAR::M::do_that(1);\n"}
    old = user | {"lib/OSCAR/M.pm": "package OSCAR::M;\nsub do_that { 1 }\n1;\n"}
    new = user | {"lib/OSCAR/M.pm": "package OSCAR::M;\nsub do_that { 1 }\nsub do_it { 1 }\n1;\n"}
    dropped = dropped_uses(tree_of(tmp_path / "before", old), tree_of(tmp_path / "after", new))
    assert dropped == ("scripts/a: calls OSCAR::M::do_it",)
