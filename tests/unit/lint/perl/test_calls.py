"""Calls of functions that nothing defines are found where they are certain, and nowhere else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oscar_steps.lint.check import check_tree

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

ONE = """package OSCAR::One;
use strict;
use base qw(Exporter);
our @EXPORT = qw(one);
sub one ($) { return shift }
sub other { return 1 }
1;
"""
USER = "scripts/user"


def problems(tmp_path: Path, text: str, **files: str) -> list[tuple[str, int, str]]:
    """What is said of a script that begins as OSCAR's do, and has `text` from its fourth line on."""
    written = {USER: f"#!/usr/bin/perl\nuse strict;\nuse lib '../lib';\n{text}\n", "lib/OSCAR/One.pm": ONE, **files}
    for path, content in written.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o755)
    (tmp_path / "install_cluster").write_text("#!/bin/bash\n")
    (tmp_path / "install_cluster").chmod(0o755)
    return [(problem.file, problem.line, problem.what) for problem in check_tree(tmp_path).blamed]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("use OSCAR::One;\n\nprint onne(1);", 6, "calls onne, which nothing defines"),
        ("use OSCAR::One;\nOSCAR::One::gone(1);", 5, "calls OSCAR::One::gone, which nothing defines"),
        ("sub later { require OSCAR::One; OSCAR::One::gone(1); }", 4, "calls OSCAR::One::gone, which nothing"),
        ("use OSCAR::One;\nmy %h = (1 => one(1), 2 => &gone(2));", 5, "calls gone, which"),
        ("use XML::Simple;\nmy $x = XMLIn('x');", 5, "calls XMLIn, which nothing defines"),
        ("eval('1 + 1');\ncarp('x');", 5, "calls carp, which nothing defines"),
        ("print 'x';\ncarp('x');", 5, "calls carp, which nothing defines"),
        ("use OSCAR::One qw(one);\nother(1);", 5, "calls other, which nothing defines"),
    ],
)
def test_a_call_of_what_nothing_defines_is_found(tmp_path: Path, text: str, line: int, words: str) -> None:
    [(file, at, what)] = problems(tmp_path, text)
    assert (file, at) == (USER, line)
    assert what.startswith(words)


def test_what_a_module_exports_and_does_not_define_is_found_where_it_is_called(tmp_path: Path) -> None:
    module = {"lib/OSCAR/One.pm": ONE.replace("qw(one)", "qw(one two)")}
    assert [what for _, _, what in problems(tmp_path, "use OSCAR::One;\ntwo(1);", **module)] == [
        "calls two, which nothing defines"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "use OSCAR::One;\none(1); OSCAR::One::other();",
        "use OSCAR::One;\n# gone(1)\nprint 'gone(1)', \"gone(2)\", <<E;\ngone(3)\nE",
        "use SIS::Image;\nlist_image(1);",
        "use SIS::Image qw(list_image);\nlist_image(1);",
        "sub AUTOLOAD { our $AUTOLOAD }\nanything(1);",
        "no strict 'refs';\n*{'made'} = sub { 1 };\nmade(1);",
        "eval 'sub made { 1 }';\nmade(1);",
        "eval 'use Some::Thing; 1' or die;\nmade(1);",
        "require 'helpers.pl';\nhelp(1);",
        "open(OUT, '>', '/dev/null'); print OUT (1); print {*OUT} (2);",
        "our ($x, @y, %z); print $x (1) if @y; my $w = $z{gone}; print gone->(1) if 0; sub gone { }",
        "use Tk;\nmy $w = new MainWindow(1); MainLoop();",
        "use OSCAR::One;\none(1) if defined(&gone);",
        "sub later { main::gone(1); Other::gone(1); }",
        "our $x = 1; print '-' x ($x), '' if $x and ($x);",
        "my $say = 'x'; print lc($say), (1) x 3; foreach my $i (1) { next if ($i) } return(1) if 0;",
        "use POSIX;\nprint floor(1.5), strftime('%d', localtime(0));",
    ],
)
def test_what_may_be_defined_is_left_alone(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_a_missing_module_may_export_what_a_module_of_the_tree_exports_too(tmp_path: Path) -> None:
    module = {"lib/OSCAR/One.pm": ONE.replace("one", "center_it")}
    assert problems(tmp_path, "use SIS::Windows;\ncenter_it(1);", **module) == []


def test_a_module_that_dies_before_it_says_what_it_exports_hides_its_users_names(tmp_path: Path) -> None:
    module = {"lib/OSCAR/One.pm": ONE.replace("our @EXPORT", "die 'no database';\nour @EXPORT")}
    assert problems(tmp_path, "use OSCAR::One;\none(1);", **module) == []


def test_the_wrong_number_of_arguments_is_found_in_another_file_than_the_function(tmp_path: Path) -> None:
    assert problems(tmp_path, "use OSCAR::One;\none(1);") == []
    module = {"lib/OSCAR/One.pm": ONE.replace("one ($)", "one ($$)")}
    [(file, line, what)] = problems(tmp_path, "use OSCAR::One;\none(1);", **module)
    assert (file, line) == (USER, 5)
    assert "Not enough arguments for OSCAR::One::one" in what
