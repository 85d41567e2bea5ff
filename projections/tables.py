"""The three tables that runners read, under the names and columns PyAirbyte gave them.

`row_key` and the columns after it are ours; PyAirbyte inserts rows without them, with names of any
length. A row whose `pipeline_key` is null was not written by us.
"""

from __future__ import annotations

import uuid
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    select,
    text,
)

from eventstore import payload
from eventstore.dialects import dialect_of
from eventstore.events import NAME_LIMIT
from eventstore.inserts import insert_rows
from eventstore.rows import belongs_to
from eventstore.statements import Statement
from eventstore.tables import events, keeper_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from eventstore.events import StoredEvent

STREAMS_TABLE_NAME = "_airbyte_streams"
CACHE_STATE_TABLE_NAME = "_airbyte_state"
DESTINATION_STATE_TABLE_NAME = "_airbyte_destination_state"
GLOBAL_STATE_STREAM_NAME = "_GLOBAL"
LEGACY_STATE_STREAM_NAME = "_LEGACY"
GLOBAL_STATE_STREAM_NAMES = [GLOBAL_STATE_STREAM_NAME, LEGACY_STATE_STREAM_NAME]

_CHUNK = 500
"""Keys in one statement."""

metadata = MetaData()


def _random_key() -> str:
    return uuid.uuid4().hex


def _columns_of_ours(*more: Column[Any]) -> tuple[Column[Any], ...]:
    return (
        Column("row_key", String(32), primary_key=True, default=_random_key),
        Column("pipeline_key", String(32)),
        Column("stream_namespace", String(NAME_LIMIT)),
        *more,
        Column("version", Integer),
    )


CACHE_STATE_TABLE = Table(
    CACHE_STATE_TABLE_NAME,
    metadata,
    Column("source_name", Text),
    Column("stream_name", Text),
    Column("table_name", Text),
    Column("state_json", Text),
    Column("last_updated", DateTime(timezone=True)),
    *_columns_of_ours(),
)

DESTINATION_STATE_TABLE = Table(
    DESTINATION_STATE_TABLE_NAME,
    metadata,
    Column("destination_name", Text, nullable=False),
    Column("source_name", Text, nullable=False),
    Column("stream_name", Text, nullable=False),
    Column("state_json", Text),
    Column("last_updated", DateTime(timezone=True)),
    *_columns_of_ours(),
)

STREAMS_TABLE = Table(
    STREAMS_TABLE_NAME,
    metadata,
    Column("stream_name", Text),
    Column("source_name", Text),
    Column("table_name", Text),
    Column("catalog_metadata", Text),
    *_columns_of_ours(Column("configured_stream", Text)),
)

STATE_TABLES = (CACHE_STATE_TABLE, DESTINATION_STATE_TABLE)
ALL_TABLES = (*STATE_TABLES, STREAMS_TABLE)


def create_table(db: Connection, table: Table) -> None:
    """Make a table so that PyAirbyte can insert its own columns alone.

    `row_key` fills itself at random; where the dialect says so, it is no key of the table.
    """
    dialect_of(db).create_table(db, _copied(db, table, table.name))


def create_beside(db: Connection, table: Table) -> Table:
    """Make an empty table like this one, which nobody else sees and which ends with `db`."""
    name = f"{table.name}_{uuid.uuid4().hex[:8]}"
    schema = dialect_of(db).TEMPORARY
    copy = _copied(db, table, name, schema=schema, prefixes=["TEMPORARY"])
    dialect_of(db).create_table(db, copy)
    return copy


def _copied(db: Connection, table: Table, name: str, **options: Any) -> Table:
    dialect = dialect_of(db)
    copy = Table(name, MetaData(), **options)
    for column in table.columns:
        mine = column.name == "row_key"
        copy.append_column(
            Column(
                column.name,
                column.type,
                nullable=column.nullable,
                primary_key=mine and dialect.UNIQUE_ROWS,
                server_default=text(dialect.RANDOM_KEY) if mine else None,
            )
        )
    if dialect.UNIQUE_ROWS:
        Index(f"{name}_pipeline", copy.c.pipeline_key)
    return copy


def add_rows(db: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, with a value for each of their columns."""
    if len(rows) == 1:
        _insert(table).execute(db, dict(rows[0]))
    else:
        insert_rows(db, table, rows)


def delete_rows(db: Connection, table: Table, column: Column[str], values: Sequence[str]) -> None:
    """Delete the rows that have one of these keys in a column."""
    if len(values) == 1:
        _delete(table, column).execute(db, {"value": values[0]})
        return
    for start in range(0, len(values), _CHUNK):
        some = dialect_of(db).as_list(values[start : start + _CHUNK])
        _delete_some(table, column).execute(db, {"values": some})


def replace_rows(
    db: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Delete the rows with these keys, and insert others."""
    delete_rows(db, table, table.c.row_key, keys)
    add_rows(db, table, rows)


def overwrite_row(
    db: Connection, table: Table, values: Mapping[str, Any], *, changing: tuple[str, ...]
) -> bool:
    """Change these columns of the row with the same `row_key`; False if it is not there."""
    overwrite, names = _overwrite(table, changing)
    new = {new_name: values[name] for name, new_name in names}
    return dialect_of(db).changed_rows(overwrite.execute(db, new)) > 0


def purge(db: Connection, table: Table, erasure: StoredEvent) -> None:
    """Remove the rows that hold a body which a BodyErased names."""
    erased = set(payload.erased_versions(erasure.body))
    holding = (
        select(table.c.row_key, keeper_of(events))
        .join_from(table, events, events.c.version == table.c.version)
        .where(table.c.pipeline_key == erasure.pipeline.key, belongs_to(erasure.pipeline))
    )
    for key, kept in db.execute(holding).all():
        if kept in erased:
            db.execute(table.delete().where(table.c.row_key == key))


def of_others(table: Table) -> ColumnElement[bool]:
    """The condition for rows that unmodified PyAirbyte wrote and no history has yet."""
    return and_(table.c.pipeline_key.is_(None), table.c.version.is_(None))


@cache
def _insert(table: Table) -> Statement:
    row: dict[str, Any] = {column.name: bindparam(column.name) for column in table.columns}
    return Statement(lambda _: table.insert().values(row))


@cache
def _delete(table: Table, column: Column[str]) -> Statement:
    return Statement(lambda _: table.delete().where(column == bindparam("value")))


@cache
def _delete_some(table: Table, column: Column[str]) -> Statement:
    return Statement(lambda dialect: table.delete().where(dialect.is_in_list(column, "values")))


@cache
def _overwrite(table: Table, columns: tuple[str, ...]) -> tuple[Statement, list[tuple[str, str]]]:
    """The statement, and the names that it has for the values of columns."""
    # Not ON CONFLICT: it needs a key, and on DuckDB takes three times as long in a transaction
    # that has written before. There each column of an UPDATE costs, too.
    new: dict[str, Any] = {column: bindparam(f"new_{column}") for column in columns}
    mine = table.c.row_key == bindparam("new_row_key")
    overwrite = table.update().where(mine).values(new)
    names = [(column, f"new_{column}") for column in ("row_key", *columns)]
    return Statement(lambda _: overwrite), names
