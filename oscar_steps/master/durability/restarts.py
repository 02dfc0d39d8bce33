"""A planned restart loses no build: whatever the master's end interrupts is asked for again by its request.

Buildbot stops every build when the master ends and expects its steps to answer RETRY. A step that answers worse
(CANCELLED), or that goes on (extract-logs, teardown), loses the commit or keeps the master from ending. The run itself
needs no step for its end: its lease runs out when no command is attached to it any more.
"""

from __future__ import annotations

from typing import Any

from buildbot.process.results import CANCELLED, RETRY
from twisted.internet import defer

RESTARTED = "restarted"
"""Build property: the build ended because the master did; its request is taken up again, and no mail is sent."""
SECONDS_TO_END = 2.0
"""So long an interrupted command may take before its connection is cut: `buildbot restart` waits for 10 s in all."""
MASTER_SHUTDOWN = "Master Shutdown"


def master_ends(step: Any) -> bool:
    """Whether the step's build is being stopped because the master shuts down (`stop --clean` stops none)."""
    return bool(step.master.botmaster.shuttingDown) and step.build.stopped_reason == MASTER_SHUTDOWN


def cut_short(step: Any) -> int | None:
    """The result of a step whose build cannot go on: its worker is lost, the master ends, a person stopped it."""
    if master_ends(step):
        if any(earlier.results == CANCELLED for earlier in step.build.executedSteps):
            return int(CANCELLED)  # a person had stopped it before
        step.setProperty(RESTARTED, True, "Build")
        return int(RETRY)
    if step.build.conn is None:
        return int(RETRY)
    return int(CANCELLED) if step.stopped else None


class CutShort:
    """Mixin of every step: at the master's end it does not wait for a command that takes its time to end."""

    def interrupt(self: Any, reason: Any) -> Any:
        """Stop what the step does; see `BuildStep.interrupt`."""
        if master_ends(self) and not self._running:
            # Buildbot cancels a step that has not begun, and with it the build: it begins, and answers RETRY at once.
            self.master.reactor.callLater(SECONDS_TO_END, self.let_go)
            return defer.succeed(None)
        done = super().interrupt(reason)  # type: ignore[misc]
        if master_ends(self):
            for process in tuple(getattr(self, "svn", ())):
                process.kill(MASTER_SHUTDOWN)
            self.master.reactor.callLater(SECONDS_TO_END, self.let_go)
        return done

    def let_go(self: Any) -> None:
        """Cut the connection to the worker if the step still waits for it: that ends the step's command."""
        if self._running and self.build.conn is not None:
            self.build.conn.loseConnection()
