"""SQLite: one file, one writer at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import orjson
from sqlalchemy import Text, bindparam, create_engine, event, func, select, text
from sqlalchemy.exc import IntegrityError

from eventstore.dialects.making import make_missing
from eventstore.driver import execute, fetch
from eventstore.errors import StoreUnavailable, UnsupportedDatabase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, ColumnElement, Connection, Engine, Table
    from sqlalchemy.exc import DBAPIError

    from eventstore.dialects import Verdict
    from eventstore.driver import Answer

REFUSES_CHANGES = True

REFUSES_TRUNCATE = True
"""SQLite has none."""

MANY_PROCESSES = True
UNIQUE_ROWS = True
TRANSACTIONAL_DDL = True
FOREIGN_TABLES = True
INSERTS_TOGETHER = False
"""SQLite has no INSERT inside WITH."""

UNNESTS = False
SKIPS_THROUGH_GROUPS = False
SEEKS_BY_LATERAL = False
SEEKS_ARE_DEAR_FROM: int | None = 500
"""Then no two seeks meet the same page: of a thousand streams with ten million events they take
twice as long as with a hundred thousand."""

TEMPORARY = "temp"
KEEPS_COLUMNS = False
INDEX_HINT = ""
BYTES_IN = "length"
RANDOM_KEY = "(lower(hex(randomblob(16))))"
NOW: ColumnElement[int] | None = None

BUSY_TIMEOUT_MS = 10_000

CACHE_KIB = 16 * 1024
"""SQLite's own 2 MiB are soon less than the indexes of a long log, which it then reads anew."""

# INSERT OR REPLACE deletes without firing the delete trigger, hence the third one.
_GUARDS = (
    "CREATE TRIGGER _eventstore_no_update BEFORE UPDATE ON _eventstore_events "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only: events are never changed'); END",
    "CREATE TRIGGER _eventstore_no_delete BEFORE DELETE ON _eventstore_events "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only: events are never deleted'); END",
    "CREATE TRIGGER _eventstore_no_replace BEFORE INSERT ON _eventstore_events "
    "WHEN EXISTS (SELECT 1 FROM _eventstore_events "
    "WHERE pipeline_id = NEW.pipeline_id AND version = NEW.version) "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only: events are never replaced'); END",
)


def open_engine(url: URL, *, create: bool) -> Engine:
    """Open a file durably: WAL, synchronous FULL."""
    path = url.database
    in_file = path not in (None, "", ":memory:") and not str(path).startswith("file:")
    if in_file and not create:
        folder = os.path.dirname(os.path.abspath(str(path)))  # noqa: PTH100, PTH120 - as below
        options = {"mode": "rw" if os.access(str(path), os.W_OK) else "ro", "uri": "true"}
        if not os.access(folder, os.W_OK) and not os.path.exists(f"{path}-wal"):  # noqa: PTH110
            # SQLite would want to make files beside it, even to read a database in WAL mode.
            options["immutable"] = "1"
        url = url.set(
            database=f"file:{quote(os.path.abspath(str(path)))}",  # noqa: PTH100 - Path would normalise
            query=options,
        )
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if create and in_file:
            connection.execute("PRAGMA journal_mode = WAL")

    return engine


def check_session(db: Connection) -> None:
    """Refuse an engine that writes parameters in another way than SQLite's own driver."""
    if db.dialect.paramstyle != "qmark":
        raise UnsupportedDatabase(
            f"an engine with paramstyle={db.dialect.paramstyle!r} was not tried: leave that out"
        )


