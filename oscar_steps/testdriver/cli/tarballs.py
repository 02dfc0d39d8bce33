"""The tarballs that a person names on the command line, as a source."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from oscar_steps.errors import HostError, SourceError, UserError
from oscar_steps.sources.source import Source, TarFile
from oscar_steps.sources.tarballs.fetch import Limit, download, local_path
from oscar_steps.sources.tarballs.names import MAIN_PARTS, TarName
from oscar_steps.textio import sha256_of

_SECONDS = 3600
_MOST = 8 << 30


def source_of(files: Sequence[str]) -> Source:
    """One release, in one or several files or addresses. Raises SourceError, HostError."""
    names = [TarName.parse(unquote(urlsplit(file).path).rpartition("/")[2]) for file in files]
    for name in names:
        if name.version.text != names[0].version.text:
            raise SourceError(f"{names[0].text} and {name.text} are not of one version")
    if sum(name.part in MAIN_PARTS for name in names) != 1:
        shown = ", ".join(name.text for name in names)
        raise SourceError(
            f"{shown}: give one tarball with an installer, such as oscar-base-VERSION.tar.gz or oscar-VERSION.tar.gz"
        )
    found = tuple(_file(file, name) for file, name in zip(files, names, strict=True))
    return Source(kind="tarball", url=found[0].url.rpartition("/")[0], revision=names[0].version.text, files=found)


def _file(file: str, name: TarName) -> TarFile:
    path = Path(file) if "://" not in file else local_path(file)
    try:
        if path is not None:
            url = f"file://{quote(str(path.resolve()))}"
            sha256, size = sha256_of(path), path.stat().st_size
        else:
            with tempfile.TemporaryDirectory(prefix="tarball-") as folder:
                got = download(file, Path(folder) / "file", Limit(_MOST, _SECONDS))
            url, sha256, size = file, got.sha256, got.size
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
    except HostError as error:
        raise SourceError(error.sentence, hint=error.hint) from None
    return TarFile(name=name.text, url=url, sha256=sha256, size=size)
