"""The latest state of each pipeline: two tables, the rule that fills them, the read."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, bindparam, select

from eventstore import payload
from eventstore.append import Beside
from eventstore.events import Pipeline, StoredEvent, StreamDescriptor, names_key, to_datetime
from eventstore.rows import OF_PIPELINE
from eventstore.statements import Statement
from eventstore.tables import events
from projections.tables import (
    CACHE_STATE_TABLE,
    DESTINATION_STATE_TABLE,
    GLOBAL_STATE_STREAM_NAME,
    LEGACY_STATE_STREAM_NAME,
    STATE_TABLES,
    delete_rows,
    insert_row,
    purge,
    replace_row,
)
from projections.views import STATE_KINDS, StateView, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import CTE, Connection, Insert

    from eventstore.store import EventStore

TABLES = STATE_TABLES
KINDS = STATE_KINDS

_CHANGING = ("state_json", "last_updated", "version")

_WHOLE_NAMES = {"GLOBAL": GLOBAL_STATE_STREAM_NAME, "LEGACY": LEGACY_STATE_STREAM_NAME}


def apply(db: Connection, stored: StoredEvent) -> None:
    """Bring the state tables to where the event leaves them; `views.StateView` is the same rule."""
    table = _table(stored.pipeline)
    if stored.kind == "BodyErased":
        purge(db, table, stored)
    if stored.kind not in KINDS:
        return
    key = _row_key(stored.pipeline, stored.stream)
    if stored.stream is None:
        delete_rows(db, table, table.c.pipeline_key, stored.pipeline.key)
        if stored.kind == "StateSaved" and not stored.erased:
            insert_row(db, table, _row(stored, key))
    elif stored.erased:  # it left no row, and took that of a GLOBAL or LEGACY state with it
        for gone in (key, _row_key(stored.pipeline, None)):
            delete_rows(db, table, table.c.row_key, gone)
    elif stored.kind == "StateCleared":
        delete_rows(db, table, table.c.row_key, key)
    elif not replace_row(db, table, _row(stored, key), changing=_CHANGING):
        # Only a stream without a row can follow a GLOBAL or LEGACY state: that removed them all.
        delete_rows(db, table, table.c.row_key, _row_key(stored.pipeline, None))


def beside(stored: StoredEvent) -> Beside | None:
    """Bring the table to where the event leaves it, as part of the statement that inserts it."""
    if stored.kind != "StateSaved" or stored.stream is None:
        return None
    row = _row(stored, _row_key(stored.pipeline, stored.stream))
    parameters = {f"row_{name}": value for name, value in row.items()}
    parameters["whole_key"] = _row_key(stored.pipeline, None)
    return Beside(_row_beside(_table(stored.pipeline)), parameters)


@cache
def _row_beside(table: Table) -> Callable[[CTE], Insert]:
    """The row of a stream, put in the place of the one it had, or of a GLOBAL or LEGACY state."""

    def clause(event: CTE) -> Insert:
        from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415 - slow to import

        values = [bindparam(f"row_{column.name}", type_=column.type) for column in table.columns]
        row = select(*values).select_from(event)
        new = insert(table).from_select([column.name for column in table.columns], row)
        changed = {name: new.excluded[name] for name in _CHANGING}
        whole = table.delete().where(table.c.row_key == bindparam("whole_key"))
        replaced = new.on_conflict_do_update(index_elements=["row_key"], set_=changed)
        return replaced.add_cte(whole.cte("whole"))

    return clause


def latest_state(store: EventStore, pipeline: Pipeline) -> StateView:
    """The current state of a pipeline, from its table, in one statement."""
    table = _table(pipeline)
    named = {"pipeline_key": pipeline.key}
    rows = store.database.read(lambda db: _latest(table).run(db, named).all())
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


@cache
def _latest(table: Table) -> Statement:
    """The head of a pipeline, beside each row of its state."""
    head = (
        select(events.c.version, events.c.stored_at)
        .where(OF_PIPELINE)
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
        .outerjoin_from(head, table, table.c.pipeline_key == bindparam("pipeline_key"))
        .order_by(table.c.version)
    )
    return Statement(lambda _: query)


def without_row(db: Connection, store: EventStore, pipeline: Pipeline) -> list[StoredEvent]:
    """The events that say what the state is, but whose rows are not there."""
    there = _row_keys(db, pipeline)
    current = standing(store.newest_within(db, pipeline, KINDS))
    return [
        stored
        for stored in current.values()
        if not stored.erased and _row_key(pipeline, stored.stream) not in there
    ]


def expected_rows(
    db: Connection, store: EventStore, pipeline: Pipeline
) -> Iterator[tuple[Table, dict[str, Any]]]:
    """The rows that the log says are there, each with its table."""
    for stream, stored in standing(store.newest_within(db, pipeline, KINDS)).items():
        if not stored.erased:
            yield _table(pipeline), _row(stored, _row_key(pipeline, stream))


def with_row(
    db: Connection, store: EventStore, pipeline: Pipeline
) -> dict[StreamDescriptor | None, StoredEvent]:
    """The events that say what the state is, and whose rows are there."""
    there = _row_keys(db, pipeline)
    current = standing(store.newest_within(db, pipeline, KINDS))
    return {key: each for key, each in current.items() if _row_key(pipeline, key) in there}


def _row_keys(db: Connection, pipeline: Pipeline) -> set[str]:
    table = _table(pipeline)
    return set(db.scalars(select(table.c.row_key).where(table.c.pipeline_key == pipeline.key)))


def _table(pipeline: Pipeline) -> Table:
    return CACHE_STATE_TABLE if pipeline.destination is None else DESTINATION_STATE_TABLE


def _row_key(pipeline: Pipeline, stream: StreamDescriptor | None) -> str:
    """One row per stream, and one for a GLOBAL or LEGACY state, whatever streams are called."""
    if stream is None:
        return names_key(pipeline.key)
    return names_key(pipeline.key, stream.namespace, stream.name)


def _row(stored: StoredEvent, key: str) -> dict[str, Any]:
    pipeline, stream = stored.pipeline, stored.stream
    name = stream.name if stream else _WHOLE_NAMES[payload.state_kind(stored.body)]
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
