"""A failure of OSCAR's installation, and what is known to cause one."""

from __future__ import annotations

from dataclasses import dataclass

from oscar_steps.oscar.stages import InstallStage

MAX_LINES = 40
"""Lines of evidence that a failure carries."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an installation is not good: one sentence for a developer, and the lines that show it.

    `stage` is the culprit, which need not be the step that OSCAR names last. `category` says whose fault it is:
    'oscar', 'distribution', 'answers' or 'farm'; only the first may be blamed on a commit. `group` sorts failures in
    reports (packages, database, ...). `hung`: it did not fail, it came to no end. `first_line` counts lines of the
    terminal capture from 1; 0 when there is no line to show.
    """

    stage: InstallStage
    sentence: str
    category: str = "oscar"
    group: str = ""
    hint: str = ""
    lines: tuple[str, ...] = ()
    first_line: int = 0
    hung: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """A line of the capture that explains a failure. The greater `detail`, the more it explains; up to 0: a guess."""

    number: int
    clause: str
    hint: str
    category: str
    group: str
    detail: int


_FAILED = {
    InstallStage.PREFLIGHT: "OSCAR's check of the head node failed",
    InstallStage.PLATFORM: "OSCAR did not accept the head node",
    InstallStage.WIZARD_PREP: "OSCAR could not prepare the head node (wizard_prep)",
    InstallStage.SELECT: "OSCAR could not select the packages (step 1)",
    InstallStage.CONFIGURE: "OSCAR could not configure the packages (step 2)",
    InstallStage.SERVER: "OSCAR could not install the server packages (step 3)",
    InstallStage.IMAGE: "OSCAR could not build the client image '{image}'",
    InstallStage.DEFINE: "OSCAR could not define the compute nodes (step 5)",
    InstallStage.NETWORK: "OSCAR could not set up the cluster's network (step 6)",
    InstallStage.BARRIER: "OSCAR gave up at the node barrier",
    InstallStage.COMPLETE: "OSCAR could not complete the cluster (step 7)",
    InstallStage.TEST: "the cluster's test failed",
    InstallStage.DONE: "OSCAR's installer did not end successfully",
}


def headline(stage: InstallStage, group: str = "", image: str = "", *, started: bool = True) -> str:
    """The first half of a failure's sentence; a colon and the cause follow. `group`: the cause's."""
    if stage is InstallStage.PREFLIGHT and not started:
        return "OSCAR's installer did not start"
    if stage is InstallStage.SELECT and not started:
        return "OSCAR's command line (main_cli) ended before its first step"
    if stage is InstallStage.PREFLIGHT and group == "source":
        return "OSCAR's installer crashed while checking the head node"
    return _FAILED[stage].format(image=image)
