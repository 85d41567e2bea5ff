"""How fast the past is read, changed, moved and proven.

Two sides take turns in one run, A B A B, in short rounds of the same work, so that what else the
machine does meets both; each side has a fresh database. What counts is the ratio of the medians.
"""

import resource
import statistics
import time
from itertools import count

import pytest
from sqlalchemy import create_engine

from eventstore import EventStore, Pipeline, StateEmitted, StateSaved
from eventstore.integrity import verify
from projections import audit, connect, state_as_of
from projections.exchange import export_histories, import_histories
from projections.rewind import rewind
from tests.messages import global_state, inner_state, saved, stream_state

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

PAST_EVENTS = 100_000
PAST_STREAMS = 200
PAST_BATCH = 5_000
PAST_ROUNDS = 15

VERIFY_ROUNDS = 5

MOVED_EVENTS = 1_000_000
REWOUND = 500
REWIND_ROUNDS = 15

GLOBAL_STREAMS = 1_000
GLOBAL_VERSIONS = 5
GLOBAL_ROUNDS = 15

READ_STATES = 1_000
READ_ROUNDS = 3

SHOP = Pipeline("source-shop")


@pytest.fixture(scope="module", params=["sqlite", "duckdb", "postgresql"])
def long_history(request, results, tmp_path_factory):
    """A bare log, without the tables a moment in the past does not look at."""
    kind = request.param
    if kind == "postgresql":
        url = request.getfixturevalue("durable_server").url()
    else:
        url = f"{kind}:///{tmp_path_factory.mktemp('past') / 'log.db'}"
    engine = create_engine(url)
    start = time.perf_counter()
    store = EventStore(engine)
    for first in range(0, PAST_EVENTS, PAST_BATCH):
        numbers = range(first, first + PAST_BATCH)
        store.append(SHOP, *(saved(f"s{n % PAST_STREAMS}", {"cursor": n}) for n in numbers))
    results[f"append in batches of {PAST_BATCH}, {kind}"] = {
        "unit": "events/s",
        "ours": round(PAST_EVENTS / (time.perf_counter() - start)),
    }
    yield kind, store
    engine.dispose()


