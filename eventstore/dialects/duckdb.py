"""DuckDB: one file, one process at a time."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import ARRAY, bindparam, cast, create_engine, event, func, select
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool, QueuePool
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import NullType

from eventstore.driver import fetch
from eventstore.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, ColumnElement, Connection, Engine, Table
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import Pool

    from eventstore.dialects import Verdict
    from eventstore.driver import Answer

REFUSES_CHANGES = False
"""DuckDB has no triggers before 2.0; 2.0's make every ON CONFLICT insert fail."""

REFUSES_TRUNCATE = False

MANY_PROCESSES = False
"""A file that one process has open for writing cannot be opened by another."""

UNIQUE_ROWS = False
"""DuckDB refuses to insert a deleted key again while any other transaction is open."""

TRANSACTIONAL_DDL = True
FOREIGN_TABLES = True

INSERTS_TOGETHER = False
"""DuckDB has no INSERT inside WITH."""

UNNESTS = True
SKIPS_THROUGH_GROUPS = False
SEEKS_BY_LATERAL = False
SEEKS_ARE_DEAR_FROM: int | None = None
TEMPORARY = "temp"
KEEPS_COLUMNS = True
INDEX_HINT = ""
BYTES_IN = "octet_length"
RANDOM_KEY = "replace(uuid()::varchar, '-', '')"
NOW: ColumnElement[int] | None = None


def open_engine(url: URL, *, create: bool) -> Engine:
    """Open the file; without `create` read-only, so that several readers can."""
    if _is_path(url.database):  # by the one name that all spellings of it have
        url = url.set(database=os.path.realpath(str(url.database)))
    engine = create_engine(url, connect_args={} if create else {"read_only": True})

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: object, args: Any, options: dict[str, Any]) -> Any:
        try:
            return dialect.connect(*args, **options)
        except dialect.dbapi.Error as error:
            if "different configuration" not in str(error):
                raise
            # This process has the file open for writing: then it can be read the same way.
            return dialect.connect(*args, **{**options, "read_only": False})

    return engine


def check_session(db: Connection) -> None:
    """Refuse a file that this process has open by another path.

    DuckDB 1.4 knows a file by its path, opens it once more, and loses what one of the two writes.
    """
    path = _path(db)
    for pool, other in list(_files.items()):
        if path and other and path != other and _has_connections(pool) and _same(path, other):
            raise StoreUnavailable(
                f"this process has the file open as {other}, and DuckDB would lose what is written "
                "through one of the two: use that path"
            )
    _files[db.engine.pool] = path


def _same(path: str, other: str) -> bool:
    with suppress(OSError):
        return Path(path).samefile(other)
    return False


def _has_connections(pool: Pool) -> bool:
    if isinstance(pool, QueuePool):
        return pool.checkedin() + pool.checkedout() > 0
    return not isinstance(pool, NullPool)


_files: WeakKeyDictionary[Pool, str | None] = WeakKeyDictionary()
"""The path of the file that a pool has open, as DuckDB knows it; None for one in memory."""


def turn(db: Connection) -> AbstractContextManager[object]:
    """Let one thread write at a time; no other process can.

    A transaction that loses the race for a key only at its COMMIT makes DuckDB 1.4 lose rows that
    the next one inserts into another table: `tests/contract/test_races.py` shows it.
    """
    with _turns_lock:
        return _turns[_database(db)]


def is_open(db: Connection) -> bool:  # noqa: ARG001 - as SQLAlchemy knows it
    """Nothing more to ask: its driver does not tell."""
    return True


def mark(db: Connection, pipeline_key: str) -> object:
    """All that is written while the file is open is by this process: who has the turn may look.

    As long as this connection has been there the file has been open: none was put in its place.
    """
    last = _marks.get((_database(db), pipeline_key))
    return last and (last, db.connection.dbapi_connection)


def mark_written(db: Connection, pipeline_key: str) -> object:
    """Another one, also where the transaction will fail."""
    _marks[_database(db), pipeline_key] = object()
    return mark(db, pipeline_key)


def _database(db: Connection) -> str:
    found = _databases.get(db.engine)
    if found is None:
        path = _path(db)
        # Nothing tells whether two engines have one database in memory: they take turns.
        found = _databases[db.engine] = os.path.realpath(path) if path else ":memory:"
    return found


