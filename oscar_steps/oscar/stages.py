"""The stages of one run of OSCAR's installer, in the order in which it goes through them."""

from __future__ import annotations

from enum import StrEnum


class InstallStage(StrEnum):
    """What OSCAR's installer is doing. The values are the words that verdicts and reports use."""

    PREFLIGHT = "preflight"
    PLATFORM = "platform"
    WIZARD_PREP = "wizard_prep"
    SELECT = "select"
    CONFIGURE = "configure"
    SERVER = "server"
    IMAGE = "image"
    DEFINE = "define"
    NETWORK = "network"
    BARRIER = "barrier"
    COMPLETE = "complete"
    TEST = "test"
    DONE = "done"

    @property
    def position(self) -> int:
        """Place in the order of the stages, counted from 0."""
        return _ORDER[self]

    @property
    def optional(self) -> bool:
        """Whether a good run may lack the stage: the configurator joined the command line only in June 2008."""
        return self is InstallStage.CONFIGURE

    @property
    def farm_stage(self) -> str:
        """The stage of the farm's run in which a user sees this: the hook cuts the installer into three."""
        if self.position < InstallStage.BARRIER.position:
            return "start-install"
        return "wait-nodes" if self is InstallStage.BARRIER else "finalize"

    @property
    def doing(self) -> str:
        """What the installer is doing, to follow 'while'."""
        return _DOING[self]


_ORDER = {stage: position for position, stage in enumerate(InstallStage)}

_DOING = {
    InstallStage.PREFLIGHT: "checking the head node",
    InstallStage.PLATFORM: "looking at the head node's distribution",
    InstallStage.WIZARD_PREP: "preparing the head node (wizard_prep)",
    InstallStage.SELECT: "selecting packages (step 1)",
    InstallStage.CONFIGURE: "configuring packages (step 2)",
    InstallStage.SERVER: "installing the server packages (step 3)",
    InstallStage.IMAGE: "building the client image (step 4)",
    InstallStage.DEFINE: "defining the compute nodes (step 5)",
    InstallStage.NETWORK: "setting up the cluster's network (step 6)",
    InstallStage.BARRIER: "waiting for the compute nodes",
    InstallStage.COMPLETE: "completing the cluster (step 7)",
    InstallStage.TEST: "testing the cluster (step 8)",
    InstallStage.DONE: "coming to its end",
}