@pytest.mark.parametrize("named_by", ["version", "time"])
def test_the_past_is_read_as_fast_as_the_present(results, long_history, named_by):
    kind, store = long_history
    versions = {percent: PAST_EVENTS * percent // 100 for percent in (1, 50, 100)}
    moments = {
        percent: version if named_by == "version" else store.event(SHOP, version).stored_at
        for percent, version in versions.items()
    }
    seconds = {percent: [] for percent in moments}
    for _ in range(PAST_ROUNDS):
        for percent, moment in moments.items():
            start = time.perf_counter()
            view = state_as_of(store, SHOP, moment)
            seconds[percent].append(time.perf_counter() - start)
            assert (view.version, len(view.streams)) == (versions[percent], PAST_STREAMS)
    medians = {percent: statistics.median(taken) for percent, taken in seconds.items()}
    ratio = max(medians.values()) / min(medians.values())
    results[f"state_as_of by {named_by}, {kind}"] = {
        "unit": "ms",
        **{f"at {percent} %": round(median * 1000, 2) for percent, median in medians.items()},
        "ratio": round(ratio, 2),
        "target": "<= 1.5",
    }
    assert ratio <= 1.5


def test_verifying_keeps_up(results, long_history):
    kind, store = long_history
    rates = []
    for _ in range(VERIFY_ROUNDS):
        start = time.perf_counter()
        report = verify(store)
        rates.append(PAST_EVENTS / (time.perf_counter() - start))
        assert report.is_whole
        assert report.pipelines[0].events == PAST_EVENTS
    results[f"verify with one process, {kind}"] = {
        "unit": "events/s",
        "ours": round(statistics.median(rates)),
        "target": ">= 150,000 on SQLite",
        "rounds": rounded(rates, 0),
    }
    assert kind != "sqlite" or statistics.median(rates) >= 100_000


@pytest.fixture
def long_read(tmp_path):
    """What reads 100,000 records with a state after each 100 into a fresh DuckDB cache."""
    from airbyte.caches import DuckDBCache  # noqa: PLC0415 - slow to import

    from tests.syncs.connectors import ScriptedSource, record, state  # noqa: PLC0415 - the same

    lines = []
    for number in range(READ_STATES):
        lines += [record("users", number * 100 + n) for n in range(100)]
        lines.append(state(stream_state("users", {"cursor": number})))
    source = ScriptedSource(tmp_path).says(*lines, streams=["users"])
    numbers = count()

    def read(wrap):
        number = next(numbers)
        cache = DuckDBCache(
            db_path=tmp_path / f"{number}.duckdb", cache_dir=tmp_path / f"files{number}"
        )
        with wrap(cache):
            start = time.perf_counter()
            assert source.read(cache, skip_validation=True).processed_records == READ_STATES * 100
            return time.perf_counter() - start

    return read


def test_the_states_of_a_long_read_cost_less_than_a_tenth_of_it(results, long_read):
    from projections.pyairbyte import with_history  # noqa: PLC0415 - slow to import

    plain, recorded = [], []
    for _ in range(READ_ROUNDS):
        plain.append(long_read(lambda cache: cache))
        recorded.append(long_read(with_history))
    ratio = statistics.median(recorded) / statistics.median(plain)
    results["read of 100,000 records with 1,000 states, duckdb"] = {
        "unit": "s",
        "ours": round(statistics.median(recorded), 2),
        "pyairbyte": round(statistics.median(plain), 2),
        "ratio": round(ratio, 3),
        "target": "<= 1.1",
        "rounds": {"ours": rounded(recorded, 2), "pyairbyte": rounded(plain, 2)},
    }
    assert ratio <= 1.1


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgresql"])
def test_what_an_emitted_state_costs(results, fresh_url, kind):
    seconds = []
    with connect(fresh_url(kind)) as store:
        for first in range(0, READ_STATES * 2, 100):
            batch = [
                StateEmitted(stream_state("users", {"cursor": n}))
                for n in range(first, first + 100)
            ]
            start = time.perf_counter()
            store.append(SHOP, *batch)
            seconds.append((time.perf_counter() - start) / len(batch))
    results[f"StateEmitted in batches of 100, {kind}"] = {
        "unit": "µs a state",
        "ours": round(statistics.median(seconds) * 1e6, 1),
    }


@pytest.mark.parametrize(("kind", "target"), [("sqlite", 100), ("duckdb", None)])
def test_many_streams_are_brought_back_while_one_looks(results, fresh_url, kind, target):
    with connect(fresh_url(kind)) as store:
        for number in range(2):
            store.append(
                SHOP, *(saved(f"table {n}", {"id": number * n}) for n in range(1, REWOUND + 1))
            )
        took = []
        for turn in range(REWIND_ROUNDS):
            start = time.perf_counter()
            restored = rewind(store, SHOP, REWOUND * (1 + turn % 2), reason="bench")
            took.append(time.perf_counter() - start)
            assert len(restored) == REWOUND
            assert len({each.id for each in restored}) == 1  # one append, one transaction
    median = statistics.median(took) * 1000
    results[f"rewind of {REWOUND} streams, {kind}"] = {
        "unit": "ms",
        "ours": round(median, 1),
        "target": f"< {target}" if target else None,
    }
    assert target is None or median < target


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgresql"])
def test_a_global_state_of_a_megabyte_is_explained_while_one_looks(results, fresh_url, kind):
    with connect(fresh_url(kind)) as store:
        for number in range(GLOBAL_VERSIONS):
            store.append(SHOP, StateSaved(large_global_state(number)))
        took = {"blame": [], "diff": []}
        for _ in range(GLOBAL_ROUNDS):
            start = time.perf_counter()
            values = audit.blame(store, SHOP)
            took["blame"].append(time.perf_counter() - start)
            start = time.perf_counter()
            before = state_as_of(store, SHOP, GLOBAL_VERSIONS // 2)
            moves = audit.diff(before, state_as_of(store, SHOP, GLOBAL_VERSIONS))
            took["diff"].append(time.perf_counter() - start)
    assert len(moves) == 1 + GLOBAL_VERSIONS - GLOBAL_VERSIONS // 2
    assert {each.stored.version for each in values} == set(range(1, GLOBAL_VERSIONS + 1))
    for name, seconds in took.items():
        median = statistics.median(seconds) * 1000
        results[f"{name} of a GLOBAL state of 1 MB, {kind}"] = {
            "unit": "ms",
            "ours": round(median, 1),
            "target": "< 100",
            "values": len(values),
        }
        assert median < 100


def large_global_state(number):
    """A state of 1,000 streams in 1 MB, of which each of the newest has moved one."""
    streams = [
        inner_state(
            f"table_{place:04}",
            {
                "cursor": {"updated_at": "2026-11-20T09:00:00Z", "id": place},
                "moved": place <= number,
                "version": 2,
                "snapshot": "x" * 860,
            },
            "public",
        )
        for place in range(GLOBAL_STREAMS)
    ]
    return global_state({"lsn": number}, *streams)


def rounded(values, digits):
    return [round(value, digits) for value in values]


def test_a_long_history_moves_fast_from_one_sqlite_file_to_another(results, tmp_path):
    with connect(tmp_path / "from.db") as store:
        for first in range(0, MOVED_EVENTS, PAST_BATCH):
            numbers = range(first, first + PAST_BATCH)
            events = (stream_state(f"s{n % PAST_STREAMS}", {"cursor": n}) for n in numbers)
            store.append(SHOP, *map(StateEmitted, events))
        start = time.perf_counter()
        with (tmp_path / "export.jsonl").open("wb") as file:
            file.writelines(export_histories(store))
        exported = MOVED_EVENTS / (time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with connect(tmp_path / "to.db") as store, (tmp_path / "export.jsonl").open("rb") as file:
        store.pipelines()
        start = time.perf_counter()
        assert import_histories(store, file).written == {SHOP: MOVED_EVENTS}
        imported = MOVED_EVENTS / (time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    results[f"a history of {MOVED_EVENTS} events, sqlite"] = {
        "unit": "events/s",
        "exported": round(exported),
        "imported": round(imported),
        "memory the import took, MiB": round(grown / 1024, 1),
        "target": ">= 50000 each way",
    }
    assert min(exported, imported) >= 50_000
