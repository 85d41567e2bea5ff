"""Processes that append and read, and what they were told: the oracle for what is in the log."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from operator import itemgetter
from threading import Event as EventHere
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from eventstore import Pipeline, StoreUnavailable
from eventstore.identity import uuid7
from eventstore.integrity import verify
from projections import connect, latest_state, replay
from projections.tables_check import check_tables
from projections.views import StateView
from tests.messages import saved
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event
    from uuid import UUID

    from eventstore import EventStore, StoredEvent

SHOP = Pipeline("source-shop")
SIZES = (1, 5, 20)

_REPORT_TIMEOUT_S = 120
_PAUSE_S = 0.05

# Forks of a process that has imported what they need, and has opened nothing.
_context = multiprocessing.get_context("forkserver")
_imported_late = ["airbyte_protocol.models", "psycopg", "pymysql", "sqlalchemy.dialects.sqlite"]
_context.set_forkserver_preload([__name__, *_imported_late])


class Part:
    """Work that goes on in a thread until it is told to finish, and reports on what it does."""

    def __init__(self, work: Callable[..., None], *its: object) -> None:
        """Start it."""
        self.reports: list[Any] = []
        self._end: Event | EventHere = EventHere()
        self._thread = Thread(target=work, args=(*its, self._end, self.reports.append), daemon=True)
        self._thread.start()

    def finish(self) -> list[Any]:
        """Let it end what it has begun; returns its reports."""
        self._end.set()
        self._thread.join()
        return self.reports


class Program(Part):
    """The same in a process of its own, which can be killed."""

    def __init__(self, work: Callable[..., None], *its: object) -> None:
        """Start it, and wait for its first report."""
        self.reports = []
        self._reported, report = _context.Pipe(duplex=False)
        self._end = _context.Event()
        job = (work, its, self._end, report)
        self.process = _context.Process(target=_reporting, args=job, daemon=True)
        self.process.start()
        report.close()
        assert self._reported.poll(_REPORT_TIMEOUT_S), "it has not begun"
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def kill(self) -> list[Any]:
        """End it as a crash would; returns its reports."""
        self.process.kill()
        self._thread.join()
        self.process.join()
        return self.reports

    def finish(self) -> list[Any]:
        """Let it end what it has begun; returns its reports."""
        super().finish()
        self.process.join()
        assert self.process.exitcode == 0
        return self.reports

    def _listen(self) -> None:
        with suppress(EOFError):
            while True:
                self.reports.append(self._reported.recv())


def _reporting(
    work: Callable[..., None], its: tuple[Any, ...], end: Event, report: Connection
) -> None:
    work(*its, end, report.send)


def all_go_on(parts: Sequence[Part], count: int = 1) -> None:
    """Wait for so many more reports of each."""
    wanted = [len(part.reports) + count for part in parts]

    def have_reported() -> bool:
        return all(len(part.reports) >= n for part, n in zip(parts, wanted, strict=True))

    wait_until(have_reported, _REPORT_TIMEOUT_S + count)  # and a second for each report


P = TypeVar("P", bound=Part)


def writer(
    url: str, pipeline: Pipeline = SHOP, kind: type[P] = Program, *, pause_s: float = 0
) -> P:
    """Who appends batches to a pipeline; reports the id and size of each."""
    return kind(_append, url, pipeline, pause_s)


def reader(url: str, kind: type[P] = Program) -> P:
    """Who tails the log; reports the pipeline, version and hash of each event."""
    return kind(_tail, url)


def _append(
    url: str,
    pipeline: Pipeline,
    pause_s: float,
    end: Event,
    report: Callable[[tuple[UUID, int]], None],
) -> None:
    with connect(url) as store:
        for number in count():
            append_id, size = uuid7(), SIZES[number % len(SIZES)]
            blobs = [{"by": os.getpid(), "batch": number, "place": n} for n in range(size)]
            batch = [saved(f"stream-{n % 3}", blob) for n, blob in enumerate(blobs)]
            while True:
                try:
                    store.append(pipeline, *batch, id=append_id)
                except StoreUnavailable:
                    time.sleep(_PAUSE_S)  # a runner would try again, under the same id
                    continue
                break
            report((append_id, size))
            if end.wait(pause_s):
                return


def _tail(url: str, end: Event, report: Callable[[tuple[str, int, bytes]], None]) -> None:
    seen: dict[Pipeline, int] = {}
    with connect(url) as store:
        while True:
            is_last = end.is_set()
            try:
                for stored in store.log(after=dict(seen)):
                    seen[stored.pipeline] = stored.version
                    report(_sight(stored))
            except StoreUnavailable:
                continue
            if is_last:
                return
            end.wait(_PAUSE_S)


def _sight(stored: StoredEvent) -> tuple[str, int, bytes]:
    return stored.pipeline.key, stored.version, stored.hash


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


def check_exactly(store: EventStore, writers: Sequence[Part], readers: Sequence[Part]) -> None:
    """All end by themselves; what was acknowledged is there, nothing else, and was read so."""
    acknowledged = [each for writer in writers for each in writer.finish()]
    sights = [reader.finish() for reader in readers]
    check(store, acknowledged)
    assert len(acknowledged) == len(dict(_sizes(store)))
    pipelines = sorted(store.pipelines(), key=lambda pipeline: pipeline.key)
    log = [_sight(stored) for pipeline in pipelines for stored in store.history(pipeline)]
    for seen in sights:
        assert sorted(seen, key=itemgetter(0)) == log  # in the order in which it was seen


def _sizes(store: EventStore) -> Iterator[tuple[UUID, int]]:
    """How many events each append has; each body says which of its batch it is."""
    places: Counter[UUID] = Counter()
    for stored in store.log():
        blob: dict[str, Any] = orjson.loads(stored.body)["stream"]["stream_state"]
        assert blob["place"] == places[stored.id]
        places[stored.id] += 1
    yield from places.items()
