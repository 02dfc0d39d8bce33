"""svn:externals: each form that its lines have, and the exact revisions that a checkout gets, as svn itself does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources import externals, resolve
from oscar_steps.sources.externals import Memory, externals_of
from oscar_steps.sources.externals_text import BadLine, Definition, absolute, definitions, is_same_server, known_paths
from oscar_steps.sources.resolve import exact, externals_at, source_as_asked
from oscar_steps.sources.source import External
from tests.unit.svn_server import Repository, served, svn_tool

ROOT, FOLDER = "https://svn.example.org/svn/oscar", "https://svn.example.org/svn/oscar/trunk/lib"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        # As the book on Subversion, its own tests and real projects write them.
        ("third-party/sounds http://svn.example.com/repos/sounds", ("third-party/sounds", "", "HEAD", "HEAD")),
        ("third-party/skins -r148 http://svn.example.com/skins", ("third-party/skins", "", "148", "148")),
        ("third-party/skins -r 21 http://svn.example.com/skins", ("third-party/skins", "", "21", "21")),
        ("-r148 http://svn.example.com/skinproj third-party/skins", ("third-party/skins", "", "148", "HEAD")),
        ("-r 148 http://svn.example.com/skinproj@21 skins", ("skins", "", "148", "21")),
        ("http://svn.example.com/skin-maker@21 toolkit", ("toolkit", "", "21", "21")),
        ("^/framework/trunk/src Framework", ("Framework", "^/framework/trunk/src", "HEAD", "HEAD")),
        ("-r2 ^/externals/project2@2 deps/project2", ("deps/project2", "", "2", "2")),
        ("dir -r 3 ^/pkgsrc/selector/trunk", ("dir", "^/pkgsrc/selector/trunk", "3", "3")),
        ("//svn.example.org/x/trunk lib/x", ("lib/x", "//svn.example.org/x/trunk", "HEAD", "HEAD")),
        ("/svn/other/trunk other", ("other", "/svn/other/trunk", "HEAD", "HEAD")),
        ("../../branches/5.0 old", ("old", "../../branches/5.0", "HEAD", "HEAD")),
        ('"http://svn.example.com/a b" "My Project"', ("My Project", "", "HEAD", "HEAD")),
        (r"http://svn.example.com/x My\ Project", ("My Project", "", "HEAD", "HEAD")),
        ("^/at@sign@@ at", ("at", "^/at@sign@", "HEAD", "HEAD")),
        ("svn+ssh://eric@svn.example.org/x lib", ("lib", "svn+ssh://eric@svn.example.org/x", "HEAD", "HEAD")),
        ("-r {2007-03-04} ^/x y", ("y", "", "{2007-03-04}", "HEAD")),
        ("^/x@%7B2007-03-04%7D y", ("y", "^/x", "{2007-03-04}", "{2007-03-04}")),
        (
            "vendor/fftw                   svn+ssh://farm@svn.example.org/net/csl++/fftw/vendor/3.1.2",
            ("vendor/fftw", "svn+ssh://farm@svn.example.org/net/csl++/fftw/vendor/3.1.2", "HEAD", "HEAD"),
        ),
        ("^/lib/ezmail.py ezmail.py", ("ezmail.py", "^/lib/ezmail.py", "HEAD", "HEAD")),
        ("-rr12 ^/x ./y/", ("y", "", "12", "HEAD")),
        ("^/x@HEAD y", ("y", "", "HEAD", "HEAD")),
    ],
)
def test_a_line_names_path_address_and_revision_in_either_order(line: str, meant: tuple[str, str, str, str]) -> None:
    path, url, revision, peg = meant
    (found,) = definitions(f"# a comment\n\n  {line}\r\n   # ^/a b\n")
    assert found == Definition(path, url or found.url, revision, peg)
    assert known_paths(line) == [path]


@pytest.mark.parametrize(
    "line",
    [
        "^/x",
        "^/x y z",
        "-r 5 y",
        "http://h/x http://h/y",
        "-r5 y http://h/x",
        "http://h/x -r5 y",
        "-r1:2 ^/x y",
        "-rHEADS ^/x y",
        "^/x@BASE y",
        "^/x /tmp/y",
        "^/x ../y",
        "^/x y/../../z",
        "^/x .",
        "^/x .svn/hooks",
        "^/x a/.SVN",
        '^/x ""',
        "'^/x y",
    ],
)
def test_a_line_that_svn_refuses_or_that_leads_out_of_the_tree_is_quoted(line: str) -> None:
    with pytest.raises(BadLine) as caught:
        definitions(line)
    assert line[:100] in str(caught.value)
    assert known_paths(f"{line}\n^/x good") == ["good"]


@pytest.mark.parametrize(
    ("address", "whole"),
    [
        ("^/common/a", f"{ROOT}/common/a"),
        ("^/../other/trunk", "https://svn.example.org/svn/other/trunk"),
        ("../doc", f"{ROOT}/trunk/doc"),
        ("../../../more//x/./", "https://svn.example.org/svn/more/x"),
        ("/top/x", "https://svn.example.org/top/x"),
        ("//Other.example.org/x", "https://other.example.org/x"),
        ("HTTP://Svn.Example.org/x/", "http://svn.example.org/x"),
        ("^/a b/caf\u00e9/50%/100%25", f"{ROOT}/a%20b/caf%C3%A9/50%25/100%25"),
    ],
)
def test_an_address_is_made_whole_as_svn_does(address: str, whole: str) -> None:
    assert absolute(address, FOLDER, ROOT) == whole


@pytest.mark.parametrize(
    "address",
    [
        "^/../../../../x",
        "../../../../../../x",
        "^/a/../b",
        "/../x",
        "common/a",
        "",
        "http://[::1/x",
        "//[/x",
        "svn://a\u2100b/x",
        "//h\u202e/x",
        "http://h:99999999/x",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address: str) -> None:
    with pytest.raises(BadLine):
        absolute(address, FOLDER, ROOT)


def test_only_the_repositorys_own_server_is_asked() -> None:
    assert is_same_server("https://SVN.example.org:443/svn/other", ROOT)
    for url in (
        "http://svn.example.org/svn/oscar",
        "https://svn.example.org:8443/svn",
        "https://svn.example.com/svn/oscar",
        "https://root@svn.example.org/svn/oscar",
        "https://svn.example.org@evil.example.com/x",
        "https://[broken/x",
        "file:///etc",
    ):
        assert not is_same_server(url, ROOT), url
    assert not is_same_server("file:///srv/svn/private", "file:///srv/svn/oscar")
    assert is_same_server("file:///srv/svn/oscar/x", "file:///srv/svn/oscar")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "oscar")
    made.put({"trunk/install_cluster": "x\n", "trunk/lib/": "", "trunk/a b/\u00fc/": "", "branches/": ""})
    made.put({"common/one/f": "1\n", "common/two/deep/f": "2\n", "caf\u00e9/50% off @home/f": "3\n"})
    return made


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with served(repository.place.parent) as root:
        yield f"{root}/oscar"


def as_svn_has_it(place: Path, url: str, revision: int, wanted: list[str]) -> dict[str, tuple[str, str]]:
    """Path to address and last change of externals in svn's own checkout, which has no others."""
    svn_tool("svn", "checkout", "--quiet", "-r", str(revision), f"{url}@{revision}", place)
    found = {}
    for path in (place / name for name in wanted):
        words = [svn_tool("svn", "info", "--show-item", item, f"{path}@").strip() for item in _ITEMS]
        found[str(path.relative_to(place))] = (words[0], words[1])
    folders = {path.parent for path in place.rglob(".svn")} - {place}
    assert folders <= {place / name for name in wanted}
    return found


