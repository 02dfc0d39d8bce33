"""A word to the operator from anywhere in the master: by mail, or in `twistd.log` where the site has no mail."""

from __future__ import annotations

from typing import Any

from twisted.python import log

MAIL_SERVICE = "oscar-mail"
"""Name of the master's service that sends the farm's mail."""


def tell_operator(master: Any, subject: str, text: str) -> None:
    """Hand one plain mail for the operator to the farm's mail service of this master.

    Call it in the reactor's thread. It never raises and never waits: the mail is on its way, or spooled, or, where the
    site has no `[mail]` (or the service does not run yet), in `twistd.log`.
    """
    try:
        service = master.service_manager.namedServices.get(MAIL_SERVICE)
        if service is not None and service.tell_operator(subject, text):
            return
    except Exception:
        log.err(None, "the operator's mail could not be handed on")
    log.msg(f"for the operator (no mail was sent): {subject}: {text}")
