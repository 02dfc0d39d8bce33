"""The database learns of all builders in one transaction, and what it says of them is what it said of each."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.data import builders as builders_data
from buildbot.db import model as buildbot_model
from buildbot.db.builders import BuilderModel, BuildersConnectorComponent
from buildbot.process import botmaster
from twisted.internet import defer

from oscar_steps.master.scale.registry import CellBuilder, note_all_at_once, note_builders

MODEL = buildbot_model.Model


class Pool:
    """A database in memory that counts transactions, and may be disturbed in some."""

    def __init__(self) -> None:
        self.connection = sa.create_engine("sqlite://").connect()
        MODEL.metadata.create_all(self.connection)
        for number in (1, 2):
            row = {"id": number, "name": f"m{number}", "name_hash": str(number), "active": 1, "last_active": 0}
            self.connection.execute(MODEL.masters.insert(), [row])
        self.connection.commit()
        self.transactions = 0
        self.disturbances = 0

    def do(self, query: Any, *arguments: Any) -> Any:
        return defer.succeed(query(self.connection, *arguments))

    def do_with_transaction(self, query: Any, *arguments: Any) -> Any:
        self.transactions += 1
        if self.disturbances:
            self.disturbances -= 1
            return defer.fail(sa.exc.IntegrityError("insert", {}, Exception("another master was first")))
        with self.connection.begin():
            return defer.succeed(query(self.connection, *arguments))


def config(name: str, description: str = "OSCAR", tags: tuple[str, ...] = ("debian",)) -> Any:
    return SimpleNamespace(name=name, description=description, tags=list(tags), project=None)


def note(pool: Pool, *configs: Any, master: int = 1) -> dict[str, int]:
    owner = SimpleNamespace(db=SimpleNamespace(pool=pool, model=MODEL), masterid=master)
    answer = asyncio.run(note_builders(owner, configs))
    pool.connection.commit()
    return answer


def known(pool: Pool) -> dict[str, BuilderModel]:
    """What Buildbot itself reads of them."""
    component: Any = SimpleNamespace(db=SimpleNamespace(pool=pool, model=MODEL))
    found: list[BuilderModel] = []
    BuildersConnectorComponent.getBuilders(component).addCallback(found.extend)
    pool.connection.commit()
    return {builder.name: builder for builder in found}


def test_buildbot_reads_what_was_noted_of_1500_builders_in_one_transaction() -> None:
    pool = Pool()
    ids = note(pool, *(config(f"c{number}", f"the cell {number}", ("debian", "nightly")) for number in range(1500)))
    assert pool.transactions == 1
    builders = known(pool)
    assert {name: builder.id for name, builder in builders.items()} == ids
    one = builders["c1499"]
    assert (one.description, sorted(one.tags), one.masterids) == ("the cell 1499", ["debian", "nightly"], [1])


def test_ids_stay_and_only_what_has_changed_is_written() -> None:
    pool = Pool()
    first = note(pool, config("a"), config("b", tags=("debian", "nightly")))
    again = note(pool, config("a", "changed"), config("b", tags=("weekly",)), config("c"), master=2)
    assert {name: again[name] for name in first} == first
    builders = known(pool)
    assert builders["a"].description == "changed"
    assert builders["b"].tags == ["weekly"]
    assert [builders[name].masterids for name in "abc"] == [[1, 2], [1, 2], [2]]


def test_builders_of_other_configurations_keep_what_they_have() -> None:
    pool = Pool()
    note(pool, config("old", "gone from the matrix", ("i386",)))
    note(pool, config("new"))
    old = known(pool)["old"]
    assert (old.description, old.tags, old.masterids) == ("gone from the matrix", ["i386"], [1])


@pytest.mark.parametrize(("disturbances", "good"), [(2, True), (3, False)])
def test_another_master_that_notes_the_same_in_that_moment_is_waited_for(disturbances: int, good: bool) -> None:
    pool = Pool()
    pool.disturbances = disturbances
    if good:
        assert note(pool, config("a"))["a"]
    else:
        with pytest.raises(sa.exc.IntegrityError):
            note(pool, config("a"))


def test_the_first_builder_that_is_asked_for_its_id_has_all_of_them_noted() -> None:
    pool = Pool()
    builders: dict[str, Any] = {name: CellBuilder(name) for name in ("a", "b")}
    owner: Any = SimpleNamespace(
        db=SimpleNamespace(pool=pool, model=MODEL),
        masterid=1,
        config=SimpleNamespace(builders=[config("a"), config("b")]),
        botmaster=SimpleNamespace(builders=builders),
    )

    async def ask() -> list[int]:
        return [await builder.getBuilderId() for builder in builders.values()]

    for builder in builders.values():
        builder.master = owner
    numbers = asyncio.run(ask())
    assert len(set(numbers)) == 2
    assert pool.transactions == 1
    assert not builders["a"]._has_updated_config_info(None, config("a"))
    assert builders["a"]._has_updated_config_info(config("a"), config("a", "changed"))


def test_buildbots_master_makes_such_builders_and_forgets_those_of_a_master_that_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(botmaster, "Builder", botmaster.Builder)
    monkeypatch.setattr(builders_data.Builder, "_masterDeactivated", builders_data.Builder._masterDeactivated)
    monkeypatch.setattr(BuildersConnectorComponent, "getBuilder", BuildersConnectorComponent.getBuilder)
    note_all_at_once()
    assert botmaster.Builder is CellBuilder
    pool = Pool()
    note(pool, config("a"), config("b"))
    note(pool, config("b"), master=2)
    before = pool.transactions
    owner: Any = SimpleNamespace(db=SimpleNamespace(pool=pool, model=MODEL))
    builders_data.Builder._masterDeactivated(SimpleNamespace(master=owner), masterid=1)
    assert pool.transactions == before + 1
    assert [builder.masterids for builder in known(pool).values()] == [[], [2]]


def test_one_builder_is_read_as_buildbot_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botmaster, "Builder", botmaster.Builder)
    monkeypatch.setattr(builders_data.Builder, "_masterDeactivated", builders_data.Builder._masterDeactivated)
    monkeypatch.setattr(BuildersConnectorComponent, "getBuilder", BuildersConnectorComponent.getBuilder)
    note_all_at_once()
    pool = Pool()
    numbers = note(pool, config("a", tags=("debian", "nightly")), config("b", tags=()))
    note(pool, config("a", tags=("debian", "nightly")), master=2)
    component: Any = SimpleNamespace(db=SimpleNamespace(pool=pool, model=MODEL))
    found: list[Any] = []
    for number in (*numbers.values(), 4711):
        BuildersConnectorComponent.getBuilder(component, number).addCallback(found.append)
    pool.connection.commit()
    assert found == [*known(pool).values(), None]
