"""What the stages of a run have made, with as much in it as a test needs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from oscar_steps.testdriver.reached import Begun


def having(kind: type[Begun], **given: Any) -> Any:
    """A value of `kind`; what is not given is None."""
    return kind(**dict.fromkeys(field.name for field in fields(kind)) | given)
