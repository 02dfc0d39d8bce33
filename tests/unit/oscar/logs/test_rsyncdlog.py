"""The image server's log: which node asked for what."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.oscar.logs.rsyncdlog import Request, RequestKind, Sent, parse_line


def request(path: str, sender: str = "oscarnode1.oscardomain (10.0.0.2)") -> Request | Sent | None:
    return parse_line(f"2007/06/14 05:11:34 [4711] rsync on {path} from {sender}\n")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("boot/x86_64/standard/boel_binaries.tar.gz", RequestKind.BINARIES),
        ("scripts/", RequestKind.SCRIPTS),
        ("oscarimage", RequestKind.LISTING),
        ("oscarimage/", RequestKind.IMAGE),
        ("overrides/oscarnode1/", RequestKind.OVERRIDES),
        ("scripts/imaging_complete", RequestKind.COMPLETE),
        ("scripts/hosts", RequestKind.OTHER),
        ("oscarimage/etc/passwd", RequestKind.OTHER),
        ("boot/x86_64/standard/kernel", RequestKind.OTHER),
    ],
)
def test_the_path_tells_how_far_the_node_is(path: str, kind: RequestKind) -> None:
    found = request(path)
    assert found == Request(datetime(2007, 6, 14, 5, 11, 34), 4711, kind, path, "oscarnode1.oscardomain", "10.0.0.2")


def test_a_host_without_a_name_still_has_its_address() -> None:
    found = request("scripts/", "UNKNOWN (10.0.0.3)")
    assert isinstance(found, Request) and (found.host, found.ip) == ("UNKNOWN", "10.0.0.3")


@pytest.mark.parametrize("size", ["123456", "123,456"])
def test_the_end_of_a_transfer_has_the_pid_of_its_request(size: str) -> None:
    line = f"2007/06/14 05:18:00 [4750] sent {size} bytes  received 789 bytes  total size 999,111"
    assert parse_line(line) == Sent(datetime(2007, 6, 14, 5, 18), 4750, 123456)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2007/06/14 05:11:34 [4711] connect from UNKNOWN (10.0.0.2)",
        "2007/06/14 05:11:34 [4711] rsync allowed access on module scripts from UNKNOWN (10.0.0.2)",
        '2007/06/14 05:11:34 [4711] rsync: link_stat "/imaging_complete" failed: No such file or directory (2)',
        "2007/06/14 05:11:34 [4711] rsync on scripts/imaging_comp",
        "2007/13/14 05:11:34 [4711] rsync on scripts/ from a (10.0.0.2)",
    ],
)
def test_other_lines_and_torn_ones_tell_nothing(line: str) -> None:
    assert parse_line(line) is None


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_line(text)
