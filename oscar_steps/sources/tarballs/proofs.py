"""What is published beside a tarball to show that it is whole and genuine: checksums and signatures."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.textio import one_line

MOST_BYTES = 1 << 20
"""Of a file with checksums, or a signature."""
SIGNATURES = (".asc", ".sig")
_LENGTHS = {"sha256": 64, "md5": 32}
_LISTS = {
    **dict.fromkeys(("sha256sums", "sha256sums.txt", "sha256sum", "sha256sum.txt"), "sha256"),
    **dict.fromkeys(("md5sums", "md5sums.txt", "md5sum", "md5sum.txt"), "md5"),
}
_OWN = {".sha256": "sha256", ".sha256sum": "sha256", ".md5": "md5", ".md5sum": "md5"}
_BSD = re.compile(r"(?P<kind>MD5|SHA256) ?\((?P<name>[^()]+)\) ?= ?(?P<digest>[0-9A-Fa-f]{32,64})")
_GNU = re.compile(r"\\?(?P<digest>[0-9A-Fa-f]{32,64})(?: [ *]?(?P<name>\S.*))?")
_GPG_SECONDS = 60


def algorithm(file: str, tarball: str) -> str:
    """'sha256' or 'md5' where `file` is called like one with checksums that may speak of `tarball`; otherwise ''."""
    if file.startswith(tarball) and file.removeprefix(tarball).lower() in _OWN:
        return _OWN[file.removeprefix(tarball).lower()]
    return _LISTS.get(file.lower(), "")


def is_proof(file: str) -> bool:
    """Whether a file is called like one that says something of a tarball."""
    return file.lower() in _LISTS or file.lower().endswith((*_OWN, *SIGNATURES))


def published(text: str, tarball: str, kind: str, *, own: bool) -> str:
    """The digest of `tarball` in a file of checksums; '' where it says none. `own`: the file is about nothing else."""
    for line in text.splitlines():
        found = _BSD.fullmatch(line.strip()) or _GNU.fullmatch(line.strip())
        if found is None or len(found["digest"]) != _LENGTHS[kind]:
            continue
        name = (found["name"] or "").strip().rpartition("/")[2]
        if name == tarball or (own and not name):
            return found["digest"].lower()
    return ""


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file. MD5 shows a download that went wrong, and no ill will."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def signature_fault(file: Path, signature: Path, keyring: Path) -> str:
    """Why a detached signature does not show that `file` comes from somebody in `keyring`; '' where it does.

    Raises HostError where gpg cannot be asked, or the keyring cannot be read.
    """
    if shutil.which("gpg") is None:
        raise ToolMissing("there is no gpg on this host, which checks signatures", hint="apt-get install gnupg")
    with tempfile.TemporaryDirectory(prefix="farm-gpg-") as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--no-tty", "--no-autostart", "--quiet", "--status-fd", "1"]
        taken = _run([*gpg, "--import", str(keyring)])
        if "IMPORT_OK" not in taken:
            raise HostError(f"the keyring {keyring} holds no key that gpg can read: {one_line(taken) or 'no word'}")
        said = _run([*gpg, "--trust-model", "always", "--verify", str(signature), str(file)])
    words = [line.split()[1:] for line in said.splitlines() if line.startswith("[GNUPG:] ") and len(line.split()) > 1]
    states = {word[0] for word in words}
    bad = states & {"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NO_PUBKEY"}
    if "GOODSIG" in states and "VALIDSIG" in states and not bad:
        return ""
    if "BADSIG" in bad:
        return "the signature is not of this file"
    if bad & {"EXPSIG", "EXPKEYSIG", "REVKEYSIG"}:
        return "the signature, or the key that made it, has expired or was revoked"
    if "NO_PUBKEY" in bad:
        return "the signature was made with a key that is not in the keyring"
    return "it is no signature that gpg can read"


def _run(words: list[str]) -> str:
    try:
        answer = subprocess.run(
            words, capture_output=True, timeout=_GPG_SECONDS, check=False, stdin=subprocess.DEVNULL,
            env=tool_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostError(f"timed out after {_GPG_SECONDS} s waiting for gpg") from None
    return answer.stdout.decode("utf-8", "replace")
