"""Events as rows of the log, and rows as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import and_, bindparam, func, select, true, type_coerce
from sqlalchemy.sql.util import ClauseAdapter

from eventstore.dialects import dialect_of
from eventstore.errors import StoreUnavailable
from eventstore.events import Pipeline, StoredEvent, StreamDescriptor, known_as, to_datetime
from eventstore.sharing import Reader, reader
from eventstore.statements import ALONE, Statement
from eventstore.tables import (
    KEEPS_ITS_BODY,
    KIND,
    ORIGIN,
    PIPELINES,
    bodies,
    body_id,
    events,
    keeper_of,
    pipelines,
    streams,
)
from eventstore.words import kept_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Select, Subquery

    from eventstore.dialects import Dialect


def _stored(those: FromClause, event: FromClause, body: FromClause) -> Select[Any]:
    e = event.c
    return select(
        e.pipeline_id,
        e.stream_number,
        e.version,
        e.append_id,
        e.stored_at,
        type_coerce(e.kind, kept_type(KIND)),  # as rows that come from the driver have it
        e.format,
        type_coerce(e.origin, kept_type(ORIGIN)),
        e.of_version,
        e.actor,
        e.reason,
        e.run,
        e.hash,
        keeper_of(event),
        body.c.codec,
        body.c.data,
    ).select_from(those)


STORED = _stored(events.outerjoin(bodies, KEEPS_ITS_BODY), events, bodies)
"""All that a stored event is made of but names, in the order in which `stored_events` takes it."""

OF_STREAM = and_(
    streams.c.pipeline_id == events.c.pipeline_id,
    streams.c.number == events.c.stream_number,
)
"""To join events with the streams that they speak of."""

STORED_BY_NAME = _stored(
    events.join(pipelines, pipelines.c.id == events.c.pipeline_id)
    .join(streams, OF_STREAM)
    .outerjoin(bodies, KEEPS_ITS_BODY),
    events,
    bodies,
)
"""The same, for conditions on the names of pipelines and streams."""


def stored_of(keys: Subquery, dialect: Dialect, order: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """The same of the events with these keys, which databases then look up one by one.

    In an order by columns of the events.
    """
    same = and_(
        events.c.pipeline_id == keys.c.pipeline_id,
        events.c.version == keys.c.version,
    )
    if not dialect.SEEKS_BY_LATERAL:
        those = keys.join(events, same).outerjoin(bodies, KEEPS_ITS_BODY)
        return _stored(those, events, bodies).order_by(*order)
    event = select(events).where(same).offset(ALONE).lateral()
    its_own = bodies.c.id == body_id(event.c.pipeline_id, keeper_of(event))
    body = select(bodies.c.codec, bodies.c.data).where(its_own).offset(ALONE).lateral()
    those = keys.join(event, true()).outerjoin(body, true())
    adapted = map(ClauseAdapter(event).traverse, order)
    return _stored(those, event, body).order_by(*adapted)


def stored_where(
    dialect: Dialect,
    where: Sequence[ColumnElement[bool]],
    order: Sequence[ColumnElement[Any]],
    limit: ColumnElement[int] | None = None,
) -> Select[Any]:
    """The same of the events that match, by their own columns, in an order by those.

    What keeps columns chooses them before anything is joined: it reads all bodies else.
    """
    if not dialect.KEEPS_COLUMNS:
        return STORED.where(*where).order_by(*order).limit(limit)
    keys = select(events.c.pipeline_id, events.c.version).where(*where)
    return stored_of(keys.order_by(*order).limit(limit).subquery(), dialect, order)


_ITS_ID = select(pipelines.c.id).where(pipelines.c.key == bindparam("pipeline_key"))

PIPELINE_ID = _ITS_ID.scalar_subquery()
"""The database's id of the pipeline `pipeline_key`, null if nothing was ever appended to it."""

OF_PIPELINE = events.c.pipeline_id == PIPELINE_ID
"""`belongs_to` for a statement that is compiled once; its parameter is `pipeline_key`."""


def belongs_to(pipeline: Pipeline) -> ColumnElement[bool]:
    """The condition for events of a pipeline, so that databases find its id first."""
    its_id = select(pipelines.c.id).where(pipelines.c.key == pipeline.key).scalar_subquery()
    return events.c.pipeline_id == its_id


_find_id = Statement(lambda _: _ITS_ID)


def find_pipeline_id(db: Connection, pipeline: Pipeline) -> int | None:
    """The database's id of a pipeline, None if nothing was ever appended to it."""
    found = _find_id.fetch(db, {"pipeline_key": pipeline.key})
    return found[0][0] if found else None


_find_several = Statement(
    lambda dialect: select(pipelines.c.id, pipelines.c.key).where(
        dialect.is_in_list(pipelines.c.key, "keys")
    )
)


