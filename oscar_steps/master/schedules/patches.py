"""A developer's patch: `buildbot try`, and how its cells are started once the first tier has seen it.

Whose patch it is, says the login: what else the client claims (a name, properties, the folder of a working copy as the
repository) decides nothing. A patch that cannot be used becomes a build, too: its one sentence reaches its author by
mail and on the terminal. Buildbot's client never ends where the master answers with an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

from buildbot.data import resultspec
from buildbot.process import buildstep
from buildbot.process.properties import Properties
from buildbot.process.results import EXCEPTION, SUCCESS, WARNINGS
from buildbot.schedulers.trysched import (
    RemoteBuild,
    RemoteBuildRequest,
    RemoteBuildSetStatus,
    Try_Userpass,
    Try_Userpass_Perspective,
)
from twisted.internet import defer

from oscar_steps.master.durability.once import asked_already
from oscar_steps.master.durability.restarts import CutShort, cut_short
from oscar_steps.master.schedules.force import REVISIONS
from oscar_steps.master.schedules.names import ASKERS_MISTAKE, CELLS, MISTAKE, PATCH_OF, TRY
from oscar_steps.master.watch.released import NO_PATCH_ON_A_RELEASE, is_tarball
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import Branch, kind_of
from oscar_steps.site import Site
from oscar_steps.sources.git import FULL_ID
from oscar_steps.sources.source import MAX_PATCH_BYTES, MAX_STRIP
from oscar_steps.textio import one_line
from oscar_steps.verdict import LINT
from oscar_steps.words import MAX_NODES, NodeBoot

_MAX_CELLS = 200


class TryPatch(Try_Userpass):
    """Takes patches: the first tier sees each of them, then the cells that were asked for (none: the smoke cells)."""

    compare_attrs = (*Try_Userpass.compare_attrs, "smoke", "site")

    def checkConfig(self, smoke: Sequence[str], site: Site, **settings: Any) -> None:  # noqa: ARG002
        super().checkConfig(**settings)

    async def reconfigService(self, smoke: Sequence[str], site: Site, **settings: Any) -> None:
        self.smoke, self.site = list(smoke), site
        await super().reconfigService(**settings)

    async def _create_pb(self) -> None:
        for user, password in self.userpass:
            made = await self.master.pbmanager.register(
                self.port, user, password, lambda _mind, login: _Developer(self, login)
            )
            self.registrations.append(made)

    def cells_of(self, asked: Any) -> tuple[list[str], str]:
        """The cells that are meant, and what is wrong with them ('': nothing)."""
        if not asked:
            return self.smoke, ""
        names = [_text(name, 100) for name in asked][: _MAX_CELLS + 1] if isinstance(asked, list | tuple) else []
        for name in names:
            if name not in self.builderNames:
                return [], f"there is no cell {name!r}; `buildbot try --get-builder-names` names them all"
        wrong = "" if 0 < len(names) <= _MAX_CELLS else f"give 1 to {_MAX_CELLS} names of cells"
        return [name for name in dict.fromkeys(names) if name != LINT], wrong


class _Developer(Try_Userpass_Perspective):
    """What a developer who has logged in may do."""

    def perspective_try(self, *words: Any, **named: Any) -> Any:
        """Ask for the tests of a patch; gives what the client then follows."""
        return defer.ensureDeferred(self._take(*words, **named))

    async def _take(
        self,
        branch: Any,
        revision: Any,
        patch: Any,
        repository: Any,  # noqa: ARG002 - Buildbot's client sends the folder of the working copy
        project: Any,  # noqa: ARG002
        builderNames: Any,
        who: Any = "",  # noqa: ARG002 - the login says it
        comment: Any = "",
        properties: Any = None,
    ) -> Any:
        cells, wrong = self.scheduler.cells_of(builderNames)
        level, body, wrong_patch = _patch(patch)
        wishes, wrong_wish = _wishes(properties)
        wanted = _text(revision, 100)
        base = _base(self.scheduler.site, _text(branch, 200), wanted)
        wrong = wrong or _wrong_base(base.name, wanted) or wrong_patch or wrong_wish
        if wrong:
            wishes, cells = {MISTAKE: wrong}, []
        if is_tarball(base.name):
            base = self.scheduler.site.main  # the build says what is wrong, whatever places the site has
        return await ask_for_patch(
            self.scheduler,
            login=self.username,
            stamp={
                "branch": base.name,
                "revision": wanted or None,
                "repository": base.repository,
                "patch_body": body,
                "patch_level": level,
                "patch_comment": _text(comment, 200),
            },
            cells=cells,
            wishes=wishes,
        )


async def ask_for_patch(
    scheduler: Any, *, login: str, stamp: dict[str, Any], cells: Sequence[str], wishes: dict[str, Any]
) -> PatchStatus:
    """Request the first tier of a patch, after which the cells begin."""
    properties = Properties()
    for name, value in {**wishes, PATCH_OF: login, "owner": login, CELLS: list(cells)}.items():
        properties.setProperty(name, value, "patch")
    whole = {"codebase": "", "project": PROJECT, "patch_author": login, "patch_subdir": "", **stamp}
    bsid, requests = await scheduler.addBuildsetForSourceStamps(
        sourcestamps=[whole], reason=f"a patch of {login}", properties=properties, builderNames=[LINT]
    )
    return PatchStatus(scheduler.master, bsid, requests, cells)


def _text(value: Any, length: int) -> str:
    """A word that the client sent, of whatever type."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return one_line(value, length).strip() if isinstance(value, str) else ""


