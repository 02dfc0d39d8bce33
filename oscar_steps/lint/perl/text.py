"""Perl read as a reader does at a glance: what is code, what is a literal, and which blocks a place is in.

This is no parser of Perl. Where it loses its way the text is `lost`, and nothing certain may be said of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

_TOKEN = r"""
      (?P<pod>^=[a-zA-Z][^\n]*(?:\n(?!=cut\b)[^\n]*)*(?:\n=cut[^\n]*)?)
    | (?P<end>^__(?:END|DATA)__\b)
    | (?P<plain>(?>(?:(?>BLANK*)(?:(?!(?:q[qwxr]?|m|s|tr|y)\b)[A-Za-z_]\w*+(?>(?:::\w++)*)(?!\s*=>)
        |[$@]\w++(?>(?:::\w++)*)|[;,()}\[\]=.]|\d++))+))
    | (?P<space>\s+)
    | (?P<comment>\#[^\n]*)
    | (?P<heredoc><<~?(?:"[^"\n]*"|'[^'\n]*'|[A-Za-z_]\w*))
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`)
    | (?P<variable>[$@]\#?\$*(?:::)?\w+(?:::\w+)*|\$\#(?=[{$])|\$(?=[{$])|\$\^\w|\$[^\w\s{]|[%&]\w+(?:::\w+)*)
    | (?P<file_test>-[a-zA-Z]\b)
    | (?P<arrow>->\s*\w*)
    | (?P<key>\{\s*-?\w+\s*\}|\w+\s*=>)
    | (?P<word>[A-Za-z_]\w*(?:::\w+)*)
    | (?P<number>\d[\w.]*)
    | (?P<other>.)
"""
"""What says nothing by itself is one token, 'plain', as far as it goes."""
_FLAGS = re.VERBOSE | re.MULTILINE | re.DOTALL
_IN_A_LINE = re.compile(_TOKEN.replace("BLANK", r"[ \t]"), _FLAGS)
_OVER_LINES = re.compile(_TOKEN.replace("BLANK", r"(?:[ \t]|\n(?!=[a-zA-Z]|__))"), _FLAGS)
_QUOTE_LIKE = re.compile(r"(?:q|qq|qw|qx|qr|m|s|tr|y)$")
_BEFORE_PATTERN = {
    *("split", "if", "unless", "and", "or", "not", "grep", "map", "return", "while", "until", "x", "lt", "gt", "eq"),
    *("ne", "cmp", "push", "unshift", "when", "join"),
}
_LAST_TOKEN = re.compile(r"(?:[$@%&]?[\w:]+|\S)$")
_MAX_CHARACTERS = 400_000
_MAX_BLOCKS = 4_000
_MAX_LITERALS = 20_000
"""What has more is no script that a person wrote, and is not read to its end."""
_MAX_STATEMENT = 20_000
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}


@dataclass(frozen=True)
class Literal:
    """A literal from `start` to `end`, quotes included. `kind`: the quote, a quote-like operator, '<<' or '/'."""

    start: int
    end: int
    kind: str
    value: str

    @property
    def is_string(self) -> bool:
        return self.kind in ('"', "'", "q", "qq")

    @property
    def is_command(self) -> bool:
        return self.kind in ("`", "qx")


@dataclass(frozen=True)
class Block:
    """What stands between two braces, and the code before the first one, from the end of the statement before."""

    start: int
    end: int
    header: str
    header_start: int


class PerlText:
    """One file of Perl. In `code`, which is as long as the text, comments and insides of literals are blanks."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lost = False
        self.literals: list[Literal] = []
        self._kept: list[str] = []
        self._waiting: list[tuple[int, int, str]] = []  # here documents whose text begins with the next line
        self._read()
        self.code = "".join(self._kept)
        self.lost = self.lost or self.code.count("{") != self.code.count("}")

    def line(self, position: int) -> int:
        return bisect_right(self._line_starts, position)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def _read(self) -> None:
        at, before, text = 0, "", self.text
        self.lost = len(text) > _MAX_CHARACTERS or text.count("{") > _MAX_BLOCKS
        while at < len(text):
            if self.lost or len(self.literals) > _MAX_LITERALS:
                self._blank(at, len(text))
                self.lost = True
                return
            match = (_IN_A_LINE if self._waiting else _OVER_LINES).match(text, at)
            kind = (match and match.lastgroup) or "other"
            token, end = (match[0], match.end()) if match else (text[at], at + 1)
            if kind == "plain":
                self._kept.append(token)
                before = token
            elif kind == "end":
                self._blank(at, len(text))
                return
            elif kind in ("pod", "comment"):
                self._blank(at, end)
            elif kind == "space":
                end = self._space(at, end)
            else:
                last = _LAST_TOKEN.search(before[-80:]) if kind in ("other", "heredoc", "word") else None
                end = self._token(kind, token, at, end, last[0] if last else before)
                before = token if kind != "other" else text[end - 1]
            at = end
        self.lost = self.lost or bool(self._waiting)

    def _token(self, kind: str, token: str, at: int, end: int, before: str) -> int:
        """Keep what begins at `at`; its end, which for literals may lie behind `end`."""
        if kind == "string":
            return self._literal(at, end, token[0], token[1:-1])
        if kind == "heredoc" and not re.search(r"^[$@%&\d]|[)\]}]$", before):
            self._waiting.append((at, end, token.lstrip("<~").strip("\"'")))
        elif kind == "word" and _QUOTE_LIKE.match(token) and before not in ("sub", "package"):
            return self._quote_like(token, at, end)
        elif kind == "other" and token == "/" and self._may_begin_pattern(before):
            closed = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])*/\w*").match(self.text, at)
            if closed:
                return self._literal(at, closed.end(), "/", closed[0][1:])
        elif kind == "other" and token in "\"'`":
            self.lost = True
        self._kept.append(self.text[at:end])
        return end

    @staticmethod
    def _may_begin_pattern(before: str) -> bool:
        return before in _BEFORE_PATTERN or not re.search(r"[\w)\]}]$", before)

    def _quote_like(self, word: str, at: int, end: int) -> int:
        opened = re.compile(r"(?=[^\w\s,;)=])|(?==[^=>~\s])|\s+(?=[({\[</|!\"'])").match(self.text, end)
        if not opened:
            self._kept.append(word)
            return end
        first = opened.end()
        close = self._closing(first)
        if word in ("s", "tr", "y") and close:
            second = close - 1
            if self.text[first] in _PAIRS:
                second = close + len(self.text[close:]) - len(self.text[close:].lstrip())
            close = self._closing(second, self.text[first] if self.text[first] not in _PAIRS else "")
        if not close:
            self.lost = True
            self._kept.append(word)
            return end
        return self._literal(at, close, word, self.text[first + 1 : close - 1])

    def _closing(self, at: int, quote: str = "") -> int:
        """Where the literal ends that the quote at `at` begins; 0: nowhere."""
        opening = quote or self.text[at : at + 1]
        closing, depth, here = _PAIRS.get(opening, opening), 0, at + 1
        while here < len(self.text):
            char = self.text[here]
            if char == "\\":
                here += 1
            elif char == closing:
                if depth == 0:
                    return here + 1
                depth -= 1
            elif char == opening:
                depth += 1
            here += 1
        return 0

    def _literal(self, start: int, end: int, kind: str, value: str) -> int:
        self.literals.append(Literal(start, end, kind, value))
        if kind in ("q", "qq", "qw", "qx", "qr", "m", "s", "tr", "y"):
            self._kept.append(self.text[start])
        else:
            self._kept.append(self.text[start] if kind != "/" else "/")
        self._blank(start + 1, end - 1)
        self._kept.append('"' if kind not in ("'", "`", "/") else kind)
        return end

    def _blank(self, start: int, end: int) -> None:
        self._kept.append("\n".join(" " * len(line) for line in self.text[start:end].split("\n")))

    def _space(self, at: int, end: int) -> int:
        """Keep white space; behind the end of a line here documents begin."""
        newline = self.text.find("\n", at, end)
        if newline < 0 or not self._waiting:
            self._kept.append(self.text[at:end])
            return end
        self._kept.append(self.text[at : newline + 1])
        at = newline + 1
        for start, _, word in self._waiting:
            closed = re.compile(rf"^[ \t]*{re.escape(word)}$", re.MULTILINE).search(self.text, at)
            if closed is None:
                self.lost = True
                break
            self.literals.append(Literal(start, closed.end(), "<<", self.text[at : closed.start()]))
            self._blank(at, closed.end())
            at = closed.end()
        self._waiting = []
        return at

    @cached_property
    def blocks(self) -> list[Block]:
        """All pairs of braces, those of hashes included, in the order in which they are closed."""
        found, opened = list[Block](), list[tuple[int, int]]()
        for match in re.finditer(r"[{}]", self.code):
            if match[0] == "{":
                begin = self.statement_start(match.start())
                opened.append((match.start(), begin))
            elif opened:
                start, begin = opened.pop()
                found.append(Block(start, match.start(), self.code[begin:start], begin))
        return found

    def around(self, position: int) -> list[Block]:
        """The blocks that a place is in, the innermost first."""
        return [block for block in self.blocks if block.start < position < block.end]

    def statement_start(self, position: int) -> int:
        """Where the statement of a place begins, as far as ';' and braces show it; subscripts are skipped."""
        at = position
        while at > max(0, position - _MAX_STATEMENT):
            at -= 1
            char = self.code[at]
            if char == ";" or char == "{":
                return at + 1
            if char == "}":
                opening = self._opening(at)
                if opening < 0 or not re.search(r"[\w$@%>\]}]\s*$", self.code[max(0, opening - 40) : opening]):
                    return at + 1
                if not re.search(r"(?:[$@%][\w:]*|->|[\]}])\s*$", self.code[max(0, opening - 40) : opening]):
                    return at + 1
                at = opening
        return max(at, 0)

    def _opening(self, closing: int) -> int:
        return self._openings.get(closing, -1)

    @cached_property
    def _openings(self) -> dict[int, int]:
        found, opened = dict[int, int](), list[int]()
        for match in re.finditer(r"[{}]", self.code):
            if match[0] == "{":
                opened.append(match.start())
            elif opened:
                found[match.start()] = opened.pop()
        return found
