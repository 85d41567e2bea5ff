"""Events as rows of the log, and rows as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import and_, bindparam, select

from eventstore.events import Pipeline, StoredEvent, StreamDescriptor, to_datetime
from eventstore.sharing import Reader, reader
from eventstore.tables import bodies, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, Subquery

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
        events.c.pipeline_id,
        pipelines.c.source,
        pipelines.c.destination,
        pipelines.c.table_prefix,
        pipelines.c.connection,
        streams.c.name,
        streams.c.namespace,
        events.c.version,
        events.c.append_id,
        events.c.stored_at,
        events.c.kind,
        events.c.format,
        events.c.origin,
        events.c.of_version,
        events.c.actor,
        events.c.reason,
        events.c.run,
        events.c.hash,
        events.c.body_version,
        bodies.c.codec,
        bodies.c.data,
    ).select_from(
        those.join(pipelines, pipelines.c.id == events.c.pipeline_id)
        .join(streams, of_stream)
        .outerjoin(bodies, KEEPS_ITS_BODY)
    )


STORED = _stored(events)
"""Everything a stored event is made of, in the order in which `stored_events` takes it."""


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


def stored_events(db: Connection, rows: Sequence[Row[Any]]) -> list[StoredEvent]:
    """The events of rows selected by STORED, in their order."""
    owners: dict[int, Pipeline] = {}
    readers: dict[int, Reader] = {}
    descriptors: dict[tuple[str | None, str | None], StreamDescriptor | None] = {(None, None): None}
    found = []
    # By their places: a row's values cost more by their names than all else here.
    for (
        its_id,
        source,
        destination,
        table_prefix,
        connection,
        name,
        namespace,
        version,
        append_id,
        stored_at,
        kind,
        form,
        origin,
        of_version,
        actor,
        reason,
        run,
        its_hash,
        keeper,
        codec,
        data,
    ) in rows:
        if its_id not in owners:
            owners[its_id] = Pipeline(source, destination, table_prefix, connection)
            readers[its_id] = reader(db, its_id)
        if (name, namespace) not in descriptors:
            whole = name is None
            descriptors[name, namespace] = None if whole else StreamDescriptor(name, namespace)
        body = None if data is None else readers[its_id].body(codec, data, keeper)
        stored = StoredEvent.made_of(
            pipeline=owners[its_id],
            version=version,
            id=UUID(bytes=bytes(append_id)),
            stored_at=to_datetime(stored_at),
            kind=kind,
            format=form,
            stream=descriptors[name, namespace],
            origin=origin,
            of=of_version,
            body=body or b"",
            actor=actor,
            reason=reason,
            run=run,
            hash=bytes(its_hash),
            body_version=keeper,
            erased=body is None and keeper is not None,
        )
        found.append(stored)
    return found
