"""A million events appended to one history: neither memory nor latency grows with what is there.

    pytest -m "bench and slow" -n 0 tests/bench/test_soak.py

takes half an hour for each database, by pauses between the appends: `SOAK_MINUTES=0` makes none.
The figures go to $SOAK_JSON, or to ./bench-soak.json. `SOAK_EVENTS` makes it shorter.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import pytest

from eventstore import Pipeline, StateEmitted
from projections import connect
from tests.messages import saved, stream_state

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.timeout(0)]

EVENTS = int(os.environ.get("SOAK_EVENTS", "1_000_000"))
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
BATCH = 100
SAVED = 10
"""Of a batch the states that a destination has confirmed, which change the tables too."""

STREAMS = 50
SHOP = Pipeline("source-shop")


@pytest.fixture(params=["sqlite", "postgresql", "duckdb"])
def url(request, tmp_path):
    """A database that syncs what it commits."""
    if request.param != "postgresql":
        # Of itself DuckDB keeps what it has read until four fifths of the machine are full.
        limit = "?memory_limit=64MB" if request.param == "duckdb" else ""
        yield f"{request.param}:///{tmp_path / 'soak.db'}{limit}"
        return
    kind = type(request.getfixturevalue("postgresql"))
    with kind(durable=True) as server, server.empty_database() as url:
        yield url


def test_neither_memory_nor_latency_grows_with_the_history(request, url):
    appends = EVENTS // BATCH
    tenth = appends // 10
    latencies, processor, memory = [], [], []
    with connect(url) as store:
        begun = time.monotonic()
        for number in range(appends):
            batch = events(number * BATCH)
            ahead = begun + number / appends * MINUTES * 60 - time.monotonic()
            time.sleep(max(ahead, 0))
            start, spent = time.perf_counter(), time.process_time()
            store.append(SHOP, *batch)
            latencies.append(time.perf_counter() - start)
            processor.append(time.process_time() - spent)
            if (number + 1) % tenth == 0:
                memory.append(resident_mib())
        assert store.head(SHOP).version == appends * BATCH
    medians = by_tenth(latencies)
    note(
        request.node.name,
        {
            "events": appends * BATCH,
            "batch": BATCH,
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "of them seconds of appends": round(sum(latencies)),
            "median milliseconds of an append, by tenth": medians,
            "of them on this process's processor": by_tenth(processor),
            "resident MiB after each tenth": [round(each, 1) for each in memory],
        },
    )
    assert medians[-1] <= 1.2 * medians[0]
    assert memory[-1] <= 1.1 * memory[0]


def events(first):
    """A batch of a run: most states are only emitted."""
    numbers = range(first, first + BATCH)
    states = [(f"s{n % STREAMS}", {"cursor": n}) for n in numbers]
    emitted = [StateEmitted(stream_state(*state)) for state in states[SAVED:]]
    return [*emitted, *(saved(*state) for state in states[:SAVED])]


def by_tenth(seconds):
    """The medians in milliseconds."""
    tenth = len(seconds) // 10
    tenths = [seconds[start : start + tenth] for start in range(0, tenth * 10, tenth)]
    return [round(statistics.median(each) * 1000, 2) for each in tenths]


def resident_mib():
    """What the process has in memory, without what is in files as well."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024


def note(name, result):
    path = Path(os.environ.get("SOAK_JSON", "bench-soak.json"))
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, name: result}, indent=2) + "\n")
