"""When two failures are the same: their verdicts have the same signature.

The sentence of a verdict names the cause. What differs between two runs of one fault is taken out of it: numbers,
times, addresses, folders of the host, and which node it hit first. Digits of a name (eth0) stay, as a status does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from oscar_steps.verdict import Outcome, Verdict

_LOOKED_AT = 4000
_DAY = r"(?:mon|tue|wed|thu|fri|sat|sun),? "
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_END = r"\s,;'\"()<>"
_RULES = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\s+", " "),
        (rf"\b(?:{_DAY})?{_MONTH} \d+ [\d:]+(?: [a-z]{{3,4}})?(?: \d{{4}})?", "#"),
        (rf"(?<![\w/])(?:/var)?/tmp/[^{_END}:]*", "…"),
        # An absolute path or an address by its last part: folders differ between hosts, mirrors and runs.
        (rf"\b[a-z][a-z0-9+.-]*://[^{_END}/]+(?:/[^{_END}/]+)*/([^{_END}/]+)/?", r"…/\1"),
        (rf"\b[a-z][a-z0-9+.-]*://[^{_END}]+", "…"),
        (rf"(?<![\w/.~-])/+(?:[^{_END}:/]+/+)+([^{_END}:/]+)", r"…/\1"),
        (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "#"),
        (r"\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b", "#"),
        (r"(?<![a-z0-9_])(?<!status )(?<!code )(?<!signal )\d+(?:[.:,-]\d+)*|\d{5,}", "#"),
        (r"\[ *#\]", "[#]"),
        # Several nodes are as good as one of them: which is first differs.
        (r"<node>(?:(?:, | and |, and )<node>)+", "<node>"),
        (r"# ([a-z]{2,40}?)s\b", r"# \1"),
    )
)


def normalised(sentence: str, nodes: Iterable[str] = ()) -> str:
    """The sentence without what differs between two runs of the same fault. `nodes`: the names of the cluster's."""
    text = sentence[:_LOOKED_AT].lower().strip()
    names = "|".join(re.escape(name.lower()) for name in sorted({*nodes}, key=len, reverse=True) if name)
    text = re.sub(rf"\b(?:{names}|oscarnode\d+)\b" if names else r"\boscarnode\d+\b", "<node>", text)
    for pattern, by in _RULES:
        text = pattern.sub(by, text)
    return text


def signature_of(verdict: Verdict) -> str:
    """Of a failed run, OSCAR's fault or not: where it failed and a digest of how; '' for any other."""
    if verdict.outcome not in (Outcome.FAILED, Outcome.INFRASTRUCTURE):
        return ""
    stage = verdict.stage.value if verdict.stage else "no-stage"
    how = normalised(verdict.sentence, (node.name for node in verdict.nodes))
    words = "\n".join([stage, verdict.oscar_stage, verdict.category.value, how])
    return f"{stage}:{hashlib.sha256(words.encode('utf-8', 'replace')).hexdigest()[:12]}"
