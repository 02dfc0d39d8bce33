"""What a good run says: for each stage the line that starts it and the lines without which it has not passed.

OSCAR's exit status proves little (a failed image, no DHCP, failed tests all end with 0), so a run is judged by these.
Both formats of the log have the same words: what was a subsection in 2007 is a subsection or a message later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from oscar_steps.oscar.stages import InstallStage
from oscar_steps.oscar.terminal import LineKind
from oscar_steps.words import NodeBoot


@dataclass(frozen=True, slots=True)
class Mark:
    """A line to look for; the pattern has to match the whole text."""

    kind: LineKind
    pattern: re.Pattern[str]

    def match(self, kind: LineKind, text: str) -> re.Match[str] | None:
        if kind is self.kind or (kind is LineKind.MESSAGE and self.kind is not LineKind.SECTION):
            return self.pattern.fullmatch(text)
        return None


@dataclass(frozen=True, slots=True)
class Milestone:
    """A line that a good run has. `count`: so many with a different first group. `missing` follows the failure's colon.

    With the `closing` line the stage says that it is through: whatever is missing then will not come any more.
    """

    mark: Mark
    missing: str
    count: int = 1
    closing: bool = False


@dataclass(frozen=True, slots=True)
class StageRule:
    """How a stage begins and passes. One with no milestones of its own has passed when a later one begins.

    `in_2006`: what stands for the closing line where OSCAR of 2006 goes on, which has no such line; None: nothing does.
    """

    stage: InstallStage
    starts: tuple[Mark, ...]
    milestones: tuple[Milestone, ...] = ()
    in_2006: tuple[Milestone, ...] | None = None


# OSCAR of 2006 goes on with any result of its test, so nothing may say that a program of the test did not run or died.
DEATH = re.compile(
    r"\bkilled\b|segmentation fault|\bcore dumped\b|\babort(?:ed|ing)\b|\bterminated\b|\bbus error\b|out of memory|"
    r"command not found|no such file|does not exist|no passwd entry|permission denied|cannot execute|exited badly",
    re.IGNORECASE,
)
USER_TESTS = Mark(LineKind.PLAIN, re.compile(r"Performing user tests\.\.\."))


def _section(pattern: str) -> Mark:
    return Mark(LineKind.SECTION, re.compile(pattern))


def _sub(pattern: str) -> Mark:
    return Mark(LineKind.SUBSECTION, re.compile(pattern))


def _plain(pattern: str) -> Mark:
    return Mark(LineKind.PLAIN, re.compile(pattern))


def _says(mark: Mark, words: str) -> Milestone:
    return Milestone(mark, f"it never said '{words}'", closing=True)


# Until 2014 the network's words have the step's number before them. What is said of DHCP has changed twice.
_STEP = r"(?:Step \d+: )?"
_DHCP = r"DHCP service successfully set up for interface \S+"


def _network(expected_nodes: int, boot: NodeBoot) -> tuple[Milestone, ...]:
    built = Milestone(
        _sub(rf"{_STEP}Successfully built AutoInstall CD"),
        "the CD that the nodes boot from was not made (it never said 'Successfully built AutoInstall CD')",
    )
    pxe = Milestone(
        _sub(rf"{_STEP}Successfully setup network boot(?: \(PXE\)\.)?"),
        "booting over the network was not set up (it never said 'Successfully setup network boot')",
    )
    return (
        Milestone(
            _sub(rf"{_STEP}Successfully enabled installation mode: \S+"),
            "the installation mode was not enabled (it never said 'Successfully enabled installation mode')",
        ),
        Milestone(
            _sub(r"Assigning MAC: \S+ to client: (\S+)"),
            f"not every one of the {expected_nodes} nodes got its MAC address ('Assigning MAC')",
            count=expected_nodes,
        ),
        Milestone(
            _sub(rf'{_STEP}Successfully ran (?:command|"mkdhcpconf .*")|{_DHCP}'),
            "the DHCP server was not configured (mkdhcpconf failed without a message)",
        ),
        Milestone(
            _sub(rf"{_STEP}Successfully restarted dhcpd service|{_DHCP}"),
            "the DHCP server was not restarted (it fails without a message)",
        ),
        built if boot == "cdrom" else pxe,
        _says(_sub(r"Step \d+: Completed successfully"), "Step 6: Completed successfully"),
    )


def _test(name: str) -> Milestone:
    # OSCAR cuts a test's name to the width that its terminal has room for, 21 characters at least.
    passed = _plain(rf"{re.escape(name[:21])}.*\[PASSED\]\s*")
    return Milestone(passed, f"the test '{name}' never reported that it passed")


def stage_rules(
    *, expected_nodes: int, boot: NodeBoot, image_name: str, tests: Sequence[str] = ()
) -> tuple[StageRule, ...]:
    """The rules of a run with `expected_nodes` nodes and the image `image_name`, in the order of the stages.

    `tests`: those of OSCAR's own tests that must have passed; others may be there, and must not have failed.
    """
    image = re.escape(image_name)
    # Whether wizard_prep's own section is in the log depends on the version; the line that runs it always is.
    prep = r'Running: "cd \S+ && \./wizard_prep"'
    return (
        StageRule(
            InstallStage.PREFLIGHT,
            (_plain(r"Checking your system\.\.\..*"),),
            (_says(_plain("System checked"), "System checked"),),
            in_2006=(),  # it ends with a failed check, so going on is enough
        ),
        StageRule(
            InstallStage.PLATFORM,
            (_section(r"Running OSCAR install_cluster script\b.*"),),
            (Milestone(_sub(prep), "it never ran wizard_prep"),),
        ),
        StageRule(
            InstallStage.WIZARD_PREP,
            (_sub(prep), _section(r"Running OSCAR wizard_prep script\b.*")),
            (_says(_sub("Successfully ran wizard_prep"), "Successfully ran wizard_prep"),),
        ),
        StageRule(InstallStage.SELECT, (_sub(r"Running command: (?:\S*/)?(?:selector_cli|oscar-selector)\b.*"),)),
        StageRule(InstallStage.CONFIGURE, (_section(r"Beginning the OSCAR Configurator\b.*"),)),
        StageRule(
            InstallStage.SERVER,
            (_section("Installing (?:OSCAR Server )?Packages"),),
            (_says(_section("Packages Successfully Installed"), "Packages Successfully Installed"),),
        ),
        StageRule(
            InstallStage.IMAGE,
            (_sub(r"Running command: (?:\S*/)?build_oscar_image_cli\b.*"),),
            (_says(_sub(f'Successfully created image "{image}"'), f'Successfully created image "{image_name}"'),),
        ),
        StageRule(
            InstallStage.DEFINE,
            (_sub(r"Running command: (?:\S*/)?define_oscar_clients_cli\b.*"),),
            (_says(_sub("Completed successfully"), "Completed successfully"),),
        ),
        StageRule(
            InstallStage.NETWORK,
            (_section(r"Running step \d+ of the OSCAR wizard: Setup networking"),),
            _network(expected_nodes, boot),
        ),
        StageRule(
            InstallStage.BARRIER,
            (_sub(r'Running script "(.+)"'),),
            (_says(_sub(r"Script successful\.\s+Continuing\.\.\."), "Script successful.  Continuing..."),),
        ),
        StageRule(
            InstallStage.COMPLETE,
            (_section("Complete Cluster Setup"),),
            (
                _says(
                    _sub("Successfully completed the cluster install"),
                    "Successfully completed the cluster install",
                ),
            ),
        ),
        StageRule(
            InstallStage.TEST,
            (_section("Test Cluster Setup"),),
            (
                Milestone(
                    _plain(r".+\[PASSED\]\s*|\[\s*PASS\s*\]\s.*|Test \S+ succeeded\."),
                    "no test reported a result",
                ),
                *(_test(name) for name in tests),
                _says(
                    _sub(r"Step \d+ - Successfully tested the cluster setup"),
                    "Step 8 - Successfully tested the cluster setup",
                ),
            ),
            in_2006=(
                Milestone(USER_TESTS, "its test never reached 'Performing user tests...'"),
                _test("SSH node->server"),  # the last of those that every cluster has
            ),
        ),
        StageRule(
            InstallStage.DONE,
            (_sub("Successfully ran oscar_wizard"),),
            (
                _says(
                    _sub("Successfully ran OSCAR install_cluster script"),
                    "Successfully ran OSCAR install_cluster script",
                ),
            ),
        ),
    )
