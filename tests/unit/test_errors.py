"""What an error prints."""

from __future__ import annotations

from oscar_steps.errors import FarmError


def test_a_name_in_a_sentence_gives_a_terminal_no_orders() -> None:
    explained = FarmError("the file a\nb\x1b[31m\udcffé is not there", hint="name another").explain()
    assert explained == "the file a\\nb\\x1b[31m\\udcffé is not there\n  name another"


def test_a_sentence_that_quotes_ten_million_characters_is_cut_in_its_middle() -> None:
    error = FarmError(f"farm.toml:3: name: '{'x' * 10_000_000}' is no name; give a short one")
    assert len(error.sentence) == len(str(error)) == 2000
    assert error.sentence.startswith("farm.toml:3: name: 'xxx")
    assert error.sentence.endswith("xxx' is no name; give a short one")
