"""Which worker may have a cell: what the cell's cluster needs, beside what the worker says of its host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python import log

from oscar_steps.capacity import ASSUMED, INFO_FILE, Host, Need, read_host, why_not
from oscar_steps.master.operator_mail import notify_operator
from oscar_steps.words import MAX_NODES


class Describing:
    """Mixin of a worker: what its host can do, as it said when it connected last.

    What cannot be believed is one sentence in `host_fault`. The worker goes on with what is assumed of any host
    (`capacity.ASSUMED`): no cell is lost, and none is sent to a host that may not be able to run it.
    """

    host: Host = ASSUMED
    host_fault = ""

    def hear_of_host(self: Any, info: Any) -> None:
        """Note what the worker has said. It never raises: `info` is whatever has come through the connection."""
        said = info.get(INFO_FILE) if isinstance(info, dict) else None
        before = self.host_fault
        self.host, self.host_fault = read_host(said)
        if not self.host_fault:
            return
        sentence = f"the worker {self.name}: {self.host_fault}; assumed: {self.host}"
        log.msg(sentence)
        if said is not None and self.host_fault != before:
            helps = "On its host, as its user: oscar-testdriver host --info INFO (the folder info of the worker)."
            notify_operator(self.master, f"the worker {self.name} does not describe its host", f"{sentence}\n\n{helps}")


def nodes_wished(asked: Any) -> int | None:
    """How many nodes a person has asked for, by a request's or a step's properties; None: as many as the cell has."""
    try:
        nodes = int(asked.getProperty("nodes") or 0)
    except (TypeError, ValueError):
        return None
    return min(nodes, MAX_NODES) if nodes > 0 else None


class CellFits:
    """Buildbot's `canStartBuild` of a cell: whether the worker's host can run it, and whatever else is to be asked."""

    def __init__(self, need: Callable[[int | None], Need], may_begin: Callable[..., bool]) -> None:
        self.need = need
        self._may_begin = may_begin

    def why_not(self, worker: Any, request: Any) -> str:
        """Why this worker's host cannot run the request; '' where it can."""
        return why_not(self.need(nodes_wished(request.properties)), getattr(worker, "host", ASSUMED))

    def __call__(self, builder: Any, offered: Any, request: Any) -> bool:
        if self.why_not(offered.worker, request):
            return False
        return self._may_begin(builder, offered, request, lambda worker: not self.why_not(worker, request))
