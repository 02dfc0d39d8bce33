"""Settings in TOML files: read, checked against a model, and every mistake told by file and line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from oscar_steps.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)


def line_of(text: str, location: tuple[int | str, ...]) -> int:
    """Where `location` (as pydantic gives it) stands in a TOML text: the nth table header, then the key below it."""
    lines = text.splitlines()
    start = 0
    for part, index in zip(location, (*location[1:], None), strict=False):
        if not isinstance(part, str):
            continue
        headers = [n for n, line in enumerate(lines) if re.match(rf"\s*\[\[\s*{re.escape(part)}\s*\]\]", line)]
        if isinstance(index, int) and headers:
            start = headers[index] if index < len(headers) else start
        else:
            for n in range(start, len(lines)):
                if re.match(rf"\s*(\[\[?\s*([\w.-]+\.)?)?[\"']?{re.escape(part)}[\"']?\s*[=\]]", lines[n]):
                    start = n
                    break
    return start + 1


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError where it cannot be read or is no text."""
    data = b""
    try:
        data = path.read_bytes()
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
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}:{line_of(text, first['loc'])}: {key}: {_plainly(first)}") from None
