"""What is stored of a commit: all of an ordinary one, and of a monstrous one what columns and pages can hold."""

from __future__ import annotations

from typing import Any

import pytest
from buildbot.db.model import Model
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.master.watch.storable import storable


def change(**more: Any) -> dict[str, Any]:
    ordinary = {
        "author": "eric",
        "comments": "Mend it",
        "files": ["a"],
        "branch": "trunk",
        "revision": "7",
        "revlink": "",
    }
    return {**ordinary, **more}


def stored(**more: Any) -> dict[str, Any]:
    found = storable(change(**more))
    assert found is not None
    return found


def test_an_ordinary_commit_is_stored_as_it_is() -> None:
    ordinary = change(
        author="Éric <e@x.org>",
        comments="Mend it\n\n\t* Änderung: a & b <c> 日本語\n",
        files=["core-packages/sis/scripts/post_install", "", "ä ö.txt"],
        revlink="https://x.org/?revision=7",
        project="oscar",
    )
    assert storable(ordinary) == {**ordinary, "src": None}


def test_a_message_of_100_kb_in_one_word_is_cut_and_says_where_the_rest_is() -> None:
    said = stored(comments="w" * 100_000, revision="4711")["comments"]
    assert len(said) < 4100
    assert said.startswith("w" * 4000 + "...\n")
    assert "100000 characters" in said and "svn log -r 4711" in said


def test_of_a_commit_of_git_the_rest_of_the_message_is_where_git_has_it() -> None:
    identity = "0a" * 20
    assert f"git show -s {identity})" in stored(comments="w" * 5000, revision=identity)["comments"]


def test_an_author_and_a_file_of_many_kilobytes_fit_their_columns() -> None:
    tables = Model.changes.c, Model.change_files.c
    found = stored(author="A" * 10_000, files=["d/" * 2000 + "f"], revlink="https://x.org/" + "r" * 300)
    assert len(found["author"]) <= tables[0].author.type.length
    assert len(found["files"][0]) <= tables[1].filename.type.length
    assert found["revlink"] == ""


def test_no_user_of_buildbots_is_kept_whose_column_is_shorter_than_an_author() -> None:
    assert Model.users_info.c.attr_data.type.length < 200
    assert stored(author="A" * 200)["src"] is None


def test_of_5000_files_the_first_500_and_the_number_of_the_others_are_stored() -> None:
    found = stored(files=[f"f{number}" for number in range(5000)])["files"]
    assert len(found) == 501
    assert found[499:] == ["f499", "... and 4500 more"]


@pytest.mark.parametrize("evil", ["\u202e", "\u2066", "\u200f", "\x1b[31m", "\x00", "\x9b", "\x07", "\ufeff", "\u2028"])
def test_no_character_turns_or_hides_what_follows(evil: str) -> None:
    found = stored(author=f"a{evil}b", comments=f"c{evil}d", files=[f"e{evil}f"])
    assert evil[0] not in found["author"] + found["comments"] + found["files"][0]
    assert found["author"][0] == "a" and found["author"][-1] == "b"


def test_a_name_is_one_line() -> None:
    found = stored(author="a\nb\tc", files=["d\r\ne"])
    assert not set("\n\r\t") & set(found["author"] + found["files"][0])


def test_old_line_ends_are_kept_as_line_ends() -> None:
    assert stored(comments="a\rb\r\nc\nd")["comments"] == "a\nb\nc\nd"


def test_a_branch_that_no_column_holds_is_nothing_to_store() -> None:
    assert storable(change(branch="branches/" + "B" * 246)) is not None
    assert storable(change(branch="branches/" + "B" * 247)) is None


@given(st.text(), st.text(), st.lists(st.text()))
def test_any_text_can_be_stored(author: str, comments: str, files: list[str]) -> None:
    found = stored(author=author, comments=comments, files=files)
    assert len(found["files"]) == len(files)
    assert "\x00" not in found["author"] + found["comments"] + "".join(found["files"])
