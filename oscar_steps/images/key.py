"""The key of an image: a digest of everything that shapes it, with each part by its name: it can be explained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oscar_steps.matrix.recipes import Recipe
from oscar_steps.textio import one_line

BUILDER_VERSION = 3
"""Raise it when the builder changes in a way that its own files do not show."""
_LONGEST = 2000
"""Characters of one difference that are shown."""


@dataclass(frozen=True)
class ImageKey:
    """`recipe`: what the recipe says; `own`: each file of ours to its digest; `outside`: what else shapes the image, as
    'package index of bookworm', to a digest of it."""

    recipe: Mapping[str, Any]
    own: Mapping[str, str]
    outside: Mapping[str, str]
    version: int = BUILDER_VERSION

    @property
    def digest(self) -> str:
        """The key itself: the name of the image's folder in the store."""
        return digest_of([self.version, self.recipe, self.own, self.outside])

    @property
    def name(self) -> str:
        return str(self.recipe.get("name", ""))

    def same_but_for_outside(self, other: ImageKey) -> bool:
        """Whether the same recipe and code made both, maybe of another day's packages."""
        return (self.version, self.recipe, self.own) == (other.version, other.recipe, other.own)

    def differences(self, other: ImageKey) -> list[str]:
        """What makes this key another one than `other`, an earlier one, in words."""
        found = list(_recipe_differences(other.recipe, self.recipe))
        found += [name if " " in name else f"our file {name}" for name in _changed(other.own, self.own)]
        found += list(_changed(other.outside, self.outside))
        if self.version != other.version:
            found.append("the version of the image builder")
        return [one_line(words, _LONGEST) for words in found]


def said_of(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of its image. That a run has proven it makes no other image of it."""
    return recipe.model_copy(update={"unproven": False}).model_dump(mode="json")


def own_digests(own: Mapping[str, str]) -> dict[str, str]:
    """Name to digest, for name to text."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(own.items())}


def digest_of(value: object) -> str:
    """A digest of any value of JSON's."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _recipe_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        if isinstance(was, list) and isinstance(now, list):
            words = [
                *(f"+ {each}" for each in now if each not in was),
                *(f"- {each}" for each in was if each not in now),
            ]
            yield f"the recipe's {name}: {', '.join(words) or 'their order'}"
        else:
            yield f"the recipe's {name}: {_word(was)} -> {_word(now)}"


def _word(value: object) -> str:
    return "nothing" if value is None or value == "" else str(value)
