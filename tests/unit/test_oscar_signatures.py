"""The catalogue of failures, the node's console, the list of files to fetch."""

from __future__ import annotations

import pytest

from oscar_steps.oscar.extract import HEAD_COMMANDS, NODE_GLOBS, head_globs
from oscar_steps.oscar.nodeconsole import SignKind, classify
from oscar_steps.oscar.signatures import Signature, Weight, match, signatures
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
    assert signature.blame in {Category.OSCAR, Category.ANSWERS, Category.FARM}
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
