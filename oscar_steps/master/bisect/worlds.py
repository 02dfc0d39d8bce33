"""Where no commit did it: what else was different between the good run and the red one of the same revision.

Beside the commits there are four worlds: the recipe of the base image, the farm's own version with its settings, what
svn:externals bring, and the distribution's packages. Where only one differs it is named. Where the packages differ, or
more than one, a second search goes over images: the old one, which the good run's worker has still, with more and more
of the new packages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from oscar_steps import manifest
from oscar_steps.bisect.images import Images
from oscar_steps.bisect.search import Answer, Kind, Run, Seen
from oscar_steps.bisect.seen import seen_of_image
from oscar_steps.master.bisect.case import Case, Step, values_of, verdict_beside
from oscar_steps.master.history.record import FARM, RECIPE, VERDICT, verdict_in
from oscar_steps.master.steps.results import RUN_DIRECTORY
from oscar_steps.master.web.run_files import RUNS
from oscar_steps.verdict import Outcome, Stage, Verdict

MAX_UPGRADES = 3000
"""More packages than this are another distribution: a search over them says nothing."""
MAX_FAILED = 8
"""So many images that cannot be made end a search: each takes minutes."""
_KEY = re.compile("[0-9a-f]{8,64}")


class World(StrEnum):
    """What may differ beside the commits, in words."""

    PACKAGES = "the distribution's packages"
    RECIPE = "the recipe of the base image"
    FARM = "the farm's own version or settings"
    EXTERNALS = "what svn:externals bring"


@dataclass(frozen=True)
class Around:
    """What a run had around its source."""

    verdict: Verdict | None = None
    worker: str = ""
    digests: dict[World, str] | None = None
    packages: str | None = None
    folder: str = ""
    """The run's directory on its worker."""

    @property
    def image(self) -> str:
        found = self.verdict.image.key if self.verdict and self.verdict.image else ""
        return found if _KEY.fullmatch(found) else ""


@dataclass(frozen=True)
class Worlds:
    """What differs between the good run and the red one of the same revision, and the search that this allows.

    `why_not`: why there is no search, where one would be wanted. `known`: the farm knows what the good run had.
    """

    differ: tuple[World, ...] = ()
    images: Images | None = None
    worker: str = ""
    """The one that has the old image."""
    changes: str = ""
    """The packages that differ, in one sentence; '': there is none, or the lists were not kept."""
    why_not: str = ""
    known: bool = True


async def around(master: Any, build: int) -> Around:
    """What the farm knows of a finished build; of one that it does not know, nothing."""
    if not build:
        return Around()
    said = values_of(await master.data.get(("builds", build, "properties")))
    verdict = verdict_in(said.get(VERDICT))
    if verdict is None:
        return Around()
    folder = Path(master.basedir) / RUNS / verdict.run_id
    kept = "/" not in verdict.run_id and not verdict.run_id.startswith(".")
    return Around(
        verdict,
        str(said.get("workername") or ""),
        {
            World.PACKAGES: verdict.image.manifest if verdict.image else "",
            World.RECIPE: str(said.get(RECIPE) or ""),
            World.FARM: str(said.get(FARM) or ""),
            World.EXTERNALS: " ".join(["externals:", *map(str, verdict.tested.externals)]) if verdict.tested else "",
        },
        manifest.read_manifest(folder / manifest.MANIFEST_FILE) if kept else None,
        str(said.get(RUN_DIRECTORY) or ""),
    )


def worlds(good: Around, red: Around, workers: Sequence[str]) -> Worlds:
    """What differs, and what can be searched. `workers`: those that the cell may run on."""
    if not good.digests or not red.digests:
        return Worlds(known=False)
    before, now = good.digests, red.digests
    differ = tuple(world for world in World if before[world] and now[world] and before[world] != now[world])
    listed = good.packages is not None and red.packages is not None
    changes = manifest.changes(good.packages or "", red.packages or "") if listed else []
    found = Worlds(differ, changes=manifest.summary(changes) if changes else "")
    named = not differ or (len(differ) == 1 and World.PACKAGES not in differ)
    if named or not good.image or not red.image or good.image == red.image:
        return found
    upgrades = tuple(manifest.upgrades(good.packages or "", red.packages or ""))
    why_not = ""
    if World.PACKAGES in differ and not listed:
        why_not = "the lists of their packages were not kept"
    elif len(upgrades) > MAX_UPGRADES:
        why_not = f"{len(upgrades)} packages have other versions"
    elif good.worker not in workers:
        why_not = f"the worker {good.worker}, which had the old image, does not run this cell any more"
    if why_not:
        return replace(found, why_not=why_not)
    return replace(found, images=Images(good.image, red.image, upgrades), worker=good.worker)


