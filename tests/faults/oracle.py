"""A process that appends, and what it was told: the oracle for what must be in the log."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from eventstore import Pipeline, StoreUnavailable
from eventstore.identity import uuid7
from eventstore.integrity import verify
from projections import connect, latest_state, replay
from projections.tables_check import check_tables
from projections.views import StateView
from tests.messages import saved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from eventstore import EventStore

SHOP = Pipeline("source-shop")
SIZES = (1, 5, 20)

# Forks of a process that has imported what they need, and has opened nothing.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


class Writer:
    """A process that appends batches to one pipeline until it is killed, and reports each."""

    def __init__(self, url: str, pipeline: Pipeline = SHOP) -> None:
        """Start it, and wait for its first acknowledgement."""
        self.acknowledged: list[tuple[UUID, int]] = []
        self._reports, report = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_append_for_ever, args=(url, pipeline, report))
        self.process.start()
        report.close()
        assert self._reports.poll(30), "it has not begun to append"

    def kill(self) -> list[tuple[UUID, int]]:
        """End it as a crash would; returns the appends it was acknowledged, and their sizes."""
        self.process.kill()
        self.process.join()
        return self.reported()

    def reported(self) -> list[tuple[UUID, int]]:
        """What it has reported, to the end of the pipe."""
        with suppress(EOFError):
            while True:
                append_id, size = self._reports.recv()
                self.acknowledged.append((UUID(bytes=append_id), size))
        return self.acknowledged


def _append_for_ever(url: str, pipeline: Pipeline, report: Connection) -> None:
    with connect(url) as store:
        for number in count():
            append_id, size = uuid7(), SIZES[number % len(SIZES)]
            blobs = [{"by": os.getpid(), "batch": number, "place": n} for n in range(size)]
            batch = [saved(f"stream-{n % 3}", blob) for n, blob in enumerate(blobs)]
            while True:
                try:
                    store.append(pipeline, *batch, id=append_id)
                except StoreUnavailable:
                    continue  # a runner would try again, under the same id
                break
            report.send((append_id.bytes, size))


def check(store: EventStore, acknowledged: list[tuple[UUID, int]]) -> None:
    """Every acknowledged append is there once and whole, and nothing is there by halves."""
    for pipeline in store.pipelines():
        history = list(store.history(pipeline))
        assert [stored.version for stored in history] == list(range(1, len(history) + 1))
        assert latest_state(store, pipeline) == replay(store, pipeline, StateView(pipeline))
    sizes = dict(_sizes(store))
    assert {append_id: sizes.get(append_id) for append_id, _ in acknowledged} == dict(acknowledged)
    assert set(sizes.values()) <= set(SIZES)
    assert verify(store).is_whole
    assert not check_tables(store).problems


def _sizes(store: EventStore) -> Iterator[tuple[UUID, int]]:
    """How many events each append has; each body says which of its batch it is."""
    places: Counter[UUID] = Counter()
    for stored in store.log():
        blob: dict[str, Any] = orjson.loads(stored.body)["stream"]["stream_state"]
        assert blob["place"] == places[stored.id]
        places[stored.id] += 1
    yield from places.items()
