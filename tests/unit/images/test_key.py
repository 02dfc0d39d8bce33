"""The key of an image: everything that shapes it is in it, and what differs can be said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oscar_steps.images.key import ImageKey, own_digests

KEY = ImageKey(
    {"name": "debian-12", "disk_mib": 4096, "packages": ["perl", "rsync"], "pool": []},
    own_digests({"image/finish.sh": "true", "apt/pool.sh": "false"}),
    {"package index of bookworm": "aa"},
)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(KEY, outside={"package index of bookworm": "bb"}), ["package index of bookworm"]),
        (replace(KEY, outside={}), ["package index of bookworm"]),
        (replace(KEY, own={**KEY.own, "image/finish.sh": "0"}), ["our file image/finish.sh"]),
        (replace(KEY, recipe={**KEY.recipe, "disk_mib": 8192}), ["the recipe's disk_mib: 4096 -> 8192"]),
        (replace(KEY, recipe={**KEY.recipe, "packages": ["rsync", "nano"]}), ["the recipe's packages: + nano, - perl"]),
        (replace(KEY, recipe={**KEY.recipe, "packages": ["rsync", "perl"]}), ["the recipe's packages: their order"]),
        (replace(KEY, recipe={**KEY.recipe, "kind": "rpm"}), ["the recipe's kind: nothing -> rpm"]),
        (replace(KEY, version=1), ["the version of the image builder"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_part_makes_another_key_and_is_named(other: ImageKey, said: list[str]) -> None:
    assert other.digest != KEY.digest
    assert other.differences(KEY) == said
    assert other.same_but_for_outside(KEY) == said[0].startswith("package index")


def test_the_same_parts_make_the_same_key_in_whatever_order_they_come() -> None:
    again = replace(KEY, recipe=dict(reversed(KEY.recipe.items())), own=dict(reversed(KEY.own.items())))
    assert again.digest == KEY.digest
    assert again.differences(KEY) == []
