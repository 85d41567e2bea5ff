"""The latest state of each pipeline: two tables, the rule that fills them, the read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, select

from eventstore import codec
from eventstore.events import Pipeline, StoredEvent, StreamDescriptor, names_key, to_datetime
from eventstore.rows import belongs_to
from eventstore.tables import events
from projections.models import (
    GLOBAL_STATE_STREAM_NAME,
    LEGACY_STATE_STREAM_NAME,
    STATE_TABLES,
    CacheStreamStateModel,
    DestinationStreamStateModel,
    compare_rows,
    replace_row,
    table_of,
)
from projections.views import STATE_KINDS, StateView

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from eventstore.store import EventStore

TABLES = STATE_TABLES
KINDS = STATE_KINDS

_CHANGING = ("state_json", "last_updated", "version")

_WHOLE_NAMES = {"GLOBAL": GLOBAL_STATE_STREAM_NAME, "LEGACY": LEGACY_STATE_STREAM_NAME}


def apply(db: Connection, stored: StoredEvent) -> None:
    """Bring the state tables to where the event leaves them; `views.StateView` is the same rule."""
    if stored.kind not in KINDS:
        return
    table = _table(stored.pipeline)
    key = _row_key(stored.pipeline, stored.stream)
    if stored.stream is None:
        db.execute(table.delete().where(table.c.pipeline_key == stored.pipeline.key))
        if stored.kind == "StateSaved":
            db.execute(table.insert(), _row(stored, key))
    elif stored.kind == "StateCleared":
        db.execute(table.delete().where(table.c.row_key == key))
    elif not replace_row(db, table, _row(stored, key), changing=_CHANGING):
        # Only a stream without a row can follow a GLOBAL or LEGACY state: that removed them all.
        db.execute(table.delete().where(table.c.row_key == _row_key(stored.pipeline, None)))


def latest_state(store: EventStore, pipeline: Pipeline) -> StateView:
    """The current state of a pipeline, from its table, in one statement."""
    table = _table(pipeline)
    head = (
        select(events.c.version, events.c.stored_at)
        .where(belongs_to(pipeline))
        .order_by(events.c.version.desc())
        .limit(1)
        .subquery()
    )
    query = (
        select(
            head.c.version,
            head.c.stored_at,
            table.c.stream_name,
            table.c.stream_namespace,
            table.c.row_key,
            table.c.state_json,
        )
        .outerjoin_from(head, table, table.c.pipeline_key == pipeline.key)
        .order_by(table.c.version)
    )
    rows = store.database.read(lambda db: db.execute(query).all())
    if not rows:
        return StateView(pipeline)
    whole_key = _row_key(pipeline, None)
    states = [row for row in rows if row.state_json is not None]
    return StateView(
        pipeline,
        version=rows[0].version,
        stored_at=to_datetime(rows[0].stored_at),
        whole=next((row.state_json.encode() for row in states if row.row_key == whole_key), None),
        streams={
            StreamDescriptor(row.stream_name, row.stream_namespace): row.state_json.encode()
            for row in states
            if row.row_key != whole_key
        },
    )


def without_row(db: Connection, store: EventStore, pipeline: Pipeline) -> list[StoredEvent]:
    """The events that say what the state is, but whose rows are not there."""
    there = _row_keys(db, pipeline)
    current = _current(db, store, pipeline)
    return [stored for stored in current.values() if _row_key(pipeline, stored.stream) not in there]


def with_row(
    db: Connection, store: EventStore, pipeline: Pipeline
) -> dict[StreamDescriptor | None, StoredEvent]:
    """The events that say what the state is, and whose rows are there."""
    there = _row_keys(db, pipeline)
    current = _current(db, store, pipeline)
    return {key: each for key, each in current.items() if _row_key(pipeline, key) in there}


def differing_rows(db: Connection, store: EventStore, pipeline: Pipeline) -> list[str]:
    """Say which rows are not what the history adds up to."""
    current = _current(db, store, pipeline).values()
    wanted = [_row(stored, _row_key(pipeline, stored.stream)) for stored in current]
    return compare_rows(db, _table(pipeline), pipeline, wanted)


def _current(
    db: Connection, store: EventStore, pipeline: Pipeline
) -> dict[StreamDescriptor | None, StoredEvent]:
    """The events that say what the state is; `views.StateView` is the same rule."""
    current: dict[StreamDescriptor | None, StoredEvent] = {}
    for stored in store.newest_within(db, pipeline, KINDS):
        if stored.stream is None:
            current.clear()
        elif stored.kind == "StateSaved":
            current.pop(None, None)
        current.pop(stored.stream, None)
        if stored.kind == "StateSaved":
            current[stored.stream] = stored
    return current


def _row_keys(db: Connection, pipeline: Pipeline) -> set[str]:
    table = _table(pipeline)
    return set(db.scalars(select(table.c.row_key).where(table.c.pipeline_key == pipeline.key)))


def _table(pipeline: Pipeline) -> Table:
    to_cache = pipeline.destination is None
    return table_of(CacheStreamStateModel if to_cache else DestinationStreamStateModel)


def _row_key(pipeline: Pipeline, stream: StreamDescriptor | None) -> str:
    """One row per stream, and one for a GLOBAL or LEGACY state, whatever streams are called."""
    if stream is None:
        return names_key(pipeline.key)
    return names_key(pipeline.key, stream.namespace, stream.name)


def _row(stored: StoredEvent, key: str) -> dict[str, Any]:
    pipeline, stream = stored.pipeline, stored.stream
    name = stream.name if stream else _WHOLE_NAMES[codec.state_kind(stored.body)]
    place = (
        {"table_name": pipeline.table_prefix + name}
        if pipeline.destination is None
        else {"destination_name": pipeline.destination}
    )
    return {
        **place,
        "source_name": pipeline.source,
        "stream_name": name,
        "state_json": stored.body.decode(),
        "last_updated": stored.stored_at,
        "row_key": key,
        "pipeline_key": pipeline.key,
        "stream_namespace": stream.namespace if stream else None,
        "version": stored.version,
    }
