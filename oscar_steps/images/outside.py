"""What shapes images today besides their recipes and our code, asked for once in a while and kept in the store."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from oscar_steps.errors import OutsideUnknown
from oscar_steps.matrix.recipes import ImageRecipe
from oscar_steps.textio import read_regular, shared_with_group, write_atomically

ANSWERS_FILE = "outside.json"
GOOD_SECONDS = 300.0
"""So long an answer is believed: the runs of one commit, in all cells, use the same images."""
BAD_SECONDS = 60.0
"""So long a mirror that cannot be reached is not asked again: each cell would wait for it."""
FRESH_SECONDS = 5.0
"""A build begins with no older answer: the mirror may have changed since, and what is built has to fit its key."""
_KEPT_SECONDS = 86400.0


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: float
    outside: dict[str, str] = {}
    error: str = ""


_Answers = TypeAdapter(dict[str, _Answer])


async def outside(
    store: Path, recipe: ImageRecipe, ask: Callable[[], Awaitable[dict[str, str]]], *, fresh: bool = False
) -> dict[str, str]:
    """What `ask` answers for `recipe`, or has answered a short while ago. Raises OutsideUnknown."""
    name = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:32]
    now = time.time()
    answer = _read(store, now).get(name)
    if answer is None or now - answer.asked > (
        BAD_SECONDS if answer.error else FRESH_SECONDS if fresh else GOOD_SECONDS
    ):
        try:
            answer = _Answer(asked=now, outside=await ask())
        except OutsideUnknown as error:
            answer = _Answer(asked=now, error=error.sentence)
        _keep(store, name, answer)
    if answer.error:
        raise OutsideUnknown(answer.error)
    return answer.outside


def forget(store: Path) -> None:
    """Ask anew the next time."""
    with suppress(OSError):
        (store / ANSWERS_FILE).unlink()


def _read(store: Path, now: float) -> dict[str, _Answer]:
    try:
        answers = _Answers.validate_json(read_regular(store / ANSWERS_FILE))
    except (OSError, ValidationError):
        return {}  # none yet, or one that cannot be read: the mirror is asked
    return {name: answer for name, answer in answers.items() if 0 <= now - answer.asked < _KEPT_SECONDS}


def _keep(store: Path, name: str, answer: _Answer) -> None:
    """Of two that write at the same time one is lost, and is asked for again. A store of another user's keeps none."""
    answers = _read(store, answer.asked) | {name: answer}
    with suppress(OSError):
        mode = 0o660 if shared_with_group(store) else 0o600
        write_atomically(store / ANSWERS_FILE, _Answers.dump_json(answers), mode=mode, durable=False)