def find_pipelines(db: Connection, those: Iterable[Pipeline]) -> dict[int, Pipeline]:
    """Those of these pipelines that have a history, by the database's ids."""
    by_key = {pipeline.key: pipeline for pipeline in those}
    keys = dialect_of(db).as_list(by_key)
    return {its_id: by_key[key] for its_id, key in _find_several.fetch(db, {"keys": keys})}


def next_pipeline_id(db: Connection) -> int:
    """The id of a pipeline that begins now, unless somebody else takes it first.

    Raises StoreUnavailable where there is no room for one more.
    """
    its_id: int = (db.scalar(select(func.max(pipelines.c.id))) or 0) + 1
    if its_id >= PIPELINES:
        raise StoreUnavailable(
            f"this database has {PIPELINES - 1} pipelines and no room for more: put new ones into "
            "another"
        )
    return its_id


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


def stream_row(pipeline_id: int, number: int, stream: StreamDescriptor | None) -> dict[str, Any]:
    """The row of a stream, or of the whole pipeline."""
    return {
        "pipeline_id": pipeline_id,
        "number": number,
        "namespace": stream and stream.namespace,
        "name": stream and stream.name,
    }


def stream_of(name: str | None, namespace: str | None) -> StreamDescriptor | None:
    """The stream of a row, None of the whole pipeline's."""
    return None if name is None else known_as(name, namespace)


def pipeline_of(row: Any) -> Pipeline:
    """The pipeline of a row."""
    return Pipeline(row.source, row.destination, row.table_prefix, row.connection)


_met = Statement(
    lambda dialect: (
        select(streams.c.number, streams.c.namespace, streams.c.name, pipelines)
        .join_from(streams, pipelines, pipelines.c.id == streams.c.pipeline_id)
        .where(dialect.is_in_list(streams.c.pipeline_id, "ids"))
        .where(dialect.is_in_list(streams.c.number, "numbers"))
    )
)


class Names:
    """The pipelines and streams that events have by their numbers: each is read when first met.

    Not joined: that takes a third of the time of a page, and PostgreSQL, before its first ANALYZE,
    plans it three times as long.
    """

    def __init__(self) -> None:
        """Know none yet."""
        self.pipelines: dict[int, Pipeline] = {}
        self.streams: dict[tuple[int, int], StreamDescriptor | None] = {}

    def meet(self, db: Connection, met: Iterable[tuple[int, int]]) -> None:
        """Read those of these streams, by pipeline and number, that are not known.

        Raises StoreUnavailable where the row of one is gone.
        """
        unknown = set(met) - self.streams.keys()
        if not unknown:
            return
        as_list = dialect_of(db).as_list
        ids, numbers = ({place[n] for place in unknown} for n in (0, 1))
        met_streams = {"ids": as_list(ids), "numbers": as_list(numbers)}
        for number, namespace, name, its_id, _, *names in _met.fetch(db, met_streams):
            self.streams[its_id, number] = stream_of(name, namespace)
            if its_id not in self.pipelines:
                self.pipelines[its_id] = Pipeline(*names)
        for its_id, number in unknown - self.streams.keys():
            raise StoreUnavailable(
                f"the log has events of pipeline number {its_id}, stream number {number}, and no "
                "name of it: `eventstore verify` finds all that was changed"
            )


def stored_events(
    db: Connection, rows: Sequence[Sequence[Any]], names: Names | None = None
) -> list[StoredEvent]:
    """The events of rows selected by STORED, in their order; who reads on keeps the names.

    Raises StoreUnavailable or AlteredBody.
    """
    names = names or Names()
    names.meet(db, [(row[0], row[1]) for row in rows])
    owners, descriptors = names.pipelines, names.streams
    kinds, origins = KIND.words, ORIGIN.words
    readers: dict[int, Reader] = {}
    ids: dict[bytes, UUID] = {}  # to make one takes as long as all else of its event
    found = []
    # By their places: a row's values cost more by their names than all else here.
    for (
        its_id,
        number,
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
        if its_id not in readers:
            readers[its_id] = reader(db, its_id)
        append_id = bytes(append_id)  # noqa: PLW2901 - some drivers hand out views
        if append_id not in ids:
            ids[append_id] = UUID(bytes=append_id)
        body = None if data is None else readers[its_id].body(codec, data, keeper)
        stored = StoredEvent.made_of(
            {
                "pipeline": owners[its_id],
                "version": version,
                "id": ids[append_id],
                "stored_at": to_datetime(stored_at),
                "kind": kinds[kind],
                "format": form,
                "stream": descriptors[its_id, number],
                "origin": origins[origin],
                "of": of_version,
                "body": body or b"",
                "actor": actor,
                "reason": reason,
                "run": run,
                "hash": bytes(its_hash),
                "body_version": keeper,
                "erased": body is None and keeper is not None,
            }
        )
        found.append(stored)
    return found
