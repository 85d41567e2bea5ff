"""PostgreSQL, through psycopg 3 or psycopg2."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, bindparam, cast, create_engine, extract, func, text
from sqlalchemy.types import NullType

from eventstore.dialects.making import make_missing
from eventstore.driver import execute, fetch
from eventstore.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, ColumnElement, Connection, Engine, Table
    from sqlalchemy.exc import DBAPIError

    from eventstore.dialects import Verdict
    from eventstore.driver import Answer

REFUSES_CHANGES = True
REFUSES_TRUNCATE = True
MANY_PROCESSES = True
UNIQUE_ROWS = True
TRANSACTIONAL_DDL = True
FOREIGN_TABLES = True
INSERTS_TOGETHER = True
UNNESTS = True
SKIPS_THROUGH_GROUPS = False
SEEKS_BY_LATERAL = True
"""PostgreSQL reads all of a table else, to find a thousand rows of a hundred thousand."""

SEEKS_ARE_DEAR_FROM: int | None = 0
"""A seek takes 7 to 30 us: it reads all that matches on a page of the index before the first."""

TEMPORARY = "pg_temp"
KEEPS_COLUMNS = False
INDEX_HINT = ""
BYTES_IN = "length"
RANDOM_KEY = "replace(gen_random_uuid()::text, '-', '')"

# clock_timestamp, not now(): a transaction that waited would carry the time it began.
NOW = cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)

# unique_violation, serialization_failure, deadlock; and duplicate_table, where a transaction had
# begun before it waited for the lock under which another made the tables.
_CONFLICTS = {"23505", "40001", "40P01", "42P07"}
_LOST = {"57P01", "57P02", "57P03"}  # the server shuts down, crashed, or is starting

# "... starting up", "in recovery mode": who cannot connect is given no SQLSTATE by either driver.
_NOT_YET = ("FATAL:  the database system is ", "server closed the connection unexpectedly")

# A plain trigger is skipped under session_replication_role = replica, hence ENABLE ALWAYS.
_GUARDS = (
    "CREATE OR REPLACE FUNCTION {schema}_eventstore_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the log is append-only: % refused', TG_OP; END $$",
    "DROP TRIGGER IF EXISTS _eventstore_no_change ON {schema}_eventstore_events",
    "DROP TRIGGER IF EXISTS _eventstore_no_truncate ON {schema}_eventstore_events",
    "CREATE TRIGGER _eventstore_no_change BEFORE UPDATE OR DELETE ON {schema}_eventstore_events "
    "FOR EACH ROW EXECUTE FUNCTION {schema}_eventstore_refuse()",
    "CREATE TRIGGER _eventstore_no_truncate BEFORE TRUNCATE ON {schema}_eventstore_events "
    "FOR EACH STATEMENT EXECUTE FUNCTION {schema}_eventstore_refuse()",
    "ALTER TABLE {schema}_eventstore_events ENABLE ALWAYS TRIGGER _eventstore_no_change",
    "ALTER TABLE {schema}_eventstore_events ENABLE ALWAYS TRIGGER _eventstore_no_truncate",
)

_LINE = (
    "SELECT pg_advisory_xact_lock(4912377, {id}) "
    "WHERE current_setting('transaction_isolation') = 'read committed'"
)
_SCHEMA_LOCK = 4_912_377_620  # any constant of our own


def open_engine(url: URL, *, create: bool) -> Engine:  # noqa: ARG001 - a server makes no files
    """Open with the driver the URL names, psycopg 3 where it names none."""
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return create_engine(url)


def check_session(db: Connection) -> None:
    """Refuse sessions in which NULL in a list is a text: names and reasons would be "NULL"."""
    [[nulls]] = fetch(db, "SHOW array_nulls")
    if nulls != "on":
        raise StoreUnavailable(
            "in this session lists hold no NULL: set array_nulls = on, for the role, the database "
            "or the server"
        )


def turn(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - no need to know
    """Nothing to wait for: the key of an event decides races."""
    return nullcontext()


def is_open(db: Connection) -> bool:  # noqa: ARG001 - as SQLAlchemy knows it
    """Nothing more to ask: a driver's own COMMIT or ROLLBACK is not looked for."""
    return True


def mark(db: Connection, pipeline_key: str) -> None:
    """Only the log can tell who has written."""


def mark_written(db: Connection, pipeline_key: str) -> None:
    """Nothing to change: see `mark`."""


def snapshot(db: Connection) -> object:
    """Which transactions are done; numbers begin anew on a standby that took over early."""
    return fetch(db, "SELECT pg_postmaster_start_time()::text, pg_current_snapshot()::text")[0]


