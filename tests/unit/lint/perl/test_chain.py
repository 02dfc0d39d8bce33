"""The call chain of the command line: what is missing or cannot be started, and what of it gates the cells."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from oscar_steps.lint.check import check_tree
from oscar_steps.lint.perl.chain import check_chain, path_of_cells, way_of_cells
from oscar_steps.lint.perl.starts import read_perl, starts_of
from oscar_steps.lint.problems import Problem
from oscar_steps.lint.texts import check_texts
from oscar_steps.lint.tree import File, Tree

INSTALLER = """#!/usr/bin/perl
use lib "lib";
use OSCAR::Say;
if (system("./scripts/system-sanity")) {
    die "not sane\\n";
}
my $cmd = "cd $ENV{OSCAR_HOME}/scripts && ./prepare";
!system($cmd) or die("could not prepare");
chdir("scripts") or die("Couldn't chdir to scripts") if ($ENV{OSCAR_UI} eq "gui");
chdir("src/cli") or die("Couldn't chdir to src/cli") if ($ENV{OSCAR_UI} eq "cli");
if ($ENV{OSCAR_UI} eq "cli") {
    $cmd = "./main_cli";
    $cmd = $cmd . " --file $file" if $file;
} else {
    $cmd = "./window";
}
!system("$cmd 2>&1") or die("failed");
"""
MAIN = """#!/usr/bin/perl
use OSCAR::Say;
my $hook = "$ENV{OSCAR_HOME}/src/cli/wait.pl";
GetOptions('skip' => \\$skipfirst, 'hook=s' => \\$hook);
unless ($skipfirst) {
    my $cmd = $ENV{OSCAR_HOME} . "/scripts/first";
    if (!system($cmd)) {
        print "done";
    } else {
        die "first failed";
    }
}
if (!system($hook)) { print "go on"; } else { die "not ready"; }
"""
FILES = {
    "install_cluster": INSTALLER,
    "src/cli/main_cli": MAIN,
    "src/cli/wait.pl": "#!/usr/bin/perl\n",
    "scripts/system-sanity": "#!/usr/bin/perl\nuse OSCAR::Say;\n",
    "scripts/system-sanity.d/root.pl": "#!/usr/bin/perl\n",
    "scripts/prepare": "#!/usr/bin/perl\n",
    "scripts/window": "#!/usr/bin/perl\n",
    "scripts/first": "#!/usr/bin/perl\nrequire OSCAR::Later;\nsub on_demand { require OSCAR::Seldom; }\n",
    "lib/OSCAR/Say.pm": "package OSCAR::Say; 1;\n",
    "lib/OSCAR/Later.pm": "package OSCAR::Later; 1;\n",
    "lib/OSCAR/Seldom.pm": "package OSCAR::Seldom; 1;\n",
}


def tree_of(top: Path, files: dict[str, str], plain: tuple[str, ...] = (), externals: tuple[str, ...] = ()) -> Tree:
    """A tree of these files; scripts are executable but those in `plain`."""
    for path, text in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
        (top / path).chmod(0o755 if text.startswith("#!") and path not in plain else 0o644)
    return Tree(top, externals)


def problems(top: Path, changes: dict[str, str], lost: str = "", plain: tuple[str, ...] = ()) -> list[Problem]:
    files = {path: text for path, text in {**FILES, **changes}.items() if path != lost}
    return check_chain(tree_of(top, files, plain)).problems


def one(found: list[Problem]) -> Problem:
    assert len(found) == 1, "\n".join(map(str, found)) or "nothing was found"
    return found[0]


def test_a_chain_that_is_whole_has_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, {}) == []


def test_the_way_of_the_cells_goes_in_order_and_leaves_out_what_is_not_certain(tmp_path: Path) -> None:
    assert way_of_cells(tree_of(tmp_path, FILES)) == (
        *("install_cluster", "lib/OSCAR/Say.pm", "scripts/system-sanity", "scripts/system-sanity.d/root.pl"),
        *("scripts/prepare", "src/cli/main_cli", "scripts/first", "lib/OSCAR/Later.pm"),
    )


@pytest.mark.parametrize("lost", ["scripts/prepare", "src/cli/main_cli", "scripts/system-sanity", "scripts/first"])
def test_a_program_of_the_way_that_is_missing_gates(tmp_path: Path, lost: str) -> None:
    found = one(problems(tmp_path, {}, lost))
    assert lost.rpartition("/")[2] in found.what
    assert found.gates


@pytest.mark.parametrize("plain", ["scripts/prepare", "src/cli/main_cli", "scripts/system-sanity", "scripts/first"])
def test_a_program_of_the_way_that_is_not_executable_gates(tmp_path: Path, plain: str) -> None:
    found = one(problems(tmp_path, {}, plain=(plain,)))
    assert (found.file, found.gates) == (plain, True)


@pytest.mark.parametrize("path", ["src/cli/wait.pl", "scripts/system-sanity.d/root.pl"])
def test_what_the_cells_replace_or_the_installer_survives_does_not_gate(tmp_path: Path, path: str) -> None:
    """The default hook, instead of which cells give their own, and a check that is left out."""
    found = one(problems(tmp_path, {}, plain=(path,)))
    assert (found.file, found.gates) == (path, False)
    assert "not executable" in found.what


@pytest.mark.parametrize(
    "code",
    [
        'if (system("./scripts/system-sanity") == 1) { die "not sane"; }',
        'print "sane" unless system("./scripts/system-sanity");',
        'my $rc = system("./scripts/system-sanity");',
        'sub later { !system("./scripts/system-sanity") or die; }',
        'eval { !system("./scripts/system-sanity") or die; };',
        'if ($old) { !system("./scripts/system-sanity") or die; }',
        '!system("./scripts/system-sanity") or die "no" if $old;',
        '$old and system("./scripts/system-sanity") and die "no";',
        'foreach my $x (@all) { system("./scripts/system-sanity") and die; }',
    ],
)
def test_a_program_whose_failure_is_survived_or_that_is_not_always_started_does_not_gate(
    tmp_path: Path, code: str
) -> None:
    found = one(problems(tmp_path, {"install_cluster": f"#!/usr/bin/perl\n{code}\n"}, plain=("scripts/system-sanity",)))
    assert not found.gates


@pytest.mark.parametrize(
    "code",
    [
        'die "no" if system("./scripts/system-sanity");',
        'system("./scripts/system-sanity") && die "no";',
        'my $rc = system("./scripts/system-sanity")/256;\ncroak("no") if $rc;',
        'my $rc = system("./scripts/system-sanity");\nif ($rc != 0) { exit 1; }',
        'go(); sub go { !system("./scripts/system-sanity") or croak "no"; }',
        'my $home = $ENV{OSCAR_HOME};\n!system("$home/scripts/system-sanity") or die;',
        'my $home = $ENV{OSCAR_HOME};\nopen(OUT, "$home/scripts/system-sanity --all |") or die "no";',
        'my $cmd = $ENV{OSCAR_HOME} . "/" . "scripts/system-sanity";\nmy $all = "$cmd --all";\n!system($all) or die;',
    ],
)
def test_a_program_whose_failure_ends_the_installer_gates(tmp_path: Path, code: str) -> None:
    found = one(problems(tmp_path, {"install_cluster": f"#!/usr/bin/perl\n{code}\n"}, plain=("scripts/system-sanity",)))
    assert found.gates


def test_nothing_behind_a_program_that_is_missing_is_on_the_way(tmp_path: Path) -> None:
    files = {path: text for path, text in FILES.items() if path != "scripts/prepare"}
    assert "src/cli/main_cli" not in path_of_cells(tree_of(tmp_path, files))


CONFIG = "#!/usr/bin/perl\nuse OSCAR::Later;\nsub bootstrap { require OSCAR::Seldom; }\n"


def test_the_way_of_an_oscar_whose_old_installer_has_died_is_that_of_its_new_one(tmp_path: Path) -> None:
    """What is wrong with the old one holds up nobody there."""
    files = {path: text for path, text in FILES.items() if path != "scripts/prepare"} | {"bin/oscar-config": CONFIG}
    tree = tree_of(tmp_path / "dead", files, plain=("install_cluster",))
    assert way_of_cells(tree) == ("bin/oscar-config", "lib/OSCAR/Later.pm")
    assert [problem.gates for problem in (*check_chain(tree).problems, *check_texts(tree).problems)] == [False, False]
    assert "bin/oscar-config" not in way_of_cells(tree_of(tmp_path / "alive", {**FILES, "bin/oscar-config": CONFIG}))


def test_an_oscar_without_the_old_installer_does_not_miss_it_where_it_has_the_new_one(tmp_path: Path) -> None:
    files = {path: text for path, text in FILES.items() if path != "install_cluster"}
    assert [problem.file for problem in check_texts(tree_of(tmp_path / "old", files)).problems] == ["install_cluster"]
    assert check_texts(tree_of(tmp_path / "new", {**files, "bin/oscar-config": CONFIG})).problems == []


@pytest.mark.parametrize(
    ("path", "text"), [("VERSION.in", "@VERSION@\n"), ("Makefile", "VERSION: configure\n\tsh configure > VERSION\n")]
)
def test_a_version_that_the_trees_build_writes_is_not_missing(tmp_path: Path, path: str, text: str) -> None:
    files = {**FILES, "install_cluster": f'{INSTALLER}die("ERROR: OSCAR VERSION file missing") if ! -e "VERSION";\n'}
    found = one(check_texts(tree_of(tmp_path / "without", files)).problems)
    assert (found.file, found.gates) == ("VERSION", True)
    assert check_texts(tree_of(tmp_path / "with", {**files, path: text})).problems == []


def test_the_tests_of_the_cluster_are_never_on_the_way(tmp_path: Path) -> None:
    main = '#!/usr/bin/perl\nmy $cmd = $ENV{OSCAR_HOME} . "/testing/all";\n!system($cmd) or die "x";\n'
    way = path_of_cells(tree_of(tmp_path, {**FILES, "src/cli/main_cli": main, "testing/all": "#!/bin/sh\n"}))
    assert "src/cli/main_cli" in way
    assert "testing/all" not in way


SAID = 'system("./scripts/gone") and die;\nchdir("scripts") or die("Could not chdir to scripts");'


@pytest.mark.parametrize(
    "code",
    [
        SAID,
        f'print "Please chdir to $dir first";\n{SAID}',
        f"print <<EOT;\nDon't chdir($dir)\nEOT\n{SAID}",
        f"# chdir($dir)\n{SAID}",
        'chdir("scripts") or die(qq{no "chdir" to $dir});\nsystem("../scripts/gone") and die;',
    ],
)
def test_words_of_a_message_or_a_comment_do_not_switch_a_check_off(tmp_path: Path, code: str) -> None:
    found = one(problems(tmp_path, {"install_cluster": f"#!/usr/bin/perl\n{code}\n"}))
    assert "scripts/gone" in found.what


LEFT = (
    ("a module of another package", "use OSCAR::PkgMan;"),
    ("a module that is loaded on demand", "sub later { require OSCAR::Backend; }"),
    ("a module that may be missing", "eval { require OSCAR::Backend; };\neval 'use OSCAR::Other';"),
    ("a program in a folder that nobody knows", 'chdir($dir);\nsystem("./configure") and die;'),
    ("a program that was looked for", 'my $x = "$ENV{OSCAR_HOME}/scripts/gone";\nsystem($x) if -x $x;'),
    ("a name that is put together", 'system("$ENV{OSCAR_HOME}/scripts/post_" . $x);'),
    ("a folder", 'my $path = "$ENV{OSCAR_HOME}/tools/";\nmy $cmd = "$path/go";\nsystem("$path/go $cmd");'),
    ("a message", 'print "system: ./scripts/gone"; die("system(\'./scripts/gone\')");'),
    ("a here document", "print <<'EOT';\nsystem(\"./scripts/gone\") and die;\nEOT\n"),
    ("documentation", '=pod\n\nsystem("./scripts/gone");\n\n=cut\n'),
    ("behind the end", '__END__\nsystem("./scripts/gone") and die;'),
)


@pytest.mark.parametrize("code", [case[1] for case in LEFT], ids=[case[0] for case in LEFT])
def test_what_need_not_be_in_the_tree_is_no_problem(tmp_path: Path, code: str) -> None:
    assert problems(tmp_path, {"scripts/prepare": f"#!/usr/bin/perl\n{code}\n"}) == []


def test_a_modules_relative_program_is_not_looked_for_beside_the_module(tmp_path: Path) -> None:
    changes = {
        "lib/OSCAR/Done.pm": 'package OSCAR::Done;\nsub done { system("./post") and die; }\n1;\n',
        "scripts/post": "#!/bin/sh\n",
        "scripts/prepare": (
            '#!/usr/bin/perl\nuse OSCAR::Done;\nchdir "$ENV{OSCAR_HOME}/scripts";\nOSCAR::Done::done();\n'
        ),
    }
    assert problems(tmp_path, changes) == []


def test_a_module_whose_name_is_written_in_another_way_than_the_trees_is_said(tmp_path: Path) -> None:
    found = one(problems(tmp_path, {"scripts/prepare": "#!/usr/bin/perl\nuse OSCAR::SAY;\n"}))
    assert str(found) == (
        "scripts/prepare:2: uses OSCAR::SAY, which is not in the tree; lib/OSCAR/Say.pm is what the tree has"
    )


def test_what_lies_in_an_external_is_not_missing(tmp_path: Path) -> None:
    files = {**FILES, "install_cluster": '#!/usr/bin/perl\nsystem("./ext/tools/go") and die;\n'}
    assert check_chain(tree_of(tmp_path / "with", files, externals=("ext",))).problems == []
    assert len(check_chain(tree_of(tmp_path / "without", files)).problems) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("scripts/gone.in", "#!/bin/sh\n"),
        ("scripts/Makefile", "all: gone\n\ngone: gone.src\n\tcp gone.src gone\n"),
        ("Makefile", "all:\n\tm4 gone.m4 > scripts/gone\n"),
    ],
)
def test_what_the_trees_own_build_makes_is_not_missing(tmp_path: Path, path: str, text: str) -> None:
    changes = {"install_cluster": '#!/usr/bin/perl\nsystem("./scripts/gone") and die;\n'}
    assert len(problems(tmp_path / "without", changes)) == 1
    assert problems(tmp_path / "with", {**changes, path: text}) == []


@pytest.mark.parametrize(
    "code",
    [
        "my $x = $h{y} / 2; my $s = 's'; my %o = (q => 1, s => 2);",
        "my @a = split /'/, $b; $c =~ s/\"/'/g; $c =~ tr/'\"//d; my $n = $#{$a};",
        "print $\", $', $/; my $r = qr{ \\} ' }x; my $d = $a/$b; # don't",
        "print <<A, <<\"B\";\nit's\nA\nisn't {\nB\n",
        "my $p = q(it's (nested) text); my $w = [ qw/ a ' b / ]; my $t = -s \"file\";",
    ],
)
def test_quotes_in_patterns_and_odd_places_do_not_hide_what_comes_after_them(code: str) -> None:
    text = f'#!/usr/bin/perl\n{code}\n!system("./scripts/x") or die "no";\n'
    start = next(iter(starts_of(File("install_cluster", text.encode(), executable=True))))
    assert (start.word, start.fatal) == ("./scripts/x", True)


def test_a_file_that_ends_within_a_string_says_nothing_certain() -> None:
    file = File("install_cluster", b'#!/usr/bin/perl\n!system("./scripts/x") or die;\nmy $x = "abc;\n', executable=True)
    assert [start.certain for start in starts_of(file)] == [False]


def test_problems_are_told_as_the_installer_meets_them_and_what_gates_first(tmp_path: Path) -> None:
    merge = "<<<<<<< a\n>>>>>>> b\n"
    changes = {"README": merge, "src/cli/main_cli": MAIN + merge, "lib/OSCAR/Say.pm": merge}
    tree_of(tmp_path, {**FILES, **changes}, plain=("scripts/first",))
    report = check_tree(tmp_path)
    assert list(dict.fromkeys(p.file for p in report.blamed)) == [
        *("lib/OSCAR/Say.pm", "src/cli/main_cli", "scripts/first", "README"),
    ]


HOSTILE = {
    "a quote that is opened again and again": "q(" * 200_000,
    "braces": "${}" + "{}" * 100_000,
    "blocks": "sub a { if (1) { " * 50_000 + "} }" * 50_000,
    "programs": 'system("./a/b");\n' * 20_000,
    "folders and tests": 'chdir("a/b"); print 1 if -e "a/b"; system("./a/b");\n' * 7_000,
    "quotes": "\"'`" * 100_000,
    "assignments": '$a = "./a/b" . ' * 20_000,
    "here documents": "print <<A, <<B, <<C;\n" * 10_000,
    "a long line": "$a" * 150_000,
    "blanks": "system" + " " * 300_000,
    "calls": "system($a);" * 30_000 + '$a = "./a/b";' * 400,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_read_in_seconds(text: str) -> None:
    began = time.process_time()
    read_perl(File("install_cluster", f"#!/usr/bin/perl\n{text}\n".encode(), executable=True))
    assert time.process_time() - began < 10
