"""Batches and whole histories, beside `eventsourcing`, which keeps no hashes and no tables.

Sides take turns in one run, A B C A B C; each has a fresh database. What counts is the ratio of
the medians.
"""

import statistics
import time
from itertools import count, islice

import orjson
import pytest

from eventstore import Pipeline, StateEmitted, StateSaved
from projections import connect
from tests.messages import stream_state

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

SHOP = Pipeline("source-shop")
STREAMS = 10
ROUNDS = {100: 60, 1_000: 15}

READ_EVENTS, READ_BATCH, READ_ROUNDS = 100_000, 5_000, 5


@pytest.fixture
def peer(fresh_url):
    """What gives another `eventsourcing` on an empty database of a kind."""
    pytest.importorskip("eventsourcing")
    from tests.bench.peers import Peer  # noqa: PLC0415 - it may not be there

    return lambda kind: Peer(fresh_url(kind))


def states():
    """States of a cursor, one after the other."""
    for number in count():
        yield stream_state(f"stream_{number % STREAMS}", {"cursor": "2026-11-22", "n": number})


class Ours:
    """A store of ours, which takes a batch of messages and returns what it has stored."""

    def __init__(self, url, kind):
        self._store, self._kind = connect(url), kind

    def append(self, messages):
        events = [self._kind(message) for message in messages]
        start = time.perf_counter()
        self._store.append(SHOP, *events)
        return time.perf_counter() - start


@pytest.mark.parametrize("size", ROUNDS)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_a_batch_takes(results, fresh_url, peer, kind, size):
    saved, emitted = (Ours(fresh_url(kind), event) for event in (StateSaved, StateEmitted))
    objects, recorder = peer(kind), peer(kind)
    sides = {
        "saved, shown in the table": saved.append,
        "emitted": emitted.append,
        "eventsourcing, put": lambda batch: objects.put([orjson.loads(text) for text in batch]),
        "its recorder, insert": lambda batch: recorder.insert([text.encode() for text in batch]),
    }
    taken = {name: [] for name in sides}
    source = states()
    for _ in range(ROUNDS[size]):
        batch = list(islice(source, size))
        for name, side in sides.items():
            taken[name].append(side(batch) / size * 1e6)
    medians = {name: statistics.median(each[1:]) for name, each in taken.items()}
    ours = medians["emitted"]
    results[f"append in batches of {size}, {kind}"] = {
        "unit": "µs an event",
        **{name: round(each, 1) for name, each in medians.items()},
        "ratio": f"{medians['eventsourcing, put'] / ours:.2f} times as many per second as put, "
        f"{medians['its recorder, insert'] / ours:.2f} times as many as insert",
        "target": ">= 1, and >= 0.35 on SQLite",
    }


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_reading_takes(results, fresh_url, peer, kind):
    theirs, source = peer(kind), states()
    with connect(fresh_url(kind)) as store:
        for _ in range(READ_EVENTS // READ_BATCH):
            batch = list(islice(source, READ_BATCH))
            store.append(SHOP, *map(StateEmitted, batch))
            theirs.put([orjson.loads(text) for text in batch])
        reads = {
            "a history": (lambda: store.history(SHOP), theirs.history),
            "the whole log": (store.log, theirs.log),
        }
        for what, sides in reads.items():
            rates = [[], []]
            for _ in range(READ_ROUNDS):
                for read, rounds in zip(sides, rates, strict=True):
                    start = time.perf_counter()
                    assert sum(1 for _ in read()) == READ_EVENTS
                    rounds.append(READ_EVENTS / (time.perf_counter() - start))
            ours, others = map(statistics.median, rates)
            results[f"reading {what}, {kind}"] = {
                "unit": "events/s",
                "ours": round(ours),
                "eventsourcing": round(others),
                "ratio": round(ours / others, 2),
                "target": ">= 1",
            }