def image_runs(case: Case, steps: Sequence[Step], images: Images) -> list[Run]:
    """What is known of the images: the new one has shown the fault already, in the search over the commits."""
    last = len(images.upgrades) + 1
    known = verdict_beside(case, list(steps), 0, Seen.BAD)
    runs = [Run(last, Seen.BAD)] if known and known.image and known.image.key == images.new else []
    ended = [step for step in steps if step.of_image and step.verdict is not None]
    return [*runs, *(Run(step.position, seen_of_image(step.verdict, case.verdict)) for step in ended if step.verdict)]


def hopeless(steps: Sequence[Step]) -> str:
    """Why no more images are to be tried; '': they are."""
    ended = [(step.position, step.verdict) for step in steps if step.of_image and step.verdict is not None]
    bad = [
        (position, verdict.sentence)
        for position, verdict in ended
        if verdict.outcome is Outcome.INFRASTRUCTURE and (verdict.stage is Stage.CREATE_IMAGE or verdict.image_failed)
    ]
    gone = [sentence for position, sentence in bad if position == 0]
    if len(gone) > 1:
        return f"the old image cannot be used any more: {gone[-1]}"
    return f"{len(bad)} images could not be made; of the last one: {bad[-1][1]}" if len(bad) >= MAX_FAILED else ""


@dataclass(frozen=True)
class Elsewhere:
    """What was found beside the commits. `answer`: of the search over images, where there was one."""

    found: Worlds
    answer: Answer | None = None

    @property
    def sentence(self) -> str:
        """What did it, in words."""
        return self._conclusion()[0]

    @property
    def world(self) -> World | None:
        """What did it; None: it is not clear."""
        return self._conclusion()[1]

    def _conclusion(self) -> tuple[str, World | None]:
        found = self.found
        if not found.known:
            return "the farm does not know what the good run had", None
        if not found.differ:
            return (
                "neither packages, recipe, the farm nor externals differ: it comes and goes, or its cause is outside",
                None,
            )
        if self.answer is not None and found.images is not None:
            return _of_images(found, found.images, self.answer)
        if len(found.differ) == 1:
            return f"{found.differ[0]} did it", found.differ[0]
        return f"one of these did it: {', '.join(found.differ)}", None


def _of_images(found: Worlds, images: Images, answer: Answer) -> tuple[str, World | None]:
    names, last = images.names, len(images.upgrades) + 1
    did_it: tuple[str, World | None] = answer.sentence(names), World.PACKAGES if answer.kind is Kind.BETWEEN else None
    others = [world for world in (World.FARM, World.EXTERNALS) if world in found.differ]
    if answer.kind is Kind.BEFORE and others:
        what = f"{others[0]} did it" if len(others) == 1 else f"one of these did it: {', '.join(others)}"
        did_it = f"{what}: the old image shows it now as well", others[0] if len(others) == 1 else None
    elif answer.kind is Kind.BEFORE:
        did_it = "the old image shows it now as well, so no package did it: the cause is outside", None
    elif answer.kind is Kind.FOUND and answer.first < last:
        did_it = f"the package {names[answer.first]} did it", World.PACKAGES
    elif answer.kind is Kind.FOUND and World.RECIPE in found.differ:
        did_it = f"{World.RECIPE} did it: the old image with the new versions of its packages is good", World.RECIPE
    elif answer.kind is Kind.FOUND:
        did_it = "packages that only one of the two images has did it", World.PACKAGES
    return did_it
