"""What changed in the distribution since the cell's last good run: the first suspect beside the commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buildbot.process.results import SUCCESS

from oscar_steps import manifest
from oscar_steps.master.history.record import NOT_COUNTED, VERDICT, verdict_in
from oscar_steps.master.schedules.names import PATCH_OF
from oscar_steps.master.web.run_files import RUNS
from oscar_steps.verdict import Outcome, Verdict

_LOOK_BACK = 100


async def changed_since_good(master: Any, build: dict[str, Any], verdict: Verdict) -> str:
    """In one sentence, where a run that is red has another base image than the cell's last good run; otherwise ''."""
    if verdict.outcome not in (Outcome.FAILED, Outcome.INFRASTRUCTURE) or verdict.image is None:
        return ""
    good = await _last_good(master, build)
    if good is None or good.image is None or good.image.key == verdict.image.key:
        return ""
    since = f"since the last good run ({good.short})"
    if good.image.manifest and good.image.manifest == verdict.image.manifest:
        return ""
    old, new = (_packages(master, run) for run in (good, verdict))
    if old is None or new is None:
        return f"{since} the base image has changed; its packages were not kept"
    return f"{since} {manifest.summary(manifest.changes(old, new))}"


async def _last_good(master: Any, build: dict[str, Any]) -> Verdict | None:
    """The verdict of the last build of the same cell that passed, on whatever branch."""
    number = build["number"]
    for earlier in range(number - 1, max(0, number - 1 - _LOOK_BACK), -1):
        found = await master.data.get(("builders", build["builder"]["builderid"], "builds", earlier))
        if not found or found["results"] != SUCCESS:
            continue
        said = await master.data.get(("builds", found["buildid"], "properties"))
        if {PATCH_OF, NOT_COUNTED} & said.keys():
            continue
        if (verdict := verdict_in(said.get(VERDICT, (None,))[0])) is not None:
            return verdict
    return None


def _packages(master: Any, run: Verdict) -> str | None:
    """The packages of a run's base image, from what the master keeps of the run."""
    if "/" in run.run_id or run.run_id.startswith("."):
        return None
    return manifest.read_manifest(Path(master.basedir) / RUNS / run.run_id / manifest.MANIFEST_FILE)
