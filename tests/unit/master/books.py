"""Who gets a mail, with the addresses found as a master finds them."""

from __future__ import annotations

import asyncio

from oscar_steps.master.reports import facts
from oscar_steps.master.reports.directory import AddressBook, Directory
from oscar_steps.site import Mail


def recipients(note: facts.BuildNote, mail: Mail) -> tuple[str, ...]:
    """As `facts.recipients`."""
    return facts.recipients(note, mail, _book(note, mail))


def bad_logins(note: facts.BuildNote, mail: Mail) -> tuple[tuple[str, str], ...]:
    """As `facts.bad_logins`."""
    return facts.bad_logins(note, mail, _book(note, mail))


def _book(note: facts.BuildNote, mail: Mail) -> AddressBook:
    return asyncio.run(Directory(mail).book(facts.people_of(note, mail)))
