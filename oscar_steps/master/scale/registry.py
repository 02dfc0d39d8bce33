"""The database learns of all builders in one transaction, when the master starts and when it ends.

Buildbot's own takes some seven transactions for each, which is a minute of a processor's time and several of the disk's
for 1,500 cells; every start, since a master that ends takes its builders out again one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from buildbot.data import builders as builders_data
from buildbot.db.base import hash_columns
from buildbot.db.builders import BuilderModel, BuildersConnectorComponent
from buildbot.process import botmaster
from buildbot.process.builder import Builder
from twisted.internet import defer

_TRIES = 3
"""Another master of the same database may note a builder or a tag in the same moment: then all is looked at anew."""


class CellBuilder(Builder):
    """A builder whose id, description and tags the database has from `note_builders`."""

    _builderid: int | None

    def getBuilderId(self) -> Any:
        return defer.succeed(self._builderid) if self._builderid else defer.ensureDeferred(self._noted())

    async def _noted(self) -> int:
        builders = self.master.botmaster.builders
        configs = [config for config in self.master.config.builders if config.name in builders]
        for name, number in (await note_builders(self.master, configs)).items():
            builders[name]._builderid = number
        if not self._builderid:  # of a builder that the configuration does not have any more
            self._builderid = await self.getBuilderIdForName(self.name)
        return int(self._builderid)

    def _has_updated_config_info(self, old_config: Any, new_config: Any) -> bool:
        """A new one has been noted already, unless it is of a project, which is Buildbot's own business."""
        if old_config is None and new_config.project is None:
            return False
        return bool(super()._has_updated_config_info(old_config, new_config))


async def note_builders(master: Any, configs: Sequence[Any]) -> dict[str, int]:
    """Have the database know these builders, and that this master has them. Their ids by their names."""
    for last_try in [False] * (_TRIES - 1) + [True]:
        try:
            noted: dict[str, int] = await master.db.pool.do_with_transaction(
                _note, master.db.model, master.masterid, configs
            )
            return noted
        except sa.exc.IntegrityError:
            if last_try:
                raise
    raise AssertionError("the last try returns or raises")


def _note(connection: Any, model: Any, master: int, configs: Sequence[Any]) -> dict[str, int]:
    ids = _ids(connection, model.builders, [config.name for config in configs])
    _describe(connection, model.builders, {ids[config.name]: config.description for config in configs})
    _tag(connection, model, configs, ids)
    masters = model.builder_masters
    there = connection.execute(sa.select(masters.c.builderid).where(masters.c.masterid == master)).scalars()
    new = sorted(set(ids.values()) - set(there))
    _insert(connection, masters, [{"builderid": number, "masterid": master} for number in new])
    return ids


def _ids(connection: Any, table: Any, names: Iterable[str]) -> dict[str, int]:
    """The ids of all these names in a table that has a row for each name; those that are missing are made."""
    wanted = set(names)
    known = set(connection.execute(sa.select(table.c.name)).scalars())
    _insert(connection, table, [{"name": name, "name_hash": hash_columns(name)} for name in sorted(wanted - known)])
    rows = connection.execute(sa.select(table.c.name, table.c.id)).fetchall()
    return {name: number for name, number in rows if name in wanted}


async def describe_builders(master: Any, wanted: Mapping[int, str | None]) -> None:
    """Have the page of each of these builders (by their ids) say this; only what differs is written."""
    await master.db.pool.do_with_transaction(_describe, master.db.model.builders, wanted)


def _describe(connection: Any, table: Any, wanted: Mapping[int, str | None]) -> None:
    rows = connection.execute(sa.select(table.c.id, table.c.description)).fetchall()
    before = dict(tuple(row) for row in rows)
    changed = [{"number": number, "text": text} for number, text in wanted.items() if before.get(number) != text]
    if changed:
        texts: dict[str, Any] = {
            "description": sa.bindparam("text"),
            "description_format": None,
            "description_html": None,
        }
        connection.execute(table.update().where(table.c.id == sa.bindparam("number")).values(texts), changed)


def _tag(connection: Any, model: Any, configs: Sequence[Any], ids: dict[str, int]) -> None:
    table = model.builders_tags
    tags = _ids(connection, model.tags, (tag for config in configs for tag in config.tags))
    wanted = {(ids[config.name], tags[tag]) for config in configs for tag in config.tags}
    rows = connection.execute(sa.select(table.c.builderid, table.c.tagid)).fetchall()
    ours = set(ids.values())
    there = {tuple(row) for row in rows if row.builderid in ours}
    if gone := [{"builder": builder, "tag": tag} for builder, tag in there - wanted]:
        one = (table.c.builderid == sa.bindparam("builder")) & (table.c.tagid == sa.bindparam("tag"))
        connection.execute(table.delete().where(one), gone)
    _insert(connection, table, [{"builderid": builder, "tagid": tag} for builder, tag in sorted(wanted - there)])


def _insert(connection: Any, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _forget_master(self: Any, masterid: int) -> Any:
    """A master has ended: it has no builders any more."""
    table = self.master.db.model.builder_masters

    def forget(connection: Any) -> None:
        connection.execute(table.delete().where(table.c.masterid == masterid))

    return self.master.db.pool.do_with_transaction(forget)


def _one_builder(self: Any, builderid: int) -> Any:
    """A builder of the database, or None. Buildbot's own reads all builders' tags for it, several times a build."""
    return self.db.pool.do(_read_one, self.db.model, builderid)


def _read_one(connection: Any, model: Any, number: int) -> BuilderModel | None:
    table = model.builders.c
    columns = (table.id, table.name, table.description, table.description_format, table.description_html)
    row = connection.execute(sa.select(*columns, table.projectid).where(table.id == number)).fetchone()
    if row is None:
        return None
    masters, tagged = model.builder_masters.c, model.builders_tags.c
    of_masters = sa.select(masters.masterid).where(masters.builderid == number).order_by(masters.masterid)
    tags = sa.select(model.tags.c.name).join_from(model.tags, model.builders_tags).where(tagged.builderid == number)
    return BuilderModel(
        **row._mapping,
        masterids=list(connection.execute(of_masters).scalars()),
        tags=list(connection.execute(tags).scalars()),
    )


def note_all_at_once() -> None:
    """Have Buildbot note and read builders this way. Call it before the master is configured."""
    botmaster.Builder = CellBuilder
    BuildersConnectorComponent.getBuilder = _one_builder
    builders_data.Builder._masterDeactivated = _forget_master
