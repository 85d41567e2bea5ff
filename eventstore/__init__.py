"""The write side: keeps every state and catalog of an Airbyte pipeline as an immutable event."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from eventstore.errors import (
    AlteredBody,
    AlteredLog,
    AppendIdReused,
    CheckpointBroken,
    CheckpointUnusable,
    ErasedBody,
    EventStoreError,
    HistoryConflict,
    HistoryDiffers,
    Invalid,
    InvalidEvent,
    InvalidHistory,
    InvalidMoment,
    InvalidPipeline,
    NotAnEventStore,
    NotFound,
    SchemaTooNew,
    SchemaTooOld,
    StaleWriter,
    StateNotFound,
    StoreUnavailable,
    StreamNotFound,
    UnknownVersion,
    UnsupportedDatabase,
)
from eventstore.events import (
    BodyErased,
    CatalogRegistered,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StoredEvent,
    StreamDefined,
    StreamDescriptor,
    WriterStarted,
)
from eventstore.on_demand import offering as _offering

if _TYPE_CHECKING:
    from eventstore.store import EventStore

__all__ = [
    "AlteredBody",
    "AlteredLog",
    "AppendIdReused",
    "BodyErased",
    "CatalogRegistered",
    "CheckpointBroken",
    "CheckpointUnusable",
    "ErasedBody",
    "EventStore",
    "EventStoreError",
    "HistoryConflict",
    "HistoryDiffers",
    "Invalid",
    "InvalidEvent",
    "InvalidHistory",
    "InvalidMoment",
    "InvalidPipeline",
    "NotAnEventStore",
    "NotFound",
    "Pipeline",
    "SchemaTooNew",
    "SchemaTooOld",
    "StaleWriter",
    "StateCleared",
    "StateEmitted",
    "StateNotFound",
    "StateSaved",
    "StoreUnavailable",
    "StoredEvent",
    "StreamDefined",
    "StreamDescriptor",
    "StreamNotFound",
    "UnknownVersion",
    "UnsupportedDatabase",
    "WriterStarted",
]

__getattr__ = _offering(__name__, {"EventStore": "store"})


def __dir__() -> list[str]:
    return __all__