def turn(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - no need to know
    """Nothing to wait for: BEGIN IMMEDIATE does."""
    return nullcontext()


def is_open(db: Connection) -> bool:
    """Whether it was begun and not ended, by whatever means."""
    connection: Any = db.connection.driver_connection
    return bool(connection.in_transaction)


def mark(db: Connection, pipeline_key: str) -> None:
    """Only the log can tell: SQLite's counters do not move where a backup is put back."""


def mark_written(db: Connection, pipeline_key: str) -> None:
    """Nothing to change: see `mark`."""


class _Snapshot(NamedTuple):
    """What moves when another connection commits, and when this one changes a row.

    Both count for one connection, and say nothing to another.
    """

    connection: Any
    data_version: int
    total_changes: int


_OWN = {"main", "temp"}


def snapshot(db: Connection) -> _Snapshot | None:
    """SQLite's counters; nothing of what is not committed yet, and of files that are attached."""
    connection: Any = db.connection.driver_connection
    names = {name for _, name, _ in fetch(db, "PRAGMA database_list")}
    if connection.in_transaction or not names <= _OWN:
        return None
    [[data_version]] = fetch(db, "PRAGMA data_version")
    return _Snapshot(connection, data_version, connection.total_changes)


def is_in_list(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a column is in a list, which is JSON."""
    listed = func.json_each(bindparam(name, type_=Text)).table_valued("value")
    return column.in_(select(listed.c.value))


def as_list(values: Collection[Any]) -> str:
    """The values as JSON."""
    return orjson.dumps(list(values)).decode()


def begin_write(db: Connection) -> None:
    """Take the write lock now: a transaction that reads first cannot wait for it later."""
    connection: Any = db.connection.driver_connection
    if connection.in_transaction:
        raise StoreUnavailable(
            "a transaction is open on the connection, by a listener that sends BEGIN or by a "
            "caller with whom it is shared: give the store an engine of its own"
        )
    execute(db, "BEGIN IMMEDIATE")


def each_alone(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - no need to know
    """Nothing to change: no server is asked."""
    return nullcontext()


def wait_in_line(db: Connection, schema: str | None, pipeline_id: int) -> None:
    """Nothing to do: there is one writer at a time."""


def schema_lock(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - no need
    """Nothing to do: the write lock is taken."""
    return nullcontext()


def step_alone(db: Connection, schema: str | None) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nothing to do: whoever makes tables waits for the same lock."""
    return nullcontext()


def create_table(db: Connection, table: Table) -> None:
    """Make a table and its indexes, or what is missing of them."""
    make_missing(db, table)


def rename_table(db: Connection, old: str, new: str, schema: str | None) -> None:  # noqa: ARG001 - SQLite has no schemas
    """Give a table another name; what somebody's views call it stays."""
    before = db.exec_driver_sql("PRAGMA legacy_alter_table").scalar_one()
    db.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    try:
        db.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
    finally:
        db.exec_driver_sql(f"PRAGMA legacy_alter_table = {int(before)}")


def changed_rows(update: Answer) -> int:
    """How many rows a plain UPDATE changed."""
    return update.rowcount


def verdict(error: DBAPIError) -> Verdict:
    """Tell a lost race from a refusal, such as that of a trigger or of a CHECK."""
    message = str(error.orig)
    if isinstance(error, IntegrityError):
        of_keys = ("UNIQUE constraint failed", "the log is append-only: events are never replaced")
        is_lost_race = message.startswith(of_keys)
    else:
        is_lost_race = "locked" in message or "busy" in message
    return "conflict" if is_lost_race else "refused"


def check_size(db: Connection, size: int) -> None:
    """Nothing to refuse: a value may have a billion bytes."""


def refuse_changes(db: Connection, schema: str | None) -> None:
    """Make triggers that refuse to change the log."""
    missing = missing_guards(db, schema)
    for guard in _GUARDS:
        name = guard.split()[2]
        if name in missing:
            db.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
            db.exec_driver_sql(guard)


def missing_guards(db: Connection, schema: str | None) -> list[str]:  # noqa: ARG001 - SQLite has no schemas
    """The triggers that are gone or say something else."""
    query = text("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
    there = set(db.execute(query).scalars())
    return [guard.split()[2] for guard in _GUARDS if guard not in there]


@contextmanager
def overwriting(db: Connection) -> Iterator[None]:
    """Have deleted rows overwritten with zeros; the connection's own setting comes back."""
    before = db.exec_driver_sql("PRAGMA secure_delete").scalar_one()
    db.exec_driver_sql("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        db.exec_driver_sql(f"PRAGMA secure_delete = {int(before)}")


@contextmanager
def filling(db: Connection, table: Table) -> Iterator[None]:
    """Make what slows each row down when they are there: the write lock keeps others away.

    An error in between rolls the transaction back, and with it what was dropped.
    """
    name, guard = "_eventstore_no_replace", _GUARDS[-1]
    guarded = name not in missing_guards(db, None)
    if guarded:
        db.exec_driver_sql(f"DROP TRIGGER {name}")
    for index in table.indexes:
        index.drop(db, checkfirst=True)
    yield
    for index in table.indexes:
        index.create(db)
    if guarded:
        db.exec_driver_sql(guard)


def column_names(db: Connection, table: str, schema: str | None) -> set[str]:  # noqa: ARG001
    """The columns of a table, none if it does not exist."""
    query = text("SELECT name FROM pragma_table_info(:table)")
    return set(db.execute(query, {"table": table}).scalars())


def lock_table(db: Connection, table: Table, schema: str | None) -> None:
    """Nothing to do: the write lock is held."""
