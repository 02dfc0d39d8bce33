"""Names of OSCAR's tarballs: of all periods, in order, and those that are none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.sources.tarballs.names import ENDINGS, NotOurTarball, TarName, Version, is_ours

# Each line is older than the next. The part, then the version.
IN_ORDER = """
oscar-1.0.tar.gz                                              source                   1.0
oscar-1.1.tar.gz                                              source                   1.1
oscar-1.2.1b6.tar.gz                                          source                   1.2.1b6
oscar-1.2.1.tar.gz                                            source                   1.2.1
oscar-1.3.tar.gz                                              source                   1.3
oscar-1.4b4.tgz                                               source                   1.4b4
oscar-2.0.tar.gz                                              source                   2.0
oscar-2.2.1.tar.gz                                            source                   2.2.1
oscar-including-srpms-2.3.1.tar.gz                            including-srpms          2.3.1
oscar-only-srpms-3.0.tar.gz                                   only-srpms               3.0
oscar-including-srpms-4.0.tar.gz                              including-srpms          4.0
oscar-4.1rc1.tar.gz                                           source                   4.1rc1
oscar-4.1rc2.tar.gz                                           source                   4.1rc2
oscar-4.1.tar.gz                                              source                   4.1
oscar-4.2.1b3svn12052005.tar.gz                               source                   4.2.1b3svn12052005
oscar-4.2.1b3svn01022006.tar.gz                               source                   4.2.1b3svn01022006
oscar-only-srpms-4.2.1.tar.gz                                 only-srpms               4.2.1
oscar-base-5.0sc2005.tar.gz                                   base                     5.0sc2005
oscar-base-5.0a1r4400.tar.gz                                  base                     5.0a1r4400
oscar-base-5.0b2r5990.tar.gz                                  base                     5.0b2r5990
oscar-srpms-5.0b2r6000nightly-20070704.tar.gz                 srpms                    5.0b2r6000nightly-20070704
oscar-base-5.0b2r6000nightly-20070705.tar.gz                  base                     5.0b2r6000nightly-20070705
oscar-base-5.0b10.tar.gz                                      base                     5.0b10
oscar-base-5.0rc1.tar.gz                                      base                     5.0rc1
oscar-repo-common-rpms-5.0.tar.gz                             repo-common-rpms         5.0
oscar-repo-fc-5-x86_64-5.0.1.tar.gz                           repo-fc-5-x86_64         5.0.1
oscar-repo-suse-10.0-i386-5.0.2.tar.gz                        repo-suse-10.0-i386      5.0.2
oscar-base-5.1a1r5910:5916.tar.gz                             base                     5.1a1r5910:5916
oscar-base-5.1a1r5917M.tar.gz                                 base                     5.1a1r5917M
oscar-repo-rhel-4-x86_64-5.1a1r5918nightly-20070616.tar.gz    repo-rhel-4-x86_64       5.1a1r5918nightly-20070616
oscar-repo-mdv-2006-i386-5.1b1.tar.gz                         repo-mdv-2006-i386       5.1b1
oscar-base-5.1rc1.tar.bz2                                     base                     5.1rc1
oscar-srpms-5.1.tar.gz                                        srpms                    5.1
oscar-base-5.2a1r7600.tar.gz                                  base                     5.2a1r7600
oscar-base-6.0b1r7700.tar.gz                                  base                     6.0b1r7700
oscar-base-6.0.tar.gz                                         base                     6.0
oscar-repo-debian-4-x86_64-6.0.1r7803.tar.gz                  repo-debian-4-x86_64     6.0.1r7803
oscar-6.0.5.tar.gz                                            source                   6.0.5
oscar-6.0.5r8700.tar.gz                                       source                   6.0.5r8700
oscar-6.0.10.tar.gz                                           source                   6.0.10
oscar-6.1.2svn20172906.tar.gz                                 source                   6.1.2svn20172906
oscar-6.1.2r11024.tar.gz                                      source                   6.1.2r11024
oscar-6.2.1.tar.xz                                            source                   6.2.1
oscar-6.2.120180416git.tar.gz                                 source                   6.2.120180416git
oscar-6.3.tar.xz                                              source                   6.3
oscar-6.320220707git.tar.gz                                   source                   6.320220707git
oscar-6.3r7436.tar.gz                                         source                   6.3r7436
oscar-10.0.tar.gz                                             source                   10.0
"""
CASES = [tuple(line.split()) for line in IN_ORDER.split("\n") if line]


@pytest.mark.parametrize(("name", "part", "version"), CASES)
def test_a_name_of_any_period_says_part_and_version(name: str, part: str, version: str) -> None:
    found = TarName.parse(name)
    assert (found.part, found.version.text) == (part, version)
    assert found.repository == (part[5:] if part.startswith("repo-") else "")


def test_names_of_all_periods_are_put_in_order() -> None:
    names = [name for name, _, _ in CASES]
    assert len(names) >= 40
    mixed = list(names)
    random.Random(5).shuffle(mixed)
    assert sorted(mixed, key=lambda name: TarName.parse(name).version.key) == names


def test_two_spellings_of_a_version_are_beside_each_other_and_not_the_same() -> None:
    assert Version.parse("6.3").key == Version.parse("6.3.0").key
    assert Version.parse("6.3") != Version.parse("6.3.0")
    assert Version.parse("6.2") < Version.parse("6.3.0") < Version.parse("6.3.1")


@pytest.mark.parametrize(
    "name",
    [
        "../oscar-5.0.tar.gz",
        "/oscar-5.0.tar.gz",
        "oscar-5.0.tar.gz/..",
        "oscar-5.0\n.tar.gz",
        "oscar-5.0.tar.gz\x1b[2J",
        "oscar-5.\u0660.tar.gz",
        "oscar-5.0\u202e.tar.gz",
        "-oscar-5.0.tar.gz",
        ".oscar-5.0.tar.gz",
        "oscar-5.0.tar",
        "oscar-5.0.zip",
        "oscar-.tar.gz",
        "oscar-5.tar.gz",
        "oscar-base-.tar.gz",
        "oscar-repo--5.0.tar.gz",
        "oscar-manual-5.0.tar.gz",
        "oscar-5.0.tar.gz.asc",
        "oscar-5.0.tar.gz.part",
        "sis-5.0.tar.gz",
        "oscar-5.0 (1).tar.gz",
        "oscar-5..0.tar.gz",
        "oscar-5.0nightly-2007.tar.gz",
        "oscar-" + "9" * 400 + ".0.tar.gz",
        "",
        "..",
    ],
)
def test_what_is_not_called_like_a_tarball_of_oscars_is_none_and_the_reason_can_be_printed(name: str) -> None:
    with pytest.raises(NotOurTarball) as refused:
        TarName.parse(name)
    assert refused.value.sentence.isprintable()
    assert refused.value.sentence.isascii() or "\u0660" in name
    assert len(refused.value.sentence) < 400
    assert not is_ours(name)


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_is_not(text: str) -> None:
    assert is_ours(text) in (True, False)
    for ending in ENDINGS:
        try:
            version = TarName.parse(f"oscar-{text}{ending}").version
        except NotOurTarball:
            continue
        assert not version < version