_ITEMS = ("url", "last-changed-revision")


def test_all_forms_lead_to_what_svns_own_checkout_gets(repository: Repository, url: str, tmp_path: Path) -> None:
    lines = (
        "^/common/one one\nold/two -r2 ^/common/two\n-r 2 ^/common/two@3 two/pinned\n../common/one up\n"
        f"//{url.removeprefix('svn://')}/common/one scheme\n/oscar/common/one server\n{url}/common/one whole\n"
        '"^/caf\u00e9/50% off @home@" "a caf\u00e9"\n^/common/one/f@HEAD file\n'
    )
    repository.externals("trunk", lines)
    repository.externals("trunk/a b/\u00fc", "^/common/two inner")
    repository.put({"trunk/VERSION": "1\n"})
    number = repository.put({"common/one/f": "4\n"})
    found = externals_at(f"{url}/trunk", str(number))
    made = as_svn_has_it(tmp_path / "co", f"{url}/trunk", number, [each.path for each in found])
    assert {each.path: (each.url, each.revision) for each in found} == made
    assert [each.path for each in found if each.kind == "file"] == ["file"]
    assert exact(source_as_asked(f"{url}/trunk", str(number)), tmp_path).externals == found


def test_another_revision_of_an_external_is_another_build_and_a_commit_elsewhere_is_not(
    repository: Repository, url: str, tmp_path: Path
) -> None:
    repository.externals("trunk", "^/common/one one\n-r2 ^/common/two two")
    number = str(repository.commit())

    def identity() -> str:
        return exact(source_as_asked(f"{url}/trunk", number), tmp_path).identity

    first = identity()
    repository.put({"branches/x": "x\n", "common/two/deep/f": "5\n"})
    assert identity() == first
    repository.put({"common/one/f": "5\n"})
    assert identity() != first


