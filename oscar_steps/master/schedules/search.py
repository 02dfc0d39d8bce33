"""The button by which a person has the farm search for the commit that broke a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buildbot.plugins import schedulers
from buildbot.schedulers.forcesched import CollectedValidationError, ValidationErrorCollector
from twisted.internet import defer

from oscar_steps.errors import FarmError
from oscar_steps.master.schedules.force import Checked, what_field
from oscar_steps.master.schedules.names import BISECT_SERVICE, FIND
from oscar_steps.site import Site

_REVISION = r"|[1-9][0-9]{0,9}|[0-9a-f]{40}"
_RIGHT = "give the number of a revision (of git the whole id of a commit), or nothing"


class FindCommit(schedulers.ForceScheduler):
    """Starts a search for what broke a build of the cell whose button was pressed."""

    def force(self, owner: Any, builderNames: Any = None, builderid: Any = None, **wishes: Any) -> Any:
        """Begin the search; gives its first build's request. Raises CollectedValidationError, with a sentence."""
        return defer.ensureDeferred(self._search(owner, builderNames, builderid, wishes))

    async def _search(self, owner: Any, names: Any, builderid: Any, wishes: dict[str, Any]) -> Any:
        name = await self._cell(names, builderid)
        collector = ValidationErrorCollector()
        listed = {key: value if isinstance(value, list) else [value] for key, value in wishes.items()}
        properties, _, stamps = await self.gatherPropertiesAndChanges(collector, **listed)
        login = owner if owner and owner != "anonymous" else listed.get("username", [""])[0]
        collector.maybeRaiseCollectedErrors()
        service = self.master.service_manager.namedServices.get(BISECT_SERVICE)
        if service is None:
            raise CollectedValidationError({"revision": "the farm starts or ends just now; try again"})
        builder = await self.master.data.updates.findBuilderId(name)
        bad, good = stamps[""].get("revision") or "", properties.getProperty("good") or ""
        try:
            return await service.ask_for(builder, stamps[""]["branch"], bad, good, str(login or ""))
        except FarmError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise CollectedValidationError({"revision": f"{error.sentence}{hint}"}) from None

    async def _cell(self, names: Any, builderid: Any) -> str:
        """The one cell that is meant."""
        found = [await self.master.data.get(("builders", str(builderid)))] if names is None and builderid else []
        asked = [each["name"] if each else "" for each in found] or list(names or ())
        if len(asked) != 1 or asked[0] not in self.builderNames:
            raise CollectedValidationError({"builderid": "name one cell: a search is for one"})
        return str(asked[0])


def find_button(site: Site, cells: Sequence[str]) -> Any:
    """The button of each cell."""
    return FindCommit(
        name=FIND,
        label="Find the commit that broke it",
        buttonName="Find the commit that broke it",
        builderNames=list(cells),
        codebases=[what_field(site, "It failed at (empty: the last one that failed)", _REVISION, _RIGHT)],
        properties=[
            Checked(
                name="good",
                label="It was good at (empty: the last one that passed before)",
                default="",
                pattern=_REVISION,
                right=_RIGHT,
            )
        ],
    )
