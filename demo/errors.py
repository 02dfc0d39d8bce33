"""What can go wrong in the demo itself, for the person who has to act on it."""

from __future__ import annotations

from oscar_steps.errors import HostError, UserError


class FaultUnknown(UserError):
    """`BREAK=` names no fault that there is. The sentence lists those there are."""


class PortInUse(HostError):
    """Another program listens on the demo's port. The sentence says who, the hint how to go elsewhere."""


class FarmInUse(HostError):
    """Another process runs a farm in the same directory."""


class ToolFailed(HostError):
    """A program that the demo started (svn, svnadmin, buildbot) ended with an error."""


class ChildEnded(HostError):
    """A server of the farm ended although nobody asked it to."""


class NotReady(HostError):
    """A server of the farm, a build or a mail did not come in time."""


class NoVerdict(HostError):
    """A run of the fault table or the matrix ended without one. The sentence has its driver's last words."""