def test_a_folder_that_came_with_its_parents_copy_is_there_at_its_revision(repository: Repository, url: str) -> None:
    repository.svn("copy", "--quiet", "common", "copied")
    made = repository.commit()
    repository.externals("trunk", "^/copied/two/deep deep")
    (external,) = externals_at(f"{url}/trunk", str(repository.commit()))
    assert (external.url, external.revision) == (f"{url}/copied/two/deep", str(made))
    svn_tool("svn", "info", f"{external.url}@{external.revision}")


def test_externals_of_externals_are_externals_too(repository: Repository, url: str, tmp_path: Path) -> None:
    repository.externals("common/one", "../two two")
    repository.externals("trunk", "^/common/one one")
    number = repository.commit()
    found = externals_at(f"{url}/trunk", str(number))
    assert [each.path for each in found] == ["one", "one/two"]
    as_svn_has_it(tmp_path / "co", f"{url}/trunk", number, ["one", "one/two"])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("^/trunk again", "contains itself, so no checkout ends"),
        ("^/ all", "contains itself, so no checkout ends"),
        ("^/nowhere x", "nowhere"),
        ("-r1 ^/common/one x", "common/one"),
        ("^/common/one x\n^/common/two x", "two externals want to be at 'x'"),
        ("^/common/one x y", "'^/common/one x y': it has to be an address and a path"),
        ("^/../../x y", "it leads above the top"),
        ("common/one x", "an address begins with"),
    ],
)
def test_externals_that_nobody_can_check_out_are_one_sentence(
    repository: Repository, url: str, lines: str, words: str
) -> None:
    # svn's own client would refuse to commit some of these; a server takes them all.
    repository.svn("propset", "--quiet", "--force", "svn:externals", "^/common/one x", "trunk")
    repository.commit()
    number = _raw_property(repository, lines)
    with pytest.raises(SourceError) as caught:
        externals_at(f"{url}/trunk", number)
    assert words in caught.value.sentence and "\n" not in caught.value.sentence


def _raw_property(repository: Repository, text: str) -> str:
    """A revision of trunk whose property is this text, whatever the client thinks of it."""
    value = text.encode()
    body = b"K 13\nsvn:externals\nV %d\n%s\nPROPS-END\n" % (len(value), value)
    head = b"K 7\nsvn:log\nV 0\n\nPROPS-END\n"
    dump = b"SVN-fs-dump-format-version: 2\n\nRevision-number: 1\nProp-content-length: %d\nContent-length: %d\n\n%s\n"
    node = (
        b"Node-path: trunk\nNode-kind: dir\nNode-action: change\nProp-content-length: %d\nContent-length: %d\n\n%s\n\n"
    )
    file = repository.place.with_name("dump")
    file.write_bytes(dump % (len(head), len(head), head) + node % (len(body), len(body), body))
    svn_tool("svnadmin", "load", "--quiet", "--bypass-prop-validation", "--file", file, repository.place)
    return svn_tool("svnlook", "youngest", repository.place).strip()


