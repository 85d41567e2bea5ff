"""Events as rows of the log, and rows as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import and_, bindparam, select

from eventstore.events import Pipeline, StoredEvent, StreamDescriptor, to_datetime
from eventstore.sharing import Reader, reader
from eventstore.tables import bodies, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import (
        ColumnElement,
        Connection,
        FromClause,
        Row,
        RowMapping,
        Select,
        Subquery,
    )

KEEPS_ITS_BODY = and_(
    bodies.c.pipeline_id == events.c.pipeline_id,
    bodies.c.version == events.c.body_version,
)


def _stored(those: FromClause) -> Select[Any]:
    of_stream = and_(
        streams.c.pipeline_id == events.c.pipeline_id,
        streams.c.number == events.c.stream_number,
    )
    return select(
        pipelines.c.id,
        pipelines.c.source,
        pipelines.c.destination,
        pipelines.c.table_prefix,
        pipelines.c.connection,
        streams.c.namespace,
        streams.c.name,
        events,
        bodies.c.codec,
        bodies.c.data,
    ).select_from(
        those.join(pipelines, pipelines.c.id == events.c.pipeline_id)
        .join(streams, of_stream)
        .outerjoin(bodies, KEEPS_ITS_BODY)
    )


STORED = _stored(events)
"""Everything a stored event is made of."""


def stored_of(keys: Subquery) -> Select[Any]:
    """The same of the events with these keys, which databases then look up one by one."""
    same = and_(
        events.c.pipeline_id == keys.c.pipeline_id,
        events.c.version == keys.c.version,
    )
    return _stored(keys.join(events, same))


OF_PIPELINE = (
    events.c.pipeline_id
    == select(pipelines.c.id).where(pipelines.c.key == bindparam("pipeline_key")).scalar_subquery()
)
"""`belongs_to` for a statement that is compiled once; its parameter is `pipeline_key`."""


def belongs_to(pipeline: Pipeline) -> ColumnElement[bool]:
    """The condition for events of a pipeline, so that databases find its id first."""
    its_id = select(pipelines.c.id).where(pipelines.c.key == pipeline.key).scalar_subquery()
    return events.c.pipeline_id == its_id


def pipeline_row(pipeline_id: int, pipeline: Pipeline) -> dict[str, Any]:
    """The row of a pipeline."""
    return {
        "id": pipeline_id,
        "key": pipeline.key,
        "source": pipeline.source,
        "destination": pipeline.destination,
        "table_prefix": pipeline.table_prefix,
        "connection": pipeline.connection,
    }


def pipeline_of(row: Any) -> Pipeline:
    """The pipeline of a row."""
    return Pipeline(row.source, row.destination, row.table_prefix, row.connection)


def stored_event(
    row: Mapping[str, Any] | RowMapping,
    pipeline: Pipeline,
    stream: StreamDescriptor | None,
    body: bytes | None,
) -> StoredEvent:
    """The event of a row; its body is None where it is not there."""
    return StoredEvent(
        pipeline=pipeline,
        version=row["version"],
        id=UUID(bytes=bytes(row["append_id"])),
        stored_at=to_datetime(row["stored_at"]),
        kind=row["kind"],
        format=row["format"],
        stream=stream,
        origin=row["origin"],
        of=row["of_version"],
        body=body or b"",
        actor=row["actor"],
        reason=row["reason"],
        run=row["run"],
        hash=bytes(row["hash"]),
        body_version=row["body_version"],
        erased=body is None and row["body_version"] is not None,
    )


def with_bodies(db: Connection, rows: Sequence[Row[Any]]) -> list[tuple[Row[Any], bytes | None]]:
    """Rows selected by STORED, each with its body; None where it is not there."""
    readers: dict[int, Reader] = {}
    found: list[tuple[Row[Any], bytes | None]] = []
    for row in rows:
        body = None
        if row.data is not None:
            if row.id not in readers:
                readers[row.id] = reader(db, row.id)
            body = readers[row.id].body(row.codec, row.data, row.body_version)
        found.append((row, body))
    return found


def stored_events(found: Iterable[tuple[Row[Any], bytes | None]]) -> Iterator[StoredEvent]:
    """The events of rows and their bodies."""
    seen: dict[int, Pipeline] = {}
    for row, body in found:
        if row.id not in seen:
            seen[row.id] = pipeline_of(row)
        stream = None if row.name is None else StreamDescriptor(row.name, row.namespace)
        yield stored_event(row._mapping, seen[row.id], stream, body)
