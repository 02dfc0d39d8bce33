"""Sets of tarballs: which belong together, what a set waits for, what a cell takes of it."""

from __future__ import annotations

from dataclasses import dataclass

from oscar_steps.sources.tarballs.names import TarName
from oscar_steps.sources.tarballs.sets import Waiting, by_version, fitting, identity, missing


@dataclass(frozen=True)
class File:
    name: str
    sha256: str = "0" * 64


def test_files_of_one_version_belong_together_and_versions_are_in_order() -> None:
    names = ["oscar-base-5.1.tar.gz", "oscar-base-5.1rc1.tar.gz", "oscar-repo-fc-5-i386-5.1.tar.gz", "oscar-6.3.tgz"]
    found = by_version(TarName.parse(name) for name in names)
    assert [str(version) for version in found] == ["5.1rc1", "5.1", "6.3"]
    assert [{*parts} for parts in found.values()] == [{"base"}, {"base", "repo-fc-5-i386"}, {"source"}]


def test_a_set_says_which_of_the_wanted_parts_are_missing() -> None:
    wanted = ["base", "repo-common-rpms", "repo-rhel-*"]
    assert missing(["repo-rhel-4-i386"], wanted) == ("base", "repo-common-rpms")
    assert missing(["base"], wanted) == ("repo-common-rpms", "repo-rhel-*")
    assert missing(["base", "repo-common-rpms", "repo-rhel-4-i386", "srpms"], wanted) == ()


def test_a_tarball_that_holds_everything_waits_for_nothing_and_sources_of_packages_alone_are_no_set() -> None:
    assert missing(["source"], ["base", "repo-common-rpms"]) == ()
    assert missing(["including-srpms"], ["base"]) == ()
    assert missing(["only-srpms"], []) == ("base",)
    assert missing(["srpms"], ["srpms"]) == ("base",)


def test_a_cell_takes_the_installer_the_common_packages_and_its_own_repository() -> None:
    parts = {part: File(part) for part in ("base", "srpms", "repo-common-rpms", "repo-fc-5-i386", "repo-rhel-4-x86_64")}
    assert fitting(parts, ["centos-4-x86_64", "rhel-4-x86_64"]) == ("base", "repo-common-rpms", "repo-rhel-4-x86_64")
    assert fitting(parts, ["debian-12-x86_64"]) == ("base", "repo-common-rpms")
    old = {"source": File("s"), "including-srpms": File("i"), "only-srpms": File("o")}
    assert fitting(old, ["debian-12-x86_64"]) == ("source",)


def test_the_identity_of_a_set_is_its_content_under_its_names() -> None:
    one, two = File("oscar-base-5.0.tar.gz", "1" * 64), File("oscar-srpms-5.0.tar.gz", "2" * 64)
    assert identity([one, two]) == identity([two, one])
    assert identity([one, two]) != identity([one])
    assert identity([one]) != identity([File(one.name, "3" * 64)])


def test_a_waiting_set_says_in_one_sentence_what_for() -> None:
    said = str(Waiting("5.1rc1", ("base",), ("repo-common-rpms",), 0.0))
    assert said == "OSCAR 5.1rc1 waits for repo-common-rpms; there is base"
