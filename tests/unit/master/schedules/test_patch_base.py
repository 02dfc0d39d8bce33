"""What a patch is made for: a branch of a repository, and a revision as that repository has them."""

from __future__ import annotations

import pytest

from oscar_steps.master.schedules.patches import _base, _wrong_base
from oscar_steps.repositories import Git
from oscar_steps.site import Site

SVN, ONE, OTHER = "svn://h/oscar", "git://h/one.git", "git://h/other.git"
COMMIT = "0a" * 20


def site(*git: str, svn: bool = True) -> Site:
    repositories = {"git": [Git(name=f"g{number}", url=url) for number, url in enumerate(git)]}
    more = {"repository": {"url": SVN}} if svn else {}
    return Site.model_validate({"worker": [{"name": "w"}], **repositories, **more})


@pytest.mark.parametrize(
    ("farm", "branch", "revision", "base"),
    [
        (site(ONE), "", "5916", (SVN, "trunk")),
        (site(ONE), "git/g0/main", COMMIT, (ONE, "git/g0/main")),
        (site(ONE), "topic", COMMIT, (ONE, "git/g0/topic")),
        (site(ONE), "", COMMIT, (ONE, "git/g0/main")),
        (site(ONE, OTHER), "topic", COMMIT, (SVN, "topic")),
        (site(ONE, OTHER), "git/g1/topic", "0a0a0a", (OTHER, "git/g1/topic")),
        (site(ONE, svn=False), "topic", "0a0a0a", (ONE, "git/g0/topic")),
    ],
)
def test_the_branch_that_a_patch_is_made_for_may_be_called_as_git_calls_it_where_that_can_be_only_one(
    farm: Site, branch: str, revision: str, base: tuple[str, str]
) -> None:
    assert tuple(_base(farm, branch, revision)) == base


@pytest.mark.parametrize(
    ("branch", "revision", "said"),
    [
        ("trunk", "5916", ""),
        ("trunk", "", ""),
        ("trunk", COMMIT, "give --baserev with the number of a revision"),
        ("git/g0/main", COMMIT[:8], ""),
        ("git/g0/main", "v6.1.2", ""),
        ("git/g0/main", "--upload-pack=x", "give --baserev with a commit's id or a tag"),
        ("tarballs/releases", "5.1", "a patch is tested on a revision"),
    ],
)
def test_a_revision_that_is_none_of_its_branch_is_refused_in_one_sentence(
    branch: str, revision: str, said: str
) -> None:
    wrong = _wrong_base(branch, revision)
    assert (said in wrong) if said else (wrong == "")
