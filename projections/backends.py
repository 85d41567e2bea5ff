"""PyAirbyte's state and catalog backends, as a drop-in that needs no PyAirbyte.

The class names, arguments and protected methods are PyAirbyte's (`airbyte.caches._state_backend`
and `_catalog_backend`); what stands behind them is the log.
"""

from __future__ import annotations

import abc
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from eventstore.configured_streams import catalog_of
from eventstore.events import Pipeline, StateSaved, StreamDescriptor, WriterStarted
from projections.adoption import with_all_rows
from projections.as_of import catalog_as_of, state_as_of
from projections.catalogs import latest_catalog, register_catalog
from projections.providers import CatalogProvider, StateProvider
from projections.registrations import Registrations
from projections.views import StateView, supersede
from projections.wiring import connect

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from airbyte_protocol.models import (
        AirbyteStateMessage,
        ConfiguredAirbyteCatalog,
        ConfiguredAirbyteStream,
    )

    from eventstore.events import Event, StoredEvent
    from eventstore.store import EventStore
    from projections.as_of import Moment
    from projections.views import CatalogView


class SqlStateWriter(StateProvider):
    """Writes the states of one source, and provides those it has written."""

    def __init__(
        self,
        source_name: str,
        backend: SqlStateBackend,
        *,
        destination_name: str | None = None,
    ) -> None:
        """Name the source, and the destination unless the state is of the cache itself."""
        self.source_name = source_name
        self.destination_name = destination_name
        self._state_backend = backend
        self._run = backend._run_of(source_name, destination_name)
        self._pipeline = backend._pipeline(source_name, destination_name=destination_name)
        self._written: dict[StreamDescriptor | None, StoredEvent] = {}
        self._folded: StateView | None = None
        self._started: int | None = None
        if backend._exclusive:
            [started] = backend._store.append(
                self._pipeline, WriterStarted(), actor=backend._actor, run=self._run
            )
            self._started = started.version

    def write_state(self, state_message: AirbyteStateMessage) -> None:
        """Append a state, durably.

        Raises InvalidEvent, StaleWriter or StoreUnavailable, and forgets the state then.
        """
        self._write_state(state_message)

    def _write_state(self, state_message: AirbyteStateMessage) -> None:
        [saved] = self._append(StateSaved(state_message))
        supersede(self._written, saved)
        self._folded = None

    @property
    def _view(self) -> StateView:
        if self._folded is None:
            self._folded = StateView(self._pipeline).after(*self._written.values())
        return self._folded

    def _append(self, *events: Event, id: UUID | None = None) -> list[StoredEvent]:  # noqa: A002
        backend = self._state_backend
        said: dict[str, Any] = {"actor": backend._actor, "run": self._run, "id": id}
        return backend._store.append(self._pipeline, *events, **said, writer=self._started)


class SqlStateBackend:
    """Hands out providers and writers of state, kept in a SQL database."""

    _provider_class: ClassVar[type[StateProvider]] = StateProvider
    _writer_class: ClassVar[type[SqlStateWriter]] = SqlStateWriter

    def __init__(
        self,
        sql_config: Any,
        table_prefix: str = "",
        *,
        actor: str | None = None,
        run: str | None = None,
        connection: str = "",
        exclusive: bool = False,
    ) -> None:
        """Open nothing yet; `sql_config` has `get_sql_engine()`, or is an Engine or a URL.

        With `exclusive` each writer takes over from the one before it, whose next write raises
        StaleWriter.
        """
        self._sql_config = sql_config
        self._table_prefix = table_prefix
        self._connection = connection
        self._store = connect(sql_config)
        self._actor = actor
        self._run = run
        self._exclusive = exclusive

    def _ensure_internal_tables(self) -> None:
        """Make the tables, or take over those PyAirbyte made."""
        _ = self._store.database.engine

    def get_state_provider(
        self,
        source_name: str,
        table_prefix: str = "",
        streams_filter: list[str] | None = None,
        *,
        refresh: bool = True,  # noqa: ARG002 - PyAirbyte's, always true there too
        destination_name: str | None = None,
        as_of: Moment | None = None,
    ) -> StateProvider:
        """A snapshot of the current state, or of the state as of an aware datetime or version.

        Without a prefix the backend's own is meant; for a destination none is.
        `streams_filter` keeps the STREAM states of these names, and GLOBAL and LEGACY states.
        """
        pipeline = self._pipeline(source_name, table_prefix, destination_name)
        if as_of is None:
            self._store.database.catch_up()
            view = with_all_rows(self._store, pipeline)
        else:
            view = state_as_of(self._store, pipeline, as_of)
        if streams_filter:
            view = view.only(streams_filter)
        return self._provider_class(view)

    def get_state_writer(
        self, source_name: str, destination_name: str | None = None
    ) -> SqlStateWriter:
        """A writer for one source; with a destination its state is kept apart from the cache's."""
        return self._writer_class(source_name, self, destination_name=destination_name)

    def _run_of(self, source_name: str, destination_name: str | None) -> str | None:  # noqa: ARG002
        """The run of a new writer; None is the store's own."""
        return self._run

    def _pipeline(
        self, source_name: str, table_prefix: str = "", destination_name: str | None = None
    ) -> Pipeline:
        prefix = "" if destination_name else table_prefix or self._table_prefix
        return Pipeline(source_name, destination_name or None, prefix, self._connection)


