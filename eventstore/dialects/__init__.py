"""What differs between databases: one module each, all with the functions of `Dialect`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from sqlalchemy import URL

from eventstore.errors import UnsupportedDatabase

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from sqlalchemy import ColumnElement, Connection, Engine, Table
    from sqlalchemy.exc import DBAPIError

    from eventstore.dialects import duckdb, mariadb, postgresql, sqlite
    from eventstore.driver import Answer

Verdict = Literal["conflict", "lost", "refused"]
"""What a driver's error means: try the whole transaction again; the connection died and the
outcome is unknown; or the database will not do it."""


class Dialect(Protocol):
    """One database: a module, not a class."""

    @property
    def REFUSES_CHANGES(self) -> bool:
        """Whether the database itself refuses UPDATE and DELETE on the log."""

    @property
    def REFUSES_TRUNCATE(self) -> bool:
        """Whether the log cannot be emptied by TRUNCATE either."""

    @property
    def MANY_PROCESSES(self) -> bool:
        """Whether several processes can have the database open for writing."""

    @property
    def UNIQUE_ROWS(self) -> bool:
        """Whether the projections' tables have a primary key."""

    @property
    def TRANSACTIONAL_DDL(self) -> bool:
        """Whether making tables can be taken back, as part of a transaction."""

    @property
    def FOREIGN_TABLES(self) -> bool:
        """Whether unmodified PyAirbyte makes its tables there, and works in turns with us."""

    @property
    def INSERTS_TOGETHER(self) -> bool:
        """Whether one statement can insert into two tables."""

    @property
    def UNNESTS(self) -> bool:
        """Whether many rows are inserted fastest from a list for each column."""

    @property
    def SKIPS_THROUGH_GROUPS(self) -> bool:
        """Whether the newest of each group is found fast by GROUP BY, and not by a subquery."""

    @property
    def SEEKS_BY_LATERAL(self) -> bool:
        """Whether rows are found one by one in LATERAL alone, and without a loop in FULL JOIN."""

    @property
    def SEEKS_ARE_DEAR_FROM(self) -> int | None:
        """From how many events a stream on, on average, some in a row are read faster than sought.

        None where they never are.
        """

    @property
    def TEMPORARY(self) -> str | None:
        """The schema of the tables that end with their connection; None where they need none."""

    @property
    def KEEPS_COLUMNS(self) -> bool:
        """Whether a table is kept by columns: to count its rows or to scan a column is cheap."""

    @property
    def INDEX_HINT(self) -> str:
        """SQL that names the index to use, where the planner has to be told."""

    @property
    def RANDOM_KEY(self) -> str:
        """SQL for 32 random hexadecimal digits, as a column's default."""

    @property
    def NOW(self) -> ColumnElement[int] | None:
        """The database's clock in microseconds, or None where the process's clock is used."""

    @property
    def BYTES_IN(self) -> str:
        """The SQL function that counts the bytes of a value."""

    def open_engine(self, url: URL, *, create: bool) -> Engine:
        """Open an engine of our own; without `create` it makes no file and needs no writing."""

    def check_session(self, db: Connection) -> None:
        """Refuse sessions in which no promise can be kept; raises StoreUnavailable."""

    def turn(self, db: Connection) -> AbstractContextManager[object]:
        """Wait for this process's turn to write, where threads must not even race."""

    def mark(self, db: Connection, pipeline_key: str) -> object:
        """What stays the same while nobody has written to a pipeline since `mark_written`.

        None where only the log can tell. For a transaction that will write.
        """

    def mark_written(self, db: Connection, pipeline_key: str) -> object:
        """The mark after a write of the transaction."""

    def is_open(self, db: Connection) -> bool:
        """Whether the transaction that SQLAlchemy takes for open is, where the driver can tell."""

    def snapshot(self, db: Connection) -> object:
        """What stays the same while nobody commits anything; None where that is not cheap to tell.

        Asked for before a read: what is committed meanwhile will make it another.
        """

    def is_in_list(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Whether a column is in the list that a parameter has, by an index if it has one."""

    def as_list(self, values: Collection[Any]) -> Any:
        """Values as that parameter, or as a list for a column where it `UNNESTS`."""

    def begin_write(self, db: Connection) -> None:
        """Begin a transaction that will write."""

    def each_alone(self, db: Connection) -> AbstractContextManager[object]:
        """Let each statement meanwhile be a transaction, where that saves asking the server.

        For work that only reads, or before the first statement of a transaction, which begins after
        it if it has to.
        """

    def wait_in_line(self, db: Connection, schema: str | None, pipeline_id: int) -> None:
        """Wait in this transaction for those who wait to append to the pipeline already."""

    def schema_lock(self, db: Connection) -> AbstractContextManager[object]:
        """Let one process at a time make tables, in a transaction inside."""

    def step_alone(self, db: Connection, schema: str | None) -> AbstractContextManager[object]:
        """Let nobody take the same step at the same time who does not wait for `schema_lock`."""

    def create_table(self, db: Connection, table: Table) -> None:
        """Make a table and its indexes, or what is missing of them."""

    def rename_table(self, db: Connection, old: str, new: str, schema: str | None) -> None:
        """Give a table another name."""

    def changed_rows(self, update: Answer) -> int:
        """How many rows a plain UPDATE changed."""

    def verdict(self, error: DBAPIError) -> Verdict:
        """Say what a driver's error means."""

    def check_size(self, db: Connection, size: int) -> None:
        """Refuse a body of more bytes than can be sent; raises StoreUnavailable."""

    def refuse_changes(self, db: Connection, schema: str | None) -> None:
        """Make the database refuse UPDATE and DELETE on the log, once more where it did."""

    def missing_guards(self, db: Connection, schema: str | None) -> list[str]:
        """What `refuse_changes` had made and is no longer there, or switched off."""

    def overwriting(self, db: Connection) -> AbstractContextManager[object]:
        """Overwrite what is deleted meanwhile with zeros, where the database can."""

    def filling(self, db: Connection, table: Table) -> AbstractContextManager[object]:
        """Put many rows into an empty table meanwhile, the fastest way there is."""

    def column_names(self, db: Connection, table: str, schema: str | None) -> set[str]:
        """The columns of a table, none if it does not exist."""

    def lock_table(self, db: Connection, table: Table, schema: str | None) -> None:
        """Keep other writers off a table until the transaction ends, where they could get at it."""


if TYPE_CHECKING:  # or nobody would check that each is one
    _ALL: tuple[Dialect, ...] = (duckdb, mariadb, postgresql, sqlite)

_NAMES = ("duckdb", "mariadb", "postgresql", "sqlite")


def dialect_of(database: Engine | Connection | URL) -> Dialect:
    """Find the dialect of a database; raises UnsupportedDatabase."""
    name = database.get_backend_name() if isinstance(database, URL) else database.dialect.name
    return _module(name)


@cache
def _module(name: str) -> Dialect:
    """Imported when a database is of that kind: nobody has all four."""
    if name == "postgres":
        raise UnsupportedDatabase("SQLAlchemy's URLs begin with postgresql://, not postgres://")
    if name == "mysql":
        name = "mariadb"  # whose URLs may begin with either; which one it is says the server
    if name not in _NAMES:
        raise UnsupportedDatabase(
            f"{name} is not supported: the log needs a database that enforces unique keys; "
            f"use one of {', '.join(_NAMES)}"
        )
    return cast("Dialect", import_module(f"{__name__}.{name}"))
