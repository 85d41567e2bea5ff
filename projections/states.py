"""The latest state of each pipeline: two tables, the rule that fills them, the read."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Table, bindparam, exists, func, select

from eventstore import payload
from eventstore.events import Pipeline, StoredEvent, StreamDescriptor, names_key, to_datetime
from eventstore.head import last_event
from eventstore.rows import OF_PIPELINE, PIPELINE_ID
from eventstore.statements import Statement
from eventstore.tables import WHOLE_PIPELINE, events, streams
from eventstore.writing import Beside
from projections.tables import (
    CACHE_STATE_TABLE,
    DESTINATION_STATE_TABLE,
    GLOBAL_STATE_STREAM_NAME,
    LEGACY_STATE_STREAM_NAME,
    STATE_TABLES,
    add_rows,
    delete_rows,
    overwrite_row,
    purge,
)
from projections.views import STATE_KINDS, StateView, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import CTE, Connection, Insert, Select

    from eventstore.dialects import Dialect
    from eventstore.store import EventStore

TABLES = STATE_TABLES
KINDS = STATE_KINDS

_CHANGING = ("state_json", "last_updated", "version")

_WHOLE_NAMES = {"GLOBAL": GLOBAL_STATE_STREAM_NAME, "LEGACY": LEGACY_STATE_STREAM_NAME}


def apply(db: Connection, appended: Sequence[StoredEvent]) -> None:
    """Bring the state tables to where these events of a history leave them."""
    pipeline = appended[0].pipeline
    table = _table(pipeline)
    if len(appended) == 1 and _overwrite(db, table, appended[0]):
        return
    for stored in appended:
        if stored.kind == "BodyErased":
            purge(db, table, stored)
    all_gone, left = _left_by(appended)
    if all_gone:
        delete_rows(db, table, table.c.pipeline_key, [pipeline.key])
    else:
        delete_rows(db, table, table.c.row_key, [_row_key(pipeline, stream) for stream in left])
    saved = [stored for stored in left.values() if stored]
    add_rows(db, table, [_row(stored, _row_key(pipeline, stored.stream)) for stored in saved])


def _left_by(
    appended: Iterable[StoredEvent],
) -> tuple[bool, dict[StreamDescriptor | None, StoredEvent | None]]:
    """Whether nothing of before stands any more, and what stands instead: None where nothing does.

    `views.StateView` is the same rule for one event; a GLOBAL or LEGACY state is under None.
    """
    all_gone = False
    left: dict[StreamDescriptor | None, StoredEvent | None] = {}
    for stored in appended:
        if stored.kind not in KINDS:
            continue
        saves = stored.kind == "StateSaved"
        if stored.stream is None:
            all_gone, left = True, {}
        elif saves:  # what was erased, too, took the place of a GLOBAL or LEGACY state
            left[None] = None
        left[stored.stream] = stored if saves and not stored.erased else None
    return all_gone, left


def _overwrite(db: Connection, table: Table, stored: StoredEvent) -> bool:
    """Overwrite the row of a stream, if it has one: then no GLOBAL or LEGACY state stands."""
    if stored.kind != "StateSaved" or stored.stream is None or stored.erased:
        return False
    changed = {
        "row_key": _row_key(stored.pipeline, stored.stream),
        "state_json": stored.body.decode(),
        "last_updated": stored.stored_at,
        "version": stored.version,
    }
    return overwrite_row(db, table, changed, changing=_CHANGING)


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
        its_key = table.c.row_key == bindparam("whole_key")
        whole = table.delete().where(its_key, exists(select(event.c.version)))
        replaced = new.on_conflict_do_update(index_elements=["row_key"], set_=changed)
        return replaced.add_cte(whole.cte("whole"))

    return clause


def latest_state(store: EventStore, pipeline: Pipeline) -> StateView:
    """The current state of a pipeline, from its table, in one statement."""
    return read_rows(store, pipeline).view


class Rows(NamedTuple):
    """What the rows of a pipeline say, and of how many streams its history has spoken."""

    view: StateView
    known_streams: int

    @property
    def may_be_lacking(self) -> bool:
        """Whether there can be states without a row.

        Beside a GLOBAL or LEGACY state there are none, and no stream has two rows.
        """
        streams = len(self.view.streams)
        whole = self.view.whole is not None or not self.view.version
        return not whole and (streams == 0 or streams < self.known_streams)


def read_rows(store: EventStore, pipeline: Pipeline) -> Rows:
    """Read the rows of a pipeline, in one statement."""
    table = _table(pipeline)
    named = {"pipeline_key": pipeline.key}
    rows = store.database.read(lambda db: _latest(table).fetch(db, named))
    if not rows:
        return Rows(StateView(pipeline), 0)
    version, stored_at, known_streams, *_ = rows[0]
    whole_key = _row_key(pipeline, None)
    whole, streams = None, {}
    for *_, name, namespace, key, state in rows:
        if state is not None and key == whole_key:
            whole = state.encode()
        elif state is not None:
            streams[StreamDescriptor(name, namespace)] = state.encode()
    view = StateView(
        pipeline, version=version, stored_at=to_datetime(stored_at), whole=whole, streams=streams
    )
    return Rows(view, known_streams)


@cache
def _latest(table: Table) -> Statement:
    """The head of a pipeline, beside each row of its state."""
    return Statement(partial(_beside_rows, table=table))


def _beside_rows(dialect: Dialect, table: Table) -> Select[Any]:
    head = last_event(dialect, (events.c.version, events.c.stored_at), OF_PIPELINE).subquery()
    known = (
        select(func.count())
        .where(streams.c.pipeline_id == PIPELINE_ID)
        .where(streams.c.number != WHOLE_PIPELINE)
    )
    return (
        select(
            head.c.version,
            head.c.stored_at,
            known.scalar_subquery().label("known_streams"),
            table.c.stream_name,
            table.c.stream_namespace,
            table.c.row_key,
            table.c.state_json,
        )
        .outerjoin_from(head, table, table.c.pipeline_key == bindparam("pipeline_key"))
        .order_by(table.c.version)
    )


def without_row(db: Connection, store: EventStore, pipeline: Pipeline) -> list[StoredEvent]:
    """The events that say what the state is, but whose rows are not there."""
    there = _row_keys(db, pipeline)
    current = standing(store.newest_within(db, pipeline, KINDS))
    return [
        stored
        for stored in current.values()
        if not stored.erased and _row_key(pipeline, stored.stream) not in there
    ]


def expected_rows(newest: Sequence[StoredEvent]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """The rows that the newest events of a history say are there, each with its table."""
    telling = (stored for stored in newest if stored.kind in KINDS)
    for stream, stored in standing(telling).items():
        if not stored.erased:
            yield _table(stored.pipeline), _row(stored, _row_key(stored.pipeline, stream))


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
