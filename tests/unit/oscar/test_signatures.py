"""The catalogue of failures, the node's console, the list of files to fetch."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.oscar.known import KnownIssue, remarks
from oscar_steps.oscar.logs.extract import HEAD_COMMANDS, NODE_GLOBS, head_globs
from oscar_steps.oscar.logs.nodeconsole import SignKind, classify
from oscar_steps.oscar.signatures import Signature, Weight, match, match_loop, signatures
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.verdict import Category, Stage


def test_the_catalogue_is_complete_and_each_entry_is_there_once() -> None:
    ids = [signature.id for signature in signatures()]
    assert len(ids) == len(set(ids))
    assert {str(number) for number in range(1, 115)} <= set(ids)


@pytest.mark.parametrize("signature", signatures(), ids=lambda s: s.id)
def test_each_signature_has_a_whole_sentence_and_somebody_to_blame(signature: Signature) -> None:
    groups = signature.pattern.groups
    assert signature.fixed.strip()
    assert signature.sentence.count("{") <= groups
    assert signature.blame in {Category.OSCAR, Category.DISTRIBUTION, Category.ANSWERS, Category.FARM}
    assert signature.effect in "FNHT"
    assert not signature.sentence.endswith(".")
    if not signature.sentence:
        assert signature.detail == 0, "a text that explains nothing must not hide one that does"


def test_what_ends_the_installer_is_never_only_noted_as_fine() -> None:
    assert all(s.weight is not Weight.SPOILS for s in signatures() if s.effect == "F")


@pytest.mark.parametrize(
    ("line", "stage", "wanted", "sentence"),
    [
        (
            'Can\'t exec "/root/farm/hook": Permission denied at ./main_cli line 9.',
            "barrier",
            "95",
            "the barrier's hook",
        ),
        ('Can\'t exec "./selector_cli": No such file or directory', "select", "95b", "./selector_cli could not be run"),
        ("Failed running setup script for torque", "wizard_prep", "33", "a package's setup script failed: torque"),
        ("Can't open /root/farm/build.txt", "image", "59", "cannot be opened: /root/farm/build.txt"),
        ("Failed to run /etc/init.d/systemimager-server-rsyncd restart", "network", "85", "rsyncd restart"),
        ("ERROR: no such package in /pool: foo", "image", "118", "no such package in /pool: foo"),
        ("E: Package 'foo' has no installation candidate", "image", "60c", "package foo is not in the pool"),
    ],
)
def test_the_sentence_names_what_the_line_names(line: str, stage: str, wanted: str, sentence: str) -> None:
    found = match(line, InstallStage(stage))
    assert found is not None and found.id == wanted
    assert sentence in found.explain(line)[0]


@pytest.mark.parametrize(
    "line",
    [
        "Setting up openssh-server (1:9.2p1-2) ...",
        "--> Successfully ran: ./post_clients",
        "File foo not found! maybe, said something else",
        "[FAILED] Failed to start a service",
    ],
)
def test_general_texts_count_only_in_their_own_stage(line: str) -> None:
    assert match(line, InstallStage.SERVER) is None


def test_stages_belong_to_stages_of_the_run() -> None:
    assert {stage.farm_stage for stage in InstallStage} <= set(Stage)
    assert [stage.position for stage in InstallStage] == sorted(stage.position for stage in InstallStage)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs", SignKind.PANIC),
        ("[    1.0] BUG: unable to handle page fault for address: 0", SignKind.OOPS),
        ("Installation failed!! Stopping report task.", SignKind.INSTALLATION_FAILED),
        ("FATAL:  None of SCRIPTNAME, IMAGENAME, or HOSTNAME were set", SignKind.INSTALLATION_FAILED),
        ("No bootable device.", SignKind.NO_BOOTABLE_DEVICE),
        ("PXE-E53: No boot filename received", SignKind.NETWORK_BOOT_FAILED),
        ("[    0.0] Linux version 6.1.0-18-cloud-amd64", SignKind.KERNEL_STARTED),
        ("oscarnode1 login: ", SignKind.LOGIN_PROMPT),
        ("\x1b[0moscarnode1 login:", SignKind.LOGIN_PROMPT),
        ("You are in emergency mode. After logging in", SignKind.EMERGENCY_SHELL),
    ],
)
def test_a_console_line_is_a_sign(line: str, kind: SignKind) -> None:
    sign = classify(line)
    assert sign is not None and sign.kind is kind


@pytest.mark.parametrize(
    "line", ["", "Boot failed: not a bootable disk", "Last login: Thu Jun 14", "random: crng init"]
)
def test_other_console_lines_are_none(line: str) -> None:
    assert classify(line) is None


def test_both_places_of_the_installers_log_are_fetched() -> None:
    globs = head_globs("/opt/oscar/")
    assert "/opt/oscar/oscarinstall.log*" in globs and "/var/log/oscar/**" in globs
    assert all(glob.startswith("/") for glob in (*globs, *NODE_GLOBS))
    assert len({name for name, _ in HEAD_COMMANDS}) == len(HEAD_COMMANDS)


# OSCAR's sources have these words, but the return is evaluated before the warning: they are never printed. Whoever does
# print them is another program.
DEAD = (
    "Couldn't mkdhcpconf",
    "Couldn't clean hosts file!",
    "Couldn't backup dhcpd.conf file",
    "Couldn't create dhcpd.leases files",
    "Couldn't restart dhcpd",
    "Can't copy /etc/hosts to /var/lib/systemimager/scripts",
    "Script /opt/oscar/packages/foo/scripts/post_rpm_install failed",
    "Error: could not setup or generate package pool metadata",
)


@pytest.mark.parametrize("line", DEAD)
def test_what_can_never_be_printed_is_no_signature(line: str) -> None:
    assert all(match(line, stage) is None for stage in InstallStage)


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("E: Failed to fetch http://mirror/pool/foo.deb  404  Not Found", "image"),
        ("W: Failed to fetch ... Hash Sum mismatch", "server"),
        ("Err:1 http://mirror  Temporary failure resolving 'mirror'", "wizard_prep"),
        ("curl: (6) Could not resolve host: mirror", "image"),
        ("Error: Cannot retrieve repository metadata (repomd.xml) for repository: base", "server"),
        ("failure: foo.rpm from core: [Errno 256] No more mirrors to try.", "image"),
        ("dpkg-deb: error: foo.deb is not a Debian format archive", "image"),
        ("error: unpacking of archive failed on file /usr/bin/foo: cpio: Bad magic", "image"),
    ],
)
def test_the_distributions_own_faults_are_not_oscars(line: str, stage: str) -> None:
    found = match(line, InstallStage(stage))
    assert found is not None and found.blame == Category.DISTRIBUTION


def test_a_loop_is_told_apart_in_either_format_of_the_log() -> None:
    for line in ("--> Install mode: foo", "----------- Install mode: foo -----------"):
        loop = match_loop((line,), InstallStage.NETWORK)
        assert loop is not None and "does not know the install mode" in loop.sentence


ISSUE = {"text": "Package install failed", "reference": "ticket 412", "expires": "2027-01-31"}


@pytest.mark.parametrize(
    ("cell", "line", "shows"),
    [
        ("debian-12-x86_64", "mksiimage: Package install failed.", True),
        ("debian-12-x86_64", "Package install succeeded", False),
        ("fedora-40-x86_64", "Package install failed", False),
    ],
)
def test_a_known_issue_shows_in_its_cells_and_its_words(cell: str, line: str, shows: bool) -> None:
    issue = KnownIssue.model_validate(ISSUE | {"cells": "debian-*"})
    assert bool(remarks([issue], cell, ["something", line], date(2027, 1, 1))) is shows


def test_a_known_issue_holds_to_its_last_day_and_then_is_reported_as_expired() -> None:
    issue = KnownIssue.model_validate(ISSUE)
    assert issue.remark(date(2027, 1, 31)) == "known issue (ticket 412), until 2027-01-31"
    assert "expired on 2027-01-31: it counts as a new one" in issue.remark(date(2027, 2, 1))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('text = "a … b"', "quote at least 8 characters in a row"),
        ('expires = "soon"', "date"),
        ('reference = ""', "reference"),
        ('cell = "x"', "there is no such setting"),
    ],
)
def test_a_malformed_known_issue_is_told_with_file_and_line(tmp_path: Path, wrong: str, words: str) -> None:
    key = wrong.partition(" ")[0]
    lines = {
        "text": 'text = "Package install failed"',
        "reference": 'reference = "412"',
        "expires": "expires = 2027-01-31",
    }
    lines[key] = wrong
    (tmp_path / "known-issues.toml").write_text("[[issue]]\n" + "\n".join(lines.values()) + "\n")
    matrix = load_matrix(default_profiles())
    with pytest.raises(ConfigError, match=words) as error:
        matrix.model_copy(update={"directory": tmp_path}).known_issues(matrix.cells[0])
    line = 2 + list(lines).index(key)
    assert f"known-issues.toml:{line}: " in error.value.sentence


def test_the_known_issues_of_the_profiles_can_be_read() -> None:
    matrix = load_matrix(default_profiles())
    for cell in matrix.cells:
        assert isinstance(matrix.known_issues(cell), tuple)
