"""The files of the runs on the master's web server: PLUGINS/runs/RUN/console/oscarnode2.log.

Registered as a Buildbot web plug-in (entry point `buildbot.www`, name `runs`). The files come from guests: all are
plain text to the browser, whatever they hold, but the screens, which QEMU drew; links are not followed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.web import resource, server, static

from oscar_steps.master.web.plugin import SEALED, Plugin

RUNS = "runs"
"""The folder below the master's own, and the plug-in's name."""
_TEXT = "text/plain; charset=utf-8"


def run_url(base: str, run_id: str, file: str = "") -> str:
    """Address of a run's files, or of one of them; `base` is the master's, with a slash at its end."""
    return f"{base}plugins/{RUNS}/{quote(run_id)}/{quote(file)}"


class RunFiles(static.File):
    """A file or folder below the folder of runs."""

    contentTypes = {".png": "image/png"}  # noqa: RUF012 (Twisted's own attribute)
    contentEncodings: dict[str, str] = {}  # noqa: RUF012 (Twisted's own attribute)
    indexNames: list[str] = []  # noqa: RUF012 (Twisted's own attribute)

    def __init__(self, path: str, defaultType: str = _TEXT, *_ignored: Any, **_named: Any) -> None:
        super().__init__(path, defaultType)
        self.indexNames = []

    def getChild(self, path: bytes, request: server.Request) -> resource.Resource:
        if path.startswith(b".") or b"\0" in path:
            return self.childNotFound
        child = super().getChild(path, request)
        if isinstance(child, static.File) and not _may_be_shown(Path(child.path)):
            return self.childNotFound
        return child

    def render_GET(self, request: server.Request) -> Any:
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Content-Security-Policy", SEALED)
        if b"," in (request.getHeader(b"range") or b""):
            # Of several ranges anybody may ask the whole file a thousand times over, and Twisted stumbles over some.
            request.requestHeaders.removeHeader(b"range")
        return super().render_GET(request)

    def listNames(self) -> list[str]:
        return [name for name in super().listNames() if not name.startswith(".")]


def _may_be_shown(path: Path) -> bool:
    """Files and folders. A link leads anywhere, and the master would stand still at a pipe."""
    try:
        return not path.is_symlink() and (path.is_file() or path.is_dir())
    except OSError:  # a folder that we may not enter
        return False


def _page(master: Any) -> resource.Resource:
    folder = Path(master.basedir) / RUNS
    folder.mkdir(exist_ok=True)
    return RunFiles(str(folder))


application = Plugin("Files of the farm's runs", _page)
