"""The mail of the farm: it goes out, also where the relay is away for a while, and it goes out once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.python import log

from oscar_steps.master.operator_mail import MAIL_SERVICE, tell_operator


def master_with(services: dict[str, Any]) -> Any:
    return SimpleNamespace(service_manager=SimpleNamespace(namedServices=services))


@pytest.fixture
def logged() -> Any:
    said: list[str] = []

    def keep(event: dict[str, Any]) -> None:
        said.append(log.textFromEventDict(event) or "")

    log.addObserver(keep)
    yield said
    log.removeObserver(keep)


def test_a_word_to_the_operator_goes_to_the_mail_service() -> None:
    told: list[tuple[str, str]] = []
    service = SimpleNamespace(running=True, tell_operator=lambda *what: told.append(what))
    tell_operator(master_with({MAIL_SERVICE: service}), "the poller is deaf", "no password")
    assert told == [("the poller is deaf", "no password")]


@pytest.mark.parametrize("master", [master_with({}), None], ids=["no mail", "no master"])
def test_a_word_to_the_operator_without_mail_goes_to_the_log(master: Any, logged: list[str]) -> None:
    tell_operator(master, "the poller is deaf", "no password")
    assert logged[-1] == "for the operator (no mail was sent): the poller is deaf: no password"
