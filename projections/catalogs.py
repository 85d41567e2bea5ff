"""The catalog of each pipeline: one table, the rule that fills it, registering and reading."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import bindparam, func, select

from eventstore import configured_streams
from eventstore.errors import HistoryConflict, InvalidEvent
from eventstore.events import (
    CatalogRegistered,
    Origin,
    Pipeline,
    StoredEvent,
    StreamDefined,
    StreamDescriptor,
    names_key,
    to_datetime,
)
from eventstore.statements import Statement
from projections.tables import STREAMS_TABLE, overwrite_row, purge, replace_rows
from projections.views import CatalogView, registered_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airbyte_protocol.models import ConfiguredAirbyteStream
    from sqlalchemy import Connection, Table

    from eventstore.store import EventStore

TABLES = (STREAMS_TABLE,)
KINDS = ("StreamDefined",)

_CHANGING = ("catalog_metadata", "configured_stream", "version")

_ATTEMPTS = 100


def apply(db: Connection, appended: Sequence[StoredEvent]) -> None:
    """Bring the streams table to where these events of a history leave it."""
    defined = {stored.stream: stored for stored in appended if stored.kind == "StreamDefined"}
    for stored in appended:
        if stored.kind == "BodyErased":
            purge(db, STREAMS_TABLE, stored)
    there = [stored for stored in defined.values() if not stored.erased]
    if len(defined) == len(there) == 1:
        row = _row(there[0])
        if overwrite_row(db, STREAMS_TABLE, row, changing=_CHANGING):
            return
    replace_rows(db, STREAMS_TABLE, [*map(_row_key, defined.values())], [*map(_row, there)])


def expected_rows(newest: Sequence[StoredEvent]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """The rows that the newest events of a history say are there, each with its table."""
    for stored in newest:
        if stored.kind in KINDS and not stored.erased:
            yield STREAMS_TABLE, _row(stored)


def without_row(db: Connection, store: EventStore, pipeline: Pipeline) -> list[StoredEvent]:
    """The definitions whose rows are not there."""
    of_pipeline = STREAMS_TABLE.c.pipeline_key == pipeline.key
    there = set(db.scalars(select(STREAMS_TABLE.c.row_key).where(of_pipeline)))
    defined = store.newest_within(db, pipeline, ["StreamDefined"])
    return [stored for stored in defined if not stored.erased and _row_key(stored) not in there]


_JSON = json.JSONEncoder(ensure_ascii=False)  # `json.dumps` makes one for each text

_latest = Statement(
    lambda _: (
        select(
            STREAMS_TABLE.c.stream_name,
            STREAMS_TABLE.c.stream_namespace,
            STREAMS_TABLE.c.configured_stream,
            STREAMS_TABLE.c.version,
        )
        .where(STREAMS_TABLE.c.pipeline_key == bindparam("pipeline_key"))
        .order_by(STREAMS_TABLE.c.version)
    )
)


_count = Statement(
    lambda _: (
        select(func.count())
        .select_from(STREAMS_TABLE)
        .where(STREAMS_TABLE.c.pipeline_key == bindparam("pipeline_key"))
    )
)


def count_of_rows(store: EventStore, pipeline: Pipeline) -> int:
    """How many streams the table has of a pipeline."""
    named = {"pipeline_key": pipeline.key}
    return int(store.database.read(lambda db: _count.fetch(db, named))[0][0])


def latest_catalog(store: EventStore, pipeline: Pipeline) -> CatalogView:
    """The current catalog of a pipeline, from its table and its newest registration."""
    head = store.head(pipeline)
    if not head.version:
        return CatalogView(pipeline)
    named = {"pipeline_key": pipeline.key}
    rows = store.database.read(lambda db: _latest.fetch(db, named))
    if rows and rows[-1][-1] > head.version:
        return latest_catalog(store, pipeline)  # somebody registered between the two reads
    registrations = store.newest(pipeline, ["CatalogRegistered"], head.version)
    return CatalogView(
        pipeline,
        version=head.version,
        stored_at=to_datetime(head.stored_at),
        definitions={
            StreamDescriptor(name, namespace): configured.encode()
            for name, namespace, configured, _ in rows
        },
        registered=registered_by(registrations[0]) if registrations else {},
    )


def register_catalog(
    store: EventStore,
    pipeline: Pipeline,
    catalog: object,
    *,
    origin: Origin = "source",
    actor: str | None = None,
    reason: str | None = None,
    run: str | None = None,
) -> list[StoredEvent]:
    """Append a CatalogRegistered, and before it a StreamDefined for each stream that is new.

    `catalog` is a ConfiguredAirbyteCatalog, a dict, text or bytes. Streams it does not name stay
    in the pipeline's catalog as they were. Raises InvalidEvent or StoreUnavailable; then nothing
    was stored.
    """
    streams = by_descriptor(configured_streams.configured_catalog(catalog).streams)
    for _ in range(_ATTEMPTS):
        current = latest_catalog(store, pipeline)
        events = registration(current, streams, origin)
        try:
            return store.append(
                pipeline, *events, expected=current.version, actor=actor, reason=reason, run=run
            )
        except HistoryConflict as conflict:
            lost = conflict
    raise lost


def registration(
    current: CatalogView,
    streams: dict[StreamDescriptor, ConfiguredAirbyteStream],
    origin: Origin = "source",
) -> list[StreamDefined | CatalogRegistered]:
    """The events that registering these streams adds to a catalog."""
    defined = [
        StreamDefined(stream, origin)
        for descriptor, stream in streams.items()
        if not configured_streams.same_definition(stream, current.definitions.get(descriptor))
    ]
    carried = [
        dict(entry) for descriptor, entry in current.registered.items() if descriptor not in streams
    ]
    named = [_entry(stream) for stream in streams.values()]
    return [*defined, CatalogRegistered([*carried, *named], origin)]


def by_descriptor(
    streams: Iterable[ConfiguredAirbyteStream],
) -> dict[StreamDescriptor, ConfiguredAirbyteStream]:
    """Index streams by name and namespace; raises InvalidEvent if one stands there twice."""
    found: dict[StreamDescriptor, ConfiguredAirbyteStream] = {}
    for stream in streams:
        descriptor = StreamDescriptor(stream.stream.name, stream.stream.namespace)
        if descriptor in found:
            raise InvalidEvent(f"the catalog names stream {descriptor} twice")
        found[descriptor] = stream
    return found


def _entry(stream: ConfiguredAirbyteStream) -> dict[str, Any]:
    fields = {"name": stream.stream.name, "namespace": stream.stream.namespace}
    fields |= {field: getattr(stream, field) for field in configured_streams.VOLATILE}
    return {key: value for key, value in fields.items() if value is not None}


def _row(defined: StoredEvent) -> dict[str, Any]:
    pipeline, stream = defined.pipeline, defined.stream
    assert stream is not None
    schema = orjson.loads(defined.body)["stream"]["json_schema"]
    return {
        "stream_name": stream.name,
        "source_name": pipeline.source,
        "table_name": _table_name(pipeline, stream),
        "catalog_metadata": _JSON.encode(schema),
        "row_key": _row_key(defined),
        "pipeline_key": pipeline.key,
        "stream_namespace": stream.namespace,
        "configured_stream": defined.body.decode(),
        "version": defined.version,
    }


def _row_key(defined: StoredEvent) -> str:
    stream = defined.stream
    assert stream is not None
    return names_key(defined.pipeline.key, stream.namespace, stream.name)


def _table_name(pipeline: Pipeline, stream: StreamDescriptor) -> str:
    """The name PyAirbyte looks for; a destination's streams must not look like a cache's."""
    if pipeline.destination is None:
        return pipeline.table_prefix + stream.name
    return f"{pipeline.destination}:{stream.name}"
