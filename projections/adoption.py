"""Other people's states and catalogs, taken into the log."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, or_, select

from eventstore import codec
from eventstore.configured_streams import configured_catalog
from eventstore.dialects import dialect_of
from eventstore.errors import Invalid, StoreUnavailable
from eventstore.events import Pipeline, StateSaved, StreamDefined
from eventstore.schema import schema_name
from eventstore.statements import Statement
from eventstore.strict_json import parse_object
from projections import catalogs, states
from projections.projector import refill
from projections.tables import (
    ALL_TABLES,
    GLOBAL_STATE_STREAM_NAMES,
    STATE_TABLES,
    STREAMS_TABLE,
    create_table,
    of_others,
)
from projections.views import CATALOG_KINDS, STATE_KINDS, CatalogView, StateView, standing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airbyte_protocol.models import AirbyteStream, ConfiguredAirbyteStream
    from sqlalchemy import Connection, Table

    from eventstore.events import Origin, StoredEvent, StreamDescriptor
    from eventstore.store import EventStore

_log = logging.getLogger(__name__)

_OUR_COLUMNS = {"row_key", "pipeline_key", "stream_namespace", "configured_stream", "version"}

_NO_STATE = 0
"""The `version` of a row of PyAirbyte's that is no valid state or catalog: it stays as it is."""

_CHUNK = 500


def create_or_take_over(db: Connection, store: EventStore) -> None:
    """Make the three tables from the log, or take over those that PyAirbyte made, rows and all.

    Each row becomes the first event of its stream (`origin=adopted`).
    """
    for table in ALL_TABLES:
        _make_ours(db, table)
    refill(db, store)
    if taken := _Intake(db, store, "adopted", "taken over from {}").run():
        _log.info("took over %d rows of PyAirbyte's tables as the first events", taken)


_any_of_others = Statement(
    lambda _: select(
        or_(*(exists(select(table.c.row_key).where(of_others(table))) for table in ALL_TABLES))
    )
)


def written_by_others(db: Connection) -> str | None:
    """Say so if there are rows in the tables that are in no history yet."""
    if not _any_of_others.fetch(db, {})[0][0]:
        return None
    return "PyAirbyte has written states or catalogs that are not in the log yet"


def take_in(db: Connection, store: EventStore) -> None:
    """Take in what unmodified PyAirbyte has written to our tables (`origin=foreign`).

    Its write of one source deletes the rows that another has under the same table name: those are
    put back, their states as new events (`origin=restored`), and never taken for a clear.
    """
    for table in ALL_TABLES:
        dialect_of(db).lock_table(db, table, schema_name(db))
    intake = _Intake(db, store, "foreign", "written to {} by PyAirbyte")
    if taken := intake.run():
        _log.info("took in %d rows that PyAirbyte had written without a history", taken)
    for pipeline in store.pipelines_within(db):
        _put_back(db, store, pipeline, intake.registered[pipeline])


def _make_ours(db: Connection, table: Table) -> None:
    """Make a table; the rows of the one that PyAirbyte had made in its place are kept."""
    dialect = dialect_of(db)
    there = dialect.column_names(db, table.name, schema_name(db))
    if "row_key" in there and dialect.TRANSACTIONAL_DDL:
        return
    rows = []
    if there and "row_key" not in there:
        if not dialect.FOREIGN_TABLES:
            raise StoreUnavailable(
                f"there is a table {table.name} already that neither PyAirbyte nor this package "
                "can have made: rename it, or choose another schema"
            )
        dialect.lock_table(db, table, schema_name(db))  # what is being written comes first
        theirs = [column for column in table.columns if column.name not in _OUR_COLUMNS]
        rows = [dict(row._mapping) for row in db.execute(select(*theirs))]
        table.drop(db)
    create_table(db, table)
    if rows:
        db.execute(table.insert(), rows)