class CatalogBackendBase(abc.ABC):
    """Keeps the catalog of what was synced to a cache."""

    _sql_config: Any

    @abc.abstractmethod
    def _save_catalog_info(
        self,
        source_name: str,
        incoming_source_catalog: ConfiguredAirbyteCatalog,
        incoming_stream_names: set[str],
    ) -> None:
        """Store the named streams of a catalog; NotImplementedError where it is read-only."""

    @property
    @abc.abstractmethod
    def stream_names(self) -> list[str]:
        """The names of all known streams."""

    @abc.abstractmethod
    def register_source(
        self,
        source_name: str,
        incoming_source_catalog: ConfiguredAirbyteCatalog,
        incoming_stream_names: set[str],
    ) -> None:
        """Register a source and its streams."""

    @abc.abstractmethod
    def get_full_catalog_provider(self) -> CatalogProvider:
        """The catalog of all sources."""

    @abc.abstractmethod
    def get_source_catalog_provider(self, source_name: str) -> CatalogProvider:
        """The catalog of one source."""


class SqlCatalogBackend(CatalogBackendBase):
    """Keeps the catalogs of the sources of one cache in a SQL database."""

    _provider_class: ClassVar[type[CatalogProvider]] = CatalogProvider

    def __init__(
        self,
        sql_config: Any,
        table_prefix: str,
        *,
        actor: str | None = None,
        run: str | None = None,
        connection: str = "",
        store: EventStore | None = None,
    ) -> None:
        """Make the tables and load what is known."""
        self._sql_config = sql_config
        self._table_prefix = table_prefix
        self._connection = connection
        self._store = store or connect(sql_config)
        self._registrations = Registrations(self._store)
        self._repeated = False
        self._actor = actor
        self._run = run
        self._full_catalog = catalog_of([])
        self._source_catalogs: dict[str, ConfiguredAirbyteCatalog] = {}
        self._ensure_internal_tables()
        self._refresh()

    def _ensure_internal_tables(self) -> None:
        """Make the tables, or take over those PyAirbyte made."""
        _ = self._store.database.engine

    def register_source(
        self,
        source_name: str,
        incoming_source_catalog: ConfiguredAirbyteCatalog,
        incoming_stream_names: set[str],
    ) -> None:
        """Register the named streams of a source; providers handed out earlier see them."""
        self._repeated = False
        self._save_catalog_info(source_name, incoming_source_catalog, incoming_stream_names)
        if self._repeated:
            streams = _named(incoming_source_catalog, incoming_stream_names)
            self._put_in_place(source_name, streams)
        else:
            self._refresh(incoming_source_catalog.streams)

    def _save_catalog_info(
        self,
        source_name: str,
        incoming_source_catalog: ConfiguredAirbyteCatalog,
        incoming_stream_names: set[str],
    ) -> None:
        streams = _named(incoming_source_catalog, incoming_stream_names)
        pipeline = self._pipeline(source_name)
        said: dict[str, Any] = {"actor": self._actor, "run": self._run}
        self._repeated = self._registrations.repeat(pipeline, streams, **said)
        if not self._repeated:
            catalog = catalog_of(streams)
            stored = register_catalog(self._store, pipeline, catalog, **said)
            self._registrations.remember(streams, stored[-1])

    def _pipeline(self, source_name: str) -> Pipeline:
        return Pipeline(source_name, None, self._table_prefix, self._connection)

    def _fetch_streams_info(
        self, *, source_name: str | None = None, table_prefix: str | None = None
    ) -> list[ConfiguredAirbyteStream]:
        """The streams as registered, of all sources and prefixes unless one is named."""
        return self._fetch(source_name, table_prefix, None)

    @property
    def stream_names(self) -> list[str]:
        """The names of all known streams, in the order of registration."""
        self._refresh()
        return [stream.stream.name for stream in self._full_catalog.streams]

    def get_full_catalog_provider(self, *, as_of: datetime | None = None) -> CatalogProvider:
        """The catalog of all sources; where streams share a name, the newest of them."""
        if as_of is not None:
            streams = self._fetch(None, self._table_prefix, as_of)
            return self._provider_class(catalog_of(streams))
        self._refresh()
        return self._provider_class(self._full_catalog)

    def get_source_catalog_provider(
        self, source_name: str, *, as_of: datetime | None = None
    ) -> CatalogProvider:
        """The catalog of one source."""
        if as_of is not None:
            streams = self._fetch(source_name, self._table_prefix, as_of)
            return self._provider_class(catalog_of(streams))
        self._source_catalogs.setdefault(source_name, catalog_of([]))
        self._refresh()
        return self._provider_class(self._source_catalogs[source_name])

    def _put_in_place(self, source_name: str, streams: Iterable[ConfiguredAirbyteStream]) -> None:
        """Let streams that were registered as they had been be the newest, in place."""
        newest = {stream.stream.name: stream for stream in streams}
        for catalog in (self._full_catalog, self._source_catalogs.get(source_name)):
            if catalog:
                others = [held for held in catalog.streams if held.stream.name not in newest]
                catalog.streams = [*others, *newest.values()]

    def _refresh(self, incoming: Iterable[ConfiguredAirbyteStream] = ()) -> None:
        """Bring the catalogs in memory up to date, in place: providers hold on to them."""
        catalogs = [(None, self._full_catalog), *self._source_catalogs.items()]
        for source_name, catalog in catalogs:
            known = defaultdict(list)
            for held in (*incoming, *catalog.streams):
                known[held.stream.name].append(held)
            stored = self._fetch(source_name, self._table_prefix, None)
            catalog.streams = [_same_object(each, known[each.stream.name]) for each in stored]

    def _fetch(
        self, source_name: str | None, table_prefix: str | None, as_of: datetime | None
    ) -> list[ConfiguredAirbyteStream]:
        views = [
            latest_catalog(self._store, pipeline)
            if as_of is None
            else catalog_as_of(self._store, pipeline, as_of)
            for pipeline in self._store.pipelines()
            if pipeline.destination is None
            and source_name in (None, pipeline.source)
            and table_prefix in (None, pipeline.table_prefix)
        ]
        return _newest_per_table(views)


