"""The backends with PyAirbyte's own types and errors, and `with_history(cache)`.

Rebinding `SqlStateBackend` and `SqlCatalogBackend` in `airbyte.caches.base` to the classes here
is enough to give every new cache a history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airbyte import exceptions as exc
from airbyte.caches._catalog_backend import CatalogBackendBase
from airbyte.caches._state_backend_base import StateBackendBase
from airbyte.shared.catalog_providers import CatalogProvider
from airbyte.shared.state_providers import StateProviderBase
from airbyte.shared.state_writers import StateWriterBase

from eventstore.errors import InvalidEvent
from eventstore.identity import fresh_run
from projections import backends, providers

if TYPE_CHECKING:
    from airbyte.caches.base import CacheBase
    from airbyte.shared.sql_processor import SqlProcessorBase
    from airbyte_protocol.models import AirbyteStateMessage

__all__ = [
    "CatalogProvider",
    "SqlCatalogBackend",
    "SqlStateBackend",
    "SqlStateWriter",
    "StateProvider",
    "with_history",
]

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

    def _write_state(self, state_message: AirbyteStateMessage) -> None:
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


class SqlCatalogBackend(backends.SqlCatalogBackend, CatalogBackendBase):  # type: ignore[misc]
    """Keeps the catalogs of the sources of one cache, for PyAirbyte."""

    _provider_class = CatalogProvider  # type: ignore[assignment]


def with_history(
    cache: Cache,
    *,
    actor: str | None = None,
    run: str | None = None,
    connection: str = "",
) -> Cache:
    """Give a cache a history, in place, and return it.

    From here on every state and catalog that PyAirbyte writes to the cache is an event in the
    cache's own database; tables that PyAirbyte made are taken over at once. `connection` tells
    two configurations of one connector apart. Each read is a run of its own unless `run` names
    one; `actor` defaults to the OS user. Raises StoreUnavailable.
    """
    given: dict[str, Any] = {"actor": actor, "run": run, "connection": connection}
    prefix = cache.table_prefix or ""
    catalog_backend = SqlCatalogBackend(cache, prefix, **given)
    cache._catalog_backend = catalog_backend
    cache._state_backend = SqlStateBackend(cache, prefix, **given)
    cache.processor._catalog_provider = CatalogProvider(catalog_backend._full_catalog)
    # An attribute of the instance would be copied with it, still bound to this one; a class is not.
    object.__setattr__(cache, "__class__", _with_named_runs(type(cache), run))
    return cache


def _with_named_runs(cache_class: type[CacheBase], given_run: str | None) -> type[CacheBase]:
    """The cache's class, of the same name, with each read a run and under its source's name."""
    plain: type[CacheBase] = getattr(cache_class, "without_history", cache_class)

    class Recorded(plain):  # type: ignore[misc,valid-type]
        without_history: ClassVar[type[CacheBase]] = plain

        def get_record_processor(
            self,
            source_name: str,
            catalog_provider: CatalogProvider,
            state_writer: StateWriterBase | None = None,
        ) -> SqlProcessorBase:
            run = given_run or fresh_run()
            self._catalog_backend._run = self._state_backend._run = run
            if isinstance(state_writer, SqlStateWriter):
                # PyAirbyte passes the cache's class name here (defect 16).
                source_name = state_writer.source_name
            processor: SqlProcessorBase = super().get_record_processor(
                source_name, catalog_provider, state_writer
            )
            return processor

    Recorded.__name__ = Recorded.__qualname__ = plain.__name__
    return Recorded
