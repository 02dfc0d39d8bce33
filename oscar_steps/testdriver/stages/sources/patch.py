"""A developer's patch, applied to the OSCAR that stands in the head node."""

from __future__ import annotations

from oscar_steps.errors import HostError
from oscar_steps.sources.diffs import PATCH_FILE, REFUSED, changes_of, rejection, script_of
from oscar_steps.sources.source import Patch
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.run import Run


async def apply(run: Run, booted: Booted, patch: Patch, deadline: Deadline) -> None:
    """All of it or nothing. Raises PatchRefused where it does not apply, HostError where the head node cannot do it."""
    (run.directory / PATCH_FILE).write_bytes(patch.content)
    changes = changes_of(patch)
    what = f"the patch {patch.sha256[:8]} of {patch.who}"
    with run.diary.step(f"the head node to apply {what}"):
        script = script_of(patch, changes, run.job.answers.oscar_home)
        result = await booted.head.run("sh -s", stdin=script, seconds=max(deadline.left, 1.0))
    if result.status in (1, REFUSED):
        raise rejection(patch, changes, result.status, result.output)
    if not result.ok:
        words = f"the head node could not apply {what}: {result.last_line}"
        raise HostError(words, hint="has its disk room, and has its image the package patch?")
    run.diary.say(f"{what} changes {len(changes)} file{'s' if len(changes) > 1 else ''}")