def _named(catalog: ConfiguredAirbyteCatalog, names: set[str]) -> list[ConfiguredAirbyteStream]:
    return [stream for stream in catalog.streams if stream.stream.name in names]


def _newest_per_table(views: Iterable[CatalogView]) -> list[ConfiguredAirbyteStream]:
    """One stream per prefix and name, as consumers demand; the newest registration wins."""
    streams = [
        (_registered_at(view, descriptor), view.pipeline.table_prefix, stream)
        for view in views
        for descriptor, stream in view.by_descriptor.items()
    ]
    streams.sort(key=lambda found: found[0])
    newest: dict[tuple[str, str], ConfiguredAirbyteStream] = {}
    for _, prefix, stream in streams:
        newest.pop((prefix, stream.stream.name), None)
        newest[prefix, stream.stream.name] = stream
    return list(newest.values())


def _registered_at(view: CatalogView, descriptor: StreamDescriptor) -> int:
    at: int = view.registered.get(descriptor, {}).get("registered_at", 0)
    return at


def _same_object(
    stored: ConfiguredAirbyteStream, known: Iterable[ConfiguredAirbyteStream]
) -> ConfiguredAirbyteStream:
    """The object somebody already holds, if it says the same: PyAirbyte fills in generation ids."""
    return next((held for held in known if _unless_unset(stored, held)), stored)


def _unless_unset(stored: ConfiguredAirbyteStream, held: ConfiguredAirbyteStream) -> bool:
    volatile = {
        field: getattr(held, field)
        for field in ("generation_id", "minimum_generation_id", "sync_id")
        if getattr(stored, field) is None
    }
    return bool(stored.model_copy(update=volatile) == held)