def _path(db: Connection) -> str | None:
    """The path of the file as DuckDB knows it, whatever made the connection."""
    query = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    [[path]] = fetch(db, query)
    return path  # type: ignore[no-any-return]


def _is_path(name: str | None) -> bool:
    return name not in {None, "", ":memory:"} and ":" not in str(name)


_databases: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()
_turns: defaultdict[str, AbstractContextManager[object]] = defaultdict(threading.RLock)
_marks: dict[tuple[str, str], object] = {}
_turns_lock = threading.Lock()


def snapshot(db: Connection) -> None:
    """Nothing tells."""


def is_in_list(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a column is in a list."""
    listed = cast(bindparam(name, type_=NullType()), ARRAY(column.type))
    return column.in_(select(func.unnest(listed)))


def as_list(values: Collection[Any]) -> list[Any]:
    """The values as a list."""
    return list(values)


def begin_write(db: Connection) -> None:
    """Nothing to do: the first statement begins."""


def each_alone(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - no need to know
    """Nothing to change: no server is asked."""
    return nullcontext()


def wait_in_line(db: Connection, schema: str | None, pipeline_id: int) -> None:
    """Nothing to do: who has the turn is alone."""


def schema_lock(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - no need
    """Nothing to do: threads of this process that race are told to try again."""
    return nullcontext()


def step_alone(db: Connection, schema: str | None) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nothing to do: whoever makes tables waits for the same lock."""
    return nullcontext()


def create_table(db: Connection, table: Table) -> None:
    """Make a table without its indexes, unless it is there.

    DuckDB 1.4 finds nothing by an index of several columns, keeps each in memory as a whole, and
    reads as fast without: it skips what a block cannot have.
    """
    db.execute(CreateTable(table, if_not_exists=True))


def rename_table(db: Connection, old: str, new: str, schema: str | None) -> None:
    """Give a table another name."""
    db.exec_driver_sql(f"ALTER TABLE {_qualified(db, old, schema)} RENAME TO {new}")


def changed_rows(update: Answer) -> int:
    """How many rows a plain UPDATE changed: DuckDB answers with a row that says so.

    `rowcount` is always -1, and RETURNING takes another 0.3 ms.
    """
    return int(update.fetchone()[0])


def verdict(error: DBAPIError) -> Verdict:
    """Go by DuckDB's words: it has no error codes."""
    message = str(error.orig)
    if "Could not set lock" in message:  # "Conflicting lock is held": by another process, for long
        return "refused"
    if isinstance(error, IntegrityError):
        lost_races = ("Duplicate key", "PRIMARY KEY or UNIQUE")  # not a CHECK or a NOT NULL
    else:
        lost_races = ("onflict on", "Failed to commit: PRIMARY KEY")
    return "conflict" if any(words in message for words in lost_races) else "refused"


def check_size(db: Connection, size: int) -> None:
    """Nothing to refuse: a value may have 4 GiB."""


def refuse_changes(db: Connection, schema: str | None) -> None:
    """Nothing to do: see REFUSES_CHANGES."""


def missing_guards(db: Connection, schema: str | None) -> list[str]:  # noqa: ARG001 - it has none
    """None are missing: see REFUSES_CHANGES."""
    return []


def overwriting(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - it cannot
    """Nothing to switch on: a block is overwritten when it is used again."""
    return nullcontext()


def filling(db: Connection, table: Table) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nothing is put off."""
    return nullcontext()


def column_names(db: Connection, table: str, schema: str | None) -> set[str]:
    """The columns of a table, none if it does not exist.

    To look among all columns of all tables takes 6 ms more when a file was just opened.
    """
    try:
        return set(db.exec_driver_sql(f"DESCRIBE {_qualified(db, table, schema)}").scalars())
    except ProgrammingError as error:
        if type(error.orig).__name__ != "CatalogException":
            raise
        return set()


def _qualified(db: Connection, table: str, schema: str | None) -> str:
    quote = db.dialect.identifier_preparer.quote_identifier
    return ".".join(quote(part) for part in (schema, table) if part)


def lock_table(db: Connection, table: Table, schema: str | None) -> None:
    """Nothing to do: a thread that changes the same rows is told to try again."""
