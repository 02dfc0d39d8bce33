"""What one file of Perl starts and loads, and how sure that is.

Perl is not run here: only names that stand in literals, and are handed to `system` and its like, are believed. A name
that is put together at run time is left alone. What Perl does in a `sub`, an `eval` or under a condition may never be
done; what it looks for with -e and its like may be missing.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

from oscar_steps.lint.perl.text import Block, Literal, PerlText
from oscar_steps.lint.tree import File

_HOME = r"(?:\$ENV\{\s*['\"]?OSCAR_HOME['\"]?\s*\}|\$\{?OSCAR_HOME\}?)"
_HOME_VARIABLE = re.compile(rf"\$(\w+)\s*=\s*(?:\"?{_HOME}\"?|(?:Cwd::)?(?:get)?cwd(?:\(\s*\))?)\s*(?:;|\|\|)")
_SYSTEM = r"(?:\w*system|exec)"
_SUB = re.compile(r"(?:^|[;}\s])sub\s+(\w+)\s*(?:\([^)]*\))?\s*$")
_PATH = re.compile(r"^[\w.+-]+(?:/[\w.+-]+)+$")
_INTERPRETERS = {"sh", "bash", "perl", "python", "python3", "env", "exec", "sudo", "nohup"}
_MANY = 500
"""So many literals of a file are looked at, and changes of its folder, and modules that it requires."""
_ENDS = re.compile(r"\b(?:die|croak|confess|exit)\b")
_MODULE = r"[A-Za-z_]\w*(?:::\w+)+"
_USE = re.compile(rf"(?:^|[;{{}}])[ \t]*(use|require)\s+({_MODULE})\b(?!\s*->)", re.MULTILINE)
_OF_CLI = re.compile(r"\bcli\b", re.IGNORECASE)
_OF_GUI = re.compile(r"\bgui\b", re.IGNORECASE)


@dataclass(frozen=True)
class Start:
    """A program that a file starts."""

    line: int
    word: str
    candidates: tuple[str, ...]
    """Where it may be in the tree, the likeliest first."""
    from_home: bool
    """Named from the top of the tree. Else it depends on the folder that the process is in."""
    complete: bool
    """The name is complete, and nobody looked first whether the file is there."""
    directly: bool
    """Started itself, not handed to an interpreter: it has to be executable."""
    certain: bool
    """What runs the file from top to bottom, for the command line, starts this."""
    fatal: bool
    """Certain, and the file ends where the program fails."""


@dataclass(frozen=True)
class Load:
    """A module that a file uses. `certain`: it cannot be loaded without that module; `tried`: it can do without."""

    line: int
    module: str
    certain: bool
    tried: bool

    @property
    def path(self) -> str:
        return f"lib/{self.module.replace('::', '/')}.pm"


READ: dict[str, tuple[tuple[Load, ...], tuple[Start, ...]]] = {}
"""What was read, by name and content: it may be kept from one lint to the next."""


def is_perl(file: File) -> bool:
    return file.interpreter.startswith("perl") or (file.path.endswith((".pm", ".pl")) and not file.interpreter)


@lru_cache(maxsize=4096)
def read_perl(file: File) -> tuple[tuple[Load, ...], tuple[Start, ...]]:
    """The modules and the programs of a file, each in the order in which they stand in it."""
    if file.binary or not is_perl(file):
        return (), ()
    key = hashlib.blake2b(file.path.encode("utf-8", "surrogateescape") + b"\0" + file.content).hexdigest()
    if key not in READ:
        reader = _Reader(file)
        READ[key] = tuple(reader.loads()), tuple(sorted(reader.starts(), key=lambda start: start.line))
    return READ[key]


def loads_of(file: File) -> tuple[Load, ...]:
    return read_perl(file)[0]


def starts_of(file: File) -> tuple[Start, ...]:
    return read_perl(file)[1]


class _Reader:
    """One file while it is read."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.perl = PerlText(file.text)
        self.code, self.text = self.perl.code, file.text
        homes = sorted({match[1] for match in _HOME_VARIABLE.finditer(self.text)})
        self.home = re.compile(rf"(?:{_HOME}|{'|'.join(rf'[$]{{?{name}}}?' for name in homes) or '(?!)'})")
        self.runner = "|".join([_SYSTEM, *(re.escape(name) for name in self._own_runners())])

    # --- modules

    def loads(self) -> Iterator[Load]:
        required = 0
        for match in _USE.finditer(self.code):
            required += match[1] == "require"
            sure = match[1] == "use" or (required <= _MANY and self._is_certain(match.start(2)))
            certain = not self.perl.lost and sure
            tried = match[1] == "require" and self._is_tried(match.start(2))
            yield Load(self.perl.line(match.start(2)), match[2], certain, tried)

    def _is_tried(self, position: int) -> bool:
        return any(re.search(r"\beval\s*$", block.header) for block in self.perl.around(position))

    # --- programs

    def starts(self) -> Iterator[Start]:
        named = (each for each in self.perl.literals if (each.is_string or each.is_command) and "/" in each.value)
        for literal in islice(named, _MANY):
            call, variable = self._call_of(literal)
            if call is not None:
                yield from self._programs(literal, call, variable)

    def _own_runners(self) -> Iterator[str]:
        """Functions of this file that hand what they are given to `system`."""
        for block in self.perl.blocks:
            if sub := _SUB.search(block.header):
                body = self.text[block.start : block.end]
                if re.search(rf"\b{_SYSTEM}\s*\(?\s*\"?[$]\w", body) and re.search(r"@_|\bshift\b|\$_\[0\]", body):
                    yield sub[1]

    def _call_of(self, literal: Literal) -> tuple[int | None, str]:
        """Where the literal is executed (None: nowhere), and the variable that it is first assigned to."""
        if literal.is_command:
            return literal.start, ""
        before = self.code[max(0, literal.start - 300) : literal.start]
        if re.search(rf"(?:^|[^\w$>])(?:{self.runner})\s*\(?\s*$", before):
            return literal.start, ""
        if re.search(r"\bopen\s*\(?\s*[\w$ ]+,\s*$", before) and literal.value.rstrip().endswith("|"):
            return literal.start, ""
        assigned = re.search(r"\$(\w+)\s*=\s*(?:join\s*\([^,]*,\s*)?[^;=]*$", before)
        if assigned and self._is_first(literal, max(0, literal.start - 300) + assigned.end(1)):
            calls = self._calls.get(assigned[1], [])
            return next((at for at in calls if at > literal.start), calls[0] if calls else None), assigned[1]
        return None, ""

    def _is_first(self, literal: Literal, after: int) -> bool:
        """Whether before the literal, in what is assigned, there is nothing but the top of the tree."""
        between = self.text[after : literal.start].partition("=")[2].strip()
        between = re.sub(r"^join\s*\([^,]*,\s*", "", between)
        return re.fullmatch(rf"(?:{self.home.pattern}\s*\.\s*(?:[\"']/[\"']\s*\.\s*)?)?", between) is not None

    @cached_property
    def _calls(self) -> dict[str, list[int]]:
        """Where the value of a variable is executed, also by way of another variable."""
        found: dict[str, list[int]] = {}
        for match in re.finditer(rf"(?:^|[^\w$>])(?:{self.runner})\s*\(?\s*(?=[\"$])", self.code):
            self._note_call(match.end(), found)
        for match in re.finditer(r"\bopen\s*\(?\s*[\w$ ]+,\s*(?=\")", self.code):
            if re.match(r'"[^"\n]*\|\s*"', self.text[match.end() :]):
                self._note_call(match.end(), found)
        for literal in self.perl.literals:
            if literal.is_command:
                self._note_call(literal.start, found)
        for match in re.finditer(r"\$(\w+)\s*=\s*(?=\")", self.code):
            inner = re.match(r'"\$\{?(\w+)\b\}?(?!\s*[\[{]|/)', self.text[match.end() : match.end() + 80])
            if inner and match[1] in found and inner[1] not in found:
                found[inner[1]] = found[match[1]]
        return found

    def _note_call(self, at: int, found: dict[str, list[int]]) -> None:
        if named := re.match(r"[\"`]?\$\{?(\w+)\b\}?(?!\s*[\[{]|/)", self.text[at : at + 80]):
            found.setdefault(named[1], []).append(at)

    def _programs(self, literal: Literal, call: int, variable: str) -> Iterator[Start]:
        command, folders, from_top = literal.value.rstrip().removesuffix("|"), self._folders(call), False
        if re.search(
            rf"{self.home.pattern}\s*\.\s*(?:[\"']/[\"']\s*\.\s*)?$",
            self.text[max(0, literal.start - 120) : literal.start],
        ):
            command = f"$OSCAR_HOME/{command.lstrip('/')}"
        appended = bool(re.match(r"\s*\.", self.text[literal.end :]))
        parts = re.split(r"&&|\|\||[;|]", command)
        for number, part in enumerate(parts):
            words = part.split()
            if not words:
                continue
            if words[0] == "cd":
                inside = self._inside(words[1]) if len(words) > 1 else None
                if inside is None:
                    return
                folders, from_top = (inside,), True
                continue
            directly = words[0] not in _INTERPRETERS
            word = words[0] if directly else next((word for word in words[1:] if not word.startswith("-")), "")
            path = self._inside(word)
            if word.endswith("/") or not _PATH.match(path if path is not None else word):
                continue
            whole = not (appended and number == len(parts) - 1 and command.endswith(word))
            found = (path,) if path is not None else tuple(posixpath.join(folder, word) for folder in folders)
            sure = not variable or self._is_certain(literal.start)
            certain = sure and self._is_certain(call) and not self._may_be_replaced(variable)
            yield Start(
                self.perl.line(literal.start),
                word,
                tuple(dict.fromkeys(posixpath.normpath(each) for each in found)),
                from_top or path is not None,
                whole and not self._is_tested(word, variable),
                directly,
                certain,
                certain and not literal.is_command and self._is_checked(call),
            )

    def _inside(self, word: str) -> str | None:
        """The path in the tree of what is named from its top; None: something else."""
        top = self.home.match(word)
        if top is None:
            return None
        inside = word[top.end() :]
        return posixpath.normpath(inside.lstrip("/")) if re.fullmatch(r"(?:/+[\w.+-]+)+/?", inside) else None

    def _folders(self, call: int) -> tuple[str, ...]:
        """Folders that the script may be in when it starts something; '?' where nobody knows."""
        folders = [posixpath.dirname(self.file.path), ""]
        for match in self._changes_of_folder:
            named = re.compile(r"[^;),]*").match(self.text, match.end(), match.end() + 200)
            place = (named[0] if named else "").strip().strip("'\"").rstrip("/")
            inside = self._inside(place)
            if inside is None and re.fullmatch(r"[\w.-][\w./-]*", place):
                inside = posixpath.normpath(posixpath.join(posixpath.dirname(self.file.path), place))
            if inside is not None:
                folders.append(inside)
            elif not self.home.fullmatch(place) and (match.start() < call or not self._is_certain(call)):
                folders.append("?")
        if self.file.path.endswith(".pm"):
            folders.append("?")
        return tuple(dict.fromkeys(folders))

    @cached_property
    def _changes_of_folder(self) -> list[re.Match[str]]:
        return list(re.finditer(r"\bchdir\b\s*\(?\s*", self.code))[: _MANY // 10]

    @cached_property
    def _file_tests(self) -> list[int]:
        return [match.end() for match in re.finditer(r"(?<![\w$])-[exfrs]\s*\(?\s*(?=[\"'$])", self.code)]

    def _is_tested(self, word: str, variable: str) -> bool:
        """Whether the script looks for the file, by name or by the variable that holds it."""
        name = re.compile(rf"[^\n;]{{0,120}}?\b{re.escape(posixpath.basename(word))}\b")
        for at in self._file_tests:
            if name.match(self.text, at) or (variable and re.match(rf"[\"']?\${variable}\b", self.text[at : at + 80])):
                return True
        return False

    def _may_be_replaced(self, variable: str) -> bool:
        """Whether the variable is one that an option of the command line sets."""
        return variable in self._options

    @cached_property
    def _options(self) -> set[str]:
        return set(re.findall(r"\\\s*\$(\w+)", self.code))

    # --- certainty

    def _is_certain(self, position: int) -> bool:
        """Whether what stands here is executed by all who run the file for the command line."""
        if self.perl.lost:
            return False
        before = self.code[self.perl.statement_start(position) : position]
        if re.search(r"\band\b|\bor\b|&&|\|\||\?", before) and not re.match(r"\s*(?:if|unless)\b", before):
            return False
        if re.match(r"\s*(?:elsif|while|for|foreach)\b", before):
            return False
        modifier = re.search(r"(?<![\w$])(?:if|unless|for|foreach|while)\b[^;{}]*;", self._rest(position) + ";")
        if modifier and not _OF_CLI.search(self.text[position : self._statement_end(position)]):
            return False
        return all(self._is_entered(block) for block in self.perl.around(position))

    def _is_entered(self, block: Block) -> bool:
        header, said = block.header.strip(), self.text[block.header_start : block.start]
        if sub := _SUB.search(header):
            return sub[1] == "BEGIN" or sub[1] in self._called
        if re.search(r"\b(?:sub|eval)\s*$|(?:^|\s)(?:elsif|for|foreach|while|until|grep|map|do)\b", header):
            return False
        if re.search(r"(?:^|:\s*)unless\b", header):
            return "$skip" in said
        if re.search(r"(?:^|:\s*)if\b", header):
            return bool(_OF_CLI.search(said)) and not re.search(r"!|\bne\b|\bnot\b", header)
        if header == "else":
            return bool(_OF_GUI.search(self._condition_before(block)))
        return True

    def _condition_before(self, block: Block) -> str:
        """The condition of the `if` whose `else` this block is."""
        for other in self.perl.blocks:
            if other.end < block.start and not self.code[other.end + 1 : block.start].replace("else", "").strip():
                return self.text[other.header_start : other.start] if "elsif" not in other.header else ""
        return ""

    @cached_property
    def _called(self) -> set[str]:
        """Functions that the file itself calls, outside of all blocks."""
        found = set[str]()
        for match in re.finditer(r"^&?(?:main::)?(\w+)\s*(?:\([^;{}]*\))?\s*;", self.code, re.MULTILINE):
            if not any(block.start < match.start() < block.end for block in self.perl.blocks):
                found.add(match[1])
        return found

    def _statement_end(self, position: int) -> int:
        end = self.code.find(";", position)
        return len(self.code) if end < 0 else end

    def _rest(self, position: int) -> str:
        """The rest of the statement, or of the condition of an `if`, in which a place is."""
        rest = self.code[position : self._statement_end(position)]
        return rest.partition("{")[0] if re.search(r"\)\s*\{", rest) else rest

    def _is_checked(self, call: int) -> bool:
        """Whether the file ends where the program that is started here fails."""
        begin = self.perl.statement_start(call)
        before, rest = self.code[begin:call], self._rest(call)
        if re.search(r"[=!]=\s*[1-9-]", rest):
            return False
        if re.search(rf"(?:\bor\b|\|\||\band\b|&&)[\s(]*{_ENDS.pattern}", rest):
            return True
        if re.search(rf"{_ENDS.pattern}[^;]*\b(?:if|unless)\b[\s(!]*(?:{self.runner})?\s*\(?\s*$", before):
            return True
        if re.match(r"\s*(?:if|unless)\b", before):
            return any(_ENDS.search(self.code[block.start : block.end]) for block in self._blocks_behind(call))
        if kept := re.search(r"\$(\w+)\s*=\s*[!(\s]*(?:[\w:&]*\s*\(?\s*)?$", before):
            after = self.code[self._statement_end(call) : self._statement_end(call) + 400]
            variable = re.escape(kept[1])
            return bool(
                re.search(rf"{_ENDS.pattern}[^;]*\bif\b[^;]*\${variable}\b", after)
                or re.search(rf"\bif\s*\(\s*\${variable}\b[^{{]*\{{[^}}]*{_ENDS.pattern}", after)
            )
        return False

    def _blocks_behind(self, call: int) -> Iterator[Block]:
        """The blocks of the `if` in whose condition a place is."""
        first = min((block for block in self.perl.blocks if block.start > call), key=lambda b: b.start, default=None)
        if first is None:
            return
        yield first
        for block in self.perl.blocks:
            if block.start > first.end and self.code[first.end + 1 : block.start].strip() == "else":
                yield block
