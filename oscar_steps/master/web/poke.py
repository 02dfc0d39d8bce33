"""A commit hook says 'look now'. It carries nothing that is believed: what there is to test the poller finds out."""

from __future__ import annotations

import hmac
from typing import Any

from buildbot.changes.base import ReconfigurablePollingChangeSource

from oscar_steps.site import POLL_HOOK, Secrets

HEADER = b"x-oscar-farm-hook"
_DIALECT = "poke"


class Poke:
    """`POST change_hook/poke` with the secret in a header: all that is watched is looked at now."""

    def __init__(self, master: Any, options: dict[str, Any]) -> None:
        self.master = master
        self.secrets: Secrets = options["secrets"]

    def getChanges(self, request: Any) -> tuple[list[Any], None]:
        """Raises ValueError, which Buildbot answers with status 400."""
        # Read each time: Buildbot keeps this object when the site is read anew.
        secret = self.secrets.read(POLL_HOOK, "of commit hooks")
        given = request.getHeader(HEADER) or b""
        given = given if isinstance(given, bytes) else str(given).encode("utf-8", "surrogateescape")
        if request.method != b"POST" or not hmac.compare_digest(given, secret.encode()):
            raise ValueError("this needs a POST with the right X-Oscar-Farm-Hook")
        for source in self.master.change_svc:
            if isinstance(source, ReconfigurablePollingChangeSource):
                source.force()
        return [], None


def poked(secrets: Secrets) -> dict[str, Any]:
    """What Buildbot calls `change_hook_dialects`: this one, and none of its own, which believe what they get."""
    return {_DIALECT: {"custom_class": Poke, "secrets": secrets}}
