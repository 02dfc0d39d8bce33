"""A revision of Subversion's, checked out by the head node's own client.

svn itself would take the externals of today. So it is told to leave them out, and each one that the job names is
checked out behind it, at the job's revision. A job that names none is left to svn. Where this host has a login at the
server it checks out itself (`carried`).
"""

from __future__ import annotations

import posixpath
import re
import shlex

from oscar_steps.sources.externals_text import is_same_server
from oscar_steps.sources.resolve import LOGINS_FILE, host_logins
from oscar_steps.sources.source import External, Source
from oscar_steps.sources.svn import advice, error_kind, svn_words
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.head.forwards import url_in_guest, words_from_guest
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.run import Run
from oscar_steps.testdriver.stages.sources.carried import carry

# Subversion's own number for externals that could not be had.
EXTERNALS = re.compile(r"E205011\b")
OTHER_SERVERS = (
    "externals on other servers are out of reach (write them from the repository's root, as ^/...), "
    'unless the host\'s settings say to_host = "open"'
)

WITHOUT_LOGIN = (
    "a head node has no login, and knows the authorities of its system alone: "
    f"write a login for this host into {LOGINS_FILE}, and it checks out for its head nodes"
)


async def bring(run: Run, booted: Booted, deadline: Deadline) -> str:
    """Raises SourceError where the revision or repository does not exist, HostError where it cannot be reached."""
    source, home = run.job.source, run.job.answers.oscar_home
    if (logins := host_logins()).of(source.url):
        return await carry(run, booted, logins, deadline)
    words = ["checkout", *(["--ignore-externals"] if source.externals else [])]
    await _fetch(booted, words, source.url, source.revision, home, str(source), deadline)
    answer = await booted.head.check(f"svn info --show-item last-changed-revision {shlex.quote(home)}")
    for external in source.externals:
        await _fetch_external(run, booted, external, source, deadline)
    count = len(source.externals)
    more = f", with {count} external{'s' if count > 1 else ''}" if count else ""
    return f"{home} is at revision {source.revision} (last changed in {answer.strip()}){more}"


async def _fetch_external(run: Run, booted: Booted, external: External, source: Source, deadline: Deadline) -> None:
    place = posixpath.join(run.job.answers.oscar_home, external.path)
    words = ["export" if external.kind == "file" else "checkout", "--ignore-externals"]
    is_ours = is_same_server(external.url, source.url)
    hint = "" if is_ours else OTHER_SERVERS
    with run.diary.step(f"the external {external}"):
        await booted.head.check(f"mkdir -p {shlex.quote(posixpath.dirname(place))}")
        async with deadline.enforced(f"the head node to check out the external {external}"):
            what = f"the external {external}"
            await _fetch(booted, words, external.url, external.revision, place, what, deadline, hint)
    if not is_ours:
        where = await booted.head.check(f"svn info --show-item revision {shlex.quote(place + '@')}")
        run.diary.say(f"{external} is on another server, and was at revision {where.strip()} there")


async def _fetch(
    booted: Booted, words: list[str], url: str, revision: str, place: str, what: str, deadline: Deadline, hint: str = ""
) -> None:
    head, forwards = booted.head, booted.head.forwards
    # Of an export what follows an '@' in the target is taken for a revision; of a checkout it is not.
    target = f"{place}@" if words[0] == "export" else place
    words = ["svn", *words, "--non-interactive", "--quiet", "-r", revision]
    command = shlex.join([*words, f"{url_in_guest(url, forwards)}@{revision}", target])
    result = await head.run(command, seconds=max(deadline.left, 1.0))
    if not result.ok:
        why = words_from_guest(svn_words(result.output), forwards)
        hint = head.forward_trouble or hint or (OTHER_SERVERS if EXTERNALS.search(result.output) else "")
        if advice(result.output):
            hint = hint or WITHOUT_LOGIN
        raise error_kind(result.output)(f"the head node could not check out {what}: {why}", hint=hint)