def test_what_is_pinned_is_had_after_its_origin_was_removed_and_branches_have_the_externals_of_their_trunk(
    repository: Repository, url: str, tmp_path: Path
) -> None:
    """A history that another project tests its own reading of externals with, in short."""
    repository.put({"trunk/sub/": ""})
    repository.externals("trunk", "# first\n\n^/common/one deps/one\n    \n-r2 ^/common/two@2 deps/two\n")
    repository.externals("trunk/sub", "^/common/one deps/one")
    repository.commit()
    repository.svn("copy", "--quiet", "trunk", "branches/b")
    repository.svn("propdel", "--quiet", "svn:externals", "branches/b/sub")
    repository.commit()
    repository.svn("remove", "--quiet", "common/two")
    number, memory = repository.commit(), Memory()
    for branch, paths in (
        ("trunk", ["deps/one", "deps/two", "sub/deps/one"]),
        ("branches/b", ["deps/one", "deps/two"]),
    ):
        _, found = asked_for(f"{url}/{branch}", number, memory)
        assert [each.path for each in found] == paths
        made = as_svn_has_it(tmp_path / branch, f"{url}/{branch}", number, paths)
        assert {each.path: (each.url, each.revision) for each in found} == made


def test_a_chain_of_old_revisions_ends(repository: Repository, url: str) -> None:
    """A folder that has an older revision of itself is no loop."""
    repository.externals("trunk", "-r2 ^/trunk before")
    found = externals_at(f"{url}/trunk", str(repository.commit()))
    assert [(each.path, each.revision) for each in found] == [("before", "1")]