@dataclass
class _Intake:
    """Turns the rows that others wrote into events, which write them anew."""

    db: Connection
    store: EventStore
    origin: Origin
    reason: str

    def __post_init__(self) -> None:
        self._rows: dict[Table, list[dict[str, Any]]] = {}
        for table in ALL_TABLES:
            found = self.db.execute(table.select().where(of_others(table)))
            self._rows[table] = [dict(row._mapping) for row in found]
        wrote_state = self._rows[STATE_TABLES[0]]
        self._source_of_table = {row["table_name"]: row["source_name"] for row in wrote_state}
        self._sources_of_class: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for row in self._rows[STREAMS_TABLE]:
            if row["table_name"] in self._source_of_table:
                source = self._source_of_table[row["table_name"]]
                self._sources_of_class[row["source_name"], _prefix(row)].add(source)
        self._pipelines = self.store.pipelines_within(self.db)
        self._known: dict[Pipeline, CatalogView] = {}
        self.registered: defaultdict[Pipeline, set[str]] = defaultdict(set)
        """The names of the streams whose definitions were taken in, or found unchanged."""

    def run(self) -> int:
        """Take all in; returns how many rows that were."""
        return sum(map(self._take_states, STATE_TABLES)) + self._take_catalogs()

    def _take_states(self, table: Table) -> int:
        valid = defaultdict(list)
        for row in self._rows[table]:
            try:
                pipeline, saved = _pipeline(row), StateSaved(row["state_json"] or "", self.origin)
                draft = codec.encode(saved)
            except Invalid as problem:
                self._leave(table, row, problem)
            else:
                valid[pipeline].append((row, saved, draft.stream))
        taken = self._remove(table, [row for found in valid.values() for row, _, _ in found])
        for pipeline, found in valid.items():
            # A typed state replaces a LEGACY one, so what speaks of the whole pipeline goes first.
            found.sort(key=lambda each: each[0]["stream_name"] not in GLOBAL_STATE_STREAM_NAMES)
            ours = states.with_row(self.db, self.store, pipeline)
            for row, saved, _ in found:
                reason = f"{self.reason.format(table.name)}, last updated {row['last_updated']}"
                self.store.append_within(self.db, pipeline, saved, reason=reason)
            self._keep_newer(pipeline, ours, [(row, stream) for row, _, stream in found])
        return taken

    def _keep_newer(
        self,
        pipeline: Pipeline,
        ours: dict[StreamDescriptor | None, StoredEvent],
        theirs: list[tuple[dict[str, Any], StreamDescriptor | None]],
    ) -> None:
        """Save again what we had saved after PyAirbyte had written its rows.

        Its write deletes our row of the stream: where that is there, it was written since, or only
        put back before it inserted its own. It leaves our GLOBAL or LEGACY state alone; that is
        older if the process which wrote began later, the only thing its `last_updated` tells
        (defect 04).
        """
        kept: dict[int, StoredEvent] = {}
        for row, stream in theirs:
            newer, whole = ours.get(stream), ours.get(None)
            if newer is None and whole and not _is_later(row["last_updated"], whole.stored_at):
                kept[whole.version] = whole
            elif newer is not None and not self._only_repeats(pipeline, newer):
                kept[newer.version] = newer
        for newer in kept.values():
            again = StateSaved(newer.body, "restored", newer.version)
            reason = f"@{newer.version} was saved after what PyAirbyte had written"
            self.store.append_within(self.db, pipeline, again, reason=reason)

    def _only_repeats(self, pipeline: Pipeline, said: StoredEvent) -> bool:
        """Whether a state restores what stood there anyway, as those do that are put back."""
        if said.origin != "restored" or said.of is None:  # what was copied is another history's
            return False
        before = self.store.newest_within(self.db, pipeline, STATE_KINDS, said.version - 1)
        stood = standing(before).get(said.stream)
        return stood is not None and stood.version == said.of

    def _take_catalogs(self) -> int:
        table = STREAMS_TABLE
        valid: defaultdict[Pipeline, dict[str, ConfiguredAirbyteStream]] = defaultdict(dict)
        rows = []
        for row in self._rows[table]:
            try:
                stream = _full_refresh_stream(row)
                pipeline = self._owner(row, stream.stream)
                codec.encode(StreamDefined(stream))
            except Invalid as problem:
                self._leave(table, row, problem)
            else:
                rows.append(row)
                valid[pipeline][stream.stream.name] = stream  # where two reads raced, the last one
        taken = self._remove(table, rows)
        for pipeline, streams in valid.items():
            self.registered[pipeline] |= set(streams)
            known = self._catalog(pipeline)
            named = catalogs.by_descriptor(_as_known(known, each) for each in streams.values())
            events = catalogs.registration(known, named, self.origin)
            reason = self.reason.format(table.name)
            self.store.append_within(self.db, pipeline, *events, reason=reason)
        return taken

    def _owner(self, row: dict[str, Any], stream: AirbyteStream) -> Pipeline:
        """Whose a row of the catalog is, where a read has left the cache's class name (defect 16).

        The source that wrote the state under the same table name; else the only one that wrote
        states under names of that class; else the only one that is known to have such a stream.
        Raises InvalidPipeline.
        """
        named = _pipeline(row)
        wrote_state = self._source_of_table
        if named.source in wrote_state.values():
            return named
        of_class = self._sources_of_class[named.source, named.table_prefix]
        if row["table_name"] in wrote_state or len(of_class) == 1:
            source = wrote_state.get(row["table_name"]) or next(iter(of_class))
            return Pipeline(source, table_prefix=named.table_prefix)
        if any(named.source == pipeline.source for pipeline in self._pipelines):
            return named
        having = {
            pipeline: known.stream.json_schema
            for pipeline in self._pipelines
            if (pipeline.destination, pipeline.table_prefix) == (None, named.table_prefix)
            for descriptor, known in self._catalog(pipeline).by_descriptor.items()
            if descriptor.name == stream.name
        }
        same = [pipeline for pipeline, known in having.items() if known == stream.json_schema]
        return next(iter(same or having), named) if same or len(having) == 1 else named

    def _catalog(self, pipeline: Pipeline) -> CatalogView:
        """What the log knew of the streams of a pipeline before."""
        if pipeline not in self._known:
            newest = self.store.newest_within(self.db, pipeline, CATALOG_KINDS)
            self._known[pipeline] = CatalogView(pipeline).after(*newest)
        return self._known[pipeline]

    def _leave(self, table: Table, row: dict[str, Any], problem: Invalid) -> None:
        """Leave a row as it is, and do not look at it again."""
        name = row["stream_name"]
        _log.warning("%s: the row of %s stays as it was: %s", table.name, name, problem)
        mine = table.c.row_key == row["row_key"]
        self.db.execute(table.update().where(mine).values(version=_NO_STATE))

    def _remove(self, table: Table, rows: list[dict[str, Any]]) -> int:
        keys = [row["row_key"] for row in rows]
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            self.db.execute(table.delete().where(table.c.row_key.in_(chunk)))
        return len(keys)


