"""A developer's patch as an option of commands, and the tree that it makes for the first tier."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, UserError
from oscar_steps.lint.scratch import scratch_folder
from oscar_steps.lint.tree import Tree
from oscar_steps.sources.diffs import REFUSED, changes_of, rejection, script_of
from oscar_steps.sources.source import MAX_PATCH_BYTES, MAX_STRIP, Patch
from oscar_steps.textio import one_line, read_regular
from oscar_steps.v3m.host.ledger import owned

_SECONDS = 120


def patch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a command takes a patch."""
    for option in (
        click.option("--patch-of", default="", metavar="LOGIN", help="Whose patch it is [you]."),
        click.option(
            "--strip", type=click.IntRange(0, MAX_STRIP), default=0, help="Folders to take off names, as patch -p."
        ),
        click.option("--patch", type=click.Path(path_type=Path, dir_okay=False), help="Apply this diff to the tree."),
    ):
        command = option(command)
    return command


def read_patch(path: Path | None, strip: int, who: str) -> Patch | None:
    """The patch in a file. Raises UserError, with the line, for one that cannot be used."""
    if path is None:
        return None
    try:
        content = read_regular(path)
    except OSError as error:
        raise UserError(f"the patch {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_PATCH_BYTES:
        raise UserError(f"the patch {path} has {len(content)} bytes; the farm takes {MAX_PATCH_BYTES}")
    patch = Patch.of_bytes(content, who or _user(), strip)
    changes_of(patch)
    return patch


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "nobody"


def patched(tree: Tree, patch: Patch) -> tuple[Tree, dict[str, str]]:
    """A tree with the patch applied, and what it moved or copied from where. `tree.top` is left as it is.

    Raises PatchRefused where it does not apply, HostError where this host cannot do it.
    """
    changes = changes_of(patch)
    with scratch_folder() as place:
        copy = place / "tree"
        shutil.copytree(tree.top, copy, symlinks=True, ignore=shutil.ignore_patterns(".svn", ".git"))
        try:
            done = subprocess.run(
                owned(["sh", "-s"]),
                input=script_of(patch, changes, str(copy)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
                env=tool_environment(),
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"timed out after {_SECONDS} s waiting for patch") from None
        said = done.stdout.decode("utf-8", "replace")
        if done.returncode in (1, REFUSED):
            raise rejection(patch, changes, done.returncode, said)
        if done.returncode:
            raise HostError(f"the patch could not be applied on this host: {one_line(said)}")
        moved = {change.new: change.old for change in changes if change.old and change.new != change.old}
        return Tree(copy, tree.externals), {new: old for new, old in moved.items() if new}
