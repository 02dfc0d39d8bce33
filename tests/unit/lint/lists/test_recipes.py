"""What make hands to the shell, and the paths of the tree that Makefiles and shell scripts name."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from oscar_steps.lint.check import check_tree
from oscar_steps.lint.lists.paths import check_paths
from oscar_steps.lint.lists.recipes import check_recipes, read_makefile, script_of
from oscar_steps.lint.lists.shellwords import commands_of
from oscar_steps.lint.problems import Problem
from oscar_steps.lint.tree import File
from tests.unit.lint.perl.test_chain import FILES, one, tree_of


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ('cat a | sed "s|x|$(../b/c d)|" > e', 'cat a / ../b/c d / sed "s|x|$(../b/c d)|"'),
        ("export A=`pwd`; cd b; ./c", "pwd / export A=`pwd` / cd b / ./c"),
        ("if test -d a; then \\\n\tb c; \\\nelif [ d ]; then e; fi", "test -d a / b c / [ d ] / e / fi"),
        ("A=1 b 2>&1 | c && { d; }", "b / c / d / }"),
        ("echo \"a; b\" 'c; d' # e; f\ng", "echo \"a; b\" 'c; d' / g"),
        ("case $x in a/b) c;; d) e/f;; esac", "c / e/f / esac"),
        ("cat <<EOF > x\n a/b\nEOF\nc/d", "cat / c/d"),
        ("a() { b/c; }\n( d/e )", "b/c / } / d/e"),
        ('echo ${x:-a;b} "`c/d`"', 'c/d / echo ${x:-a;b} "`c/d`"'),
        ('a <<< "word x"\nb <<<word\nc/d', "a / b / c/d"),
        ("a $((x/2)) $((b/(c/d)+1)) e/f; g", "a $((x/2)) $((b/(c/d)+1)) e/f / g"),
    ],
)
def test_the_commands_of_a_piece_of_shell(text: str, commands: str) -> None:
    found = [" ".join(command.words) for command in commands_of(text)]
    assert [each for each in found if each != "{"] == [each for each in commands.split(" / ") if each != "{"]


RECIPE = (
    "DIR = x\nall: a\n\t@if test -d $(DIR); \\\n\tthen \\\n\t\techo $$HOME; \\\n{middle}\tfi\n\nFILES := a \\\n\tb (\n"
)


def says(top: Path, makefile: str, path: str = "share/Makefile") -> list[Problem]:
    return [each for each in check_tree(tree_of(top, {**FILES, path: makefile})).problems if each.file == path]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
@pytest.mark.parametrize("path", ["share/Makefile", "src/x/Makefile.am", "debian/rules"])
def test_the_shell_of_a_recipe_is_read_as_make_hands_it_over(tmp_path: Path, path: str) -> None:
    good = RECIPE.format(middle="\telif test -f b; then \\\n\t\ttrue; \\\n")
    assert says(tmp_path / "good", good, path) == []
    found = one(says(tmp_path / "bad", good.replace("elif", "elsif"), path))
    assert (found.line, found.what) == (6, "bash: syntax error near unexpected token `then'")
    assert not found.gates


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
@pytest.mark.parametrize(
    "makefile",
    [
        "BEGIN = if true; then\nall:\n\t$(BEGIN) a; fi\n",
        "all:\n\t$(foreach x,a b,echo $(x);) fi\n",
        "define each\nfor x in a\nendef\nall:\n\t$(each); do b; done\n",
        "SHELL = /usr/bin/perl\nall:\n\tif (1) { print 2 }\n",
        ".ONESHELL:\nall:\n\tif true; then\n\ta; fi\n",
        "all:\n\ttrue\nFILES = a \\\n\t( \\\n\tb\n",
        "all:\n\ttrue\nA = b\n\tif (\n",
        "all: ; true\n\n# if (\n\t# if ( in a comment\n",
        'all:\n\ttest -n "$@$<$(A)" && (cd $(B) && $(MAKE)) \\\n',
        "all:\n\tif a; then b; \\\nendif\n\tfi\n".replace("endif\n", ""),
    ],
)
def test_what_only_make_can_read_is_left_alone_and_what_is_right_is_right(tmp_path: Path, makefile: str) -> None:
    assert says(tmp_path, makefile) == []


def test_what_one_recipe_lacks_the_next_one_cannot_bring() -> None:
    script = script_of(File("Makefile", b"all:\n\tif a; then\n\tb; fi\n", False))
    assert script.splitlines() == ["", "{ :;if a; then", "} ; { :;b; fi", "}"]


def test_an_at_sign_that_make_does_not_see(tmp_path: Path) -> None:
    bad = "all:\n\t@pack a && \\\n\t@rm -f b\n\t-@rm c\n\techo @x@ user@host '; @d'\n"
    found = one(check_recipes(tree_of(tmp_path, {"Makefile": bad})).problems)
    assert (found.line, found.what) == (
        3,
        "make: '@rm' within a command: the shell looks for a program of this name",
    )
    assert check_recipes(tree_of(tmp_path / "am", {"Makefile.am": "all:\n\ta && @RM@ b\n"})).problems == []


TREE = {"utils/query": "#!/bin/sh\n", "dist/where": "#!/bin/sh\n", "scripts/setup": "#!/bin/sh\n", "lib/x.pm": "1;\n"}


@pytest.mark.parametrize(
    ("path", "text", "line", "lost"),
    [
        ("Makefile", "TOP := $(CURDIR)\nSHELL := /bin/bash\na:\n\tperl -Ilib $(TOP)/dist/query\n", 4, "dist/query"),
        ("rpm/Makefile", "TOP = ..\nA := $(shell perl -I$(TOP)/lib $(TOP)/scripts/query --name)\n", 2, "scripts/query"),
        ("rpm/Makefile", "a:\n\tcat a.in | \\\n\tsed -e \"s|x|$$(../scripts/where b)|\" > a\n", 3, "scripts/where"),
        ("Makefile", "a:\n\t@A=`pwd`; \\\n\t./scripts/prepare $(X)\n", 3, "scripts/prepare"),
        ("share/Makefile.am", "a:\n\t$(top_srcdir)/dist/gone\n", 2, "dist/gone"),
        ("packages/s/scripts/setup", "#!/bin/sh\n$OSCAR_HOME/scripts/set_up\n", 2, "scripts/set_up"),
        ("packages/s/scripts/setup", "#!/bin/sh\nif a; then . ${OSCAR_HOME}/lib/env.sh; fi\n", 2, "lib/env.sh"),
        ("packages/s/scripts/setup", "#!/bin/sh\n# libs\ncp -pr $OSCAR_HOME/{libs,scripts} $I\n", 3, "libs"),
    ],
)  # fmt: skip
def test_a_path_of_the_tree_that_is_wrong(tmp_path: Path, path: str, text: str, line: int, lost: str) -> None:
    found = one(check_paths(tree_of(tmp_path, {**TREE, path: text})).problems)
    assert (found.file, found.line, found.right) == (path, line, f"{lost} has to be there")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Makefile", "TOP := $(CURDIR)\na:\n\t$(TOP)/utils/query; ../other/x; $(B)/c; ./d$(X); /bin/ls\n"),
        ("Makefile", "a:\n\tcd scripts; ./prepare/x\n\t-./scripts/prepare\n\techo ./scripts/prepare\n"),
        ("Makefile", "a:\n\ttest -x scripts/later && scripts/later\nb:\n\t./configure\n"),
        ("Makefile", "b:\n\t./tools/made\nmade: x.c\n\tcc x.c\n"),
        ("Makefile", "a:\n\techo $$((SIZE/1024))\n"),
        ("Makefile", "a:\n\tcc >./tools/made; ./tools/made\n"),
        ("Makefile", "a:\n\tcp x y ./tools/made; ./tools/made\n"),
        ("Makefile", "a:\n\ttar xf b; sh b/install; cp c scripts/new; scripts/new\nbin_PROGRAMS = install\n"),
        ("debian/rules", "a:\n\tscripts/setup; $(CURDIR)/utils/query\n"),
        ("scripts/x", "#!/bin/sh\n$OSCAR_HOME/tmp/x; $OSCAR_HOME/packages/y/z; $A/$OSCAR_HOME/b; echo $OSCAR_HOME/c\n"),
        ("scripts/x", "#!/bin/sh\n[ -f $OSCAR_HOME/etc/x ] && . $OSCAR_HOME/etc/x\n"),
        ("scripts/x", "#!/bin/sh\ncat <<E\n$OSCAR_HOME/scripts/gone\nE\n"),
        ("doc/example", "#!/bin/sh\n$OSCAR_HOME/scripts/gone\n"),
    ],
)  # fmt: skip
def test_a_path_that_is_right_or_that_nobody_can_judge(tmp_path: Path, path: str, text: str) -> None:
    assert check_paths(tree_of(tmp_path, {**TREE, path: text})).problems == []


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("Makefile", "clean:\n\t(cd src; make clean)\n", "goes into 'src', which is not in the tree"),
        ("Makefile", "A = $(CURDIR)\nall:\n\tcd $(A)/y/x && $(MAKE) c\n", "goes into 'y/x', which is not in the tree"),
        ("Makefile", "b:\n\tmkdir src; (cd src; make)\n\tcd $(A); make\n\tcd src; ls\n\tcd lib; make\n", ""),
        ("rpm/Makefile", "TOP = ..\ninclude $(TOP)/Config.mk\n", "includes '../Config.mk', which is not in the tree"),
        ("doc/Makefile.am", "include $(top_builddir)/dist/o.sh\n", "includes '../dist/o.sh', which is not in the tree"),
        ("Makefile", "-include x.mk\ninclude $(X)/y.mk\ninclude z.mk\nz.mk:\n\ttouch $@\ninclude /etc/x\n", ""),
        ("Makefile", "# include x.mk\ninclude $(wildcard *.mk)\n", ""),
        ("Makefile", "a:\n\tcd && make\n\tcd y/x 2>/dev/null || make y\n", ""),
    ],
)  # fmt: skip
def test_a_folder_that_make_goes_into_and_what_it_includes(tmp_path: Path, path: str, text: str, words: str) -> None:
    assert [each.what for each in check_paths(tree_of(tmp_path, {**TREE, path: text})).problems] == [words] * bool(
        words
    )


def test_a_dollar_sign_that_slipped_out_of_its_string(tmp_path: Path) -> None:
    text = '#!/bin/sh\n# -n $"data"\ndata=\nif test -n "$a" -o -n $"data"; then echo $"Hello" "$"; fi\n'
    found = one(check_paths(tree_of(tmp_path, {"autogen.sh": text})).problems)
    assert (found.line, found.what, found.right) == (4, "$\"data\" is the word 'data' itself", 'its value is "$data"')


def test_of_a_long_text_the_beginning_is_read_and_no_line_is_cut(tmp_path: Path) -> None:
    line = "echo a; $OSCAR_HOME/scripts/query\n"
    text = "#!/bin/sh\n" + line * 5000
    files = {"scripts/query": "#!/bin/sh\n", "scripts/long": text}
    assert check_paths(tree_of(tmp_path, files)).problems == []
    assert 1000 < len(commands_of(text)) < 5000


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("A = {units}x\nall:\n" + "\techo $(A)\n" * 200, "$(a"),
        ("{units}all:\n" + "\techo $(A)\n" * 3000, "A += x\n"),
        ("all:\n\techo {units}x\n", "\\ "),
        ("all:\n" + "\tcd a/b && make\n" * 20 + "\t{units}\n", "cp "),
        ("all:\n" + "\t./a/b\n" * 20 + "\t{units}\n", "[ -e "),
        ("all:\n" + "\t./a/b\n" * 20 + "\t{units}\n", "test -e x/b-"),
    ],
)
def test_a_makefile_that_repeats_itself_is_read_at_once(tmp_path: Path, text: str, unit: str) -> None:
    tree = tree_of(tmp_path, {"Makefile": text.format(units=unit * (30_000 // len(unit)))})
    began = time.process_time()
    check_paths(tree)
    check_recipes(tree)
    script_of(tree.files["Makefile"])
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "unit", ["$(", "`", "(", '"', "'", "\\", "a <<a\n", "${", ";", "$(a) ", "a=", "$(shell ", "\\\n"]
)
def test_hostile_recipes_are_read_to_their_end(tmp_path: Path, unit: str) -> None:
    text = "A = b\nall:\n\t" + unit * (30_000 // len(unit)) + "\n\tx $(A)\n"
    tree = tree_of(
        tmp_path, {"Makefile": text, "scripts/x": f"#!/bin/sh\n$OSCAR_HOME/tmp/x {unit * (30_000 // len(unit))}\n"}
    )
    began = time.process_time()
    assert (check_paths(tree).problems, check_recipes(tree).problems) == ([], [])
    script_of(tree.files["Makefile"])
    assert read_makefile(tree.files["Makefile"]) is not None
    assert time.process_time() - began < 20
