"""The read side: what the log adds up to, now or at any past moment."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from eventstore.on_demand import offering as _offering

if _TYPE_CHECKING:
    from projections.as_of import BeforeHead, Moment, catalog_as_of, parse_moment, state_as_of
    from projections.backends import (
        CatalogBackendBase,
        SqlCatalogBackend,
        SqlStateBackend,
        SqlStateWriter,
    )
    from projections.catalogs import latest_catalog, register_catalog
    from projections.catching_up import catch_up
    from projections.models import (
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
    from projections.tables import (
        CACHE_STATE_TABLE_NAME,
        DESTINATION_STATE_TABLE_NAME,
        GLOBAL_STATE_STREAM_NAME,
        GLOBAL_STATE_STREAM_NAMES,
        LEGACY_STATE_STREAM_NAME,
        STREAMS_TABLE_NAME,
    )
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

_HOMES = {
    "CACHE_STATE_TABLE_NAME": "tables",
    "DESTINATION_STATE_TABLE_NAME": "tables",
    "GLOBAL_STATE_STREAM_NAME": "tables",
    "GLOBAL_STATE_STREAM_NAMES": "tables",
    "LEGACY_STATE_STREAM_NAME": "tables",
    "STREAMS_TABLE_NAME": "tables",
    "BeforeHead": "as_of",
    "CacheStreamStateModel": "models",
    "CachedStream": "models",
    "CatalogBackendBase": "backends",
    "CatalogProvider": "providers",
    "CatalogView": "views",
    "DestinationStreamStateModel": "models",
    "Moment": "as_of",
    "OwnProjection": "projection",
    "SqlAlchemyModel": "models",
    "SqlCatalogBackend": "backends",
    "SqlStateBackend": "backends",
    "SqlStateWriter": "backends",
    "StateProvider": "providers",
    "StateView": "views",
    "catalog_as_of": "as_of",
    "catch_up": "catching_up",
    "connect": "wiring",
    "latest_catalog": "catalogs",
    "latest_state": "states",
    "parse_moment": "as_of",
    "rebuild": "rebuilding",
    "register_catalog": "catalogs",
    "replay": "projector",
    "state_as_of": "as_of",
}

__getattr__ = _offering(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
