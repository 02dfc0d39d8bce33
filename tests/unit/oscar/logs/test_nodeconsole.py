"""A compute node's console: what is a sign, which end the wait, and why the installer gave up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.oscar.logs.nodeconsole import Cause, ConsoleReader, ConsoleSign, SignKind, classify, last_panic, why


@pytest.mark.parametrize(
    ("line", "kind", "fatal"),
    [
        ("[   12.5] Kernel panic - not syncing: sysrq triggered crash", SignKind.PANIC, True),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", SignKind.PANIC, True),
        ("[    3.1] Oops: 0002 [#1] SMP NOPTI", SignKind.OOPS, True),
        ("[    3.1] BUG: unable to handle page fault for address: 0000", SignKind.OOPS, True),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", SignKind.OOPS, True),
        ("[    9.9] general protection fault, probably for non-canonical address", SignKind.OOPS, True),
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [rsync:77]", SignKind.STALL, False),
        ("rcu: INFO: rcu_sched self-detected stall on CPU", SignKind.STALL, False),
        ("INFO: task jbd2/sda6-8:99 blocked for more than 120 seconds.", SignKind.STALL, False),
        ("Out of memory: Killed process 77 (rsync)", SignKind.OUT_OF_MEMORY, False),
        ("Installation failed!! Stopping report task.", SignKind.INSTALLATION_FAILED, True),
        (
            "FATAL:  None of SCRIPTNAME, IMAGENAME, or HOSTNAME were set (no script for 10.0.0.9).",
            SignKind.INSTALLATION_FAILED,
            True,
        ),
        ("No bootable device.", SignKind.NO_BOOTABLE_DEVICE, True),
        ("Could not find kernel image: vmlinuz-6.1.0", SignKind.NO_KERNEL, True),
        ("PXE-E51: No DHCP or proxyDHCP offers were received.", SignKind.NETWORK_BOOT_FAILED, True),
        ("No more network devices", SignKind.NETWORK_BOOT_FAILED, True),
        ("(initramfs) ", SignKind.EMERGENCY_SHELL, True),
        ("ALERT!  /dev/sda6 does not exist.  Dropping to a shell!", SignKind.EMERGENCY_SHELL, True),
        ("The root device /dev/sda6 did not appear.", SignKind.EMERGENCY_SHELL, True),
        ("[    0.0] Linux version 6.1.0", SignKind.KERNEL_STARTED, False),
        ("oscarnode1 login: ", SignKind.LOGIN_PROMPT, False),
        # what systemd or the kernel writes next goes on in the same line
        (
            "oscarhead login: [\x1b[0;32m  OK  \x1b[0m] Finished \x1b[0;1;39mRaise network interfaces\x1b[0m.",
            SignKind.LOGIN_PROMPT,
            False,
        ),
        ("oscarhead login: [  154.133382] generator[670]: cannot query", SignKind.LOGIN_PROMPT, False),
        ("oscarhead login: [   90.1] Kernel panic - not syncing: no", SignKind.PANIC, True),
    ],
)
def test_each_sign_and_whether_it_ends_the_wait(line: str, kind: SignKind, fatal: bool) -> None:
    sign = classify(line)
    assert sign is not None
    assert (sign.kind, sign.kind.fatal) == (kind, fatal)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Boot failed: not a bootable disk",
        "Pulling the image oscarimage.",
        "VFS: Mounted root (ext3 filesystem) readonly on device 8:6.",
        "There is no override for oscarimage.",
        "[133] Nov 22 19:32:34 Not backgrounding",
    ],
)
def test_what_a_good_node_says_is_no_bad_sign(line: str) -> None:
    assert classify(line) is None


REASONS = {
    "rsync daemon dead": (
        """Fetching boot/x86_64/standard/boel_binaries.tar.gz.
