"""Lists of files: what a commit forgets to add, to name, or to take away."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.lint.lists.control import check_control
from oscar_steps.lint.lists.leftout import left_out
from oscar_steps.lint.lists.names import check_lists
from oscar_steps.lint.problems import Problem
from tests.unit.lint.perl.test_chain import one, tree_of

INSTALLS = "TOP := ..\nFILES := {names}\ninstall:\n\tcp $(FILES) /usr/lib\n"
GOES_IN = "SUBDIRS := {names}\nall:\n\tfor dir in ${{SUBDIRS}} ; do ( cd $$dir ; ${{MAKE}} all ) ; done\n"


def change(top: Path, before: dict[str, str], more: dict[str, str]) -> tuple[list[Problem], list[Problem]]:
    return left_out(tree_of(top / "before", before), tree_of(top / "after", {**before, **more}))


def folder_of(names: str, template: str, unnamed: str = "", text: str = "x\n") -> dict[str, str]:
    files = {f"set/{name}": text for name in (*names.split(), *unnamed.split())}
    return {**files, "set/Makefile": template.format(names=names)}


@pytest.mark.parametrize(
    ("names", "unnamed", "more", "kind"),
    [
        ("a.x b.x c.x d.x e.x", "", "f.x g.x", "'*.x'"),
        ("a.x b.x c.x d.x e.x f.x g.x h.x i.x j.x", "old.x", "k.x", "'*.x'"),
        ("a b c d e", "README CHANGES.txt", "f", "the files without an end"),
    ],
    ids=["two at once", "one of eleven is no part of the list", "names without an end"],
)
def test_new_files_that_a_list_of_nearly_all_of_their_kind_leaves_out(
    tmp_path: Path, names: str, unnamed: str, more: str, kind: str
) -> None:
    before = folder_of(names, INSTALLS, unnamed)
    new, mended = change(tmp_path, before, {f"set/{name}": "x\n" for name in more.split()})
    assert [str(problem) for problem in new] == [
        f"set/Makefile:2: leaves out '{name}', and names all others of {kind}; what is not named is not installed"
        for name in more.split()
    ]
    assert mended == []


def test_a_script_is_left_out_where_all_others_are_named(tmp_path: Path) -> None:
    before, script = folder_of("a b c d e", INSTALLS, text="#!/bin/sh\n"), "#!/bin/sh\ntrue\n"
    assert (
        "leaves out 'f', and names all others of the scripts"
        in one(change(tmp_path / "all", before, {"set/f": script})[0]).what
    )
    names = "a b c d e f g h i j k l"
    tools = folder_of(names, INSTALLS, "for_developers", text="#!/bin/sh\n")
    assert change(tmp_path / "all but one", tools, {"set/z": script}) == ([], [])


def test_a_new_folder_that_make_does_not_go_into(tmp_path: Path) -> None:
    before = {f"set/{name}/Makefile": "all:\n\ttrue\n" for name in "abcde"}
    before["set/Makefile"] = GOES_IN.format(names="a b c d e")
    new, _ = change(tmp_path / "a", before, {"set/f/Makefile": "all:\n\ttrue\n"})
    assert (one(new).file, one(new).line) == ("set/Makefile", 1)
    assert "leaves out 'f', and names all others of the folders with a Makefile" in one(new).what
    assert change(tmp_path / "b", before, {"set/f/x": "x\n"}) == ([], [])


@pytest.mark.parametrize("names", ["a b c d e f g", "a* b c* d e* f* g"])
def test_a_list_that_is_complete_again_has_mended_what_it_left_out(tmp_path: Path, names: str) -> None:
    before = folder_of("a b c d e", INSTALLS, "f g")
    new, mended = change(tmp_path, before, {"set/Makefile": INSTALLS.format(names=names)})
    assert new == []
    assert ["leaves out 'f'" in mended[0].what, "leaves out 'g'" in mended[1].what] == [True, True]


def test_a_makefile_that_removes_all_of_a_kind_does_not_take_all_of_it(tmp_path: Path) -> None:
    before = folder_of("a.x b.x c.x d.x e.x", INSTALLS + "uninstall:\n\trm -rf $(DESTDIR)/usr/lib/*.x\n")
    assert "leaves out 'f.x'" in one(change(tmp_path / "a", before, {"set/f.x": "x\n"})[0]).what
    before["set/Makefile"] += "more:\n\tcp *.x /usr/lib\n"
    assert change(tmp_path / "b", before, {"set/f.x": "x\n"}) == ([], [])


def test_a_commit_that_brings_more_than_the_list_had_before_is_of_another_kind(tmp_path: Path) -> None:
    before = folder_of("a.x b.x c.x d.x e.x", INSTALLS)
    assert change(tmp_path, before, {f"set/{number}.x": "x\n" for number in range(3)}) == ([], [])


def test_a_makefile_that_is_made_in_one_folder_is_missing_in_another(tmp_path: Path) -> None:
    files = {"lib/Makefile": GOES_IN.format(names="one two"), "lib/one/Makefile": "all:\n\ttrue\n", "lib/two/x": "x\n"}
    files |= {"src/Makefile": "Makefile: x.pro\n\tqmake\n"}
    assert one(check_lists(tree_of(tmp_path / "a", files)).problems).right == "lib/two/Makefile has to be there"
    files |= {"lib/two/rules.mk": "lib/two/Makefile:\n\ttouch $@\n"}
    assert check_lists(tree_of(tmp_path / "b", files)).problems == []


def test_templates_of_automake_that_a_script_makes_may_be_missing(tmp_path: Path) -> None:
    files = {"Makefile.am": "SUBDIRS = one two\ndocs:\n\t(cd doc; $(MAKE) docs)\n", "one/Makefile.am": "", "two/x": ""}
    assert one(check_lists(tree_of(tmp_path / "a", files)).problems).right == "two/Makefile has to be there"
    files |= {"autogen.sh": '#!/bin/sh\nout="$dir/Makefile.am"\ntouch $out\n'}
    assert check_lists(tree_of(tmp_path / "b", files)).problems == []


def test_a_resource_of_a_project_that_is_not_there_and_a_picture_that_a_resource_names(tmp_path: Path) -> None:
    files = {"src/x/x.pro": "SOURCES = a.cpp \\\n b.cpp\nRESOURCES += x.qrc\n"}
    files |= {"src/x/a.cpp": "x\n", "src/x/b.cpp": "x\n"}
    found = one(check_lists(tree_of(tmp_path / "a", files)).problems)
    assert (found.file, found.line, found.right) == ("src/x/x.pro", 3, "src/x/x.qrc has to be there")
    pictures = "".join(f"<file>i/{name}.png</file>\n" for name in "abc")
    pictures = f"<RCC>\n<qresource>\n{pictures}</qresource></RCC>"
    files |= {"src/x/x.qrc": pictures, "src/x/i/a.png": "x\n", "src/x/i/c.png": "x\n"}
    found = one(check_lists(tree_of(tmp_path / "b", files)).problems)
    assert (found.file, found.line, found.right) == ("src/x/x.qrc", 4, "src/x/i/b.png has to be there")


def test_what_a_makefile_of_perl_installs_or_makes_manual_pages_of(tmp_path: Path) -> None:
    text = (
        "WriteMakefile(\n 'MAN1PODS' => {\n  'a' => '$(INST_MAN1DIR)/a.$(MAN1EXT)',\n  'b' => '$(INST_MAN1DIR)/b.1',\n"
    )
    text += " },\n 'EXE_FILES' => [qw(\n  a\n  c\n  d\n )]);\n"
    files = {f"scripts/{name}": "x\n" for name in "acd"} | {"scripts/Makefile.PL": text}
    found = one(check_lists(tree_of(tmp_path, files)).problems)
    assert (found.file, found.line, found.right) == ("scripts/Makefile.PL", 4, "scripts/b has to be there")


@pytest.mark.parametrize(
    ("recipe", "twice"),
    [
        ("install -m 0644 $(FILES) /usr/lib", True),
        ("@install ${FILES} /usr/lib", True),
        ("install -d $(FILES)", False),
        ("cp $(FILES) /usr/lib", False),
        ("for f in $(FILES); do install $$f /usr/lib; done", False),
    ],
)
def test_a_name_that_install_gets_twice(tmp_path: Path, recipe: str, twice: bool) -> None:
    makefile = f"FILES := a \\\n\tb c \\\n\ta\nall:\n\t{recipe}\n"
    found = check_lists(tree_of(tmp_path, {"Makefile": makefile, "a": "x\n", "b": "x\n", "c": "x\n"})).problems
    words = "names 'a' twice: install will not overwrite what it has just installed"
    assert [(each.line, each.what) for each in found] == ([(3, words)] if twice else [])


def test_a_package_that_a_set_writes_in_another_way_than_the_tree(tmp_path: Path) -> None:
    names = "<s>\n<opkg>sync_files</opkg>\n<opkg>elsewhere</opkg>\n<opkg>lan_two</opkg>\n</s>\n"
    files = {"share/package_sets/D/x.xml": names, "packages/sync-files/config.xml": "<name>sync-files</name>"}
    files |= {"packages/lan-two/config.xml": "<name>lan_two</name>"}
    found = one(check_lists(tree_of(tmp_path, files)).problems)
    assert (found.line, found.what) == (2, "names 'sync_files', which is not in the tree")


CONTROL = """Source: x
# a comment
Build-Depends: debhelper (>= 9), ${misc:Depends},
 perl:any [amd64 !i386] <!nocheck> | a
 , b2

