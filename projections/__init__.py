"""The read side: what the log adds up to, now or at any past moment."""

from projections.as_of import BeforeHead, Moment, catalog_as_of, parse_moment, state_as_of
from projections.backends import (
    CatalogBackendBase,
    SqlCatalogBackend,
    SqlStateBackend,
    SqlStateWriter,
)
from projections.catalogs import latest_catalog, register_catalog
from projections.catch_up import catch_up
from projections.models import (
    CACHE_STATE_TABLE_NAME,
    DESTINATION_STATE_TABLE_NAME,
    GLOBAL_STATE_STREAM_NAME,
    GLOBAL_STATE_STREAM_NAMES,
    LEGACY_STATE_STREAM_NAME,
    STREAMS_TABLE_NAME,
    CachedStream,
    CacheStreamStateModel,
    DestinationStreamStateModel,
    SqlAlchemyModel,
)
from projections.projection import OwnProjection
from projections.projector import replay
from projections.providers import CatalogProvider, StateProvider
from projections.rebuilding import rebuild
from projections.states import latest_state
from projections.views import CatalogView, StateView
from projections.wiring import connect

__all__ = [
    "CACHE_STATE_TABLE_NAME",
    "DESTINATION_STATE_TABLE_NAME",
    "GLOBAL_STATE_STREAM_NAME",
    "GLOBAL_STATE_STREAM_NAMES",
    "LEGACY_STATE_STREAM_NAME",
    "STREAMS_TABLE_NAME",
    "BeforeHead",
    "CacheStreamStateModel",
    "CachedStream",
    "CatalogBackendBase",
    "CatalogProvider",
    "CatalogView",
    "DestinationStreamStateModel",
    "Moment",
    "OwnProjection",
    "SqlAlchemyModel",
    "SqlCatalogBackend",
    "SqlStateBackend",
    "SqlStateWriter",
    "StateProvider",
    "StateView",
    "catalog_as_of",
    "catch_up",
    "connect",
    "latest_catalog",
    "latest_state",
    "parse_moment",
    "rebuild",
    "register_catalog",
    "replay",
    "state_as_of",
]
