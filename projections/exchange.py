"""Other people's states and catalogs, taken into the log."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from eventstore import codec
from eventstore.dialects import dialect_of
from eventstore.errors import Invalid
from eventstore.events import Pipeline, StateSaved
from eventstore.schema import schema_name
from projections.catalogs import by_descriptor, registration
from projections.models import (
    ALL_TABLES,
    GLOBAL_STATE_STREAM_NAMES,
    STATE_TABLES,
    STREAMS_TABLE,
    create_table,
)
from projections.projector import refill
from projections.views import CatalogView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Table

    from eventstore.store import EventStore

_log = logging.getLogger(__name__)

_OUR_COLUMNS = {"row_key", "pipeline_key", "stream_namespace", "configured_stream", "version"}


def create_or_take_over(db: Connection, store: EventStore) -> None:
    """Make the three tables from the log, or take over those that PyAirbyte made, rows and all.

    Each row becomes the first event of its stream (`origin=adopted`); a row that is no valid
    state or catalog stays in its table as it was.
    """
    rows = {table: _make_ours(db, table) for table in ALL_TABLES}
    refill(db, store)
    if not any(rows.values()):
        return
    adopted = sum(_adopt_states(db, store, table, rows[table]) for table in STATE_TABLES)
    adopted += _adopt_catalogs(db, store, rows[STREAMS_TABLE])
    if adopted:
        _log.info("took over %d rows of PyAirbyte's tables as the first events", adopted)


def _make_ours(db: Connection, table: Table) -> list[dict[str, Any]]:
    """Make a table; returns the rows of the one that PyAirbyte had made in its place."""
    there = dialect_of(db).column_names(db, table.name, schema_name(db))
    if "row_key" in there:
        return []
    rows = []
    if there:
        theirs = [column for column in table.columns if column.name not in _OUR_COLUMNS]
        rows = [dict(row._mapping) for row in db.execute(select(*theirs))]
        table.drop(db)
    create_table(db, table)
    return rows


def _adopt_states(
    db: Connection, store: EventStore, table: Table, rows: Iterable[dict[str, Any]]
) -> int:
    states = defaultdict(list)
    for row in rows:
        try:
            pipeline, saved = _pipeline(row), StateSaved(row["state_json"] or "", "adopted")
            codec.encode(saved)
        except Invalid as problem:
            _keep(db, table, row, problem)
        else:
            states[pipeline].append((row, saved))
    for pipeline, adopted in states.items():
        # A typed state replaces a LEGACY one, so what speaks of the whole pipeline goes first.
        adopted.sort(key=lambda pair: pair[0]["stream_name"] not in GLOBAL_STATE_STREAM_NAMES)
        for row, saved in adopted:
            reason = f"taken over from {table.name}, last updated {row['last_updated']}"
            store.append_within(db, pipeline, saved, reason=reason)
    return sum(len(adopted) for adopted in states.values())


def _adopt_catalogs(db: Connection, store: EventStore, rows: Iterable[dict[str, Any]]) -> int:
    catalogs = defaultdict(list)
    for row in rows:
        try:
            pipeline, stream = _pipeline(row), _full_refresh_stream(row)
        except Invalid as problem:
            _keep(db, STREAMS_TABLE, row, problem)
        else:
            catalogs[pipeline].append(stream)
    for pipeline, streams in catalogs.items():
        catalog = codec.configured_catalog({"streams": streams})
        named = by_descriptor(catalog.streams)
        events = registration(CatalogView(pipeline), named, "adopted")
        reason = f"taken over from {STREAMS_TABLE.name}"
        store.append_within(db, pipeline, *events, reason=reason)
    return sum(len(streams) for streams in catalogs.values())


def _keep(db: Connection, table: Table, row: dict[str, Any], problem: Invalid) -> None:
    _log.warning("%s: the row of %s stays as it was: %s", table.name, row["stream_name"], problem)
    db.execute(table.insert(), row)


def _pipeline(row: Mapping[str, Any]) -> Pipeline:
    """Who a row of PyAirbyte's belongs to; raises InvalidPipeline."""
    if "destination_name" in row:
        return Pipeline(row["source_name"], row["destination_name"] or None)
    prefix = (row["table_name"] or "").removesuffix(row["stream_name"] or "")
    return Pipeline(row["source_name"], table_prefix=prefix)


def _full_refresh_stream(row: Mapping[str, Any]) -> dict[str, Any]:
    """What PyAirbyte makes of a row, of which it stores only the JSON schema (defect 13)."""
    stream = {
        "stream": {
            "name": row["stream_name"],
            "json_schema": codec.parse_object(row["catalog_metadata"] or "", "the JSON schema"),
            "supported_sync_modes": ["full_refresh"],
        },
        "sync_mode": "full_refresh",
        "destination_sync_mode": "append",
    }
    codec.configured_catalog({"streams": [stream]})
    return stream
