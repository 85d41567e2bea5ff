"""The backends with PyAirbyte's own types and errors, and `with_history(cache)`.

Rebinding `SqlStateBackend` and `SqlCatalogBackend` in `airbyte.caches.base` to the classes here
is enough to give every new cache a history.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airbyte import exceptions as exc
from airbyte._message_iterators import AirbyteMessageIterator
from airbyte.caches._catalog_backend import CatalogBackendBase
from airbyte.caches._state_backend_base import StateBackendBase
from airbyte.caches.base import CacheBase
from airbyte.destinations import base as destinations
from airbyte.shared.catalog_providers import CatalogProvider
from airbyte.shared.state_providers import JoinedStateProvider, StateProviderBase
from airbyte.shared.state_writers import StateWriterBase
from airbyte_protocol.models import AirbyteMessage, Type

from eventstore.database import has_connections_to_spare
from eventstore.errors import EventStoreError, Invalid, InvalidEvent
from eventstore.identity import fresh_run
from eventstore.state_messages import state_message
from projections import backends, providers
from projections.emitted import EmittedStates
from projections.views import StateView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from uuid import UUID

    from airbyte.results import ReadResult
    from airbyte.shared.sql_processor import SqlProcessorBase
    from airbyte_protocol.models import AirbyteStateMessage

    from eventstore.events import StateEmitted

__all__ = [
    "CatalogProvider",
    "SqlCatalogBackend",
    "SqlStateBackend",
    "SqlStateWriter",
    "StateProvider",
    "with_history",
]

_log = logging.getLogger(__name__)

Cache = TypeVar("Cache", bound="CacheBase")


# The bases of PyAirbyte's annotate less than they do: a state that may be None, an iterable of the
# wrong type, a final method that updates memory before the write (defect 19). Hence the ignores.


class _RaisesPyAirbytesErrors:
    def _no_state(self: Any, stream_name: str) -> Exception:
        return exc.AirbyteStateNotFoundError(
            message="State message not found.",
            stream_name=stream_name,
            available_streams=sorted(self.known_stream_names),
        )


class StateProvider(_RaisesPyAirbytesErrors, providers.StateProvider, StateProviderBase):  # type: ignore[misc]
    """A snapshot of state, for PyAirbyte."""


class SqlStateWriter(_RaisesPyAirbytesErrors, backends.SqlStateWriter, StateWriterBase):  # type: ignore[misc,override]
    """Writes the states of one source, for PyAirbyte."""

    _emitted: EmittedStates | None = None

    @contextmanager
    def emitted_states(self) -> Iterator[EmittedStates]:
        """Append what is added as StateEmitted, all of it before the next state is saved."""
        backend = self._state_backend

        def append(its_id: UUID, batch: Sequence[StateEmitted]) -> None:
            self._append(*batch, id=its_id)

        # Another thread would see a database in memory of its own, or use our connection.
        punctual = has_connections_to_spare(backend._store.database.engine)
        self._emitted = EmittedStates(backend._store.encode, append, punctual=punctual)
        try:
            yield self._emitted
        except BaseException:
            try:
                self._emitted.flush()
            except EventStoreError as error:  # what ended the read comes first
                _log.warning("states that %s had put out are lost: %s", self.source_name, error)
            raise
        else:
            self._emitted.flush()

    def _write_state(self, state_message: AirbyteStateMessage) -> None:
        if self._emitted:
            self._emitted.flush()
        try:
            super()._write_state(state_message)
        except InvalidEvent as error:
            raise exc.PyAirbyteInternalError(
                message=f"Invalid state message: {error}.",
                context={"state_message": state_message},
            ) from error


class SqlStateBackend(backends.SqlStateBackend, StateBackendBase):  # type: ignore[misc]
    """Hands out providers and writers of state, for PyAirbyte."""

    _provider_class = StateProvider
    _writer_class = SqlStateWriter
    _begun: tuple[str, str] | None = None

    def _run_of(self, source_name: str, destination_name: str | None) -> str:
        """A run for a writer: `Destination.write` asks for two, before it reads, for one run."""
        begun, self._begun = self._begun, None
        if self._run:
            return self._run
        if destination_name:
            return begun[1] if begun and begun[0] == source_name else fresh_run()
        self._begun = (source_name, fresh_run())
        return self._begun[1]

    def read_begins(self) -> None:
        """A writer asked for from now on is for another run."""
        self._begun = None


class SqlCatalogBackend(backends.SqlCatalogBackend, CatalogBackendBase):  # type: ignore[misc]
    """Keeps the catalogs of the sources of one cache, for PyAirbyte."""

    _provider_class = CatalogProvider  # type: ignore[assignment]


def with_history(
    cache: Cache,
    *,
    actor: str | None = None,
    run: str | None = None,
    connection: str = "",
    exclusive: bool = False,
) -> Cache:
    """Give a cache a history, in place, and return it.

    From here on every state and catalog that PyAirbyte writes to the cache is an event in the
    cache's own database, and so is every state that a source puts out on the way; tables that
    PyAirbyte made are taken over at once. `connection` tells two configurations of one connector
    apart. Each read is a run of its own unless `run` names one; `actor` defaults to the OS user.
    With `exclusive` a read takes over from one that still runs, whose next state raises
    StaleWriter. Raises Invalid where this is no cache, and StoreUnavailable.
    """
    if not isinstance(cache, CacheBase):
        raise Invalid(
            f"a history is given to a cache of PyAirbyte's, not to {type(cache).__name__}"
        )
    given: dict[str, Any] = {"actor": actor, "run": run, "connection": connection}
    prefix = cache.table_prefix or ""
    states = SqlStateBackend(cache, prefix, **given, exclusive=exclusive)
    catalogs = SqlCatalogBackend(cache, prefix, **given, store=states._store)
    cache._state_backend, cache._catalog_backend = states, catalogs
    cache.processor._catalog_provider = CatalogProvider(catalogs._full_catalog)
    # An attribute of the instance would be copied with it, still bound to this one; a class is not.
    object.__setattr__(cache, "__class__", _recorded(type(cache)))
    # What `Destination.write` finds in its module knows states of single streams alone (12, 25).
    vars(destinations).update(
        JoinedStateProvider=_joined_states, AirbyteMessageIterator=_MessagesForDestination
    )
    return cache


def _recorded(cache_class: type[CacheBase]) -> type[CacheBase]:
    """The cache's class, of the same name, that hands on what PyAirbyte drops."""
    plain: type[CacheBase] = getattr(cache_class, "without_history", cache_class)

    class Recorded(plain):  # type: ignore[misc,valid-type]
        without_history: ClassVar[type[CacheBase]] = plain

        def get_record_processor(
            self,
            source_name: str,
            catalog_provider: CatalogProvider,
            state_writer: StateWriterBase | None = None,
        ) -> SqlProcessorBase:
            state_writer = state_writer or self.get_state_writer(source_name)
            if isinstance(state_writer, SqlStateWriter):
                # PyAirbyte passes the cache's class name here (defect 16).
                source_name = state_writer.source_name
                self._catalog_backend._run = state_writer._run
            processor: SqlProcessorBase = super().get_record_processor(
                source_name, catalog_provider, state_writer
            )
            return processor

        def _write_airbyte_message_stream(
            self,
            stdin: Any,
            *,
            catalog_provider: CatalogProvider,
            state_writer: StateWriterBase | None = None,
            **options: Any,
        ) -> None:
            state_writer = state_writer or self.get_state_writer(self.name)
            options.update(catalog_provider=catalog_provider, state_writer=state_writer)
            if not isinstance(state_writer, SqlStateWriter):
                super()._write_airbyte_message_stream(stdin, **options)
                return
            self._state_backend.read_begins()
            with state_writer.emitted_states() as emitted:
                messages = AirbyteMessageIterator(_taking_states(stdin, emitted))
                super()._write_airbyte_message_stream(messages, **options)
            # The data is in the cache. PyAirbyte has saved one state per stream name, no others.
            saved = state_writer._view.bodies
            for body in emitted.unsaved(saved, catalog_provider.stream_names):
                state_writer.write_state(state_message(body))

    Recorded.__name__ = Recorded.__qualname__ = plain.__name__
    return Recorded


