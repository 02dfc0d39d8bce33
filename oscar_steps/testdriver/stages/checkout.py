"""Step 3: check OSCAR out in the head node, with its own Subversion client, at the exact revision."""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit, urlunsplit

from oscar_steps.errors import HostError, SourceError
from oscar_steps.testdriver.run import Run, need

# The host's loopback in a guest's user-mode network (QEMU documentation, 'Using the user mode network stack').
HOST_SEEN_FROM_GUEST = "10.0.2.2"
LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Subversion's own numbers: E160006 no such revision, E160005/E200009 path or target not there, E170000 and E210005 no
# repository.
_NOT_THERE = re.compile(r"E160006|E160013|E160005|E170000|E200009|E195012|E210005")


def url_seen_from_guest(url: str) -> str:
    """`url` as the head node has to write it: a server on the host's loopback has another name there."""
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return url
    port = f":{parts.port}" if parts.port else ""
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=f"{user}{HOST_SEEN_FROM_GUEST}{port}"))


async def run_stage(run: Run) -> None:
    """Raises SourceError where the revision or repository does not exist, HostError where it cannot be reached."""
    source, home = run.job.source, run.job.answers.oscar_home
    head = need(run.head, "the head node")
    deadline = need(run.speed, "the host's speed").deadline(run.job.timeouts.checkout)
    words = ["svn", "checkout", "--non-interactive", "--quiet", "-r", source.revision]
    command = shlex.join([*words, f"{url_seen_from_guest(source.url)}@{source.revision}", home])
    with run.diary.step(f"the head node to check out {source}"):
        result = await head.run(command, seconds=deadline.seconds)
    if not result.ok:
        error = next((line for line in result.output.splitlines() if re.match(r"svn: E\d+", line)), result.last_line)
        kind = SourceError if _NOT_THERE.search(result.output) else HostError
        raise kind(f"the head node could not check out {source}: {error}")
    answer = await head.check(f"svn info --show-item last-changed-revision {shlex.quote(home)}")
    run.diary.write(
        "checkout",
        f"{home} is at revision {source.revision} (last changed in {answer.strip()})",
        revision=source.revision,
    )
