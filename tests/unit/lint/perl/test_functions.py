"""Calls of functions that nothing defines."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.lint.perl.functions import lost_functions
from oscar_steps.lint.problems import Problem
from tests.unit.lint.perl.test_chain import one, tree_of

MODULE = "lib/OSCAR/Image.pm"
IMAGE = "package OSCAR::Image;\nuse base qw(Exporter);\nour @EXPORT = qw(make_image);\nsub make_image { 1 }\n1;\n"
USER = "scripts/build"
FILES = {
    MODULE: IMAGE,
    "lib/OSCAR/Log.pm": "package OSCAR::Log;\nsub log_section { print @_ }\n1;\n",
    USER: "#!/usr/bin/perl\nuse OSCAR::Image;\nuse OSCAR::Log;\nlog_section('x');\nmake_image('x') or die;\n",
}


def told(top: Path, changes: dict[str, str], before: dict[str, str] | None = None) -> list[Problem]:
    old = {**FILES, **(before or {})}
    return lost_functions(tree_of(top / "before", old), tree_of(top / "after", {**old, **changes})).problems


def test_a_function_that_was_renamed_while_another_file_still_calls_it(tmp_path: Path) -> None:
    """What else the module loads now is known, and does not bring it."""
    renamed = IMAGE.replace("make_image", "build_image")
    found = one(told(tmp_path, {MODULE: f"{renamed}use File::Basename;\nuse OSCAR::Log;\n"}))
    assert str(found) == (
        f"{USER}:5: calls make_image, which this change took away from {MODULE}; "
        "define it, or call what takes its place"
    )
    assert not found.gates


def test_a_function_that_was_commented_out_while_it_is_called_with_its_package(tmp_path: Path) -> None:
    user = {USER: "#!/usr/bin/perl\nif (OSCAR::Image::make_image ($dir)) { die }\n"}
    found = one(told(tmp_path, {MODULE: IMAGE.replace("sub make", "#sub make")}, user))
    assert (found.file, found.line) == (USER, 2)


def test_a_function_of_the_file_itself(tmp_path: Path) -> None:
    user = {USER: "#!/usr/bin/perl\nhelp();\nsub help { print 'x' }\n"}
    found = one(told(tmp_path, {USER: "#!/usr/bin/perl\nhelp();\n"}, user))
    assert (found.file, found.line) == (USER, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {
            MODULE: IMAGE.replace("make_image", "build_image"),
            USER: "#!/usr/bin/perl\nuse OSCAR::Image;\nbuild_image();\n",
        },
        {MODULE: "package OSCAR::Image;\n1;\n", "lib/OSCAR/Other.pm": "sub make_image { 1 }\n1;\n"},
        {MODULE: "package OSCAR::Image;\nuse OSCAR::FromElsewhere;\n1;\n"},
        {MODULE: IMAGE.replace("sub make_image", "*make_image = sub")},
        {MODULE: "package OSCAR::Image;\nsub AUTOLOAD { 1 }\n1;\n"},
        {
            MODULE: IMAGE.replace("make_image", "build_image"),
            USER: "#!/usr/bin/perl\nuse OSCAR::Image;\n# make_image();\n",
        },
        {MODULE: IMAGE.replace("make_image", "build_image"), USER: "#!/usr/bin/perl\nuse Tk;\n$top->make_image();\n"},
        {MODULE: IMAGE.replace("make_image", "build_image"), USER: "#!/usr/bin/perl\nprint 'make_image() is old';\n"},
    ],
    ids=["callers changed too", "moved", "handed on", "assigned", "autoload", "a comment", "a method", "a message"],
)
def test_a_function_that_is_not_missed_is_no_problem(tmp_path: Path, changes: dict[str, str]) -> None:
    assert told(tmp_path, changes) == []


def test_a_new_call_of_what_a_module_of_the_tree_does_not_define(tmp_path: Path) -> None:
    found = one(told(tmp_path, {USER: FILES[USER] + "OSCAR::Image::delete_all('x');\n"}))
    assert (found.line, found.what) == (6, f"calls OSCAR::Image::delete_all, which {MODULE} does not define")


@pytest.mark.parametrize(
    ("slip", "meant"), [("log_sectoin", "log_section"), ("log_secton", "log_section"), ("make_Image", "make_image")]
)
def test_a_new_call_that_is_a_slip_of_a_function_that_the_file_has(tmp_path: Path, slip: str, meant: str) -> None:
    found = one(told(tmp_path, {USER: f"{FILES[USER]}{slip}('y');\n"}))
    assert (found.line, found.right) == (6, f"{meant} may be meant")


def test_a_new_call_that_no_module_can_bring_because_all_that_are_loaded_are_known(tmp_path: Path) -> None:
    text = f"{FILES[USER]}use Carp; use POSIX qw(floor);\nwrite_contacts('x');\n"
    found = one(told(tmp_path, {USER: text}))
    assert (found.line, found.right) == (7, "define write_contacts, or load the module that does")


@pytest.mark.parametrize(
    "code",
    [
        "use SIS::Image;\nwrite_contacts('x');",
        "use POSIX;\nfloored(1.5);",
        "use Some::Thing qw(:all);\nwrite_contacts('x');",
        "use Some::Thing qw(write_contacts);\nwrite_contacts('x');",
        "eval 'use Some::Thing';\nwrite_contacts('x');",
        "require 'other.pl';\nwrite_contacts('x');",
        "use Carp; croak('x'); confess('y'); carp('z');",
        "*write_contacts = sub { 1 }; write_contacts('x');",
        "my $x = new Contacts('x');",
        "use constant limit_of_all => 3; print limit_of_all();",
        "opendir(DIR, '.'); rewinddir(DIR); printf STDERR ('x');",
    ],
)
def test_a_new_call_that_an_unknown_module_or_perl_may_define_is_no_problem(tmp_path: Path, code: str) -> None:
    assert told(tmp_path, {USER: f"{FILES[USER]}{code}\n"}) == []


@pytest.mark.parametrize(
    "code",
    [
        "use Tk;\nmake_images('x');",
        "OSCAR::Elsewhere::make('x');",
        "Tk::Image::show('x');",
        "use Tk;\nsome_function_of_another_module('x');",
        "my ($log_sectoin) = $x->log_sectoin('x');",
        "print 'log_sectoin()';",
        "printf(1); print(2); if (1) { return(3); }",
    ],
)
def test_what_another_module_may_define_is_no_problem(tmp_path: Path, code: str) -> None:
    assert told(tmp_path, {USER: f"{FILES[USER]}{code}\n"}) == []


def test_a_slip_that_was_there_before_the_change_is_not_told(tmp_path: Path) -> None:
    slip = {USER: f"{FILES[USER]}log_sectoin('y');\n"}
    assert told(tmp_path, {USER: f"{slip[USER]}print 'more';\n"}, slip) == []


def test_a_function_that_is_called_by_its_package_and_is_still_defined_elsewhere(tmp_path: Path) -> None:
    old = {
        USER: FILES[USER] + "OSCAR::Image::make_image('y');\n",
        "scripts/own": "#!/usr/bin/perl\nsub make_image { 2 }\n",
    }
    changed = {MODULE: IMAGE.replace("sub make_image", "sub make_any_image")}
    found = one(told(tmp_path, changed, old))
    assert (found.line, found.what) == (6, f"calls OSCAR::Image::make_image, which this change took away from {MODULE}")
    handed = {MODULE: f"{changed[MODULE]}use OSCAR::Own;\n"}
    brings = {"lib/OSCAR/Own.pm": "package OSCAR::Own;\nsub make_image { 2 }\n1;\n"}
    assert told(tmp_path / "handed", handed, {**old, **brings}) == []


def test_a_package_that_has_another_name_now_while_its_functions_are_called_by_the_old_one(tmp_path: Path) -> None:
    old = {
        MODULE: IMAGE.replace("OSCAR::Image", "Image"),
        USER: "#!/usr/bin/perl\nuse OSCAR::Image;\nImage::make_image();\n",
    }
    found = one(told(tmp_path, {MODULE: IMAGE}, old))
    assert str(found) == (
        f"{USER}:3: calls Image::make_image, whose package Image this change took away from {MODULE}; "
        "the package is OSCAR::Image now"
    )
    other = {"lib/OSCAR/More.pm": "package Image;\nsub make_image { 1 }\n1;\n"}
    assert told(tmp_path / "other", {MODULE: IMAGE}, {**old, **other}) == []
    changed = {MODULE: IMAGE, USER: old[USER].replace("Image::make", "OSCAR::Image::make")}
    assert told(tmp_path / "changed", changed, old) == []


def test_a_new_call_by_a_package_that_lacks_what_another_module_defines(tmp_path: Path) -> None:
    changed = {USER: FILES[USER] + "OSCAR::Image::log_section('x');\n"}
    found = one(told(tmp_path / "a", changed))
    assert found.what == f"calls OSCAR::Image::log_section, which {MODULE} does not define"
    handed = {MODULE: IMAGE.replace("1;\n", "use OSCAR::Log;\n1;\n")}
    assert told(tmp_path / "b", changed, handed) == []
    unknown = {MODULE: IMAGE.replace("1;\n", "use OSCAR::Elsewhere;\n1;\n")}
    assert told(tmp_path / "c", changed, unknown) == []


@pytest.mark.parametrize(
    ("code", "what", "right"),
    [
        ("OSCAR::Image('x');", "calls OSCAR::Image, which is a module", "call a function of it"),
        (
            "OSCAR::image::make_image('x');",
            "calls OSCAR::image::make_image, whose package nothing has",
            "OSCAR::Image may be meant",
        ),
    ],
)
def test_a_new_call_of_what_is_no_package_or_no_function(tmp_path: Path, code: str, what: str, right: str) -> None:
    found = one(told(tmp_path, {USER: FILES[USER] + f"{code}\n"}))
    assert (found.line, found.what, found.right) == (6, what, right)


@pytest.mark.parametrize(
    "code",
    [
        "Tk::Image('x');",
        "OSCAR::Other::make_image('x');",
        "OSCAR::Image->make('x');",
        "package OSCAR::image; OSCAR::image::x();",
    ],
)
def test_a_call_of_another_package_is_no_problem(tmp_path: Path, code: str) -> None:
    assert told(tmp_path, {USER: FILES[USER] + f"{code}\n", "lib/Tk/Image.pm": "package Tk::Image;\n1;\n"}) == []
