"""What can go wrong, as a tree.

EventStoreError
├── Invalid (ValueError)        what was given cannot be taken; nothing was stored
│   ├── InvalidPipeline
│   ├── InvalidEvent
│   ├── InvalidMoment
│   └── InvalidHistory          an export that is not whole, or not what was exported
├── NotFound (LookupError)
│   ├── UnknownVersion          the history does not reach that far
│   ├── StateNotFound
│   └── StreamNotFound
├── ErasedBody                  the event is there, its body is not any more
├── AlteredLog                  what is there cannot have been stored so
│   └── AlteredBody             nor can what is kept be the body that was
├── CheckpointUnusable          missing, unreadable, or signed with another key: it tells nothing
├── CheckpointBroken            the signature is wrong, or the history is not the one it signed
├── HistoryConflict             somebody else appended first
├── StaleWriter                 another exclusive writer has started since
├── HistoryDiffers              the database has another history of the pipeline
├── AppendIdReused              one append id, two different contents
└── StoreUnavailable            the database cannot be used, or not now
    ├── UnsupportedDatabase
    ├── NotAnEventStore         no log here, and none was to be created
    ├── SchemaTooOld            made by an earlier release, and nothing was to be created
    └── SchemaTooNew
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventstore.events import StoredEvent

__all__ = [
    "AlteredBody",
    "AlteredLog",
    "AppendIdReused",
    "CheckpointBroken",
    "CheckpointUnusable",
    "ErasedBody",
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
    "SchemaTooNew",
    "SchemaTooOld",
    "StaleWriter",
    "StateNotFound",
    "StoreUnavailable",
    "StreamNotFound",
    "UnknownVersion",
    "UnsupportedDatabase",
]


class EventStoreError(Exception):
    """Anything this project raises on purpose."""


class Invalid(EventStoreError, ValueError):
    """What was given cannot be taken; nothing was stored."""


class InvalidPipeline(Invalid):
    """The names do not make a pipeline."""


class InvalidEvent(Invalid):
    """The event cannot be stored; the message says what is wrong and where."""


class InvalidMoment(Invalid):
    """The text or value names no moment."""


class InvalidHistory(Invalid):
    """The export is not whole, or not what was exported; the message says where."""


class NotFound(EventStoreError, LookupError):
    """What was asked for is not there."""


class UnknownVersion(NotFound):
    """The history has no such version."""


class StateNotFound(NotFound):
    """No state is stored for the stream."""


class StreamNotFound(NotFound):
    """The catalog has no such stream, or more than one."""


class ErasedBody(EventStoreError):
    """The body of an event was erased; what it said is gone, that it was there is not."""


class AlteredLog(EventStoreError):
    """What is there cannot be read, and was changed by somebody: `verify` finds all of it."""


class AlteredBody(AlteredLog):
    """What is kept of a body cannot be what was stored: `verify` finds all that was changed."""


class CheckpointUnusable(EventStoreError):
    """A checkpoint or key is missing, unreadable, or does not belong to the other."""


class CheckpointBroken(EventStoreError):
    """A checkpoint was altered after it was signed, or the history is not the one it signed."""


class HistoryConflict(EventStoreError):
    """The history was not at the version the caller had seen; nothing was stored."""

    def __init__(self, pipeline: object, *, expected: int, actual: int) -> None:
        """Keep both versions: `expected` by the caller, `actual` in the database."""
        super().__init__(
            f"{pipeline} is at version {actual}, not at {expected}: "
            "look at what was appended since, then try again from there"
        )
        self.expected = expected
        self.actual = actual


class StaleWriter(EventStoreError):
    """Another exclusive writer of the pipeline has started since; nothing was stored."""

    def __init__(self, pipeline: object, started: int | None, last: StoredEvent | None) -> None:
        """Keep the WriterStarted by which another took over, None if the log was put back."""
        took_over = (
            f"{last.actor} (run {last.run}) took over at {last.stored_at:%Y-%m-%dT%H:%M:%S.%fZ}, "
            f"@{last.version}"
            if last
            else "the log knows no such writer: was a backup restored?"
        )
        super().__init__(
            f"{pipeline}: {took_over}; the writer that started at @{started} may append no more"
        )
        self.took_over = last


class HistoryDiffers(EventStoreError):
    """The database has another history of the pipeline; nothing was imported."""

    def __init__(self, pipeline: object, *, here: int, there: int) -> None:
        """Keep both heads: `here` in the database, `there` in the export."""
        super().__init__(
            f"{pipeline} has a history of its own here, up to version {here}, and the export has "
            f"another, up to version {there}: import into a database without it"
        )
        self.here = here
        self.there = there


class AppendIdReused(EventStoreError):
    """The append id names an earlier append of something else; nothing was stored."""


class StoreUnavailable(EventStoreError):
    """The database cannot be used, or not now."""


class UnsupportedDatabase(StoreUnavailable):
    """No dialect is written for this database."""


class NotAnEventStore(StoreUnavailable):
    """The database, or the log in it, does not exist, and nothing was to be created."""


class SchemaTooOld(StoreUnavailable):
    """The tables were made by an earlier release of this package, and nothing was to be made."""


class SchemaTooNew(StoreUnavailable):
    """The tables were made by a later release."""
