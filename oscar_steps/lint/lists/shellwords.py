"""The commands of a piece of shell: which words are started, and with which arguments.

This is no shell: a word with an expansion or a quote in it is taken as it stands, and what is not understood is no
command. Nothing is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_GOES_ON = {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "exec", "time", "sudo", "command"}
_ASSIGNS = re.compile(r"\w+\+?=")
_SPACE = re.compile(r"(?:[ \t\r]|\\\n)+")
_COMMENT = re.compile(r"#[^\n]*")
_REDIRECTION = re.compile(r"\d*(?:<<<|<<-?|[<>]&|>>|>\||<>|[<>])")
_HERE = re.compile(r"[ \t]*(\\?['\"]?)(\w+)")
_PLAIN = re.compile(r"[^\s;&|<>()`'\"\\$]+")
_ARITHMETIC = re.compile(r"\$\(\([^`'\"\n;]*?\)\)")
_DEEPEST = 20
_LONGEST = 50_000
"""Of a longer text the first lines are read."""


@dataclass
class Command:
    """Words that are started together; the first is the program. `at`: where each begins."""

    words: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)


def commands_of(text: str) -> list[Command]:
    """Every command, also those within substitutions, in the order in which they end."""
    reader = _Reader(text if len(text) <= _LONGEST else text[: text.rfind("\n", 0, _LONGEST) + 1])
    while reader.at < len(reader.text):
        reader.read("", 0)
    return reader.found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.found, self.heres = text, 0, list[Command](), list[str]()

    def read(self, until: str, depth: int) -> None:
        """The commands from here to the closing character, or to the end."""
        now, to = Command(), False
        while self.at < len(self.text):
            char = self.text[self.at]
            if match := _SPACE.match(self.text, self.at) or (char == "#" and _COMMENT.match(self.text, self.at)):
                self.at = match.end()
            elif char in "\n;&|" or char == until:
                self.at += 1
                now, to = self._end(now), False
                if char == until:
                    return
                if char == "\n":
                    self._skip_heres()
            elif match := _REDIRECTION.match(self.text, self.at):
                self.at, to = match.end(), True
                if match[0].strip("0123456789") in ("<<", "<<-") and (here := _HERE.match(self.text, self.at)):
                    self.heres.append(here[2])
            elif char == "(" and depth < _DEEPEST:
                self.at += 1
                self.read(")", depth + 1)
                now = Command()  # what stood before was the name of a function
            elif char in "()":
                self.at += 1
                now = Command()  # of a pattern
            else:
                start, word = self.at, self._word(until, depth)
                if not to and (now.words or not (word in _GOES_ON or _ASSIGNS.match(word))):
                    now.words.append(word)
                    now.at.append(start)
                to = False
        self._end(now)

    def _end(self, command: Command) -> Command:
        if not command.words:
            return command
        self.found.append(command)
        return Command()

    def _word(self, until: str, depth: int) -> str:
        start, quoted = self.at, False
        while self.at < len(self.text):
            char = self.text[self.at]
            if not quoted and (char in " \t\r\n;&|<>()" or char == until):
                break
            if char == '"':
                quoted = not quoted
                self.at += 1
            elif char == "'" and not quoted:
                self._pass("'")
            elif char == "\\":
                self.at += 2
            elif match := _ARITHMETIC.match(self.text, self.at):
                self.at = match.end()
            elif self.text.startswith("$(", self.at) or (char == "`" and until != "`"):
                self.at += 1 if char == "`" else 2
                if depth < _DEEPEST:
                    self.read("`" if char == "`" else ")", depth + 1)
            elif self.text.startswith("${", self.at):
                self._pass("}")
            elif not quoted and (match := _PLAIN.match(self.text, self.at)):
                self.at = match.end()
            else:
                self.at += 1
        return self.text[start : self.at]

    def _pass(self, end: str) -> None:
        at = self.text.find(end, self.at + 1)
        self.at = len(self.text) if at < 0 else at + 1

    def _skip_heres(self) -> None:
        """Pass over the texts of here-documents that were begun in the line before."""
        for name in self.heres:
            end = re.compile(rf"^\t*{name}$\n?", re.MULTILINE).search(self.text, self.at)
            self.at = end.end() if end else len(self.text)
        self.heres.clear()