Package: x
Architecture: all
Description: what it does
 and why: it
 .
Depends: a (= ${binary:Version}), b
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("Depends: a (= ${binary:Version}), b", "Depends: a\n set of a", 12, "'a set of a' is not a dependency"),
        (" , b2", " b2", 4, "'a b2' is not a dependency"),
        ("(>= 9)", "(=> 9)", 3, "'debhelper (=> 9)' is not a dependency"),
        ("Architecture: all", "Architecture: all\narchitecture: any", 9, "'architecture' is there twice"),
        (" and why: it", "and why", 10, "'and why' is not a field"),
        ("Package: x", " x", 7, "'x' continues nothing"),
    ],
)  # fmt: skip
def test_what_dpkg_refuses_in_a_control_file(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert check_control(tree_of(tmp_path / "good", {"debian/control": CONTROL})).problems == []
    assert CONTROL.count(old) == 1
    found = one(check_control(tree_of(tmp_path / "bad", {"debian/control": CONTROL.replace(old, new)})).problems)
    assert (found.line, found.what) == (line, f"control: {words}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (", b2", ", @cdbs@"),
        ("(= ${binary:Version}), b", "(= ${binary:Version}), b${so:Version}-x, ${a:b}c"),
        (" and why: it", " and\x0cwhy,\x85 it\u2028is"),
    ],
)
def test_what_dpkg_takes_in_a_control_file(tmp_path: Path, old: str, new: str) -> None:
    assert CONTROL.count(old) == 1
    assert check_control(tree_of(tmp_path, {"debian/control.in": CONTROL.replace(old, new)})).problems == []


def test_a_control_file_of_nothing_but_faults_is_told_so_often(tmp_path: Path) -> None:
    assert len(check_control(tree_of(tmp_path, {"debian/control": "x\n" * 1000})).problems) == 20


@pytest.mark.parametrize(
    ("word", "slip"),
    [
        ("lam-osca", True),
        ("lam-oscars", True),
        ("lem-oscar", True),
        ("lam-oscar2", False),
        ("lamosca", False),
        ("c", False),
    ],
)
def test_a_package_that_one_set_writes_in_another_way_than_all_others(tmp_path: Path, word: str, slip: bool) -> None:
    names = "<s>\n<opkg>c3</opkg>\n<opkg>lam-oscar</opkg>\n</s>\n"
    files = {f"share/package_sets/D/{number}.xml": names for number in range(4)}
    files["share/package_sets/D/x.xml"] = f"<s>\n<opkg>{word}</opkg>\n</s>\n"
    found = check_lists(tree_of(tmp_path, files)).problems
    assert [(each.file, each.line) for each in found] == ([("share/package_sets/D/x.xml", 2)] if slip else [])
