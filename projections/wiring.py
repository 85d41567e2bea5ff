"""Joins store and projections: the one way to open a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from eventstore.dialects import dialect_of
from eventstore.errors import NotAnEventStore, StoreUnavailable, UnsupportedDatabase
from eventstore.events import BODY_LIMIT
from eventstore.forks import close_before_forks
from eventstore.schema import Schema
from eventstore.store import EventStore
from projections import states
from projections.adoption import create_or_take_over, take_in, written_by_others
from projections.projector import apply_inline

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection


@runtime_checkable
class SqlConfig(Protocol):
    """Anything that can be asked for an engine, such as a PyAirbyte cache."""

    def get_sql_engine(self) -> Any:
        """The SQLAlchemy engine of the moment."""


def connect(
    database: str | Path | URL | Engine | SqlConfig,
    *,
    schema: str | None = None,
    create: bool = True,
    body_limit: int = BODY_LIMIT,
) -> EventStore:
    """Open the store in a database: a URL, a path, an Engine, or a PyAirbyte cache.

    A path is a SQLite file, or DuckDB if the file is one or is to be called `.duckdb`. `schema`
    is where the tables are, on databases that have schemas. Without `create` nothing is made:
    NotAnEventStore is raised if the database, or the log in it, is not there. Tables that
    PyAirbyte made are taken over at the first use, in one transaction. A state or definition of
    more than `body_limit` bytes is refused.
    """
    engine, ours = _engine_source(database, schema, create=create)
    store: EventStore

    def make_tables(db: Connection) -> None:
        create_or_take_over(db, store)

    def catch_up(db: Connection) -> None:
        take_in(db, store)

    tables = Schema("tables", [make_tables], written_by_others, catch_up)
    store = EventStore(
        engine,
        inline=apply_inline,
        beside=states.beside,
        schemas=[tables],
        create=create,
        dispose=ours,
        body_limit=body_limit,
    )
    return store


def _engine_source(
    database: str | Path | URL | Engine | SqlConfig, schema: str | None, *, create: bool
) -> tuple[Callable[[], Engine], bool]:
    """What to ask for the engine, and whether it is ours to dispose."""
    if isinstance(database, SqlConfig):
        return database.get_sql_engine, False
    ours = not isinstance(database, Engine)
    engine = database if isinstance(database, Engine) else _open(database, create=create)
    dialect_of(engine)
    if schema is not None:
        engine = engine.execution_options(schema_translate_map={None: schema})
    return lambda: engine, ours


def _open(database: str | Path | URL, *, create: bool) -> Engine:
    url = database if isinstance(database, URL) else _url(database)
    dialect = dialect_of(url)
    in_file = dialect.NOW is None  # what has a clock of its own is a server
    if in_file and not create and not os.path.isfile(url.database or ""):  # noqa: PTH113 - Path raises
        raise NotAnEventStore(
            f"there is no database at {url.database!r}; record a state into it first"
        )
    if in_file and create and _lacks_folder(url.database):
        folder = os.path.dirname(url.database or "")  # noqa: PTH120 - Path raises
        raise StoreUnavailable(f"there is no folder {folder!r} to make {url.database!r} in")
    try:
        engine = dialect.open_engine(url, create=create)
    except (ImportError, NoSuchModuleError) as error:
        name = url.get_backend_name()
        extra = {"postgresql": "postgres", "mysql": "mariadb"}.get(name, name)
        raise UnsupportedDatabase(
            f"no driver for {name}: pip install 'airbyte-eventstore[{extra}]' ({error})"
        ) from error
    except (ArgumentError, TypeError, ValueError) as error:
        raise UnsupportedDatabase(f"not a URL that can be opened: {error}") from error
    close_before_forks(engine)
    return engine


def _lacks_folder(path: str | None) -> bool:
    """Whether a file cannot be made for want of a folder, so far as the path is only a path."""
    folder = os.path.dirname(path or "")  # noqa: PTH120 - Path raises
    return bool(folder) and ":" not in folder and not os.path.isdir(folder)  # noqa: PTH112


def _url(database: str | Path) -> URL:
    if isinstance(database, str) and "://" in database:
        try:
            return make_url(database)
        except (ArgumentError, ValueError) as error:
            raise UnsupportedDatabase(f"not a database URL: {error}") from error
    if database == "":
        raise UnsupportedDatabase("the name of the database is empty")
    path = Path(database)
    if os.path.isdir(path):  # noqa: PTH112 - Path raises
        raise UnsupportedDatabase(f"{str(database)!r} is a folder; name a file in it")
    return URL.create("duckdb" if _is_duckdb(path) else "sqlite", database=str(path))


def _is_duckdb(path: Path) -> bool:
    called_so = path.suffix in {".duckdb", ".ddb"}
    if not os.path.isfile(path) or not path.stat().st_size:  # noqa: PTH113 - Path raises
        return called_so
    try:
        with path.open("rb") as file:
            begins = file.read(12)
    except OSError:  # of which the driver will tell
        return called_so
    return begins[8:] == b"DUCK" or (called_so and not begins.startswith(b"SQLite"))
