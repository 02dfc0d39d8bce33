"""Settings in TOML files: read, checked against a model, and every mistake named by file and line."""

from __future__ import annotations

import codecs
import re
import tomllib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from oscar_steps.errors import ConfigError
from oscar_steps.textio import read_regular

_Model = TypeVar("_Model", bound=BaseModel)


def line_of(text: str, location: tuple[int | str, ...]) -> int:
    """Where `location` (as pydantic gives it) stands in a TOML text; of what is missing: its table's line."""
    found = _lines(text)
    for length in range(len(location), 0, -1):
        if (line := found.get(location[:length])) is not None:
            return line
    # A default of a table that is not there: the text may have the same setting in another one.
    return next((line for path, line in found.items() if path[-1:] == location[-1:]), 1)


@lru_cache(maxsize=4)
def _lines(text: str) -> dict[tuple[int | str, ...], int]:
    """The line of every key, table and item of a list of a TOML text that can be parsed."""
    walk = _Walk(text)
    with suppress(IndexError, RecursionError, tomllib.TOMLDecodeError):  # what was found until then is good
        walk.statements()
    return walk.lines


class _Walk:
    """Goes through a TOML text that `tomllib` has accepted, and notes where everything begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[tuple[int | str, ...], int] = {}
        self._counted = (0, 1)
        self._tables: dict[tuple[int | str, ...], int] = {}

    def statements(self) -> None:
        """The whole text: headers of tables, and keys with their values."""
        prefix: tuple[int | str, ...] = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text[self.at] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)

    def _header(self) -> tuple[int | str, ...]:
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        line, *parts = self._line(), *self._key()
        self.at += 2 if array else 1
        path: tuple[int | str, ...] = ()
        for index, part in enumerate(parts):
            path = (*path, part)
            if array and index == len(parts) - 1:
                self._tables[path] = self._tables.get(path, -1) + 1
            self.lines.setdefault(path, line)
            if path in self._tables:
                path = (*path, self._tables[path])
                self.lines.setdefault(path, line)
        return path

    def _pair(self, prefix: tuple[int | str, ...]) -> None:
        line = self._line()
        for part in self._key():
            prefix = (*prefix, part)
            self.lines.setdefault(prefix, line)
        self.at += 1
        self._value(prefix)

    def _key(self) -> list[str]:
        """A key, dotted or not, and the blanks about it."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            found = _KEY.match(self.text, self.at)
            if found is None:
                raise IndexError(self.at)
            self.at = found.end()
            parts += tomllib.loads(f"{found[0]} = 0") if found[0][0] in "\"'" else [found[0]]
            if self.text[self._skip(_SPACE)] != ".":
                return parts
            self.at += 1

    def _value(self, path: tuple[int | str, ...]) -> None:
        opens = self.text[self._skip(_SPACE)]
        if opens not in "[{":
            found = _SCALAR.match(self.text, self.at)
            self.at = found.end() if found else self.at + 1
            return
        self.at += 1
        index = 0
        while self.text[self._skip(_BLANK)] not in "]}":
            if opens == "[":
                self.lines[(*path, index)] = self._line()
                self._value((*path, index))
            else:
                self._pair(path)
            index += 1
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.at

    def _line(self) -> int:
        at, line = self._counted
        self._counted = (self.at, line + self.text.count("\n", at, self.at))
        return self._counted[1]


_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r'[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|\'[^\']*\'')
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|"(?:[^"\\]|\\.)*"|'
    r"'''.*?'{3,5}|'[^']*'|[^,\]}#\n]+",
    re.DOTALL,
)


def read_text(path: Path) -> str:
    """The text of a file, without the mark of UTF-8 that some editors begin with. Raises ConfigError: no text."""
    data = b""
    try:
        data = read_regular(path).removeprefix(codecs.BOM_UTF8)
        return data.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8 text; save the file as UTF-8") from None


def load_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and value of a TOML file. Raises ConfigError, with the line, where it is missing or malformed."""
    try:
        text = read_text(path)
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: lists or tables are nested too deeply; no setting needs more than three") from None
    except ValueError:  # a whole number of thousands of digits
        raise ConfigError(f"{path}: it has a number that is too large; {_NUMBER}") from None


_LARGEST = 10**12
_NUMBER = "a number has to be between -1e12 and 1e12"


def check_values(path: Path, text: str, value: Any, location: tuple[int | str, ...] = ()) -> None:
    """Raise ConfigError for what no setting can be, whatever its model allows: control characters, endless numbers."""
    said = ""
    if isinstance(value, dict):
        for key, item in value.items():
            check_values(path, text, key, (*location, key))
            check_values(path, text, item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_values(path, text, item, (*location, index))
    elif isinstance(value, str) and (found := _CONTROL.search(value)):
        said = f"the character {found[0]!a} cannot be in a setting; leave it out"
    elif isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
        said = f"this number cannot be used; {_NUMBER}"
    if said:
        key = ".".join(str(part) for part in location)
        raise ConfigError(f"{path}:{line_of(text, location)}: {ascii(key)[1:-1]}: {said}")


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_PLAIN = {
    "tuple_type": 'give a list, such as ["one", "two"]',
    "list_type": 'give a list, such as ["one", "two"]',
    "model_type": "give a table of settings, such as [NAME] on a line of its own and its settings below it",
    "dict_type": 'give a table, such as {name = "value"}',
    "string_type": 'give text in quotes, such as "text"',
    "path_type": 'give a path in quotes, such as "/var/lib/oscar-farm"',
    "int_type": "give a whole number without quotes, such as 5",
    "int_parsing": "give a whole number without quotes, such as 5",
    "int_from_float": "give a whole number, such as 5",
    "float_type": "give a number without quotes, such as 2.5",
    "float_parsing": "give a number without quotes, such as 2.5",
    "bool_type": "give true or false, without quotes",
    "bool_parsing": "give true or false, without quotes",
    "missing": "this setting is missing, and has no default",
    "too_short": "give at least one value",
    "extra_forbidden": "there is no such setting",
}
"""What pydantic's kinds of mistakes are to somebody who writes a settings file."""


def _plainly(error: Any) -> str:
    if error["type"] in _PLAIN:
        return _PLAIN[error["type"]]
    return str(error["msg"]).removeprefix("Value error, ")


def validate(model: type[_Model], path: Path, text: str, value: dict[str, Any]) -> _Model:
    """`value`, read from `text`, as `model`. Raises ConfigError: file, line, what is wrong and what would be right."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise mistake(path, text, error) from None


def mistake(path: Path, text: str, error: ValidationError, location: tuple[int | str, ...] = ()) -> ConfigError:
    """What a model has refused, as a sentence; `location`, where it stands in the text under another name."""
    first = error.errors()[0]
    location = location or first["loc"]
    key = ".".join(str(part) for part in location if part != "[key]")
    return ConfigError(f"{path}:{line_of(text, location)}: {f'{key}: ' if key else ''}{_plainly(first)}")
