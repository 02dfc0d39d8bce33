"""What an error prints."""

from __future__ import annotations

from oscar_steps.errors import FarmError


def test_a_name_in_a_sentence_gives_a_terminal_no_orders() -> None:
    explained = FarmError("the file a\nb\x1b[31m\udcffé is not there", hint="name another").explain()
    assert explained == "the file a\\nb\\x1b[31m\\udcffé is not there\n  name another"
