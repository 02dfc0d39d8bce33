"""What Subversion says: its reason, and whose mistake that is."""

from __future__ import annotations

import pytest

from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.svn import error_kind, svn_words

NO_CONNECTION = "svn: E170013: Unable to connect to a repository at URL 'x'\n"


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (
            "svn: E000022: Can't convert string from 'UTF-8' to native encoding:\nsvn: E000022: /opt/oscar/?\\195",
            "E000022: Can't convert string from 'UTF-8' to native encoding: /opt/oscar/?\\195",
        ),
        (
            "svn: E170013: Unable to connect to a repository at URL 'svn://h/x'\n"
            "svn: E000111: Can't connect to host 'h': Connection refused",
            "E000111: Can't connect to host 'h': Connection refused",
        ),
        (
            "svn: warning: W170000: URL 'file:///r/b' non-existent in revision 2\n\n"
            "svn: E200009: Could not display info for all targets because some targets don't exist",
            "W170000: URL 'file:///r/b' non-existent in revision 2",
        ),
        (
            "svn: E155009: Failed to run the WC DB work queue\nsvn: E000028: Can't write: No space left on device",
            "E000028: Can't write: No space left on device",
        ),
        ("svn: E160006: No such revision 99", "E160006: No such revision 99"),
        ("svn: E170013: Unable to connect", "E170013: Unable to connect"),
        ("sh: 1: svn: not found\n", "sh: 1: svn: not found"),
        ("", "(it said nothing)"),
    ],
)
def test_the_cause_is_quoted_of_what_svn_says(errors: str, words: str) -> None:
    assert svn_words(errors) == words


@pytest.mark.parametrize(
    "errors",
    [
        "svn: E160006: No such revision 99",
        "svn: E160013: '/oscar/trunk' path not found",
        "svn: E125002: URL 'svn://h/../x' contains a '..' element",
        "svn: E205000: Try 'svn help info' for more information\nsvn: E205000: Syntax error parsing peg revision '{}'",
        "svn: warning: W170000: URL 'x' non-existent in revision 2\n\n"
        "svn: E200009: Could not display info for all targets because some targets don't exist",
        "svn: Warnung: W160013: Pfad nicht gefunden\n\nsvn: E200009: some targets don't exist",
        f"{NO_CONNECTION}svn: E210005: No repository found in 'x'",
        f"{NO_CONNECTION}svn: E180001: Unable to open repository 'x'",
        f"{NO_CONNECTION}svn: E160013: '/nowhere' path not found",
        "svn: warning: W170000: URL 'x' non-existent in revision 2\n\nsvn: E205011: Failure with externals",
    ],
)
def test_what_does_not_exist_or_cannot_be_meant_is_the_askers_mistake(errors: str) -> None:
    assert error_kind(errors) is SourceError


@pytest.mark.parametrize(
    "errors",
    [
        "",
        "sh: 1: svn: not found",
        NO_CONNECTION,
        f"{NO_CONNECTION}svn: E000111: Can't connect to host 'h': Connection refused",
        f"{NO_CONNECTION}svn: E170001: No access allowed to this repository",
        f"{NO_CONNECTION}svn: E180001: Unable to open repository 'x'\nsvn: E000013: Can't open 'x': Permission denied",
        f"{NO_CONNECTION}svn: E180001: Unable to open repository 'x'\nsvn: E165005: Expected repository format '3'",
        "svn: E000028: Can't write '/srv/E160013': No space left on device",
        "svn: E155009: Failed to run the WC DB work queue\nsvn: E000028: Can't write: No space left on device",
        "svn: warning: W170013: Unable to connect\nsvn: warning: W000111: refused\nsvn: E205011: externals",
        "svn: E1600061: a number that nobody knows",
    ],
)
def test_what_svn_cannot_find_out_is_the_hosts_fault(errors: str) -> None:
    assert error_kind(errors) is HostError