def _base(site: Site, name: str, revision: str) -> Branch:
    """The branch that a patch is made for. Buildbot's client (--vc=git) sends git's own name of it."""
    if FULL_ID.fullmatch(revision) and len(site.git) == 1 and kind_of(name) == "svn":
        return site.branch_called(f"{site.git[0].prefix}{name}" if name else site.git[0].main_branch.name)
    return site.branch_called(name)


def _wrong_base(branch: str, revision: str) -> str:
    """What is wrong with what a patch is said to be made for; '': nothing."""
    if is_tarball(branch):
        return NO_PATCH_ON_A_RELEASE
    pattern, words = REVISIONS[kind_of(branch)]
    wrong = revision and not re.fullmatch(pattern, revision)
    return f"{revision!r} is no revision of {branch}; give --baserev with {words}" if wrong else ""


def _patch(patch: Any) -> tuple[int, bytes, str]:
    """Level, content, and what is wrong."""
    level, body = patch if isinstance(patch, list | tuple) and len(patch) == 2 else (0, None)
    body = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
    if not isinstance(level, int) or not 0 <= level <= MAX_STRIP:
        return 0, b"", f"the patch level {one_line(str(level), 20)} is not valid; give 0 to {MAX_STRIP}"
    if not isinstance(body, bytes) or not body.strip():
        return level, b"", "the patch is empty: nothing differs from the base revision"
    if len(body) > MAX_PATCH_BYTES:
        return level, b"", f"the patch has {len(body)} bytes; the farm takes {MAX_PATCH_BYTES}"
    return level, body, ""


def _wishes(properties: Any) -> tuple[dict[str, Any], str]:
    """The properties that a developer may set, and what is wrong."""
    given = properties if isinstance(properties, dict) else {}
    for name in given:
        if name not in ("nodes", "boot"):
            return {}, f"the property {_text(name, 60)!r} cannot be set; the farm takes nodes and boot"
    nodes, boot = _text(str(given.get("nodes", "0")), 20), given.get("boot", "")
    if not re.fullmatch(r"[0-9]{1,4}", nodes) or int(nodes) > MAX_NODES:
        return {}, f"nodes={nodes} is not valid; give 1 to {MAX_NODES}"
    if boot and boot not in get_args(NodeBoot):
        return {}, f"boot={_text(boot, 20)} is not valid; give {' or '.join(get_args(NodeBoot))}"
    return {"nodes": int(nodes), "boot": boot}, ""


class PatchStatus(RemoteBuildSetStatus):
    """What `buildbot try --wait` follows: the first tier, and the cells that begin after it."""

    def __init__(self, master: Any, bsid: int, requests: dict[int, int], cells: Sequence[str]) -> None:
        super().__init__(master, bsid, requests)
        self.cells = cells

    def remote_getBuildRequests(self) -> Any:
        """Pairs of builder and request."""
        (first,) = self.brids.values()
        later = [(cell, _AfterFirstTier(self.master, cell, first)) for cell in self.cells]
        return defer.succeed([(LINT, RemoteBuildRequest(self.master, LINT, first)), *later])


