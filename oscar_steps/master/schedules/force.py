"""When a person asks: the button of a cell, and of all cells of a label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from buildbot.plugins import schedulers, util
from buildbot.schedulers.forcesched import CollectedValidationError, ValidationError
from twisted.internet import defer

from oscar_steps.errors import SourceError
from oscar_steps.master.schedules.names import CELLS, FORCE, KEEP_HOURS, PATCH_OF
from oscar_steps.master.watch.released import NO_PATCH_ON_A_RELEASE, is_tarball
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import kind_of
from oscar_steps.site import Site
from oscar_steps.sources.diffs import changes_of
from oscar_steps.sources.git import NOT_SEEN
from oscar_steps.sources.source import MAX_PATCH_BYTES, MAX_STRIP, Patch, SourceKind
from oscar_steps.textio import some
from oscar_steps.verdict import LINT
from oscar_steps.words import MAX_KEEP_HOURS, MAX_NODES, Label, NodeBoot

AS_PROFILE = "as the profile says"
LABEL = "label"
"""What a person who forces a build may ask for: all cells of this label."""
PATCH_BODY = "patch_body"
"""The form's field with a patch."""
_REASON = r"[^\x00\ud800-\udfff]{0,150}"
"""What PostgreSQL takes, in the 256 characters that Buildbot's column has."""
AS_BUTTON = "this cell alone"


class ForceCells(schedulers.ForceScheduler):
    """Starts the cell whose button was pressed, or all cells of a label."""

    def reconfigService(self, of_label: Mapping[str, Sequence[str]], site: Site, **settings: Any) -> Any:
        self.site = site
        self.of_label = {label: list(cells) for label, cells in of_label.items() if cells}
        return super().reconfigService(**settings)

    def checkConfig(self, of_label: Mapping[str, Sequence[str]], site: Site, **settings: Any) -> Any:  # noqa: ARG002
        return super().checkConfig(**settings)

    def force(self, owner: Any, builderNames: Any = None, builderid: Any = None, **wishes: Any) -> Any:
        """Ask for the builds: of the cell that is named, unless there is a label."""
        label = _one(wishes.get(LABEL))
        for name in (PATCH_OF, CELLS):
            wishes.pop(name, None)
        if label in self.of_label and _one(wishes.get(KEEP_HOURS)) not in ("", "0"):
            said = "keep the cluster of one cell; each of them takes a worker's place for so long"
            raise CollectedValidationError({KEEP_HOURS: said})
        if _one(wishes.get(PATCH_BODY)):
            return defer.ensureDeferred(self._with_patch(owner, builderNames, builderid, wishes))
        if label in self.of_label:
            if not _one(wishes.get("revision")):
                said = "give a revision: each cell looks for the last one by itself, and they may differ"
                raise CollectedValidationError({"revision": said})
            builderNames, builderid = self.of_label[label], None
        return super().force(owner, builderNames=builderNames, builderid=builderid, **wishes)

    async def _with_patch(self, owner: Any, names: Any, builderid: Any, wishes: dict[str, Any]) -> Any:
        """A patch goes to the first tier, and then to the cells."""
        if is_tarball(_one(wishes.get("branch"))):
            raise CollectedValidationError({"branch": NO_PATCH_ON_A_RELEASE})
        if not _one(wishes.get("revision")):
            raise CollectedValidationError({"revision": "give the revision that your patch is made for"})
        label = _one(wishes.get(LABEL))
        asked = self.of_label[label] if label in self.of_label else await self.computeBuilderNames(names, builderid)
        login = owner if owner and owner != "anonymous" else _one(wishes.get("username"))
        wishes |= {CELLS: [name for name in asked if name != LINT], PATCH_OF: [login or "somebody"]}
        first = await self.master.data.updates.findBuilderId(LINT)
        return await super().force(owner, builderid=first, **wishes)

    async def gatherPropertiesAndChanges(self, collector: Any, **wishes: Any) -> Any:
        """The form's wishes, and whose patch it is."""
        properties, changes, stamps = await super().gatherPropertiesAndChanges(collector, **wishes)
        for stamp in stamps.values():
            await collector.collectValidationErrors("revision", self._check, stamp)
        if PATCH_OF in wishes:
            properties.setProperty(PATCH_OF, _one(wishes[PATCH_OF]), "Force Build Form")
            properties.setProperty(CELLS, list(wishes[CELLS]), "Force Build Form")
        return properties, changes, stamps

    def _check(self, stamp: dict[str, Any]) -> None:
        """Raise ValidationError where the revision is none of the branch's kind; else name the repository."""
        branch, revision = str(stamp.get("branch") or ""), str(stamp.get("revision") or "")
        pattern, words = REVISIONS[kind_of(branch)]
        if revision and not re.fullmatch(pattern, revision):
            raise ValidationError(f"{revision[:60]!a} is no revision of {branch[:60]!a}; give {words}, or nothing")
        stamp["repository"] = self.site.branch_called(branch).repository


def _one(wish: Any) -> str:
    """The value of a field of the form, which may come as a list."""
    return str((wish[0] if isinstance(wish, list) and wish else wish) or "").strip()


class Checked(util.StringParameter):
    """A line of the form: the whole of it matches `pattern`, or `right` says in one sentence what would be."""

    pattern = ""
    right = ""

    def parse_from_arg(self, text: str) -> str:
        """The text as it is. Raises ValidationError where it does not match, or is none: a script may send anything."""
        if not isinstance(text, str) or not re.fullmatch(self.pattern, text):
            raise ValidationError(f"{self.label}: {str(text)[:60]!a} is not valid; {self.right}")
        return text


