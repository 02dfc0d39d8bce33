"""OSCAR's installer on its terminal: what a good run is, and that nothing else passes for one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.oscar.failure import Failure
from oscar_steps.oscar.logs.installlog import EventKind, InstallLog, LogEvent
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.oscar.terminal import check_result, clean

RULE = "=" * 77


def section(title: str) -> list[str]:
    return ["", RULE, f"== {title}", RULE, ""]


def result(label: str, status: str, verdict: str) -> str:
    """A result line as testprint writes it: overwrites, columns of 21, colours."""
    colour = "32" if verdict == "PASSED" else "31"
    start = f"{label[:21]:<21} {'running':<21}"
    return f"{start}\x1b[1G{label[:21]:<21} {status[:21]:<21}[\x1b[1m\x1b[{colour}m{verdict}\x1b[0m]"


GOOD: tuple[str, ...] = (
    "--> Setting env variable OSCAR_UI to cli",
    "Checking your system...",
    "Success: ssh-check.pl",
    "Success: network-check.pl",
    "System checked",
    *section("Running OSCAR install_cluster script    Thu Jun 14 05:00:00 UTC 2007"),
    "--> Checking if this is a supported platform",
    '--> Running: "cd /opt/oscar/scripts && ./wizard_prep"',
    *section("Running OSCAR wizard_prep script"),
    'Argument "foo" isn\'t numeric in numeric eq (==) at ./wizard_prep line 12.',
    "--> Successfully ran OSCAR wizard_prep script",
    "--> Successfully ran wizard_prep",
    *section("Prerequisites installed"),
    "--> OSCAR version: 5.1a1r5916",
    '--> Running: "./main_cli --opkgselector /root/farm/selector.txt eth1"',
    *section("Running OSCAR CLI Installer"),
    "--> Running command: ./selector_cli --file /root/farm/selector.txt",
    *section("Beginning the OSCAR Package Selector"),
    "--> List of packages",
    *section("Installing OSCAR Server Packages"),
    "--> Running command: /opt/oscar/scripts/install_server eth1",
    "--> Finished server_prep script",
    *section("Packages Successfully Installed"),
    "--> Running command: ./build_oscar_image_cli --file /root/farm/build.txt eth1",
    *section("Build OSCAR Client Image"),
    "--> Running in automated mode from /root/farm/build.txt",
    "--> Image name: oscarimage",
    "--> Building Image...",
    "\x08" * 25,
    "  50 % [=====     ]",
    "\x08" * 25,
    " 100 % [==========]Image build finished",
    "--> Image build successfully",
    '--> Successfully created image "oscarimage"',
    "--> Running command: ./define_oscar_clients_cli --file /root/farm/define.txt eth1",
    *section("Define OSCAR Clients"),
    "--> Running in automated mode from /root/farm/define.txt",
    "--> Successfully ran: ./post_clients",
    "--> Completed successfully",
    *section("Running step 6 of the OSCAR wizard: Setup networking"),
    "Current client assignments:",
    "--> Install mode: systemimager-rsync",
    "--> Step 6: Successfully enabled installation mode: systemimager-rsync",
    "--> Assigning MAC: 52:54:00:00:00:11 to client: oscarnode1",
    "--> Assigning MAC: 52:54:00:00:00:12 to client: oscarnode2",
    "--> Step 6: cleaning hostfile",
    "About to run setup_dhcpd...",
    "--> Step 6: Running command: mkdhcpconf -o /etc/dhcpd.conf --interface=eth1 --gateway=10.0.0.1",
    "--> Step 6: Successfully ran command",
    "--> Step 6: Restarting dhcpd service",
    "--> Step 6: Successfully restarted dhcpd service",
    "--> Step 6: Building AutoInstall CD: si_mkautoinstallcd --out-file /tmp/oscar_bootcd.iso --flavor standard",
    "--> Step 6: Successfully built AutoInstall CD",
    "--> Step 6: Completed successfully",
    '--> Running script "/root/farm/hook"',
    "farm barrier: waiting",
    "farm barrier: open",
    "--> Script successful.  Continuing...",
    *section("Complete Cluster Setup"),
    "Cluster setup complete!",
    "--> Successfully completed the cluster install",
    *section("Test Cluster Setup"),
    "stty: standard input: Inappropriate ioctl for device",
    result("SSH ping test", "", "PASSED"),
    "--> Step 8 - Successfully tested the cluster setup",
    "--> Successfully ran oscar_wizard",
    "--> Successfully ran OSCAR install_cluster script",
)

REQUIRED = (
    "Checking your system...",
    "System checked",
    RULE,
    '--> Running: "cd /opt/oscar/scripts && ./wizard_prep"',
    "--> Successfully ran wizard_prep",
    "--> Running command: ./selector_cli --file /root/farm/selector.txt",
    "== Installing OSCAR Server Packages",
    "== Packages Successfully Installed",
    "--> Running command: ./build_oscar_image_cli --file /root/farm/build.txt eth1",
    '--> Successfully created image "oscarimage"',
    "--> Running command: ./define_oscar_clients_cli --file /root/farm/define.txt eth1",
    "--> Completed successfully",
    "== Running step 6 of the OSCAR wizard: Setup networking",
    "--> Step 6: Successfully enabled installation mode: systemimager-rsync",
    "--> Assigning MAC: 52:54:00:00:00:11 to client: oscarnode1",
    "--> Assigning MAC: 52:54:00:00:00:12 to client: oscarnode2",
    "--> Step 6: Successfully ran command",
    "--> Step 6: Successfully restarted dhcpd service",
    "--> Step 6: Successfully built AutoInstall CD",
    "--> Step 6: Completed successfully",
    '--> Running script "/root/farm/hook"',
    "--> Script successful.  Continuing...",
    "== Complete Cluster Setup",
    "--> Successfully completed the cluster install",
    "== Test Cluster Setup",
    result("SSH ping test", "", "PASSED"),
    "--> Step 8 - Successfully tested the cluster setup",
    "--> Successfully ran OSCAR install_cluster script",
)


def new_log() -> InstallLog:
    return InstallLog(expected_nodes=2, boot="cdrom", image_name="oscarimage")


def fed(lines: tuple[str, ...] | list[str], log: InstallLog | None = None) -> tuple[InstallLog, list[LogEvent]]:
    log = log or new_log()
    return log, [event for line in lines for event in log.feed(line)]


def failure_of(lines: tuple[str, ...] | list[str], exit_status: int | None = 0) -> Failure:
    failure = fed(lines)[0].conclude(exit_status)
    assert failure is not None
    return failure


def replaced(old: str, *new: str) -> list[str]:
    """The good run with one of its lines replaced."""
    at = GOOD.index(old)
    return [*GOOD[:at], *new, *GOOD[at + 1 :]]


def cut_before(line: str, *more: str) -> list[str]:
    return [*GOOD[: GOOD.index(line)], *more]


def test_a_good_run_passes_every_stage_in_order() -> None:
    log, events = fed(GOOD)
    assert log.conclude(0) is None
    passed = [event.stage for event in events if event.kind is EventKind.STAGE_PASSED]
    assert passed == [stage for stage in InstallStage if stage is not InstallStage.CONFIGURE]
    assert not [event for event in events if event.kind is EventKind.CERTAIN_FAILURE]


def test_a_section_whose_title_brings_its_own_line_end_is_a_section() -> None:
    at = GOOD.index("== Running OSCAR install_cluster script    Thu Jun 14 05:00:00 UTC 2007")
    log, events = fed([*GOOD[: at + 1], "", *GOOD[at + 1 :]])
    assert log.conclude(0) is None
    assert next(event.line for event in events if event.stage is InstallStage.PLATFORM) == at + 1


@pytest.mark.parametrize("noise", ["\x1b(B", "\x1b[m\x1b(B", "\x1b]0;root@head\x07", "\x0f", "\x1b>", "\x1b]0;x\x1b\\"])
def test_a_good_run_stays_good_whatever_its_terminal_is_told(noise: str) -> None:
    log, _ = fed([f"{noise}{line[:3]}{noise}{line[3:]}{noise}  " for line in GOOD])
    assert log.conclude(0) is None


def test_the_barrier_is_reached_with_the_path_of_the_hook_and_then_waits() -> None:
    events = fed(GOOD)[1]
    reached = next(event for event in events if event.kind is EventKind.BARRIER_REACHED)
    assert (reached.text, reached.stage) == ("/root/farm/hook", InstallStage.BARRIER)
    assert next(event for event in events if event.kind is EventKind.BARRIER_WAITING).line == reached.line + 1


@given(st.integers(min_value=0, max_value=len("\n".join(GOOD)) - 1))
def test_a_log_that_is_cut_anywhere_is_never_good(length: int) -> None:
    assert fed("\n".join(GOOD)[:length].split("\n"))[0].conclude(0) is not None


@given(st.sets(st.sampled_from(REQUIRED), min_size=1))
def test_a_log_without_one_of_the_required_lines_is_never_good(gone: set[str]) -> None:
    assert fed([line for line in GOOD if line not in gone])[0].conclude(0) is not None


@pytest.mark.parametrize("gone", REQUIRED)
def test_each_required_line_is_required_by_itself(gone: str) -> None:
    assert fed([line for line in GOOD if line != gone])[0].conclude(0) is not None


@given(st.lists(st.text(), max_size=30))
def test_any_text_at_all_is_read_and_is_not_good(lines: list[str]) -> None:
    assert fed(lines)[0].conclude(0) is not None


@pytest.mark.parametrize("status", [1, 255, None])
def test_a_good_log_with_another_status_than_0_is_not_good(status: int | None) -> None:
    failure = failure_of(GOOD, status)
    assert failure.stage is InstallStage.DONE
    assert "said that it was successful" in failure.sentence


STEP_5_DIES = (
    "Failed on Step 5 - Define OSCAR Clients at ./main_cli line 151.",
    "Oscar Wizard failed to run successfully at ./install_cluster line 400.",
)
FALSE_SUCCESS = "--> Successfully created clients for image oscarimage"
IMAGE_FAILS = cut_before(
    '--> Successfully created image "oscarimage"',
    "E: Unable to locate package foo",
    "Couldn't run command mksidisk -A --name oscarimage at ./build_oscar_image_cli line 334.",
    '--> Failed building image "oscarimage"',
    "--> Running command: ./define_oscar_clients_cli --file /root/farm/define.txt eth1",
    *STEP_5_DIES,
)

CASES: dict[str, tuple[list[str], InstallStage, str, str]] = {
    "a failed image is not blamed on step 5": (
        IMAGE_FAILS,
        InstallStage.IMAGE,
        "OSCAR could not build the client image 'oscarimage': package foo is not in the pool",
        "oscar",
    ),
    "an image without its success line is a failed image": (
        cut_before(
            '--> Successfully created image "oscarimage"',
            "--> Running command: ./define_oscar_clients_cli --file /root/farm/define.txt eth1",
        ),
        InstallStage.IMAGE,
        "and yet OSCAR went on with defining the compute nodes (step 5)",
        "oscar",
    ),
    "an image of another name is not the image asked for": (
        replaced('--> Successfully created image "oscarimage"', '--> Successfully created image "oscarimage2"'),
        InstallStage.IMAGE,
        "never said 'Successfully created image \"oscarimage\"'",
        "oscar",
    ),
    "step 5 itself fails, with the false success line": (
        cut_before(
            "--> Completed successfully", "There were issues running post_clients.", FALSE_SUCCESS, *STEP_5_DIES
        ),
        InstallStage.DEFINE,
        "OSCAR could not define the compute nodes (step 5): post_clients failed",
        "oscar",
    ),
    "DHCP that fails silently": (
        replaced("--> Step 6: Successfully ran command"),
        InstallStage.NETWORK,
        "the DHCP server was not configured",
        "oscar",
    ),
    "DHCP that is not restarted": (
        replaced("--> Step 6: Successfully restarted dhcpd service"),
        InstallStage.NETWORK,
        "the DHCP server was not restarted",
        "oscar",
    ),
    "a CD that is not built": (
        replaced("--> Step 6: Successfully built AutoInstall CD", " at /opt/oscar/lib/OSCAR/CLI_MAC.pm line 190."),
        InstallStage.NETWORK,
        "before that it said: an error without a text (/opt/oscar/lib/OSCAR/CLI_MAC.pm line 190)",
        "oscar",
    ),
    "a node without its MAC": (
        replaced("--> Assigning MAC: 52:54:00:00:00:12 to client: oscarnode2"),
        InstallStage.NETWORK,
        "not every one of the 2 nodes got its MAC",
        "oscar",
    ),
    "the same node twice": (
        replaced(
            "--> Assigning MAC: 52:54:00:00:00:12 to client: oscarnode2",
            "--> Assigning MAC: 52:54:00:00:00:12 to client: oscarnode1",
        ),
        InstallStage.NETWORK,
        "not every one of the 2 nodes got its MAC",
        "oscar",
    ),
    "a MAC file that is not there": (
        replaced(
            "--> Assigning MAC: 52:54:00:00:00:11 to client: oscarnode1", "File /root/farm/macs.txt does not exist"
        ),
        InstallStage.NETWORK,
        "the MAC file /root/farm/macs.txt is not on the head node",
        "farm",
    ),
    "a test that fails although OSCAR is content": (
        replaced(result("SSH ping test", "", "PASSED"), result("SSH server->node", "1 nodes failed", "FAILED")),
        InstallStage.TEST,
        "the cluster's test failed: 'SSH server->node' failed (1 nodes failed)",
        "oscar",
    ),
    "a test that is skipped": (
        replaced(result("SSH ping test", "", "PASSED"), result("SGE test", "no queue", "SKIPPED")),
        InstallStage.TEST,
        "'SGE test' skipped (no queue)",
        "oscar",
    ),
    "an apitest that fails": (
        replaced(
            result("SSH ping test", "", "PASSED"),
            "[\x1b[00;31mFAIL\x1b[0m]           2007-06-14 05:20:00   ssh_validate.apt",
        ),
        InstallStage.TEST,
        "'ssh_validate.apt' failed",
        "oscar",
    ),
    "no terminal type, so no test result at all": (
        replaced(result("SSH ping test", "", "PASSED"), "TERM not set at /opt/oscar/testing/testprint line 20"),
        InstallStage.TEST,
        "TERM is not set",
        "oscar",
    ),
    "no test result at all": (
        replaced(result("SSH ping test", "", "PASSED")),
        InstallStage.TEST,
        "no test reported a result",
        "oscar",
    ),
    "a check of the head node fails": (
        cut_before(
            "System checked",
            "your hostname is assigned to the loopback",
            "Failure: network-check.pl",
            "ERROR: There are basic system configuration issues (see log). at ./install_cluster line 90.",
        ),
        InstallStage.PREFLIGHT,
        "gives the head node's name the address 127.0.0.1",
        "farm",
    ),
    "a check of the head node that does not say why": (
        cut_before("System checked", "Failure: foo-check.pl"),
        InstallStage.PREFLIGHT,
        "the check foo-check.pl failed",
        "oscar",
    ),
    "an unsupported platform": (
        cut_before(
            '--> Running: "cd /opt/oscar/scripts && ./wizard_prep"',
            "ERROR: This is an unsupported system.",
            "Cannot continue at ./install_cluster line 211.",
        ),
        InstallStage.PLATFORM,
        "OSCAR does not know the head node's distribution",
        "oscar",
    ),
    "wizard_prep fails on an empty pool": (
        cut_before(
            "--> Successfully ran wizard_prep",
            "ERROR: The distribution repository /tftpboot/distro/debian-12-x86_64 looks empty!",
            "Oscar Wizard preparation script failed to complete at ./install_cluster line 240.",
        ),
        InstallStage.WIZARD_PREP,
        "the package repository /tftpboot/distro/debian-12-x86_64 has no packages",
        "farm",
    ),
    "a package that is not known": (
        replaced("--> List of packages", "Package name frobnicate not recognized"),
        InstallStage.SELECT,
        "the answers name the package frobnicate",
        "answers",
    ),
    "server packages that do not install": (
        cut_before(
            "== Packages Successfully Installed",
            "Couldn't determine internal ip address at /opt/oscar/scripts/install_server line 60.",
            *section("Packages not Installed!"),
            "Failed Step 3 - Install OSCAR Server Packages at ./main_cli line 120.",
        ),
        InstallStage.SERVER,
        "OSCAR could not find the address of the cluster's adapter",
        "oscar",
    ),
    "main_cli does not compile": (
        cut_before(
            "--> Running command: ./selector_cli --file /root/farm/selector.txt",
            'syntax error at ./main_cli line 77, near "}"',
            "Execution of ./main_cli aborted due to compilation errors.",
            "Oscar Wizard failed to run successfully at ./install_cluster line 400.",
        ),
        InstallStage.SELECT,
        "./main_cli does not compile: syntax error at line 77",
        "oscar",
    ),
    "a Perl module that is missing": (
        cut_before(
            "--> Successfully ran wizard_prep",
            "Can't locate OSCAR/Foo.pm in @INC (@INC contains: /usr/share/perl5) at ./wizard_prep line 9.",
            "BEGIN failed--compilation aborted at ./wizard_prep line 9.",
            "Oscar Wizard preparation script failed to complete at ./install_cluster line 240.",
        ),
        InstallStage.WIZARD_PREP,
        "the Perl module OSCAR/Foo is missing",
        "oscar",
    ),
    "a barrier that was shut says why": (
        cut_before(
            "farm barrier: open",
            "farm barrier: shut: oscarnode2 stopped in the middle of pulling its image",
            "--> Script failed.  Exiting",
            "Failed to confirm client node boot before Step 7 - Complete Cluster Setup at ./main_cli line 170.",
        ),
        InstallStage.BARRIER,
        "OSCAR gave up at the node barrier: oscarnode2 stopped in the middle of pulling its image",
        "oscar",
    ),
    "a hook that cannot be run is ours": (
        cut_before(
            "farm barrier: waiting",
            'Can\'t exec "/root/farm/hook": Permission denied at ./main_cli line 165.',
            "--> Script failed.  Exiting",
        ),
        InstallStage.BARRIER,
        "the barrier's hook /root/farm/hook could not be run: Permission denied",
        "farm",
    ),
    "post_install that does not reach a node and does not mind": (
        replaced("Cluster setup complete!", "Improper count (0) returned from machine oscarnode2.oscardomain"),
        InstallStage.COMPLETE,
        "the head node could not run a command on oscarnode2.oscardomain by SSH",
        "oscar",
    ),
    "a command line that ends with 0 before the cluster is completed": (
        [*GOOD[: GOOD.index("--> Script successful.  Continuing...") + 1], *GOOD[-2:]],
        InstallStage.COMPLETE,
        "it never got that far, and yet its command line ended with status 0",
        "oscar",
    ),
    "an installer that dies without a word": ([], InstallStage.PREFLIGHT, "without a message", "oscar"),
    "an installer that ends with 0 in the middle": (
        cut_before("--> Building Image..."),
        InstallStage.IMAGE,
        "it ended with status 0 while building the client image",
        "oscar",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_earliest_stage_without_its_evidence_is_the_culprit(name: str) -> None:
    lines, stage, words, category = CASES[name]
    failure = failure_of(lines)
    assert words in failure.sentence
    assert (failure.stage, failure.category) == (stage, category)
    assert "\n" not in failure.sentence


@pytest.mark.parametrize("name", CASES)
def test_the_evidence_is_where_it_says_it_is(name: str) -> None:
    lines = CASES[name][0]
    failure = failure_of(lines)
    if failure.lines:
        first = failure.first_line - 1
        assert failure.lines == tuple(clean(line) for line in lines[first : first + len(failure.lines)])
        assert len(failure.lines) <= 40


def test_a_failed_image_ends_the_run_at_its_own_line_and_later_errors_do_not_bury_it() -> None:
    log, events = fed(IMAGE_FAILS)
    failures = [event for event in events if event.kind is EventKind.CERTAIN_FAILURE]
    assert len(failures) == 1
    assert IMAGE_FAILS[failures[0].line - 1] == '--> Failed building image "oscarimage"'
    assert log.conclude(2) == log.failure
    assert "E: Unable to locate package foo" in failures[0].failure.lines  # type: ignore[union-attr]


def test_dhcp_that_failed_is_known_before_any_node_boots() -> None:
    events = fed(replaced("--> Step 6: Successfully ran command"))[1]
    kinds = [event.kind for event in events]
    assert kinds.index(EventKind.CERTAIN_FAILURE) < kinds.index(EventKind.BARRIER_REACHED)


def test_all_failed_tests_are_told_when_the_log_is_read_to_its_end() -> None:
    bad = [result(f"Test {n}", "", "FAILED") for n in range(5)]
    failure = failure_of(replaced(result("SSH ping test", "", "PASSED"), *bad))
    assert failure.sentence.endswith("'Test 0' failed, 'Test 1' failed, 'Test 2' failed and 2 more")


def test_booting_over_the_network_asks_for_pxe_and_not_for_the_cd() -> None:
    lines = replaced("--> Step 6: Successfully built AutoInstall CD", "--> Step 6: Successfully setup network boot")
    log = fed(lines, InstallLog(expected_nodes=2, boot="network", image_name="oscarimage"))[0]
    assert log.conclude(0) is None
    log = fed(GOOD, InstallLog(expected_nodes=2, boot="network", image_name="oscarimage"))[0]
    failure = log.conclude(0)
    assert failure is not None and "booting over the network was not set up" in failure.sentence


def test_warnings_and_words_of_success_elsewhere_do_no_harm() -> None:
    noise = (
        "Use of uninitialized value $x in concatenation (.) or string at ./main_cli line 40.",
        "[FAILED] Failed to start something",
        "Setting up foo; could not restart bar at /usr/sbin/foo line 3.",
    )
    log = fed(replaced("--> Building Image...", *noise))[0]
    assert log.conclude(0) is None


@pytest.mark.parametrize(
    ("last", "stage", "words", "category"),
    [
        ("--> Running in automated mode from /root/farm/define.txt", "define", "does not find the image", "oscar"),
        ("--> Install mode: systemimager-rsync", "network", "does not know the install mode", "oscar"),
        ("--> Building Image...", "image", "last said '--> Building Image...'", "oscar"),
    ],
)
def test_an_installer_that_hangs_is_told_by_where_it_stands(last: str, stage: str, words: str, category: str) -> None:
    failure = fed(GOOD[: GOOD.index(last) + 1])[0].hung(420)
    assert failure.sentence.startswith("OSCAR's installer has been silent for 420 s while ")
    assert words in failure.sentence
    assert (failure.stage.value, failure.category) == (stage, category)


def test_an_installer_that_floods_its_log_is_told_by_what_it_repeats() -> None:
    lines = cut_before("--> Step 6: Completed successfully", *["Current client assignments:", "  oscarnode1"] * 1500)
    failure = fed(lines)[0].flooded(64 * 2**20)
    assert "has written 64 MiB into its log" in failure.sentence and "network menu repeats itself" in failure.sentence
    assert (failure.stage, failure.category) == (InstallStage.NETWORK, "oscar")
    assert 0 < len(failure.lines) <= 40


def test_a_flood_is_read_faster_than_it_is_written() -> None:
    log = fed(cut_before("--> Step 6: Completed successfully"))[0]
    for number in range(100_000):
        log.feed(f"couldn't do it, {number % 7} at ./x line 3.")
    assert log.hung(1).stage is InstallStage.NETWORK


@pytest.mark.parametrize(
    ("line", "label", "status", "verdict"),
    [
        (result("/home mounts", "2 nodes failed", "FAILED"), "/home mounts", "2 nodes failed", "failed"),
        (result("TORQUE default queue definition", "", "PASSED"), "TORQUE default queue", "", "passed"),
        ("[PASS]     2007-06-14 05:20:00   a.apt", "a.apt", "", "passed"),
        ("[FAILDEP]  2007-06-14 05:20:00   a.apt", "a.apt", "FAILDEP", "failed"),
    ],
)
def test_results_are_read_from_their_columns(line: str, label: str, status: str, verdict: str) -> None:
    found = check_result(clean(line))
    assert found is not None
    assert (found.label, found.status, found.verdict) == (label, status, verdict)


def test_a_message_glued_to_a_progress_bar_is_seen() -> None:
    assert clean("\x08" * 25 + " 100 % [==========]Image build finished\r\n") == "Image build finished"
    assert not re.search(r"\x1b", clean(result("a", "b", "FAILED")))
