"""What the sources of a revision say before anything boots: whether this OSCAR can be installed without a person.

Only the part of the tree that says it is fetched: a whole one of OSCAR's is a hundred megabytes of packages. Where the
repository cannot be asked from here, the head node's checkout decides.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError, UserError
from oscar_steps.oscar.answers.menus import is_menu_file
from oscar_steps.oscar.flavour import FOLDERS, OTHERS, Flavour, flavour_of
from oscar_steps.sources.svn import error_kind, svn_words
from oscar_steps.testdriver.lines import decoded
from oscar_steps.v3m.host.ledger import owned

if TYPE_CHECKING:
    from oscar_steps.sources.source import Source
    from oscar_steps.testdriver.record.events import Diary

EXPORT_SECONDS = 60
LONGEST_SOURCE = 1 << 18
MOST_TEXT = 1 << 25
"""Characters of all texts together: a tree of OSCAR's has a twentieth of it."""


async def look_ahead(source: Source, run_directory: Path, diary: Diary) -> Flavour | None:
    """The flavour of the OSCAR to be tested; None where only the head node will see it. Raises AnswersRefused."""
    if source.kind == "tarball" or source.patch is not None:
        return None
    try:
        with diary.step(f"the installer's sources of {source}"):
            files = await fetch(source, run_directory)
    except (HostError, UserError, OSError) as error:
        diary.say(f"this host cannot read OSCAR's sources, so the head node will find its flavour: {error}")
        return None
    flavour = flavour_of(files)
    flavour.check()
    why = f", because its command line cannot install it: {flavour.reason}" if flavour.reason else ""
    diary.say(f"this OSCAR is installed by {flavour.name}{why}")
    return flavour


async def fetch(source: Source, scratch: Path) -> dict[str, str]:
    """Path to text of the files of the top folder and of FOLDERS. Raises HostError, SourceError or ToolMissing."""
    with tempfile.TemporaryDirectory(prefix="sources-", dir=scratch) as temporary:
        tree = Path(temporary) / "tree"
        await _export(source.url, source.revision, tree, "--depth=files")
        for folder in FOLDERS:
            try:
                await _export(f"{source.url.rstrip('/')}/{folder}", source.revision, tree / folder)
            except SourceError:
                continue  # a tree without this folder
        return await asyncio.to_thread(texts_below, tree)


async def _export(url: str, revision: str, place: Path, *options: str) -> None:
    command = ["svn", "export", "--quiet", "--non-interactive", "--ignore-externals", "-r", revision, *options]
    try:
        process = await asyncio.create_subprocess_exec(
            *owned([*command, f"{url}@{revision}", str(place)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=tool_environment(),
        )
    except FileNotFoundError:
        raise HostError("there is no Subversion client on this host", hint="apt-get install subversion") from None
    try:
        async with asyncio.timeout(EXPORT_SECONDS):
            _, complaint = await process.communicate()
    except TimeoutError:
        raise HostError(f"timed out after {EXPORT_SECONDS} s waiting for the repository to deliver {url}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = complaint.decode("utf-8", "replace")
        raise error_kind(words)(f"{url} at revision {revision} cannot be exported: {svn_words(words)}")


def texts_below(tree: Path) -> dict[str, str]:
    """Relative path of every file to its text, where that counts: a menu may be in it, or it shows the flavour.

    '' for the others, for links, for what is too long to be a script, and for what comes after MOST_TEXT characters.
    """
    texts, size = dict[str, str](), 0
    for path in _files(tree):
        name = path.relative_to(tree).as_posix()
        asked = size < MOST_TEXT and (is_menu_file(name) or name in OTHERS)
        texts[name] = text_of(path) if asked else ""
        size += len(texts[name])
    return texts


def _files(tree: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(tree):
        yield from (path for path in (Path(folder, name) for name in names) if path.is_symlink() or path.is_file())


def text_of(path: Path) -> str:
    """Its text; '' where it is not a file, or too long to be a script."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LONGEST_SOURCE:
        return ""
    return decoded(path.read_bytes())
