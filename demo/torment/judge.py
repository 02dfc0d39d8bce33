"""What a torment has lost or doubled. It looks at records alone, so it can be tried with planted losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Due:
    """What a revision has to get: its verdict, and a mail to `address`."""

    outcome: str
    address: str


@dataclass(frozen=True)
class Attempt:
    """A build of a cell as the master's database has it; `outcome` is empty where there is no verdict."""

    number: int
    revision: int
    outcome: str


@dataclass(frozen=True)
class Posted:
    """A mail as it arrived."""

    message_id: str
    build: int
    to: tuple[str, ...]


def losses(due: Mapping[int, Due], builds: Sequence[Attempt], mails: Sequence[Posted]) -> list[str]:
    """A sentence for everything that is lost, doubled or wrong, by revision. Empty: nothing is."""
    found = []
    final = [build for build in builds if build.outcome in ("passed", "failed")]
    for revision, wanted in sorted(due.items()):
        ours = [build for build in final if build.revision == revision]
        if not ours:
            tried = [
                f"build {build.number} {build.outcome or 'without verdict'}" for build in builds_of(builds, revision)
            ]
            found.append(f"r{revision}: its verdict is lost ({', '.join(tried) or 'never built'})")
            continue
        if len(ours) > 1:
            found.append(f"r{revision}: {len(ours)} verdicts (builds {', '.join(str(build.number) for build in ours)})")
        found += [
            f"r{revision}: build {build.number} says {build.outcome}, {wanted.outcome} is right"
            for build in ours
            if build.outcome != wanted.outcome
        ]
        for build in ours:
            found += _mail_losses(build, wanted, mails)
    found += [f"r{build.revision}: build {build.number} has no commit" for build in final if build.revision not in due]
    return found + _doubled(builds, mails)


def builds_of(builds: Sequence[Attempt], revision: int) -> list[Attempt]:
    """All builds of a revision, those without a verdict included."""
    return [build for build in builds if build.revision == revision]


def _mail_losses(build: Attempt, wanted: Due, mails: Sequence[Posted]) -> list[str]:
    ours = [mail for mail in mails if mail.build == build.number]
    if not ours:
        return [f"r{build.revision}: the mail of build {build.number} to {wanted.address} is lost"]
    return [
        f"r{build.revision}: the mail of build {build.number} went to {', '.join(mail.to)}, {wanted.address} is right"
        for mail in ours
        if mail.to != (wanted.address,)
    ]


def _doubled(builds: Sequence[Attempt], mails: Sequence[Posted]) -> list[str]:
    revisions = {build.number: build.revision for build in builds}
    counts = Counter((mail.build, address) for mail in mails for address in mail.to)
    return [
        f"r{revisions.get(build, '?')}: {count} mails of build {build} to {address}"
        for (build, address), count in sorted(counts.items())
        if count > 1
    ]


def once_each(mails: Sequence[Posted]) -> tuple[list[Posted], int]:
    """The mails as a receiver keeps them, one of each Message-ID and addressee, and how many it drops.

    A master that is killed between the relay's 'accepted' and its own note of that sends the mail again: no client of
    SMTP can avoid it. The Message-ID is the same then.
    """
    kept = list({(mail.message_id, mail.to): mail for mail in mails}.values())
    return kept, len(mails) - len(kept)
