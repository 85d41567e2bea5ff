"""MariaDB, through PyMySQL or mysqlclient."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    LargeBinary,
    MetaData,
    Text,
    bindparam,
    create_engine,
    event,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import NullType

from eventstore.dialects import galera
from eventstore.dialects.making import make_missing
from eventstore.driver import execute
from eventstore.errors import StoreUnavailable, UnsupportedDatabase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, ColumnElement, Connection, Engine, Table
    from sqlalchemy.types import TypeEngine

    from eventstore.dialects import Verdict
    from eventstore.driver import Answer

REFUSES_CHANGES = True

REFUSES_TRUNCATE = False
"""TRUNCATE drops the table and makes another, which no trigger sees: who may DROP may do that."""

MANY_PROCESSES = True
UNIQUE_ROWS = True

TRANSACTIONAL_DDL = False
"""Each CREATE, DROP and ALTER commits by itself, together with whatever came before it."""

FOREIGN_TABLES = False
"""PyAirbyte has no cache there: its models have texts without a length, of which MariaDB makes no
columns, and it gives up where two transactions deadlock."""

INSERTS_TOGETHER = False
"""MariaDB has no INSERT inside WITH."""

UNNESTS = False
SKIPS_THROUGH_GROUPS = True
"""GROUP BY with max() reads one entry of an index per group; a correlated max() reads them all."""

SEEKS_BY_LATERAL = False
SEEKS_ARE_DEAR_FROM: int | None = None
TEMPORARY: str | None = None
KEEPS_COLUMNS = False
INDEX_HINT = "FORCE INDEX ({})"
"""Before its statistics are there, a table's own key seems as good as the index made for this."""

BYTES_IN = "octet_length"
RANDOM_KEY = "(replace(uuid(), '-', ''))"

# Not unix_timestamp(now(6)): an hour of each autumn is there twice in the session's time zone.
NOW = literal_column("timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))", BigInteger)

# Duplicate key, deadlock, lock wait timeout, record changed since it was read (snapshot
# isolation), table made since the transaction began.
_CONFLICTS = {1062, 1213, 1205, 1020, 1412}

# The client's: gone away, lost during a query, out of step, lost while reading. The server's:
# killed, interrupted, shutting down. On Galera: not part of a quorum, and no more so since COMMIT.
_LOST = {2006, 2013, 2014, 2055, 1927, 1317, 1053, 1047, 1180}

_STEP_S = 3600
"""How long a node has its turn to copy tables, unless it gives it back."""

_NO_TRIGGER, _NOT_YOURS_TO_SEE = 1360, 1227

_GUARDS = {
    "_eventstore_no_update": "BEFORE UPDATE ON {schema}_eventstore_events FOR EACH ROW SIGNAL "
    "SQLSTATE '45000' SET MESSAGE_TEXT = 'the log is append-only: events are never changed'",
    "_eventstore_no_delete": "BEFORE DELETE ON {schema}_eventstore_events FOR EACH ROW SIGNAL "
    "SQLSTATE '45000' SET MESSAGE_TEXT = 'the log is append-only: events are never deleted'",
}

