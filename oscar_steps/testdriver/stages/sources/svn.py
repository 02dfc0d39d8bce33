"""A revision of Subversion's, checked out by the head node's own client."""

from __future__ import annotations

import re
import shlex

from oscar_steps.sources.svn import error_kind, svn_words
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.head.forwards import url_in_guest, words_from_guest
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.run import Run

# Subversion's own number for externals that could not be had.
EXTERNALS = re.compile(r"E205011\b")
OTHER_SERVERS = (
    "externals by a full URL are out of reach (write them from the repository's root, as ^/...), "
    'unless the host\'s settings say to_host = "open"'
)


async def bring(run: Run, booted: Booted, deadline: Deadline) -> str:
    """Raises SourceError where the revision or repository does not exist, HostError where it cannot be reached."""
    source, home = run.job.source, run.job.answers.oscar_home
    head, forwards = booted.head, booted.head.forwards
    words = ["svn", "checkout", "--non-interactive", "--quiet", "-r", source.revision]
    command = shlex.join([*words, f"{url_in_guest(source.url, forwards)}@{source.revision}", home])
    result = await head.run(command, seconds=deadline.seconds)
    if not result.ok:
        why = words_from_guest(svn_words(result.output), forwards)
        raise error_kind(result.output)(
            f"the head node could not check out {source}: {why}",
            hint=head.forward_trouble or (OTHER_SERVERS if EXTERNALS.search(result.output) else ""),
        )
    answer = await head.check(f"svn info --show-item last-changed-revision {shlex.quote(home)}")
    return f"{home} is at revision {source.revision} (last changed in {answer.strip()})"
