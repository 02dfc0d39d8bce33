"""What the farm takes for a mail address: one rule, for the site's settings and for every mail that goes out."""

from __future__ import annotations

import re

_LOCAL = re.compile(r"[A-Za-z0-9_+=~-]+(\.[A-Za-z0-9_+=~-]+)*")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_LOCAL = 64
_LONGEST = 254


def is_mail_host(host: str) -> bool:
    """Whether `host` can stand behind the '@'. A name without a dot can: `root@localhost`."""
    return len(host) <= _LONGEST and _HOST.fullmatch(host) is not None


def address_fault(address: str) -> str | None:
    """Why no mail can be sent to `address`, as one printable sentence; None: it can.

    USER@HOST in ASCII. Few relays carry other letters before the '@' (SMTPUTF8), and quoted names, lists and what a
    shell or a mail header might take for its own are never a person's address.
    """
    shown = ascii(address[:_LONGEST_LOCAL])
    local, at, host = address.rpartition("@")
    if not at or not local:
        return f"{shown} is not a mail address; it has to be USER@HOST"
    if not address.isascii():
        return f"{shown} cannot be used with every mail relay: it has letters that are not ASCII"
    if not _LOCAL.fullmatch(local) or local.startswith("-"):
        return f"{shown} is not a mail address: only letters, digits and . _ + = ~ - may stand before the '@'"
    if not is_mail_host(host):
        return f"{shown} is not a mail address: a host name has to follow the '@'"
    if len(local) > _LONGEST_LOCAL or len(address) > _LONGEST:
        return f"{shown}... is too long for a mail address"
    return None
