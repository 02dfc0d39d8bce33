"""What the sources of a revision say before anything boots: whether this OSCAR can be installed without a person.

Only the part of the tree that says it is fetched: a whole one of OSCAR's is a hundred megabytes of packages. Where the
repository cannot be asked from here, the head node's checkout decides.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from oscar_steps.environment import tool_environment
from oscar_steps.errors import FarmError, HostError, SourceError, UserError
from oscar_steps.oscar.answers.menus import is_menu_file
from oscar_steps.oscar.flavour import FOLDERS, OTHERS, Flavour, flavour_of
from oscar_steps.sources.git import LISTED_BYTES, git_environment, git_words, listing
from oscar_steps.sources.git import error_kind as git_kind
from oscar_steps.sources.resolve import host_logins
from oscar_steps.sources.svn import advice, svn_words
from oscar_steps.sources.svn import error_kind as svn_kind
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
    if source.kind == "tarball" or source.patch is not None or source.externals:
        return None  # the address alone does not have all of it
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
        if source.kind == "git":
            await _from_git(source, Path(temporary) / "copy.git", tree)
            return await asyncio.to_thread(texts_below, tree)
        await _export(source.url, source.revision, tree, "--depth=files")
        for folder in FOLDERS:
            try:
                await _export(f"{source.url.rstrip('/')}/{folder}", source.revision, tree / folder)
            except SourceError:
                continue  # a tree without this folder
        return await asyncio.to_thread(texts_below, tree)


async def _from_git(source: Source, copy: Path, tree: Path) -> None:
    """The top folder's files and FOLDERS. A server that gives no single commit is asked by the head node alone."""

    what = f"{source.url} at commit {source.revision}"

    async def git(*words: str, stdin: bytes = b"") -> bytes:
        return await run_tool(["git", *words], git_environment(), what, git_kind, git_words, stdin)

    await git("init", "--quiet", "--bare", "--template=", str(copy))
    here = f"--git-dir={copy}"
    await git(here, "fetch", "--quiet", "--no-tags", "--depth", "1", source.url, source.revision)
    command = listing(here, "ls-tree", "-r", "-z", "--name-only", source.revision)
    listed = await run_tool(command, git_environment(), what, git_kind, git_words)
    if len(listed) >= LISTED_BYTES:
        raise HostError(f"{what} has more files than are looked at")
    names = listed.split(b"\0")
    folders = tuple(f"{folder}/".encode() for folder in FOLDERS)
    wanted = [name for name in names if name and (b"/" not in name or name.startswith(folders))]
    tree.mkdir()
    await git(here, "read-tree", source.revision)
    words = (here, f"--work-tree={tree}", "checkout-index", "--quiet", "-z", "--stdin")
    await git(*words, stdin=b"".join(name + b"\0" for name in wanted))


async def _export(url: str, revision: str, place: Path, *options: str) -> None:
    words = ["export", "--quiet", "--non-interactive", "--ignore-externals", "-r", revision, *options]
    asking = host_logins().command([*words, f"{url}@{revision}", str(place)])
    what = f"{url} at revision {revision}"
    await run_tool(asking.words, tool_environment(), what, svn_kind, svn_words, asking.stdin)


async def run_tool(
    command: list[str],
    environment: dict[str, str],
    what: str,
    kind: Callable[[str], type[FarmError]],
    reason: Callable[[str], str],
    stdin: bytes = b"",
    seconds: float | None = None,
) -> bytes:
    """What a program prints that brings `what`; it ends with the caller, and after `seconds` (None: EXPORT_SECONDS).

    Raises HostError, and the error that `kind` makes of what it complains of.
    """
    program, seconds = command[0], seconds or EXPORT_SECONDS
    try:
        process = await asyncio.create_subprocess_exec(
            *owned(command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except FileNotFoundError:
        package = {"svn": "subversion"}.get(program, program)
        raise HostError(f"there is no {program} on this host", hint=f"apt-get install {package}") from None
    try:
        async with asyncio.timeout(seconds):
            output, complaint = await process.communicate(stdin)
    except TimeoutError:
        raise HostError(f"timed out after {seconds:g} s waiting for the repository to deliver {what}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = complaint.decode("utf-8", "replace")
        hint = advice(words) if program == "svn" else ""
        raise kind(words)(f"{what} cannot be read: {reason(words)}", hint=hint)
    return output


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
