"""What Subversion is asked and answers, on both sides of the farm: exact revisions, reasons, whose mistake it is."""

from __future__ import annotations

import re

from oscar_steps.errors import HostError, SourceError

PASSWORD_IN_URL = re.compile(r"^[^/]*//[^/@]*:[^/]*@")
"""Subversion takes none from there, and the address stands in logs, on pages and in mails."""
NOBODY = "(nobody)"
"""The author of a commit that names none."""
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,10}));")
# E170013: unable to connect; E200009: some target was not there; E155009: the working copy; E205011: externals.
# Others say why.
_WRAPPERS = ("E170013", "E200009", "E155009", "E205011")
# What does not exist (revision, path, repository), and what cannot be meant. Warnings have the same numbers.
_ASKERS = {"125002", "160005", "160006", "160013", "170000", "180001", "195002", "195012", "205000", "210005"}
_LOGGED = re.compile(r"""<logentry\s+revision=["'](\d+)["']""")
_SAID = re.compile(r"^svn: (?:[^:]+: )?([EW]\d+: .*)", re.MULTILINE)


def revision_question(url: str, wanted: str) -> list[str]:
    """The words for svn that ask which revision `wanted` (a number, 'HEAD', a date) is at `url`."""
    if wanted.lower().removeprefix("r").isdecimal():
        return ["info", "--non-interactive", "--show-item", "last-changed-revision", f"{url}@{wanted}"]
    # What came with the copy of a folder above it was last changed before it was there: its log knows the copy.
    return ["log", "--non-interactive", "--xml", "--quiet", "--limit", "1", "-r", f"{wanted}:1", f"{url}@{wanted}"]


def revision_answer(url: str, wanted: str, output: str, complaint: str) -> str:
    """The number of the revision: the one that was asked for if it exists there, else the last that changed anything.

    `output` and `complaint` are what svn printed to `revision_question`. Raises SourceError where there is no such
    revision, path or repository, HostError where svn cannot find out.
    """
    number = wanted.lower().removeprefix("r")
    if number.isdecimal() and output.strip().isdecimal():
        return number
    if not number.isdecimal() and (found := _LOGGED.search(output)):
        return found[1]
    if error_kind(complaint) is SourceError:
        raise SourceError(f"{url} at revision {wanted}: {svn_words(complaint)}", hint="check address and revision")
    hint = advice(complaint) or "is the server up, and the address right?"
    raise HostError(f"{url} cannot be asked for a revision: {svn_words(complaint)}", hint=hint)


def error_kind(errors: str) -> type[SourceError] | type[HostError]:
    """Whose fault it is that svn ended with these lines: the asker's where each reason is that nothing is there."""
    reasons = {line[1:].partition(":")[0] for line in _SAID.findall(errors) if not line.startswith(_WRAPPERS)}
    return SourceError if reasons and reasons <= _ASKERS else HostError


def svn_words(errors: str) -> str:
    """Subversion's reason, among the lines that it wrote to standard error."""
    # A warning says more than the error after it, which is that there was one; an error that says only that something
    # did not work is followed by the reason, whose second line may name what it is about.
    said = _SAID.findall(errors)
    if "E210002" in errors:  # it is about its connection to ssh, which has said why before
        before = errors.partition("svn: ")[0].strip().splitlines()
        if before:
            return before[-1].strip()
    causes = [line for line in said if not line.startswith(_WRAPPERS)] or said
    if not causes:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        return lines[-1] if lines else "(it said nothing)"
    first = next((line for line in causes if line.startswith("W")), causes[0])
    after = causes[causes.index(first) + 1 :]
    return f"{first} {after[0].partition(': ')[2]}" if first.endswith(":") and after else first


_ADVICE = (
    (
        r"issuer is not trusted",
        "compare its fingerprint with its owner, then name the file of the authority that signed it: `authorities`",
    ),
    (r"certificate has expired", "its owner has to renew the server's certificate, unless this host's clock is wrong"),
    (r"not yet valid", "is the clock of this host right?"),
    (r"different hostname", "the address has to have the name that the server's certificate is for"),
    (r"SSL communication", "a server that asks for a certificate needs `certificate` and the right passphrase for it"),
    (
        r"E215004|E170001|Authentication failed",
        "give the farm a login that may read the repository: `user` and its password",
    ),
    (
        r"Host key verification failed",
        "compare the server's key with its owner, then keep it in a file, as ssh-keyscan writes it: `known_hosts`",
    ),
    (
        r"Permission denied \(",
        "the server has to know the farm's key: `ssh_key`, a private key without a passphrase",
    ),
)


def advice(errors: str) -> str:
    """What a person can do about what svn says of a login or a certificate; '' for what is about neither."""
    return next((words for pattern, words in _ADVICE if re.search(pattern, errors)), "")


def characters(output: bytes) -> str:
    """The text of svn's XML, which may hold what no XML may; what is no character of XML is U+FFFD."""
    text = _NO_CHARACTER.sub("\ufffd", output.decode("utf-8", "replace"))
    return _REFERENCE.sub(lambda found: found[0] if _is_character(found) else "\ufffd", text)


def _is_character(found: re.Match[str]) -> bool:
    number = int(found[1], 16) if found[1] else int(found[2])
    return number <= 0x10FFFF and not _NO_CHARACTER.match(chr(number))
