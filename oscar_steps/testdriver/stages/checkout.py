"""Stage 3: bring OSCAR into the head node, exactly what the job names, and read its menus."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from oscar_steps.archive import Limits, plain_files
from oscar_steps.errors import AnswersRefused, Evidence, UserError
from oscar_steps.oscar.answers.menuitems import MenuStage
from oscar_steps.oscar.answers.menus import Menus, MenuUnreadable, Place, is_menu_file, read_menus
from oscar_steps.oscar.flavour import OTHERS, flavour_of
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.lines import decoded
from oscar_steps.testdriver.reached import Booted, CheckedOut
from oscar_steps.testdriver.run import Run
from oscar_steps.testdriver.stages.sources import git, patch, svn, tarball
from oscar_steps.testdriver.stages.start_install import answer_files
from oscar_steps.textio import printable_name

# The installer, and where a menu may be (see menus.is_menu_file), in the words of any `find`; no script is larger.
FIND_MENU_FILES = (
    "find . \\( -type f -o -type l \\) -size -262144c ! -path '*/.svn/*' ! -path './.git/*' \\( "
    + " ".join(f"-path ./{name} -o" for name in sorted(OTHERS))
    + " -path '*/cli/*' -o -path '*/scripts/*' -o -name '*[_-]cli' -o -path '*/lib/*.pm' \\) -print0"
)

SOURCES = Limits(files=20_000, total_bytes=512 << 20, file_bytes=1 << 20)

# Of a menu that is not understood, so much of its file is shown: a whole menu, mostly.
LINES_BEFORE, LINES_AFTER = 12, 12


BRING = {"svn": svn.bring, "git": git.bring, "tarball": tarball.bring}
"""How OSCAR comes into the head node, by the kind of its source: each says what is there then, in one line."""


async def run_stage(run: Run, booted: Booted) -> None:
    """Raises SourceError where the revision or repository does not exist, HostError where it cannot be reached.

    Raises PatchRefused where a developer's patch does not apply to it.

    Raises MenuUnreadable and AnswersRefused where the answers do not go with this OSCAR: before it is started.
    """
    source, home = run.job.source, run.job.answers.oscar_home
    head, forwards = booted.head, booted.head.forwards
    deadline = booted.speed.deadline(run.job.timeouts.checkout)
    await head.forwarded()
    with run.diary.step(f"the head node to check out {source}"):
        brought = await BRING[source.kind](run, booted, deadline)
    run.diary.write("checkout", brought, revision=source.revision)
    if source.patch is not None:
        await patch.apply(run, booted, source.patch, deadline)
    with run.diary.step("the menus of this OSCAR"):
        sources = await fetch_sources(head, home)
        flavour = booted.flavour or flavour_of(sources)
        flavour.check()
        answered = flavour.way or await read_or_show(
            {path: text for path, text in sources.items() if path not in OTHERS}, run.directory
        )
    run.reached = CheckedOut(**vars(booted) | {"flavour": flavour, "answered": answered})
    if isinstance(answered, Menus):
        run.diary.say(f"the menus are those of {', '.join(answered.of(stage).file for stage in MenuStage)}")
        try:
            answer_files(run.job, booted.profile, answered, forwards)
        except UserError as error:
            raise AnswersRefused(error.sentence, hint=error.hint) from None


async def fetch_sources(head: HeadNode, home: str) -> dict[str, str]:
    """Path to text of what may have menus in the OSCAR below `home` on the head node. Raises HostError."""
    archive = await head.read(f"cd {shlex.quote(home)} && {FIND_MENU_FILES} | tar -czf - --null -T - 2>/dev/null")
    return await asyncio.to_thread(texts_of, archive)


async def read_or_show(sources: dict[str, str], run_directory: Path) -> Menus:
    """The menus. Raises MenuUnreadable; the lines that it is about are kept in the run directory, as its evidence."""
    try:
        return await asyncio.to_thread(read_menus, sources)  # seconds, for a tree of some megabytes
    except MenuUnreadable as error:
        if error.at is not None:
            error.evidence = (_kept(run_directory, error.at, sources[error.at.file]),)
        raise


def _kept(run_directory: Path, at: Place, text: str) -> Evidence:
    """The source file, kept in the run directory, and its lines round `at`, as evidence."""
    # Only the last part of its name: the others come from OSCAR's tree, and could lead anywhere.
    kept = run_directory / "menus" / Path(at.file).name
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(text, encoding="utf-8")
    first = max(at.line - LINES_BEFORE, 1)
    lines = tuple(text.split("\n")[first - 1 : at.line + LINES_AFTER])
    return Evidence(str(kept.relative_to(run_directory)), first, lines)


def texts_of(archive: bytes) -> dict[str, str]:
    """Path to text of the files in a tar archive."""
    texts: dict[str, str] = {}
    for member in plain_files(archive, SOURCES, links=True):  # of a link is known that it is there
        texts[printable_name("/".join(member.parts))] = decoded(member.content)
    return {path: text for path, text in texts.items() if is_menu_file(path) or path in OTHERS}
