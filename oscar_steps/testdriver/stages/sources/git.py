"""A commit of git's, fetched by the head node's own client."""

from __future__ import annotations

import shlex

from oscar_steps.errors import HostError
from oscar_steps.sources.git import error_kind, git_words
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.head.forwards import url_in_guest, words_from_guest
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.run import Run

# A server need not give a commit by its id; it gives its branches and tags.
_SCRIPT = """\
set -eu
export GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=git:http:https:ssh LC_ALL=C
mkdir -p -- "$3"
cd -- "$3"
git init --quiet .
git fetch --quiet --no-tags --depth 1 -- "$1" "$2" 2>/dev/null ||
    git fetch --quiet --no-tags -- "$1" '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'
git cat-file -e "$2^{commit}" || { echo "fatal: not our ref $2" >&2; exit 1; }
git -c advice.detachedHead=false checkout --quiet --detach --force "$2"
"""


async def bring(run: Run, booted: Booted, deadline: Deadline) -> str:
    """Raises SourceError where the commit or repository does not exist, HostError where it cannot be reached."""
    source, home = run.job.source, run.job.answers.oscar_home
    head, forwards = booted.head, booted.head.forwards
    words = ["sh", "-s", "--", url_in_guest(source.url, forwards), source.revision, home]
    result = await head.run(shlex.join(words), seconds=deadline.seconds, stdin=_SCRIPT.encode())
    if not result.ok:
        why = words_from_guest(git_words(result.output), forwards)
        raise error_kind(result.output)(
            f"the head node could not check out {source}: {why}", hint=head.forward_trouble or _hint(result.status)
        )
    answer = (await head.check(f"git -C {shlex.quote(home)} rev-parse HEAD")).strip()
    if answer != source.revision:
        raise HostError(f"the head node has checked out {answer[:60]!a}, not {source.revision}")
    return f"{home} is at commit {source.revision}"


def _hint(status: int) -> str:
    return "the head node's image has no git: build it anew" if status == 127 else ""
