"""The job of an earlier run: a file of this host, or one of the farm's web pages."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from urllib.parse import urlsplit

from oscar_steps.errors import ConfigError, FarmError, HostError
from oscar_steps.job import Job
from oscar_steps.textio import printable

SECONDS = 60
MAX_BYTES = 16 << 20
_WHERE = "the build's page has the address: 'files of the run', job.json"


def load_job(where: str) -> Job:
    """The job in a file, or at an address that begins with http:// or https://. Raises ConfigError or HostError."""
    if not where.lower().startswith(("http://", "https://")):
        return Job.load(Path(where))
    answer = SimpleQueue[bytes | FarmError]()
    # A thread, because no socket's own time limit holds for a server that sends a byte now and then.
    Thread(target=lambda: answer.put(_fetched(where)), daemon=True).start()
    try:
        found = answer.get(timeout=SECONDS)
    except Empty:
        raise HostError(f"timed out after {SECONDS} s waiting for {where}") from None
    if isinstance(found, FarmError):
        raise found
    return Job.parse(found, where)


def _fetched(url: str) -> bytes | FarmError:
    from http.client import HTTPException, InvalidURL
    from urllib.error import HTTPError
    from urllib.request import urlopen  # a job in a file, and every other command, starts sooner without these

    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:  # a port that cannot be raises ValueError
            raise ValueError("it names no host")
        with urlopen(url, timeout=SECONDS) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
            missing = answer.length
    except HTTPError as error:
        error.close()
        if error.code == 404:
            return ConfigError(f"{url}: the farm has no such file", hint=f"it keeps its newest runs; {_WHERE}")
        return HostError(f"{url}: the server answers {error.code} {printable(error.reason)}")
    except (InvalidURL, ValueError) as error:
        return ConfigError(f"{url} is not the address of a web page: {printable(str(error))}", hint=_WHERE)
    except (OSError, HTTPException) as error:
        why = str(getattr(error, "reason", error)) or type(error).__name__
        return HostError(f"{url} cannot be fetched: {printable(why)}")
    if len(data) > MAX_BYTES:
        return HostError(f"{url} is larger than {MAX_BYTES} bytes, so it is not a job", hint=_WHERE)
    return HostError(f"the server closed the connection before the last byte of {url}") if missing else data