_STRICT = {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"}
_SQL_MODE = "SET sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
_LINE = "SELECT id FROM {schema}_eventstore_pipelines WHERE id = {id} FOR UPDATE"
_SCHEMA_LOCK = "'airbyte-eventstore'"
_SCHEMA_LOCK_S = 60

# Exact to the byte: trailing spaces count, too.
_COLLATION = "utf8mb4_nopad_bin"

_LARGE = 1 << 18
"""Bytes of a body that may be too large for some server."""

_SENT = 4
"""How often a body is sent in one statement at most: as hexadecimal digits, or as two texts with
every character escaped."""


def open_engine(url: URL, *, create: bool) -> Engine:  # noqa: ARG001 - a server makes no files
    """Open with the driver the URL names, PyMySQL where it names none."""
    if "+" not in url.drivername:
        url = url.set(drivername=f"{url.drivername}+pymysql")
    engine = create_engine(url)
    # First of all: SQLAlchemy looks at the modes of the first session to quote names as they want.
    event.listen(engine, "connect", _set_session, insert=True)
    return engine


def _set_session(connection: Any, _: object) -> None:
    """Be strict, and on Galera read only after all that other nodes have committed was applied."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"{_SQL_MODE}, {galera.SYNC_WAIT}")
        except connection.Error as error:
            if error.args[0] != galera.NO_VARIABLE:  # of servers that were built without Galera
                raise
            cursor.execute(_SQL_MODE)


def check_session(db: Connection) -> None:
    """Refuse MySQL, drivers that nobody tried, and sessions that would change or cut values."""
    if not getattr(db.dialect, "is_mariadb", False):
        raise UnsupportedDatabase("the server is MySQL, and only MariaDB is supported")
    if db.dialect.driver not in {"pymysql", "mysqldb"}:
        raise UnsupportedDatabase(
            f"{db.dialect.driver} was not tried: use PyMySQL, mariadb+pymysql://"
        )
    query = "SELECT @@sql_mode, @@character_set_client, @@character_set_results"
    mode, *charsets = db.exec_driver_sql(query).one()
    if set(charsets) != {"utf8mb4"}:
        raise StoreUnavailable(
            f"the session's character set is {charsets[0]}, in which not every name can be "
            "written: end the engine's URL with ?charset=utf8mb4"
        )
    modes = set(mode.split(","))
    if not modes & _STRICT or "EMPTY_STRING_IS_NULL" in modes:
        raise StoreUnavailable(
            f"the session's sql_mode is {mode!r}, in which MariaDB changes values instead of "
            f'refusing them: give the engine connect_args={{"init_command": "{_SQL_MODE}"}}'
        )
    if galera.reads_the_past(db):
        raise StoreUnavailable(
            "this is a node of a Galera cluster, and the session does not see what has just been "
            "committed on another: give the engine "
            f'connect_args={{"init_command": "{_SQL_MODE}, {galera.SYNC_WAIT}"}}'
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


def snapshot(db: Connection) -> None:
    """Nothing tells: `update_time` is when the transaction began that was committed last."""


def is_in_list(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a column is in a list, which both drivers write into the statement."""
    return column.op("IN", is_comparison=True, return_type=Boolean())(
        bindparam(name, type_=NullType())
    )


def as_list(values: Collection[Any]) -> list[Any]:
    """The values as a list."""
    return list(values)


def begin_write(db: Connection) -> None:
    """Choose the isolation in which `lock_table` holds; the first statement begins.

    An engine that commits each statement is refused: that cannot keep a promise.
    """
    connection: Any = db.connection.driver_connection
    if connection.get_autocommit():
        raise StoreUnavailable(
            "this engine commits every statement by itself (AUTOCOMMIT), so an append could be "
            "half done: give the store an engine that does not"
        )
    execute(db, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def each_alone(db: Connection) -> AbstractContextManager[object]:
    """Nothing to change but that the transaction, which begins by itself, is known to be there."""
    if not db.in_transaction():
        db.begin()  # else a pool that does not roll back keeps what it sees for ever
    return nullcontext()


def wait_in_line(db: Connection, schema: str | None, pipeline_id: int) -> None:
    """Lock the pipeline's row, if it is there; on Galera it is the node's own.

    By its primary key: by another, the gap beside it would be locked too, and keep out pipelines
    that begin.
    """
    execute(db, _LINE.format(schema=_qualifier(db, schema), id=pipeline_id))


@contextmanager
def schema_lock(db: Connection) -> Iterator[None]:
    """Hold a lock of the session: a transaction's would end with the first CREATE.

    On Galera it is the node's own: every step can be taken twice, and those that must not be taken
    at the same time wait for each other.
    """
    if not db.exec_driver_sql(f"SELECT GET_LOCK({_SCHEMA_LOCK}, {_SCHEMA_LOCK_S})").scalar():
        raise StoreUnavailable(
            f"somebody has been making the tables for more than {_SCHEMA_LOCK_S} seconds: "
            "SHOW PROCESSLIST tells who"
        )
    try:
        yield
    finally:
        if not db.invalidated:
            _release(db)


def _release(db: Connection) -> None:
    try:
        db.exec_driver_sql(f"DO RELEASE_LOCK({_SCHEMA_LOCK})")
    except BaseException:
        db.invalidate()  # or the session would keep it in the pool
        raise


def step_alone(db: Connection, schema: str | None) -> AbstractContextManager[object]:
    """On Galera, wait until no other node is at it."""
    if not galera.is_node(db):
        return nullcontext()
    return galera.one_node_at_a_time(db, _qualifier(db, schema), for_s=_STEP_S)


def create_table(db: Connection, table: Table) -> None:
    """Make a table and its indexes, or what is missing of them.

    Texts are compared exactly, whatever the defaults of the server and the database are.
    """
    copy = table.to_metadata(MetaData())
    copy._prefixes = table._prefixes  # which a copy is made without
    for column in copy.columns:
        column.type = _exact(column.type)
    for name in ("mariadb", "mysql"):  # as the URL calls it
        options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": _COLLATION}
        copy.kwargs.update({f"{name}_{option}": value for option, value in options.items()})
    make_missing(db, copy)


def rename_table(db: Connection, old: str, new: str, schema: str | None) -> None:
    """Give a table another name."""
    where = _qualifier(db, schema)
    db.exec_driver_sql(f"RENAME TABLE {where}{old} TO {where}{new}")


def _exact(of_column: TypeEngine[Any]) -> TypeEngine[Any]:
    from sqlalchemy.dialects import mysql  # noqa: PLC0415 - slow to import, and only made here

    if isinstance(of_column, LargeBinary):
        return mysql.VARBINARY(of_column.length) if of_column.length else mysql.LONGBLOB()
    if isinstance(of_column, Text):
        return mysql.LONGTEXT()
    return mysql.DATETIME(fsp=6) if isinstance(of_column, DateTime) else of_column


def changed_rows(update: Answer) -> int:
    """How many rows a plain UPDATE found."""
    return update.rowcount


def verdict(error: DBAPIError) -> Verdict:
    """Go by the number of the error."""
    code = _code(error)
    if code in _CONFLICTS:
        return "conflict"
    return "lost" if error.connection_invalidated or code in _LOST else "refused"


def check_size(db: Connection, size: int) -> None:
    """Refuse a body for which the server would end the connection without a word."""
    if size < _LARGE:
        return
    most = db.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one()
    if _SENT * size + _LARGE > most:
        raise StoreUnavailable(
            f"a body of {size} bytes needs a max_allowed_packet of {_SENT * size + _LARGE}, and "
            f"this server has {most}: let its administrator raise it"
        )


def filling(db: Connection, table: Table) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nothing to put off: DROP INDEX would commit."""
    return nullcontext()


def refuse_changes(db: Connection, schema: str | None) -> None:
    """Make triggers that refuse to change the log."""
    where = _qualifier(db, schema)
    turn = galera.one_node_at_a_time(db, where) if galera.is_node(db) else nullcontext()
    with turn:
        for name in missing_guards(db, schema):
            rest = _GUARDS[name].format(schema=where)
            db.exec_driver_sql(f"CREATE OR REPLACE TRIGGER {where}{name} {rest}")


def missing_guards(db: Connection, schema: str | None) -> list[str]:
    """The triggers that are gone or say something else.

    Who may not look at triggers learns only whether they are there.
    """
    return [name for name in _GUARDS if not _is_there(db, schema, name)]


def _is_there(db: Connection, schema: str | None, guard: str) -> bool:
    try:
        row = db.exec_driver_sql(f"SHOW CREATE TRIGGER {_qualifier(db, schema)}{guard}").one()
    except DBAPIError as error:
        if _code(error) in {_NO_TRIGGER, _NOT_YOURS_TO_SEE}:
            return _code(error) == _NOT_YOURS_TO_SEE
        raise
    where = _qualifier(db, schema).replace("%%", "%")  # as the driver has sent it
    return row[2].endswith(_GUARDS[guard].format(schema=where))  # type: ignore[no-any-return]


def overwriting(db: Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - it cannot
    """Nothing to switch on: the purge makes the room free, and what is written next takes it."""
    return nullcontext()


def column_names(db: Connection, table: str, schema: str | None) -> set[str]:
    """The columns of a table, none if it does not exist."""
    query = text(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_name = :table AND table_schema = coalesce(:schema, database())"
    )
    return set(db.execute(query, {"table": table, "schema": schema}).scalars())


def lock_table(db: Connection, table: Table, schema: str | None) -> None:  # noqa: ARG001 - the engine translates it
    """Let readers read and writers wait: every row is locked, and every gap between two.

    LOCK TABLES would commit, and let readers wait too.
    """
    db.execute(select(func.count()).select_from(table).with_for_update())


def _qualifier(db: Connection, schema: str | None) -> str:
    return f"{db.dialect.identifier_preparer.quote_identifier(schema)}." if schema else ""


def _code(error: DBAPIError) -> int | None:
    return error.orig.args[0] if error.orig and error.orig.args else None