def test_another_server_is_named_and_never_asked(
    repository: Repository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "svn://elsewhere.example.org/x a\n-r5 https://elsewhere.example.org/y@9 b\nfile:///etc c\n^/common/one d"
    repository.externals("trunk", lines)
    asked: list[str] = []
    real = resolve.run_svn
    monkeypatch.setattr(resolve, "run_svn", lambda words, *more: [asked.extend(words), real(words, *more)][1])
    found = externals_at(f"{url}/trunk", str(repository.commit()))
    assert [str(each) for each in found[:3]] == [
        "a from svn://elsewhere.example.org/x@HEAD",
        "b from https://elsewhere.example.org/y@5",
        "c from file:///etc@HEAD",
    ]
    assert found[3] == External(path="d", url=f"{url}/common/one", revision="2")
    assert not any("elsewhere" in word or "/etc" in word for word in asked)


def test_a_server_that_is_gone_is_no_mistake_of_the_author(repository: Repository) -> None:
    with served(repository.place.parent) as root:
        pass
    with pytest.raises(HostError):
        externals_at(f"{root}/oscar/trunk", "1")


def asked_for(url: str, revision: int, memory: Memory) -> tuple[list[str], tuple[External, ...]]:
    """The commands that svn was asked to do, and what came of it."""
    commands, questions = [], externals_of(url, str(revision), memory)
    try:
        words = next(questions)
        while True:
            commands.append(words[0])
            done = resolve.run_svn([words[0], "--non-interactive", *words[1:]], 60, url)
            words = questions.send(externals.Answer(done.returncode, done.stdout, done.stderr.decode()))
    except StopIteration as end:
        return commands, end.value


def test_a_tree_is_read_again_only_where_a_folder_or_its_properties_changed(repository: Repository, url: str) -> None:
    memory, trunk = Memory(), f"{url}/trunk"
    repository.externals("trunk/lib", "^/common/one/f f")
    first = repository.commit()
    commands, found = asked_for(trunk, first, memory)
    assert commands == ["info", *_READ, "log", "info"]
    assert asked_for(trunk, first, memory) == (["info", "log", "info"], found)
    edited = repository.put({"trunk/install_cluster": "y\n"})
    assert asked_for(trunk, edited, memory) == (["info", "diff", "log", "info"], found)
    assert asked_for(trunk, first, memory) == (["info", "diff", "log", "info"], found), "an older one, too"
    repository.svn("copy", "--quiet", "trunk/lib", "trunk/lib2")
    commands, found = asked_for(trunk, repository.commit(), memory)
    assert (commands[:5], [each.path for each in found]) == (["info", "diff", *_READ], ["lib/f", "lib2/f"])
    repository.svn("remove", "--quiet", "trunk/lib")
    commands, found = asked_for(trunk, repository.commit(), memory)
    assert (commands[:5], [each.path for each in found]) == (["info", "diff", *_READ], ["lib2/f"])
    repository.svn("propdel", "--quiet", "svn:externals", "trunk/lib2")
    assert asked_for(trunk, repository.commit(), memory) == (["info", "diff", "list", "diff"], ())


_READ = ["list", "diff", "propget"]


_ODD = ("a", "b/c @d", "50% (off)/#1 + 'x'", "caf\u00e9", "trunk", ".hidden", "Property changes on: a")


@pytest.mark.parametrize("branch", ["trunk", "branches/b", "branches/all", ""])
def test_a_tree_that_is_read_quickly_has_all_externals_that_its_folders_have(
    repository: Repository, url: str, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the folders' names and the properties' texts are, and however the branch was made."""
    repository.put({f"trunk/{name}/": "" for name in _ODD})
    for number, name in enumerate(_ODD):
        text = "^/common/one o\n# x\n\n#Property changes on: b\n"[: 15 if number % 2 else None]
        repository.externals(f"trunk/{name}" + "@" * ("@" in name), text)
    repository.svn("propset", "--quiet", "svn:ignore", "Property changes on: lib\nAdded: svn:externals\n", "trunk/lib")
    repository.commit()
    for origin, name in ((f"{url}/trunk", "b"), (f"{url}@4", "all")):
        repository.svn("copy", "--quiet", "-m", "a branch", origin, f"{url}/branches/{name}")
    number = repository.commit()
    commands, quick = asked_for(f"{url}/{branch}".rstrip("/"), number, Memory())
    assert (commands[:4], commands.count("propget")) == (["info", *_READ], 1)
    monkeypatch.setattr(externals, "_MOST_TEXT", -1)
    commands, found = asked_for(f"{url}/{branch}".rstrip("/"), number, Memory())
    assert commands[:3] == ["info", "list", "propget"], "not read quickly"
    assert quick == found
    assert len(found) == len(_ODD) * (3 if branch == "" else 1)


def test_more_folders_with_externals_than_fit_a_question_are_asked_in_turn(
    repository: Repository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(externals, "_AT_ONCE", 3)
    repository.put({f"trunk/d{number}/": "" for number in range(7)})
    for number in range(7):
        repository.externals(f"trunk/d{number}", "^/common/one/f f")
    commands, found = asked_for(f"{url}/trunk", repository.commit(), Memory())
    assert [each.path for each in found] == [f"d{number}/f" for number in range(7)]
    assert commands[:6] == ["info", "list", "diff", "propget", "propget", "propget"]


def test_where_the_folder_above_is_hidden_the_tree_is_read_all_the_same(repository: Repository, url: str) -> None:
    repository.externals("trunk/lib", "^/trunk/a%20b x")
    number = repository.commit()
    conf = repository.place / "conf"
    (conf / "authz").write_text("[/]\n* =\n[/trunk]\n* = r\n")
    (conf / "svnserve.conf").write_text("[general]\nanon-access = read\nauthz-db = authz\n")
    commands, found = asked_for(f"{url}/trunk", number, Memory())
    assert (commands[:4], [each.path for each in found]) == (["info", "list", "diff", "propget"], ["lib/x"])