def is_in_list(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a column is in a list, which is an array."""
    return column == func.any(bindparam(name, type_=NullType()))


def as_list(values: Collection[Any]) -> Any:
    """The values as the text of an array, which psycopg takes four times as long to write.

    A list, where one is of another type: that is left to the driver.
    """
    if not _ELEMENTS.keys() >= set(map(type, values)):
        return list(values)
    return f"{{{','.join([_ELEMENTS[type(value)](value) for value in values])}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


_ELEMENTS: dict[type, Callable[[Any], str]] = {
    int: str,
    str: _quoted,
    bytes: lambda value: rf'"\\x{value.hex()}"',
    type(None): lambda _: "NULL",
}
"""How the elements of an array are written, by their types."""


def begin_write(db: Connection) -> None:
    """The first statement begins, unless the engine commits each: that cannot keep a promise."""
    if getattr(db.connection.driver_connection, "autocommit", False):
        raise StoreUnavailable(
            "this engine commits every statement by itself (AUTOCOMMIT), so an append could be "
            "half done: give the store an engine that does not"
        )


@contextmanager
def each_alone(db: Connection) -> Iterator[None]:
    """Do without BEGIN and its COMMIT or ROLLBACK, each of which takes as long as an INSERT."""
    if not db.in_transaction():
        db.begin()  # sends nothing, but who listens for it may
    connection: Any = db.connection.driver_connection
    options = db.get_execution_options()
    streams = options.get("stream_results") or options.get("yield_per")
    if connection.info.transaction_status or streams or db.dialect.server_side_cursors:
        yield  # a transaction has begun, or has to
        return
    before, interrupted = connection.autocommit, True
    try:
        connection.autocommit = True
        try:
            yield
        finally:
            with suppress(db.dialect.loaded_dbapi.Error):  # it is lost
                connection.autocommit = before
                interrupted = False
    finally:
        if interrupted:  # nobody may be given it so
            db.invalidate()


def wait_in_line(db: Connection, schema: str | None, pipeline_id: int) -> None:  # noqa: ARG001 - as below
    """Take an advisory lock, for which no privilege is needed; it ends with the transaction.

    Where a transaction sees nothing that was committed after its first statement, to have waited
    would be to have lost.
    """
    execute(db, _LINE.format(id=pipeline_id))


def schema_lock(db: Connection) -> AbstractContextManager[object]:
    """Take an advisory lock: CREATE TABLE IF NOT EXISTS can fail when two processes race.

    It ends with the transaction, which begins here.
    """
    db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
    return nullcontext()


def step_alone(db: Connection, schema: str | None) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nothing to do: whoever makes tables waits for the same lock."""
    return nullcontext()


def create_table(db: Connection, table: Table) -> None:
    """Make a table and its indexes, or what is missing of them."""
    make_missing(db, table)


def rename_table(db: Connection, old: str, new: str, schema: str | None) -> None:
    """Give a table another name."""
    where = _qualifier(schema)
    db.execute(text(f"ALTER TABLE {where}{old} RENAME TO {new}"))
    db.execute(text(f"ALTER INDEX {where}{old}_pkey RENAME TO {new}_pkey"))


def changed_rows(update: Answer) -> int:
    """How many rows a plain UPDATE changed."""
    return update.rowcount


def verdict(error: DBAPIError) -> Verdict:
    """Go by SQLSTATE, under the name either driver gives it."""
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
    if code in _CONFLICTS:
        return "conflict"
    if error.connection_invalidated or code in _LOST or code.startswith("08"):
        return "lost"
    if not code and any(words in str(error.orig) for words in _NOT_YET):
        return "lost"
    return "refused"


def check_size(db: Connection, size: int) -> None:
    """Nothing to refuse: a value may have 1 GiB."""


def refuse_changes(db: Connection, schema: str | None) -> None:
    """Make triggers that refuse to change the log, to superusers too."""
    for guard in _GUARDS:
        db.execute(text(guard.format(schema=_qualifier(schema))))


def missing_guards(db: Connection, schema: str | None) -> list[str]:
    """The triggers that are gone, switched off, or no longer refuse anything."""
    query = text(
        "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "JOIN pg_proc ON pg_proc.oid = tgfoid "
        "WHERE relname = '_eventstore_events' AND tgenabled = 'A' "
        "AND proname = '_eventstore_refuse' AND prosrc LIKE '%RAISE EXCEPTION%' "
        "AND relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = coalesce(:schema, current_schema()))"
    )
    there = set(db.execute(query, {"schema": schema}).scalars())
    return [
        name for name in ("_eventstore_no_change", "_eventstore_no_truncate") if name not in there
    ]


def overwriting(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - it cannot
    """Nothing to switch on: VACUUM makes the room free, and what is written next takes it."""
    return nullcontext()


def filling(db: Connection, table: Table) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nothing to do: dropping an index would keep all readers waiting, and takes its owner."""
    return nullcontext()


def column_names(db: Connection, table: str, schema: str | None) -> set[str]:
    """The columns of a table, none if it does not exist; also of one that may not be read."""
    query = text(
        "SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relname = :table AND attnum > 0 AND NOT attisdropped AND relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = coalesce(:schema, current_schema()))"
    )
    return set(db.execute(query, {"table": table, "schema": schema}).scalars())


def lock_table(db: Connection, table: Table, schema: str | None) -> None:
    """Let readers read and writers wait."""
    name = f"{_qualifier(schema)}{db.dialect.identifier_preparer.format_table(table)}"
    db.execute(text(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"))


def _qualifier(schema: str | None) -> str:
    if not schema:
        return ""
    quoted = schema.replace('"', '""').replace(":", r"\:")  # text() takes a colon for a parameter
    return f'"{quoted}".'
