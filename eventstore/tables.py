"""The tables of the log.

They have no schema of their own: an engine's `schema_translate_map` puts them beside the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    case,
    func,
    literal_column,
    type_coerce,
)
from sqlalchemy.types import NullType

from eventstore.events import KINDS, NAME_LIMIT, ORIGINS
from eventstore.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, FromClause

metadata = MetaData()

schema_versions = Table(
    "_eventstore_schema",
    metadata,
    Column("component", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

pipelines = Table(
    "_eventstore_pipelines",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(32), nullable=False),
    Column("source", String(NAME_LIMIT), nullable=False),
    Column("destination", String(NAME_LIMIT)),
    Column("table_prefix", String(NAME_LIMIT), nullable=False),
    Column("connection", String(NAME_LIMIT), nullable=False),
    UniqueConstraint("key", name="_eventstore_pipelines_key"),
)

WHOLE_PIPELINE = 0
"""The `stream_number` of events that speak of the whole pipeline; its row has no name."""

streams = Table(
    "_eventstore_streams",
    metadata,
    Column("pipeline_id", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("namespace", String(NAME_LIMIT)),
    Column("name", String(NAME_LIMIT)),
    PrimaryKeyConstraint("pipeline_id", "number"),
)

NEWEST_INDEX = "_eventstore_events_newest"

KIND = Words("kind of event", KINDS)
ORIGIN = Words("origin", ORIGINS)

events = Table(
    "_eventstore_events",
    metadata,
    Column("pipeline_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("stored_at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("append_id", LargeBinary(16), nullable=False),
    Column("kind", KIND, nullable=False),
    Column("format", Integer, nullable=False),
    Column("stream_number", Integer, nullable=False),
    Column("origin", ORIGIN),
    Column("of_version", BigInteger),
    Column("actor", String(NAME_LIMIT), nullable=False),
    Column("reason", Text),
    Column("run", String(NAME_LIMIT), nullable=False),
    Column("body_at", BigInteger),  # which earlier version keeps the body; null: this one
    Column("commitment", LargeBinary(32)),
    Column("hash", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("pipeline_id", "version"),
    Index("_eventstore_events_append", "append_id"),
    Index("_eventstore_events_time", "stored_at", "pipeline_id", "version"),
    Index(NEWEST_INDEX, "pipeline_id", "kind", "stream_number", "version"),
    sqlite_with_rowid=False,
)

_VERSION_BITS = 40
VERSIONS = 1 << _VERSION_BITS
"""The ids of bodies count by it: a BIGINT has room for `PIPELINES`, each of fewer versions."""

PIPELINES = 1 << 63 - _VERSION_BITS

bodies = Table(
    "_eventstore_bodies",
    metadata,
    # SQLite finds a row by an INTEGER without an index beside the table.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), autoincrement=False),
    Column("salt", LargeBinary(16), nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
)


def body_id(pipeline_id: Any, version: Any) -> Any:
    """The id of the body that a version of a pipeline keeps, from numbers or from columns."""
    return pipeline_id * VERSIONS + version


# Not by `%`, which is another thing where MariaDB speaks Oracle's SQL. It is unsigned on MariaDB:
# who takes it off an id gets an error where that is negative.
BODY_VERSION = bodies.c.id.bitwise_and(VERSIONS - 1)
"""The version of a body, by its id."""

BODY_PIPELINE = bodies.c.id.bitwise_rshift(literal_column(str(_VERSION_BITS)))
"""The number of its pipeline; PostgreSQL shifts by no BIGINT, which a parameter would be."""


def bodies_of(pipeline_id: int) -> ColumnElement[bool]:
    """The condition for the bodies of a pipeline."""
    return bodies.c.id.between(body_id(pipeline_id, 0), body_id(pipeline_id, VERSIONS - 1))


def bodies_at(pipeline_id: int, versions: Iterable[int]) -> ColumnElement[bool]:
    """The condition for the bodies that these versions of a pipeline keep."""
    return bodies.c.id.in_([body_id(pipeline_id, version) for version in versions])


def keeper_of(event: FromClause) -> ColumnElement[int | None]:
    """The version that keeps the body of an event, null where there never was one."""
    keeper = func.coalesce(event.c.body_at, event.c.version)
    return case((event.c.commitment.is_not(None), keeper))


def raw(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column as the driver gives it: what was altered may be of a type it cannot be turned to."""
    return type_coerce(column, NullType())


KEEPS_ITS_BODY = bodies.c.id == body_id(events.c.pipeline_id, keeper_of(events))
"""To join events with their bodies, wherever these are."""

STANDS_BESIDE_IT = bodies.c.id == body_id(events.c.pipeline_id, events.c.version)
"""To join events with the bodies that they themselves keep."""
