"""When two failures are the same."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.signature import normalised, signature_of
from oscar_steps.verdict import Category, NodeReport, Outcome, Stage, Verdict


def red(sentence: str, stage: Stage | None = Stage.WAIT_NODES, **more: object) -> Verdict:
    return Verdict(
        **{
            "run_id": "cell-r7-b1",
            "cell": "cell",
            "source": "svn://svn/oscar/trunk",
            "revision": "7",
            "outcome": Outcome.FAILED,
            "category": Category.OSCAR,
            "stage": stage,
            "sentence": sentence,
            **more,
        }
    )


SAME = [
    (
        "oscarnode1 failed: it was 'powered on' for 171 s, waiting for its installer to ask for an address by DHCP; "
        "the DHCP server has heard nothing from 52:54:00:00:00:11",
        "oscarnode3 failed: it was 'powered on' for 204 s, waiting for its installer to ask for an address by DHCP; "
        "the DHCP server has heard nothing from 52:54:00:0a:00:1c",
    ),
    (
        "oscarnode2 failed: its kernel panicked: [   22.025222] Kernel panic - not syncing: exitcode=0x00000100",
        "oscarnode1 failed: its kernel panicked: [    9.1] Kernel panic - not syncing: exitcode=0x0000000b",
    ),
    ("oscarnode1 panicked", "oscarnode1, oscarnode2 and oscarnode3 panicked"),
    ("the installer has been silent for 219 s; 1 node is up", "the installer has been silent for 90 s; 3 nodes is up"),
    (
        "no such package in /srv/mirror-a/common-debs: libfoo1",
        "no such package in /data/farm/mirror/common-debs: libfoo1",
    ),
    ("cannot write /tmp/oscar-Ab12Cd/list", "cannot write /tmp/oscar-Zz99Yy/list"),
    ("http://10.0.2.2:8080/debian/x.deb: 404", "http://mirror.example.org/d/x.deb: 404"),
    (
        "the stage died at Mon Nov 30 04:42:35 UTC 2026 (its last event was at 03:26:58)",
        "the stage died at Tue Dec  1 14:02:35 UTC 2026 (its last event was at 13:26:58)",
    ),
    ("the session 3f2a9c1b77de0041 is gone", "the session 0b1c2d3e4f5a6b7c is gone"),
]
OTHERS = [
    ("no such package in /srv/debs: libfoo1", "no such package in /srv/debs: libfoo2"),
    ("it ended with status 0 while building", "it ended with status 1 while building"),
    ("lib/OSCAR/Env.pm:12: syntax error", "lib/OSCAR/Package.pm:12: syntax error"),
    ("oscarnode1 failed: The root device /dev/sda6 did not appear.", "oscarnode1 failed: its installer gave up"),
    ("the test 'SSH server->node' failed", "the test 'Parallel job (ssh)' failed"),
    ("eth0 has no address", "eth1 has no address"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_runs_of_the_same_fault_have_the_same_signature(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert signature_of(red(one)) == signature_of(red(other))


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_two_faults_of_the_same_stage_have_different_signatures(one: str, other: str) -> None:
    assert signature_of(red(one)) != signature_of(red(other))


def test_the_same_words_at_another_stage_are_another_fault() -> None:
    assert signature_of(red("it failed", Stage.FINALIZE)) != signature_of(red("it failed", Stage.WAIT_NODES))
    assert signature_of(red("it failed", oscar_stage="image")) != signature_of(red("it failed", oscar_stage="server"))


def test_a_cluster_s_own_names_of_its_nodes_make_no_difference() -> None:
    nodes = tuple(NodeReport(name=name, state="up", since=1.0) for name in ("alpha", "alpha2", "beta"))
    signatures = {signature_of(red(f"{name} panicked", nodes=nodes)) for name in ("alpha", "alpha2", "beta")}
    assert len(signatures) == 1


def test_a_run_that_did_not_fail_has_no_signature() -> None:
    for outcome in (Outcome.PASSED, Outcome.CANCELLED, Outcome.WARNING):
        assert signature_of(red("x", outcome=outcome)) == ""
    assert signature_of(red("x", None)).startswith("no-stage:")


@given(st.text(max_size=300))
def test_any_text_has_a_signature_and_its_normal_form_is_stable(text: str) -> None:
    assert len(signature_of(red(text))) == len("wait-nodes:") + 12
    assert normalised(text) == normalised(f"  {text}\n")


@pytest.mark.parametrize("piece", ["/", "a/", "0", "oscarnode1, ", "1.", "ab:", "http://", "mon jan 1 ", "[ 1."])
def test_a_hostile_sentence_takes_no_time(piece: str) -> None:
    begun = time.process_time()
    signature_of(red(piece * 100_000))
    assert time.process_time() - begun < 1.0
