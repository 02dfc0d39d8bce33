"""Which worker may have a cell, and what a worker may say of its host."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.capacity import ASSUMED, INFO_FILE, Need
from oscar_steps.master import again, fitting
from oscar_steps.master.fitting import CellFits, Describing

ARM = {"architectures": {"aarch64": "tcg"}, "hypervisors": ["Qemu"], "memory_mib": 2048, "processors": 2}


class Worker(Describing):
    def __init__(self, name: str = "w", **said: Any) -> None:
        self.name = self.workername = name
        self.master, self.conn = object(), object()
        self.hear_of_host({INFO_FILE: json.dumps(said)} if said else {})

    def isPaused(self) -> bool:
        return False


def request(**properties: Any) -> Any:
    return SimpleNamespace(id=1, properties=SimpleNamespace(getProperty=properties.get))


def need(nodes: int | None) -> Need:
    return Need(architecture="aarch64", memory_mib=512 * ((nodes or 2) + 1))


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(fitting, "notify_operator", lambda _master, subject, text: sent.append(f"{subject}\n{text}"))
    return sent


def offer(fits: CellFits, worker: Worker, wanted: Any, *others: Worker) -> bool:
    here = [SimpleNamespace(worker=each) for each in (worker, *others)]
    builder = SimpleNamespace(workers=here)
    return fits(builder, here[0], wanted)


def test_a_cell_goes_only_to_a_worker_whose_host_can_run_it() -> None:
    fits = CellFits(need, again.may_begin_here)
    assert offer(fits, Worker(**ARM), request())
    assert not offer(fits, Worker(), request())


def test_a_person_s_wish_for_more_nodes_counts() -> None:
    fits = CellFits(need, again.may_begin_here)
    assert offer(fits, Worker(**ARM), request(nodes="3"))
    assert not offer(fits, Worker(**ARM), request(nodes="4"))
    assert offer(fits, Worker(**ARM), request(nodes="many"))


def test_a_retry_does_not_wait_for_another_worker_that_cannot_run_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "_wake", lambda *_: None)
    fits = CellFits(need, again.may_begin_here)
    retry = request(**{again.NOT_ON: ["bad"]})
    assert offer(fits, Worker("bad", **ARM), retry, Worker("x86"))
    assert not offer(fits, Worker("bad", **ARM), retry, Worker("good", **ARM))


def test_a_worker_that_lies_costs_one_mail_and_gets_what_any_host_can_run(mails: list[str]) -> None:
    worker = Worker(**ARM | {"memory_mib": -5})
    assert worker.host == ASSUMED
    worker.hear_of_host({INFO_FILE: json.dumps(ARM | {"memory_mib": -5})})
    assert len(mails) == 1
    assert "the worker w does not describe its host" in mails[0]
    assert "memory_mib" in mails[0]
    worker.hear_of_host({INFO_FILE: json.dumps(ARM)})
    assert (worker.host.memory_mib, worker.host_fault, len(mails)) == (2048, "", 1)


@pytest.mark.parametrize("info", [{}, None, [], {INFO_FILE: None}])
def test_a_worker_that_says_nothing_is_no_trouble_and_no_mail(mails: list[str], info: Any) -> None:
    worker = Worker(**ARM)
    worker.hear_of_host(info)
    assert (worker.host, mails) == (ASSUMED, [])
