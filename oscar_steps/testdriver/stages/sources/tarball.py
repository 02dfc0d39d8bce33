"""A release's tarballs: fetched by this host, checked here, and unpacked in the head node."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from threading import Event

from oscar_steps.errors import HostError
from oscar_steps.sources.source import TarFile
from oscar_steps.sources.tarballs.contents import BadTarball, Contents, checked_copy
from oscar_steps.sources.tarballs.fetch import Limit, download
from oscar_steps.sources.tarballs.names import MAIN_PARTS, TarName
from oscar_steps.sources.tarballs.released import difference
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.run import Run
from oscar_steps.textio import sha256_of
from oscar_steps.words import TARBALL_FOLDER

REPOSITORIES = "/tftpboot/oscar"
"""Where OSCAR looks for its package repositories."""


async def bring(run: Run, booted: Booted, deadline: Deadline) -> str:
    """Raises BadTarball where the release is at fault, HostError where a file cannot be had or unpacked."""
    said = []
    for file in run.job.source.files:
        name = TarName.parse(file.name)
        place = _place(name, run.job.answers.oscar_home)
        plain = run.directory / TARBALL_FOLDER / f"{file.name}.plain"
        try:
            with run.diary.step(f"{file.name}, checked on this host"):
                contents = await _checked(file, plain, deadline, strip=name.part in MAIN_PARTS)
            if fault := fault_of(name, contents):
                raise BadTarball(fault)
            if contents.version_text is None and name.part in MAIN_PARTS:
                run.diary.say(f"{file.name} has no file VERSION, so its name alone says what it is")
            if not place:
                said.append(f"{file.name} was checked; nothing on a head node needs it")
                continue
            command = f"mkdir -p {shlex.quote(place)} && tar -xpf - -C {shlex.quote(place)}"
            with run.diary.step(f"the head node to unpack {file.name} in {place}"):
                await booted.head.check(command, seconds=deadline.left, stdin=plain)
            said.append(f"{file.name} ({contents.files} files) is in {place}")
        finally:
            plain.unlink(missing_ok=True)
            (plain.parent / file.name).unlink(missing_ok=True)  # 300 MB, of which the host has no use any more
    return "; ".join(said)


def fault_of(name: TarName, contents: Contents) -> str:
    """In one sentence, where what a tarball holds is not what its name says; '' where it is."""
    top = contents.folder(name.text)
    if name.repository:
        return "" if top == name.repository else f"{name.text} unpacks to '{top}', not to '{name.repository}'"
    if name.part not in MAIN_PARTS or contents.version_text is None:
        return ""
    return difference(name, contents.version_text)


def _place(name: TarName, home: str) -> str:
    if name.part in MAIN_PARTS:
        return home
    return REPOSITORIES if name.repository else ""


async def _checked(file: TarFile, plain: Path, deadline: Deadline, *, strip: bool) -> Contents:
    stop = Event()
    try:
        async with deadline.enforced(f"the file {file.url}"):
            return await asyncio.to_thread(_fetched_and_checked, file, plain, deadline.left, stop, strip)
    finally:
        stop.set()


def _fetched_and_checked(file: TarFile, plain: Path, seconds: float, stop: Event, strip: bool) -> Contents:
    """Raises HostError, BadTarball, Cancelled."""
    packed = plain.parent / file.name
    try:
        packed.parent.mkdir(exist_ok=True)
        if not packed.is_file():
            download(file.url, packed, Limit(file.size, seconds, stop))
        sha256, size = sha256_of(packed), packed.stat().st_size
        if (sha256, size) != (file.sha256, file.size):
            raise HostError(
                f"{file.url} is another file now: its SHA-256 is {sha256}, not {file.sha256}",
                hint="the master keeps the files of the last releases: force the build there",
            )
        return checked_copy(packed, plain, strip=strip)
    except OSError as error:
        raise HostError(f"{packed} cannot be written or read: {error.strerror or error}") from None
