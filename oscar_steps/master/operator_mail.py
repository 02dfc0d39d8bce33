"""Messages to the operator: by mail, or in `twistd.log` where the site has no mail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.python import log

MAIL_SERVICE = "oscar-mail"
"""Name of the master's service that sends the farm's mail."""


def notify_operator(master: Any, subject: str, text: str) -> None:
    """Send the operator one plain mail by this master's mail service.

    Call it in the reactor's thread. It never raises and never waits. Where the site has no `[mail]`, or the service
    does not run yet, the message is in `twistd.log`.
    """
    try:
        service = master.service_manager.namedServices.get(MAIL_SERVICE)
        if service is not None and service.notify_operator(subject, text):
            return
    except Exception:
        log.err(None, "the mail to the operator could not be sent")
    log.msg(f"message to the operator (no mail was sent): {subject}: {text}")


def notify(master: Any, subject: str, text: str, addresses: Sequence[str], *, operator: bool, name: str = "") -> bool:
    """The same to these addresses, and to the operator if so wished. What has a `name` is sent once.

    False: the mail service does not run yet. Nothing was done, so ask again.
    """
    service = master.service_manager.namedServices.get(MAIL_SERVICE)
    if service is not None:
        return bool(service.notify(subject, text, addresses, operator=operator, name=name))
    log.msg(f"message to {', '.join(addresses) or 'the operator'} (no mail was sent): {subject}: {text}")
    return True
