"""The master's database on a server: its address, and what keeps a master from using it, in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from buildbot.db import model
from buildbot.interfaces import IRenderable
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool
from zope.interface import implementer

from oscar_steps.site import DATABASE_PASSWORD, Site

_PACKAGES = {"MySQLdb": "mysqlclient", "pymysql": "PyMySQL"}
"""Database drivers whose package has another name than their module."""
_PROGRAMS = Path(sys.prefix) / "bin"
_CREATE = "createdb --encoding UTF8 --template template0"
_SECONDS = 10
"""So long a server may take to answer the check."""


@implementer(IRenderable)
class DatabaseAddress:
    """The database's address, whose password Buildbot's commands do not print as they do that of a mere text."""

    def __init__(self, url: str, password: str) -> None:
        self._url, self._password = url, password

    def __repr__(self) -> str:
        return self._url

    def getRenderingFor(self, _properties: Any) -> str:
        return make_url(self._url).set(password=self._password).render_as_string(hide_password=False)


_LIBPQ = ("postgresql", "postgresql+psycopg2", "postgresql+psycopg")
LIVELY = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""Settings of PostgreSQL's client (seconds, tries, milliseconds). A server whose host has lost its power does not even
say that it is gone: by the kernel's own settings the master would wait for two hours before it asks again."""


def database_settings(site: Site) -> dict[str, Any]:
    """What Buildbot calls `db`."""
    address = database_address(site)
    if site.database.url.partition("://")[0] in _LIBPQ:
        return {"db_url": address, "engine_kwargs": {"connect_args": LIVELY}}
    if not str(address).startswith("sqlite"):
        return {"db_url": address}
    # Without a pool Buildbot opens the file anew for every query: three times the CPU time. One connection deadlocks.
    return {"db_url": address, "engine_kwargs": {"poolclass": QueuePool, "pool_size": 5}}


def database_address(site: Site) -> str | DatabaseAddress:
    """The address, with the password from its secret where there is one."""
    if site.database.url.startswith("sqlite") or not site.secrets.has(DATABASE_PASSWORD):
        return site.database.url
    return DatabaseAddress(site.database.url, site.secrets.read(DATABASE_PASSWORD, "password at the database"))


def faults(site: Site, state: Path) -> Iterator[str]:
    """What keeps the master in the folder `state` from using its database; the server is asked."""
    url = site.database.url
    try:
        parsed = make_url(url)
        dialect = parsed.get_dialect()
        dialect.import_dbapi()
    except NoSuchModuleError:
        yield f"the farm cannot use a database of the kind '{url.split(':')[0]}'; use sqlite or postgresql"
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        yield "this is not the URL of a database; write postgresql://USER@HOST/NAME"
    except ImportError as error:
        yield f"the driver for '{url.split(':')[0]}' is not installed; {_install(error.name or dialect.driver)}"
    else:
        if parsed.get_driver_name() == "psycopg2":
            yield from _asked(database_address(site), state)


def _install(module: str) -> str:
    module = module.partition(".")[0]
    if module == "psycopg2":
        locked = Path(__file__).parents[2] / "requirements" / "postgresql.txt"
        return f"install it: {_PROGRAMS}/pip install --require-hashes --requirement {locked}"
    return f"install it: {_PROGRAMS}/pip install {_PACKAGES.get(module, module)}"


def _asked(address: str | DatabaseAddress, state: Path) -> Iterator[str]:
    """What the server says against it."""
    url = address if isinstance(address, str) else address.getRenderingFor(None)
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": _SECONDS})
    try:
        with engine.connect() as connection:
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
            schema = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines() or ["it does not say why"]
        yield f"the database cannot be used: {said[0].strip()}; {_remedy(said[0], engine.url)}"
        return
    if encoding != "UTF8":
        yield f"the database has the encoding {encoding}; make it anew: {_CREATE} NAME"
    elif not _is_upgraded_now():
        yield from _schema(schema, state)


def _remedy(said: str, url: Any) -> str:
    """The server may speak another language than English: then it has to do without advice for its case."""
    name = url.database or url.username
    if f'database "{name}" does not exist' in said:
        return f"make it, as the server's administrator: {_CREATE} --owner {url.username or 'USER'} {name}"
    if "password" in said:
        command = f"{sys.executable} -P -m oscar_steps.master.secret farm.toml {DATABASE_PASSWORD} --ask --new"
        return f"write its user's password anew: {command}"
    return "is its server running, and is this its address?"


def _is_upgraded_now() -> bool:
    """Whether this process is `buildbot upgrade-master`: Buildbot loads the code of no other command."""
    return "buildbot.scripts.upgrade_master" in sys.modules


def _schema(found: str | None, state: Path) -> Iterator[str]:
    """What is wrong with the version of the tables that are there."""
    scripts = ScriptDirectory(str(Path(model.__file__).with_name("migrations")))
    if found == scripts.get_current_head():
        return
    if found is None or any(script.revision == found for script in scripts.walk_revisions()):
        what = "has no tables yet" if found is None else "has the tables of an older Buildbot"
        yield f"the database {what}; as the master's user: {_PROGRAMS}/buildbot upgrade-master {state}"
    else:
        yield f"the database has the tables of a newer Buildbot (version {found}): take its code, or restore a backup"