class Nodes(util.IntParameter):
    """How many compute nodes; 0: as the profile says."""

    def parse_from_arg(self, text: str) -> int:
        """The number. Raises ValidationError where it is none, or one that no cluster has."""
        if not re.fullmatch(r"[0-9]{1,4}", str(text).strip()) or int(text) > MAX_NODES:
            raise ValidationError(f"{self.label}: {str(text)[:60]!a} is not valid; give 0 to {MAX_NODES}")
        return int(text)


class Hours(util.IntParameter):
    """For how long the cluster is kept; 0: not at all."""

    def parse_from_arg(self, text: str) -> int:
        """The number. Raises ValidationError where it is none, or too large."""
        if not re.fullmatch(r"[0-9]{1,2}", str(text).strip()) or int(text) > MAX_KEEP_HOURS:
            raise ValidationError(f"{self.label}: {str(text)[:60]!a} is not valid; give 0 to {MAX_KEEP_HOURS}")
        return int(text)


class PatchFile(util.FileParameter):
    """A diff, looked at before anything is asked for."""

    maxsize = MAX_PATCH_BYTES

    def parse_from_arg(self, text: str) -> str:
        """The text as it is. Raises ValidationError, with the line, where it is no diff that the farm takes."""
        if text.strip():
            try:
                changes_of(Patch.of_bytes(text.encode("utf-8", "surrogateescape"), "somebody"))
            except SourceError as error:
                raise ValidationError(f"{self.label}: {error.sentence}") from None
        return text


def _patch_fields() -> Any:
    hidden = {name: util.FixedParameter(name=name, default="") for name in ("author", "comment", "subdir")}
    level = Level(name="level", label="Folders to take off its names (patch -p)", default=0)
    return util.PatchParameter(
        name="patch",
        label="A patch on it",
        body=PatchFile(name="body", label="Patch", default=""),
        level=level,
        **hidden,
    )


class Level(util.IntParameter):
    """As `patch -p` takes it."""

    def parse_from_arg(self, text: str) -> int:
        """The number. Raises ValidationError where it is none."""
        if not re.fullmatch(r"[0-9]", str(text).strip()) or int(text) > MAX_STRIP:
            raise ValidationError(f"{self.label}: {str(text)[:60]!a} is not valid; give 0 to {MAX_STRIP}")
        return int(text)


REVISIONS: Mapping[SourceKind, tuple[str, str]] = {
    "svn": (r"[1-9][0-9]{0,9}", "the number of a revision"),
    "git": (r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,99}", "a commit's id or a tag"),
    "tarball": (r"[0-9]{1,4}\.[A-Za-z0-9.:#-]{1,60}", "a release's version"),
}
"""What a revision looks like, and what it is called."""


def _branches(site: Site) -> str:
    """The pattern of the branches that a person may ask for."""
    patterns = [re.escape(place.branch) for place in site.tarballs]
    patterns += [rf"{re.escape(git.prefix)}[^\x00-\x20{NOT_SEEN}~^:?*\[\\]{{1,200}}" for git in site.git]
    if svn := site.repository:
        folders = "|".join(re.escape(folder) for folder in (svn.branches, svn.tags))
        patterns += [re.escape(svn.trunk), rf"({folders})/(?!\.+\Z)[A-Za-z0-9._-]+"]
    return "|".join(patterns)


def branch_field(site: Site) -> Checked:
    """The form's field with a branch."""
    return Checked(
        name="branch",
        label="Branch",
        default=site.main.name,
        pattern=_branches(site),
        right=f"give one of {some([*site.branch_names, *(place.branch for place in site.tarballs)])}",
    )


def what_field(site: Site, label: str, pattern: str, right: str, **more: Any) -> Any:
    """The form's fields with a branch and a revision of it. `label`, `pattern` and `right` are the revision's."""
    return util.CodebaseParameter(
        codebase="",
        label="What",
        branch=branch_field(site),
        revision=Checked(name="revision", label=label, default="", pattern=pattern, right=right),
        repository=util.FixedParameter(name="repository", default=site.main.repository),
        project=util.FixedParameter(name="project", default=PROJECT),
        **more,
    )


def button(site: Site, cells: Sequence[str], of_label: Mapping[Label, Sequence[str]]) -> Any:
    kinds = dict.fromkeys(kind_of(name) for name in (*site.branch_names, *(place.branch for place in site.tarballs)))
    revisions = [REVISIONS[kind] for kind in kinds]
    return ForceCells(
        name=FORCE,
        site=site,
        of_label=of_label,
        label="Test a revision",
        buttonName="Test a revision",
        builderNames=list(cells),
        reason=Checked(
            name="reason",
            label="Why",
            default="asked for",
            size=40,
            pattern=_REASON,
            right="give at most 150 letters",
        ),
        codebases=[
            what_field(
                site,
                "Revision (empty: the last one)",
                "|" + "|".join(pattern for pattern, _words in revisions),
                f"give {' or '.join(words for _pattern, words in revisions)}, or nothing",
                patch=_patch_fields(),
            )
        ],
        properties=[
            util.ChoiceStringParameter(
                name=LABEL,
                label="Which cells",
                default=AS_BUTTON,
                choices=[AS_BUTTON, *(label for label in Label if of_label[label])],
            ),
            Nodes(name="nodes", label=f"Compute nodes (0: {AS_PROFILE})", default=0),
            util.ChoiceStringParameter(
                name="boot", label="Nodes boot from", default=AS_PROFILE, choices=[AS_PROFILE, *get_args(NodeBoot)]
            ),
            Hours(name=KEEP_HOURS, label=f"Hours to keep the cluster (0: not, at most {MAX_KEEP_HOURS})", default=0),
        ],
    )