def _taking_states(
    messages: Iterable[AirbyteMessage], emitted: EmittedStates
) -> Iterator[AirbyteMessage]:
    """Take each state in on its way to PyAirbyte, which stumbles over untyped ones (defect 30)."""
    for message in messages:
        if message.type is not Type.STATE:
            yield message
            continue
        try:
            emitted.add(message.state)
        except InvalidEvent as error:
            raise exc.AirbyteConnectorError(
                message=f"The source put out an invalid state: {error}.",
                context={"state_message": message.state},
            ) from error
        if message.state and message.state.stream:
            yield message
    emitted.flush()


def _joined_states(primary: StateProviderBase, secondary: StateProviderBase) -> StateProviderBase:
    """PyAirbyte's JoinedStateProvider, for states of any type, from the stored bytes."""
    ours = [side for side in (primary, secondary) if isinstance(side, StateProvider)]
    theirs = [side for side in (primary, secondary) if side not in ours]
    if not ours or any(list(side.state_message_artifacts) for side in theirs):
        return JoinedStateProvider(primary, secondary)
    return StateProvider(reduce(StateView.or_else, (side._view for side in ours)))


class _MessagesForDestination(AirbyteMessageIterator):
    """Messages as a destination reads them: a GLOBAL state under its name (defect 03)."""

    def __init__(self, iterable: Iterable[AirbyteMessage]) -> None:
        super().__init__(map(_with_global_by_its_name, iterable))

    @classmethod
    def from_read_result(cls, read_result: ReadResult) -> AirbyteMessageIterator:
        """The records and states of a read, and at the end what is no state of one stream."""
        messages = super().from_read_result(read_result)
        states = read_result.cache.get_state_provider(read_result.source_name)
        if not isinstance(states, StateProvider) or states._view.whole is None:
            return messages
        [whole] = states._view.messages
        return cls(chain(messages, [_ByAlias.model_construct(type=Type.STATE, state=whole)]))


class _ByAlias(AirbyteMessage):
    def model_dump_json(self, **options: Any) -> str:
        return super().model_dump_json(**{**options, "by_alias": True, "exclude_unset": True})


def _with_global_by_its_name(message: AirbyteMessage) -> AirbyteMessage:
    if message.state is None or message.state.global_ is None:
        return message
    return _ByAlias.model_construct(type=message.type, state=message.state)
