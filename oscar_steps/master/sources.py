"""Where changes come from: OSCAR's Subversion repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from buildbot.changes.svnpoller import SVNPoller
from buildbot.util import runprocess
from twisted.python import log

from oscar_steps.errors import HostError, SourceError
from oscar_steps.site import Repository, Site

PROJECT = "oscar"
_SVN_SECONDS = 120
_DOES_NOT_EXIST = re.compile(r"E160006|E160013|E170000|E200009|W170000|W160013")


class BranchSplitter:
    """Splits a path of a commit into branch and file: `trunk/x`, `branches/NAME/x`, `tags/NAME/x`; others are not ours.

    Every branch has a name ('trunk' too, where Buildbot's own function says None), so poller, button and nightly agree
    and a branch is always the path below the repository's URL. Compares equal by its layout: a reconfiguration with the
    same layout does not restart the poller.
    """

    def __init__(self, repository: Repository) -> None:
        self.trunk = repository.trunk
        self.folders = (repository.branches, repository.tags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BranchSplitter) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.trunk, self.folders))

    def __call__(self, path: str) -> dict[str, str] | None:
        if path.startswith(f"{self.trunk}/"):
            return {"project": PROJECT, "branch": self.trunk, "path": path[len(self.trunk) + 1 :]}
        for folder in self.folders:
            name, slash, rest = path[len(folder) + 1 :].partition("/")
            if path.startswith(f"{folder}/") and name and slash:
                return {"project": PROJECT, "branch": f"{folder}/{name}", "path": rest}
        return None


class FarmPoller(SVNPoller):
    """Buildbot's poller, made to lose nothing.

    It asks for all revisions since the last one it has seen (the original asks for the newest `histmax`, and older ones
    vanish); a change that could not be stored is asked for again; and a neighbour whose name merely begins like ours
    (`oscar-website` beside `oscar`) is not taken for ours.
    """

    def _transform_path(self, path: str) -> dict[str, str] | None:
        prefix = (self._prefix or "").rstrip("/")
        if prefix and not path.startswith(f"{prefix}/"):
            return None
        found: dict[str, str] | None = super()._transform_path(path)
        return found

    async def get_logs(self) -> Any:
        if self.last_change is None:
            return await super().get_logs()
        rc, output, complaint = await runprocess.run_process(
            self.master.reactor,
            [
                self.svnbin,
                "log",
                "--xml",
                "--verbose",
                "--non-interactive",
                "-r",
                f"HEAD:{self.last_change}",
                self.repourl,
            ],
            env=self.environ,
            runtime_timeout=_SVN_SECONDS,
        )
        if rc != 0:
            raise OSError(f"the repository {self.repourl} cannot be read: {_last_line(complaint)}")
        return output

    async def submit_changes(self, changes: list[dict[str, Any]]) -> None:
        for change in changes:
            try:
                await self.master.data.updates.addChange(src="svn", **change)
            except BaseException:
                # Ask for it again at the next look: stored twice is better than never.
                self.last_change = int(change["revision"]) - 1
                raise


def svn_poller(site: Site, state: Path) -> FarmPoller:
    """The poller of the site's repository; the last revision it has seen is kept in a file below `state`."""
    repository = site.repository
    return FarmPoller(
        repository.url.rstrip("/"),
        name="svn",
        project=PROJECT,
        split_file=BranchSplitter(repository),
        pollInterval=repository.poll,
        pollAtLaunch=True,
        histmax=repository.history,
        cachepath=str(state / "svn-last-revision"),
        revlinktmpl=repository.revision_link,
    )


async def exact_revision(reactor: Any, url: str, wanted: str | None) -> str:
    """The number of the revision to test at `url`: `wanted` if it exists there, else the last that changed anything.

    Raises SourceError where there is no such revision or path, HostError where the repository does not answer.
    """
    command = ["svn", "info", "--non-interactive", "--no-newline", "--show-item", "last-changed-revision"]
    rc, output, complaint = await runprocess.run_process(
        reactor, [*command, f"{url}@{wanted or 'HEAD'}"], env={"LC_ALL": "C.UTF-8"}, runtime_timeout=_SVN_SECONDS
    )
    if rc == 0:
        return wanted or output.decode().strip()
    said = _last_line(complaint)
    log.msg(f"svn info {url}@{wanted or 'HEAD'} ended with {rc}: {complaint!r}")
    if _DOES_NOT_EXIST.search(complaint.decode(errors="replace")):
        raise SourceError(f"there is no {f'revision {wanted} of ' if wanted else ''}{url} (svn says: {said})")
    raise HostError(f"the repository {url} does not answer (svn says: {said or f'nothing within {_SVN_SECONDS} s'})")


def _last_line(complaint: bytes) -> str:
    """What svn complains of; E200009 only adds that one of several targets was meant."""
    lines = [line for line in complaint.decode(errors="replace").splitlines() if line.strip() and "E200009" not in line]
    return lines[-1].removeprefix("svn: ").removeprefix("warning: ") if lines else ""
