"""A copy of a git repository in the cache: it is brought up to date, asked for revisions, and shows their trees."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from oscar_steps.errors import FarmError, HostError, SourceError
from oscar_steps.sources.git import (
    ALL_REFS,
    FULL_ID,
    LISTED_BYTES,
    REMOTE_HEAD,
    error_kind,
    git_environment,
    git_words,
    listing,
    may_be_id,
    name_fault,
    named,
    refs_in,
)
from oscar_steps.textio import printable_name
from oscar_steps.v3m.host.ledger import owned

ASK_SECONDS = 60
FETCH_SECONDS = 900
MAX_FILES, MAX_BYTES = 100_000, 4 << 30
"""Of a commit: some times what the largest release of OSCAR has."""
MAX_COPIES = 4
_LONGEST_PATH, _LONGEST_NAME, _MOST_FOLDERS = 1000, 255, 100
_NO_PARTS = {b"", b".", b"..", b".git"}
_LOCK_SECONDS = 900


def git(*words: str, seconds: float = ASK_SECONDS, about: str, stdin: bytes = b"") -> bytes:
    """What git prints. Raises SourceError where `about` does not exist, HostError otherwise, in git's words."""
    if shutil.which("git") is None:
        raise HostError("there is no git on this host", hint="apt-get install git")
    return _answer(["git", *words], seconds, about, stdin)


def _answer(command: list[str], seconds: float, about: str, stdin: bytes = b"") -> bytes:
    try:
        answer = subprocess.run(
            owned(command),
            input=stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=git_environment(),
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"timed out after {seconds:.0f} s waiting for git to read {about}") from None
    if answer.returncode == 0:
        return answer.stdout
    errors = answer.stderr.decode("utf-8", "replace")
    raise error_kind(errors)(f"{about}: git says {git_words(errors)}", hint="check the address and the revision")


def remote_refs(url: str) -> dict[str, str]:
    """The references of a repository, 'HEAD' among them, and the commits that they are at."""
    return refs_in(git("ls-remote", "--quiet", url, about=url))


