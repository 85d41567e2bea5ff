"""The tables of the log.

They have no schema of their own: an engine's `schema_translate_map` puts them beside the caller's.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from eventstore.events import NAME_LIMIT

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

events = Table(
    "_eventstore_events",
    metadata,
    Column("pipeline_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("stored_at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("append_id", LargeBinary(16), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("format", Integer, nullable=False),
    Column("stream_number", Integer, nullable=False),
    Column("origin", String(16)),
    Column("of_version", BigInteger),
    Column("actor", String(NAME_LIMIT), nullable=False),
    Column("reason", Text),
    Column("run", String(NAME_LIMIT), nullable=False),
    Column("body_version", BigInteger),  # which event of this history keeps the body
    Column("commitment", LargeBinary(32)),
    Column("hash", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("pipeline_id", "version"),
    Index("_eventstore_events_append", "append_id"),
    Index("_eventstore_events_time", "stored_at", "pipeline_id", "version"),
    Index(NEWEST_INDEX, "pipeline_id", "kind", "stream_number", "version"),
    sqlite_with_rowid=False,
)

bodies = Table(
    "_eventstore_bodies",
    metadata,
    Column("pipeline_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("salt", LargeBinary(16), nullable=False),
    Column("codec", String(8), nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("pipeline_id", "version"),
)
