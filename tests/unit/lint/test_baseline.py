"""What a commit made wrong: problems of its tree without those that the tree before it had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from oscar_steps.lint.baseline import Comparison, compare
from oscar_steps.lint.problems import LeftAlone, Problem, Report
from oscar_steps.lint.tree import Tree

Files = Mapping[str, str]
A = "scripts/a"
B = "scripts/b"
PROGRAM = "one\ntwo\nsystem('./gone') and die;\nfour\nfive\n"


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    return tmp_path


def tree(top: Path, files: Files) -> Tree:
    top.mkdir()
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(top)


def report(*problems: Problem, alone: tuple[str, ...] = ()) -> Report:
    return Report(tuple(problems), tuple(LeftAlone(path, "odd") for path in alone), 1, 0.1)


def gone(file: str = A, line: int = 3, **more: bool) -> Problem:
    return Problem(file, line, "starts './gone', which is not in the tree", "scripts/gone has to be there", **more)


def syntax(line: int, near: str = "x", file: str = A) -> Problem:
    return Problem(file, line, f'perl: syntax error, near "{near}"', "'perl -c' has to say 'syntax OK'")


def undeclared(line: int, name: str = "$lisst", file: str = A) -> Problem:
    return Problem(file, line, f'perl: Global symbol "{name}" requires explicit package name', "declare it")


def change(
    trees: Path, before: Files, was: Report, after: Files, now: Report, copied: Mapping[str, str] | None = None
) -> Comparison:
    return compare(tree(trees / "before", before), was, tree(trees / "after", after), now, copied)


def test_a_problem_that_was_not_there_is_new_and_one_that_is_not_there_any_more_is_mended(trees: Path) -> None:
    found = change(trees, {A: PROGRAM}, report(gone()), {A: PROGRAM, B: "x\n"}, report(undeclared(1, file=B)))
    assert found == Comparison(new=(undeclared(1, file=B),), mended=(gone(),))


def test_a_problem_in_a_line_that_moved_is_the_same_one(trees: Path) -> None:
    found = change(trees, {A: PROGRAM}, report(gone()), {A: "#\n#\n" + PROGRAM}, report(gone(line=5)))
    assert (found.new, found.mended) == ((), ())
    assert [(pair.problem.line, pair.was.line) for pair in found.standing] == [(5, 3)]


def test_a_problem_in_a_line_that_was_edited_is_the_same_one_while_it_says_the_same(trees: Path) -> None:
    edited = PROGRAM.replace("and die", "and exit 1")
    assert change(trees, {A: PROGRAM}, report(gone()), {A: edited}, report(gone())).new == ()


def test_a_second_problem_of_the_same_words_is_new(trees: Path) -> None:
    twice = PROGRAM + "system('./gone') and die;\n"
    found = change(trees, {A: PROGRAM}, report(gone()), {A: twice}, report(gone(), gone(line=6)))
    assert found.new == (gone(line=6),)


def test_what_a_keyword_expands_to_makes_no_problem_a_new_one(trees: Path) -> None:
    before, after = "# $Revision: 12 $\nmy (\n", "# $Revision: 13 $\nmy (\n"
    was, now = syntax(1, "$Revision: 12 $"), syntax(1, "$Revision: 13 $")
    assert change(trees, {A: before}, report(was), {A: after}, report(now)).new == ()


@pytest.mark.parametrize(
    "copied", [{B: A}, {"scripts": "old"}, {}], ids=["a copied file", "a copied folder", "no history"]
)
def test_a_file_that_was_renamed_keeps_its_problems(trees: Path, copied: Mapping[str, str]) -> None:
    old = "old/b" if "scripts" in copied else A
    found = change(trees, {old: PROGRAM}, report(gone(old)), {B: PROGRAM}, report(gone(B)), copied)
    assert (found.new, found.mended) == ((), ())
    assert found.standing[0].was.file == old


def test_a_file_that_was_moved_and_edited_a_little_keeps_its_problems_without_history(trees: Path) -> None:
    moved = "lib/a"
    text = PROGRAM.replace("five", "5")
    found = change(trees, {A: PROGRAM}, report(undeclared(3)), {moved: text}, report(undeclared(3, file=moved)))
    assert (found.new, found.mended) == ((), ())


def test_a_copy_has_the_problems_of_what_it_was_copied_from(trees: Path) -> None:
    now = report(undeclared(3), undeclared(3, file=B))
    found = change(trees, {A: PROGRAM}, report(undeclared(3)), {A: PROGRAM, B: PROGRAM}, now, {B: A})
    assert found.new == ()
    assert len(found.standing) == 2


def test_code_that_moved_to_another_file_takes_its_problem_along(trees: Path) -> None:
    line = "print $lisst;\n"
    found = change(
        trees, {A: line, B: "x\n"}, report(undeclared(1)), {A: "\n", B: "x\n" + line}, report(undeclared(2, file=B))
    )
    assert (found.new, found.mended) == ((), ())


def test_what_is_missing_is_no_new_problem_where_another_user_of_it_is_the_first_to_be_named(trees: Path) -> None:
    files = {A: PROGRAM, B: PROGRAM}
    assert change(trees, files, report(gone(A)), files, report(gone(B))).new == ()


def test_words_that_name_a_line_of_another_file_do_not_make_it_new(trees: Path) -> None:
    def problem(line: int) -> Problem:
        return Problem(B, 0, f"not executable, but {A}:{line} starts it", f"svn propset svn:executable on {B}")

    files = {A: PROGRAM, B: "x\n"}
    assert change(trees, files, report(problem(3)), files, report(problem(4))).new == ()


IMPORTS = "use OSCAR::M qw(one two);\nuse OSCAR::N qw(three);\n"
M = "lib/OSCAR/M.pm"


def not_exported(line: int, name: str, module: str) -> Problem:
    what = f'"{name}" is not exported by the OSCAR::{module} module'
    return Problem(A, line, what, "use a name that is in @EXPORT or @EXPORT_OK")


def test_an_import_that_was_wrong_already_and_is_said_before_another_one_is_not_new(trees: Path) -> None:
    """The module died when it was run, and gave every name then; now it is mended."""
    dies, mended = "our @EXPORT_OK = qw(one);\ndie;\n", "our @EXPORT_OK = qw(one);\n1;\n"
    first, second = not_exported(1, "two", "M"), not_exported(2, "three", "N")
    found = change(trees, {A: IMPORTS, M: dies}, report(second), {A: IMPORTS, M: mended}, report(first))
    assert (found.new, found.mended) == ((), ())
    assert [pair.problem for pair in found.standing] == [first]


def test_an_import_of_what_its_module_does_not_export_any_more_is_new_also_before_another_one(trees: Path) -> None:
    before, after = "our @EXPORT_OK = qw(one two);\n1;\n", "our @EXPORT_OK = qw(one);\n1;\n"
    first, second = not_exported(1, "two", "M"), not_exported(2, "three", "N")
    found = change(trees, {A: IMPORTS, M: before}, report(second), {A: IMPORTS, M: after}, report(first))
    assert (found.new, found.mended) == ((first,), ())


def test_an_old_error_that_comes_to_light_behind_a_mended_one_is_not_new(trees: Path) -> None:
    before = "my (\ntwo\nthree\nelse {\n"
    found = change(trees, {A: before}, report(syntax(1)), {A: "my $x;\ntwo\nthree\nelse {\n"}, report(syntax(4)))
    assert found.new == ()
    assert found.mended == (syntax(1),)


def test_an_old_error_that_a_new_one_hides_is_not_mended_and_the_new_one_is_new(trees: Path) -> None:
    before = "one\ntwo\nthree\nelse {\n"
    found = change(trees, {A: before}, report(syntax(4)), {A: "my (\ntwo\nthree\nelse {\n"}, report(syntax(1)))
    assert (found.new, found.mended) == ((syntax(1),), ())


def test_an_old_line_that_could_not_be_judged_before_is_not_new(trees: Path) -> None:
    before = "use Qt;\ntwo\nprint $lisst;\n"
    was = report(alone=(A,))
    assert change(trees, {A: before}, was, {A: before[7:]}, report(undeclared(2))).new == ()


def test_a_line_that_was_written_into_a_file_that_could_not_be_judged_is_new(trees: Path) -> None:
    found = change(trees, {A: "use Qt;\n"}, report(alone=(A,)), {A: "print $lisst;\n"}, report(undeclared(1)))
    assert found.new == (undeclared(1),)


def test_a_declaration_that_was_removed_makes_an_old_line_a_new_problem(trees: Path) -> None:
    found = change(trees, {A: "my $x;\nprint $x;\n"}, report(), {A: "print $x;\n"}, report(undeclared(1, "$x")))
    assert found.new == (undeclared(1, "$x"),)


def test_an_old_problem_that_a_change_brings_onto_the_way_of_the_installation_is_new(trees: Path) -> None:
    files = {A: PROGRAM}
    found = change(trees, files, report(gone()), files, report(gone(gates=True)))
    assert (found.new, found.mended, found.standing) == ((gone(gates=True),), (), ())


def test_a_problem_that_leaves_the_way_of_the_installation_stands(trees: Path) -> None:
    files = {A: PROGRAM}
    found = change(trees, files, report(gone(gates=True)), files, report(gone()))
    assert (found.new, found.mended, len(found.standing)) == ((), (), 1)


def test_what_is_said_of_a_folder_or_a_file_that_is_missing_stands_as_well(trees: Path) -> None:
    lost = Problem("VERSION", 0, "the file is missing", "install_cluster ends without it")
    menus = [Problem("src/cli", 0, f"menu: looked for it in {count} other files", "a menu") for count in (2, 3)]
    found = change(trees, {A: "x\n"}, report(lost, menus[0]), {A: "y\n", B: "x\n"}, report(lost, menus[1]))
    assert (found.new, found.mended) == ((), ())


def test_nothing_is_mended_in_a_file_that_cannot_be_judged_any_more(trees: Path) -> None:
    found = change(trees, {A: "my (\n"}, report(syntax(1)), {A: "use Qt;\n"}, report(alone=(A,)))
    assert (found.new, found.mended) == ((), ())


MODULE = "lib/OSCAR/M.pm"
USER = "#!/usr/bin/perl\nuse OSCAR::Between;\nprint $lisst;\n"
BETWEEN = {"lib/OSCAR/Between.pm": "package OSCAR::Between;\nuse OSCAR::M;\n1;\n"}
GOOD, BAD = "package OSCAR::M;\n1;\n", "package OSCAR::M;\nmy (\n1;\n"


def undefined(line: int, file: str = A) -> Problem:
    return Problem(file, line, "calls old_name, which nothing defines", "define it")


@pytest.mark.parametrize("user", [undeclared(3), undefined(3)], ids=["undeclared", "undefined"])
def test_errors_of_those_who_load_a_broken_module_are_neither_mended_by_it_nor_new_when_it_is_mended(
    tmp_path: Path, user: Problem
) -> None:
    broken = syntax(2, file=MODULE)
    good, bad = ({A: USER, MODULE: text, **BETWEEN} for text in (GOOD, BAD))
    (tmp_path / "1").mkdir()
    found = change(tmp_path / "1", good, report(user), bad, report(broken))
    assert (found.new, found.mended) == ((broken,), ())
    (tmp_path / "2").mkdir()
    found = change(tmp_path / "2", bad, report(broken), good, report(user))
    assert (found.new, found.mended) == ((), (broken,))


def test_an_error_in_a_file_that_does_not_load_the_broken_module_is_new_and_mended_as_ever(tmp_path: Path) -> None:
    broken, user = syntax(2, file=MODULE), USER.replace("Between", "Other")
    good, bad = ({A: user, MODULE: text} for text in (GOOD, BAD))
    (tmp_path / "1").mkdir()
    found = change(tmp_path / "1", good, report(undeclared(3)), bad, report(broken))
    assert found.mended == (undeclared(3),)
    (tmp_path / "2").mkdir()
    assert change(tmp_path / "2", bad, report(broken), good, report(undeclared(3))).new == (undeclared(3),)


def test_an_error_behind_a_module_that_is_as_broken_as_before_is_new(trees: Path) -> None:
    """The line itself did not change: what it needs was taken away above it."""
    module, stands = {"lib/OSCAR/M.pm": "package OSCAR::M;\nbroken\n"}, syntax(2, file="lib/OSCAR/M.pm")
    before = {A: "#!/usr/bin/perl\nuse OSCAR::M;\nmy $lisst;\nprint $lisst;\n", **module}
    after = {A: "#!/usr/bin/perl\nuse OSCAR::M;\n\nprint $lisst;\n", **module}
    found = change(trees, before, report(stands), after, report(stands, undeclared(4)))
    assert found.new == (undeclared(4),)
