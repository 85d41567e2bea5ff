"""`eventsourcing` as its documentation sets it up: objects in, JSON stored, objects out."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from eventsourcing.domain import DomainEvent
from eventsourcing.persistence import (
    DatetimeAsISO,
    EventStore,
    JSONTranscoder,
    Mapper,
    StoredEvent,
    UUIDAsHex,
)
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PAGE = 1000


class StateArrived(DomainEvent):
    """A state."""

    state: dict[str, Any]


class Peer:
    """An event store on an empty database, with one history."""

    def __init__(self, url: str) -> None:
        """Make its table."""
        self._recorder = _recorder(url)
        self._recorder.create_table()
        transcoder = JSONTranscoder()
        transcoder.register(UUIDAsHex())
        transcoder.register(DatetimeAsISO())
        self._mapper: Mapper[UUID] = Mapper(transcoder)
        self._store = EventStore(self._mapper, self._recorder)
        self._history = uuid4()
        self._versions = count(1)

    def put(self, states: Sequence[dict[str, Any]]) -> float:
        """Store an event of each, with its time; returns how long that took."""
        events = [
            StateArrived(
                originator_id=self._history,
                originator_version=next(self._versions),
                timestamp=StateArrived.create_timestamp(),
                state=state,
            )
            for state in states
        ]
        start = time.perf_counter()
        self._store.put(events)
        return time.perf_counter() - start

    def insert(self, bodies: Sequence[bytes]) -> float:
        """Store bytes, by the recorder alone; returns how long that took."""
        events = [
            StoredEvent(self._history, next(self._versions), "events:StateArrived", body)
            for body in bodies
        ]
        start = time.perf_counter()
        self._recorder.insert_events(events)
        return time.perf_counter() - start

    def history(self) -> Iterator[Any]:
        """Read the history."""
        return self._store.get(self._history)

    def log(self) -> Iterator[Any]:
        """Read the events of all histories, in pages."""
        start = 1
        while page := self._recorder.select_notifications(start, _PAGE):
            yield from map(self._mapper.to_domain_event, page)
            start = page[-1].id + 1


def _recorder(url: str) -> SQLiteApplicationRecorder | PostgresApplicationRecorder:
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return SQLiteApplicationRecorder(SQLiteDatastore(str(address.database)))
    datastore = PostgresDatastore(
        dbname=str(address.database),
        host=str(address.host),
        port=address.port or 5432,
        user=str(address.username),
        password=str(address.password or ""),
    )
    return PostgresApplicationRecorder(datastore)