rsync: [Receiver] failed to connect to 10.0.0.1 (10.0.0.1): Connection refused (111)
rsync error: error in socket IO (code 10) at clientserver.c(139) [Receiver=3.2.7]
rsync of boot/x86_64/standard/boel_binaries.tar.gz from 10.0.0.1 failed.
Killing off running processes.""",
        "rsync of boot/x86_64/standard/boel_binaries.tar.gz from 10.0.0.1 failed. "
        "(rsync: [Receiver] failed to connect to 10.0.0.1 (10.0.0.1): Connection refused (111))",
        Cause.RSYNC_REFUSED,
    ),
    "no DHCP": (
        """Asking for an address by DHCP on eth0 (52:54:00:00:00:11).
udhcpc: started, v1.35.0
udhcpc: broadcasting discover
udhcpc: no lease, failing
No DHCP server answers on eth0.
Killing off running processes.""",
        "No DHCP server answers on eth0. (udhcpc: no lease, failing)",
        Cause.NO_DHCP,
    ),
    "disk too small": (
        """This node is oscarnode1; running its autoinstall script.
Partitioning /dev/sda.
The disk /dev/sda has 1536 MB, the partition file asks for 2148 MB.
Killing off running processes.""",
        "The disk /dev/sda has 1536 MB, the partition file asks for 2148 MB.",
        Cause.DISK_FULL,
    ),
    "partitioner fails": (
        """Partitioning /dev/sda.
Failed to add #2 partition: Numerical result out of range
Leaving.
sfdisk of /dev/sda failed.
Killing off running processes.""",
        "sfdisk of /dev/sda failed. (Failed to add #2 partition: Numerical result out of range)",
        Cause.OTHER,
    ),
    "disk full": (
        """Pulling the image oscarimage.
rsync: [receiver] write failed on "/a/usr/lib/libc.so.6": No space left on device (28)
rsync error: error in file IO (code 11) at receiver.c(381) [receiver=3.2.7]
rsync of the image oscarimage failed.
Killing off running processes.""",
        'rsync of the image oscarimage failed. (rsync: [receiver] write failed on "/a/usr/lib/libc.so.6": '
        "No space left on device (28))",
        Cause.DISK_FULL,
    ),
}


@pytest.mark.parametrize("name", list(REASONS))
def test_the_reason_stands_before_the_failure(name: str) -> None:
    console, reason, cause = REASONS[name]
    reader = ConsoleReader()
    assert [sign for line in console.splitlines() if (sign := reader.feed(line)) and sign.kind.fatal] == []
    words = "Installation failed!! Stopping report task."
    assert reader.feed(words) == ConsoleSign(SignKind.INSTALLATION_FAILED, words, reason, cause)


def test_an_installer_that_gave_no_reason_has_none() -> None:
    assert why(["Installation failed!! Stopping report task."]) == ("", Cause.OTHER)


def test_a_line_that_came_unfinished_first_counts_once() -> None:
    reader = ConsoleReader()
    for line in ("Failed to add", "Failed to add #2 partition", "It is over.", "Installation failed!!"):
        sign = reader.feed(line)
    assert sign and sign.reason == "It is over. (Failed to add #2 partition)"


def test_the_last_panic_is_told_in_its_own_words() -> None:
    lines = ["[ 1.0] Kernel panic - not syncing: first", "x", "[ 2.0] Kernel panic - not syncing: second", "---[ end"]
    assert last_panic(lines) == "[ 2.0] Kernel panic - not syncing: second"
    assert last_panic(["all is well"]) == ""


@pytest.mark.parametrize("path", sorted(Path(__file__).with_name("consoles").iterdir()), ids=lambda path: path.stem)
def test_the_signs_on_the_consoles_of_many_kernels(path: Path) -> None:
    """The first line of each names the signs that are in it, in order; they are of our own writing."""
    expected, *lines = path.read_text(encoding="utf-8").splitlines()
    signs = [sign.kind.value for line in lines if (sign := classify(line))]
    assert signs == expected.removeprefix("signs:").split()


@given(st.lists(st.text()))
def test_no_console_breaks_the_reader(lines: list[str]) -> None:
    reader = ConsoleReader()
    for line in lines:
        reader.feed(line)
    why(lines)