class _AfterFirstTier(RemoteBuildRequest):
    """The request of a cell, which will be there when the first tier has ended well; else its result is the cell's."""

    brid: int

    def remote_subscribe(self, subscriber: Any) -> Any:
        """Tell the subscriber of the cell's builds."""
        return defer.ensureDeferred(self._subscribe(subscriber))

    async def _subscribe(self, subscriber: Any) -> None:
        first = self.brid
        await _until_complete(self.master, first)
        builds = await self.master.data.get(("buildrequests", first, "builds"))
        found = await self._request_after([build["buildid"] for build in builds])
        if found is not None:
            self.brid = found
            await super().remote_subscribe(subscriber)
        elif builds:
            last = RemoteBuild(self.master, builds[-1], self.builderName)
            await subscriber.callRemote("newbuild", last, self.builderName)

    async def _request_after(self, parents: list[int]) -> int | None:
        builder = await self.master.data.updates.findBuilderId(self.builderName)
        children = resultspec.Filter("parent_buildid", "eq", parents)
        for buildset in await self.master.data.get(("buildsets",), filters=[children]) if parents else ():
            wanted = [
                resultspec.Filter("buildsetid", "eq", [buildset["bsid"]]),
                resultspec.Filter("builderid", "eq", [builder]),
            ]
            for request in await self.master.data.get(("buildrequests",), filters=wanted):
                return int(request["buildrequestid"])
        return None


async def _until_complete(master: Any, request: int) -> None:
    ended = defer.Deferred[None]()

    def note(_key: Any, _message: Any) -> None:
        if not ended.called:
            ended.callback(None)

    listening = await master.mq.startConsuming(note, ("buildrequests", str(request), "complete"))
    try:
        found = await master.data.get(("buildrequests", request))
        if found and not found["complete"]:
            await ended
    finally:
        listening.stopConsuming()


class StartAsked(CutShort, buildstep.BuildStep):
    """After the first tier of a patch: starts the cells that its developer asked for."""

    name = "cells of the patch"
    alwaysRun = True
    updateBuildSummaryPolicy = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            doStepIf=_goes_on, hideStepIf=lambda results, _step: results != SUCCESS, alwaysRun=True, **settings
        )

    async def run(self) -> int:
        if self.build.stopped and (cut := cut_short(self)) is not None:
            return cut
        data = self.master.data
        buildset = await data.get(("buildsets", self.build.requests[0].bsid))
        given = dict(await data.get(("buildsets", buildset["bsid"], "properties")))
        cells = list(given.pop(CELLS, ((), ""))[0])
        await data.updates.addBuildset(
            waited_for=False,
            scheduler=self.getProperty("scheduler"),
            sourcestamps=[stamp["ssid"] for stamp in buildset["sourcestamps"]],
            reason=buildset["reason"],
            properties=given,
            builderids=[await data.updates.findBuilderId(cell) for cell in cells],
            parent_buildid=self.build.buildid,
            parent_relationship="Triggered from",
        )
        return int(SUCCESS)


def _goes_on(step: Any) -> Any:
    async def answer() -> bool:
        good = step.build.results in (SUCCESS, WARNINGS, EXCEPTION) and not step.getProperty(ASKERS_MISTAKE)
        return bool(step.getProperty(CELLS)) and good and not await asked_already(step)

    return defer.ensureDeferred(answer())


def try_scheduler(site: Site, cells: Sequence[str], smoke: Sequence[str]) -> Any:
    """The scheduler of `[try]`. Raises ConfigError where a password is missing."""
    assert site.try_ is not None
    return TryPatch(
        name=TRY,
        builderNames=[*cells, LINT],
        port=site.try_.port,
        userpass=[
            (login, site.secrets.read(f"try-{login}", f"password of {login}, {TRY}")) for login in site.try_.users
        ],
        smoke=list(smoke),
        site=site,
    )
