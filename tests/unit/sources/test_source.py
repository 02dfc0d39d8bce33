"""The identity of what is tested."""

from __future__ import annotations

import itertools
import re

import pytest
from pydantic import ValidationError

from oscar_steps.sources.source import External, Patch, Source, TarFile

A, B = "a" * 64, "b" * 64
SVN = Source(url="svn://h/oscar/trunk", revision="5916")
GIT = Source(kind="git", url="https://h/oscar.git", revision="0123456789abcdef0123456789abcdef01234567")
TAR = Source(
    kind="tarball",
    url="https://h/releases/",
    revision="5.1rc1",
    files=(TarFile(name="oscar-base-5.1rc1.tar.gz", url="https://h/oscar-base-5.1rc1.tar.gz", sha256=A, size=1),),
)
FILE = TAR.files[0].model_dump()
PATCH = Patch.of("--- a\n+++ b\n", "eric", 1)


def test_a_short_name_says_the_kind_and_fits_into_the_name_of_a_run() -> None:
    patched = SVN.model_copy(update={"patch": PATCH})
    assert [source.short for source in (SVN, GIT, TAR)] == ["r5916", "g0123456789ab", "t5.1rc1"]
    assert patched.short == f"r5916.p{PATCH.sha256[:8]}"
    odd = Source(kind="tarball", url="x", revision="5.1 / ../é", files=TAR.files)
    assert all(re.fullmatch(r"[rgt][A-Za-z0-9._]+", source.short) for source in (patched, odd))


def test_what_is_tested_differs_whenever_anything_of_it_differs_and_never_otherwise() -> None:
    file = TAR.files[0]
    different = [
        SVN,
        SVN.model_copy(update={"revision": "5917"}),
        SVN.model_copy(update={"url": "svn://h/oscar/branches/branch-5-1"}),
        SVN.model_copy(update={"externals": (External(path="x", url="svn://h/x", revision="1"),)}),
        SVN.model_copy(update={"externals": (External(path="x", url="svn://h/x", revision="2"),)}),
        SVN.model_copy(update={"patch": PATCH}),
        SVN.model_copy(update={"patch": Patch.of(PATCH.text, "eric", 0)}),
        GIT,
        TAR,
        TAR.model_copy(update={"files": (file.model_copy(update={"sha256": B}),)}),
        TAR.model_copy(update={"files": (file, file.model_copy(update={"name": "oscar-srpms-5.1rc1.tar.gz"}))}),
    ]
    for one, other in itertools.combinations(different, 2):
        assert one.identity != other.identity
    assert SVN.model_copy(update={"branch": "trunk"}).identity == SVN.identity
    assert GIT.model_copy(update={"url": "git://mirror/oscar.git"}).identity == GIT.identity
    patched = SVN.model_copy(update={"patch": PATCH})
    assert patched.without_text().identity == patched.identity


def test_the_text_of_a_patch_is_left_out_where_only_its_identity_is_shown() -> None:
    shown = SVN.model_copy(update={"patch": PATCH}).without_text()
    assert shown.patch is not None and not shown.patch.text
    assert Source.model_validate_json(shown.model_dump_json()) == shown


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "tarball", "url": "x", "revision": "5.1"},
        {"kind": "svn", "url": "x", "revision": "1", "files": [FILE]},
        {"kind": "cvs", "url": "x", "revision": "1"},
        {"url": "x", "revision": "1", "patch": {"sha256": A, "who": "eric", "text": "not that one"}},
        {
            "kind": "tarball",
            "url": "x",
            "revision": "1",
            "files": [FILE | {"name": "../../etc/passwd"}],
        },
        {"kind": "tarball", "url": "x", "revision": "1", "files": [FILE | {"sha256": "md5"}]},
    ],
    ids=["a tarball without files", "a revision with files", "an unknown kind", "another patch", "a path", "no digest"],
)
def test_what_cannot_be_meant_is_no_source(value: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate(value)


def test_a_patch_of_an_old_encoding_is_kept_byte_for_byte_and_is_no_other_than_itself() -> None:
    old, new = (Patch.of_bytes("+grün".encode(encoding), "eric") for encoding in ("latin-1", "utf-8"))
    assert (old.content, new.content) == (b"+gr\xfcn", "+grün".encode())
    assert old.text == new.text and old.sha256 != new.sha256
    assert Patch.model_validate_json(old.model_dump_json()) == old
    with pytest.raises(ValidationError):
        Patch.model_validate(old.model_dump() | {"encoding": "utf-8"})
    with pytest.raises(ValidationError):
        Patch.model_validate(old.model_dump() | {"text": "\u2014"})