class Mirror:
    """The copy of one repository; its user holds its lock."""

    def __init__(self, place: Path, url: str) -> None:
        self.place = place
        self.url = url

    def git(self, *words: str, seconds: float = ASK_SECONDS) -> bytes:
        """What git prints, asked of the copy."""
        return git(f"--git-dir={self.place}", *words, seconds=seconds, about=self.url)

    def check(self, identity: str) -> None:
        """Raise SourceError where a commit has more than any OSCAR: git would take memory, or write, without end."""
        command = listing(f"--git-dir={self.place}", "ls-tree", "-r", "-l", "-z", identity)
        listed = _answer(command, ASK_SECONDS, self.url)
        entries = [line.partition(b"\t")[0].split() for line in listed.split(b"\0")]
        size = sum(int(entry[3]) for entry in entries if len(entry) == 4 and entry[3].isdigit())
        if len(listed) >= LISTED_BYTES or len(entries) > MAX_FILES or size > MAX_BYTES:
            most = f"{MAX_FILES} files, or {MAX_BYTES >> 30} GiB"
            raise SourceError(f"{self.url}: the commit {identity} has more than {most}; this is not an OSCAR tree")
        for _, _, path in (line.partition(b"\t") for line in listed.split(b"\0")[:-1]):
            if fault := _path_fault(path):
                said = f"the commit {identity} has the path {printable_name(path)[:60]!a}, {fault}"
                raise SourceError(f"{self.url}: {said}", hint="name the file otherwise")

    def update(self) -> None:
        """Fetch what is new. A copy that is damaged is made anew. Raises SourceError or HostError."""
        if (self.place / "HEAD").is_file():
            try:
                self._fetch()
                return
            except SourceError:
                raise
            except HostError:
                remote_refs(self.url)  # raises once more where it is the server
        self.remove()
        git("init", "--quiet", "--bare", "--template=", str(self.place), about=str(self.place))
        self._fetch()

    def _fetch(self) -> None:
        refs = remote_refs(self.url)
        head = [f"+HEAD:{REMOTE_HEAD}"] if "HEAD" in refs else []
        if refs:
            self._bring("--prune", self.url, *ALL_REFS, *head)

    def _bring(self, *words: str) -> None:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok")
        self.git("fetch", *options, *words, seconds=FETCH_SECONDS)

    def remove(self) -> None:
        """All of it."""
        if self.place.is_dir() and not self.place.is_symlink():
            shutil.rmtree(self.place, ignore_errors=True)
        else:
            self.place.unlink(missing_ok=True)

    def resolve(self, wanted: str) -> str:
        """The full id of a branch, tag, HEAD, or (abbreviated) commit id. Raises SourceError where there is none."""
        if fault := name_fault(wanted):
            raise SourceError(f"{self.url}: {fault}")
        listed = self.git("for-each-ref", "--format=%(objectname)%09%(refname)%0a%(*objectname)%09%(refname)^{}")
        refs = refs_in(listed)
        if REMOTE_HEAD in refs:
            refs["HEAD"] = refs[REMOTE_HEAD]
        found = named(refs, wanted, self._ids(wanted) if may_be_id(wanted) else ())
        if not found and FULL_ID.fullmatch(wanted):
            self._bring(self.url, wanted)  # no branch has it any more; some servers give it all the same
            found = wanted
        if not found:
            raise SourceError(f"{self.url} has no branch, tag or commit '{wanted}'", hint="check the revision")
        return self._commit(found, wanted)

    def _ids(self, wanted: str) -> list[str]:
        found = self.git("rev-parse", f"--disambiguate={wanted.lower()}").decode().split()
        if len(found) > 1:
            found = [each for each in found if self.git("cat-file", "-t", each).strip() == b"commit"]
        return found

    def _commit(self, found: str, wanted: str) -> str:
        try:
            return self.git("rev-parse", "--verify", "--quiet", f"{found}^{{commit}}").decode().strip()
        except FarmError:
            raise SourceError(f"{self.url}: '{wanted}' is no commit") from None


def _path_fault(path: bytes) -> str:
    """Why a path of a commit can be written on no host; '' where it can."""
    parts = path.split(b"/")
    if len(path) > _LONGEST_PATH or len(parts) > _MOST_FOLDERS or max(map(len, parts)) > _LONGEST_NAME:
        return f"which is longer than {_LONGEST_PATH} bytes, or in more than {_MOST_FOLDERS} folders"
    return (
        "which leads out of the tree, or into git's own folder" if _NO_PARTS & {part.lower() for part in parts} else ""
    )


@contextmanager
def mirror_of(url: str, cache: Path) -> Iterator[Mirror]:
    """The copy of a repository below `cache`, up to date. Raises SourceError or HostError."""
    place = cache / hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock", timeout=_LOCK_SECONDS):
            mirror = Mirror(place.with_suffix(".git"), url)
            mirror.update()
            mirror.place.touch()
            yield mirror
        _let_old_ones_go(cache)
    except Timeout:
        raise HostError(f"timed out after {_LOCK_SECONDS} s waiting for another reader of {url}") from None
    except OSError as error:
        raise HostError(f"{error.filename or cache} cannot be used: {error.strerror}") from None


def _let_old_ones_go(cache: Path) -> None:
    """Keep the copies of the repositories that were looked at last, and what stands beside them."""
    with suppress(OSError):  # Another reader may tidy up as well; the next one does what is left.
        copies = sorted(cache.glob("*.git"), key=lambda copy: copy.lstat().st_mtime, reverse=True)
        for copy in copies[MAX_COPIES:]:
            with suppress(Timeout), FileLock(copy.with_suffix(".lock"), timeout=0):
                for folder in (copy.with_suffix(".tree"), copy):
                    shutil.rmtree(folder, ignore_errors=True)