def _as_known(current: CatalogView, stream: ConfiguredAirbyteStream) -> ConfiguredAirbyteStream:
    """The stream as we know it, with PyAirbyte's JSON schema: it keeps nothing else (defect 13)."""
    for descriptor, known in current.by_descriptor.items():
        if descriptor.name == stream.stream.name:
            inner = known.stream.model_copy(update={"json_schema": stream.stream.json_schema})
            return known.model_copy(update={"stream": inner})
    return stream


def with_all_rows(store: EventStore, pipeline: Pipeline) -> StateView:
    """The current state of a pipeline; rows that are not there are put back, as by `take_in`.

    PyAirbyte deletes in one transaction and inserts in another: if it ends between the two, there
    is nothing to take in that would tell.
    """
    rows = states.read_rows(store, pipeline)
    if not rows.may_be_lacking:
        return rows.view
    if store.database.read(lambda db: states.without_row(db, store, pipeline)):
        store.database.transact(lambda db: _put_back(db, store, pipeline))
    return states.latest_state(store, pipeline)


def _put_back(
    db: Connection, store: EventStore, pipeline: Pipeline, registered: Collection[str] = ()
) -> None:
    """Write the rows of a pipeline again that are not there; `registered` were only rewritten."""
    lost = states.without_row(db, store, pipeline)
    for stored in lost:
        again = StateSaved(stored.body, "restored", stored.version)
        reason = f"put back from @{stored.version}: PyAirbyte had deleted its row"
        store.append_within(db, pipeline, again, reason=reason)
    if defined := catalogs.without_row(db, store, pipeline):
        catalogs.apply(db, defined)
        lost += [each for each in defined if each.stream and each.stream.name not in registered]
    if names := sorted({str(stored.stream or "the state") for stored in lost}):
        _log.warning(
            "put back rows of %s that PyAirbyte had deleted: %s", pipeline, ", ".join(names)
        )


def _is_later(last_updated: datetime | None, than: datetime) -> bool:
    if last_updated is None:
        return False
    aware = last_updated if last_updated.tzinfo else last_updated.replace(tzinfo=timezone.utc)
    return aware > than


def _prefix(row: Mapping[str, Any]) -> str:
    table_name: str = row["table_name"] or ""
    return table_name.removesuffix(row["stream_name"] or "")


def _pipeline(row: Mapping[str, Any]) -> Pipeline:
    """Who a row of PyAirbyte's belongs to; raises InvalidPipeline."""
    if "destination_name" in row:
        return Pipeline(row["source_name"], row["destination_name"])
    return Pipeline(row["source_name"], table_prefix=_prefix(row))


def _full_refresh_stream(row: Mapping[str, Any]) -> ConfiguredAirbyteStream:
    """What PyAirbyte makes of a row, of which it stores only the JSON schema (defect 13)."""
    stream = {
        "stream": {
            "name": row["stream_name"],
            "json_schema": parse_object(row["catalog_metadata"] or "", "the JSON schema"),
            "supported_sync_modes": ["full_refresh"],
        },
        "sync_mode": "full_refresh",
        "destination_sync_mode": "append",
    }
    [configured] = configured_catalog({"streams": [stream]}).streams
    return configured
