"""Several writers, and readers among them: the committed order is the order of versions."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pytest

from eventstore import EventStore, HistoryConflict, Pipeline, StateSaved
from eventstore.tables import metadata
from projections import (
    CatalogView,
    StateView,
    catalog_as_of,
    connect,
    latest_catalog,
    latest_state,
    register_catalog,
    replay,
    state_as_of,
)
from tests.interruptions import everywhere
from tests.messages import catalog, configured_stream, emitted, global_state, saved

SHOP = Pipeline("source-shop")
BANK = Pipeline("source-bank", "destination-lake")

NEVER = datetime(9999, 12, 31, tzinfo=timezone.utc)
WRITERS = 4
BATCHES = (1, 5, 20)
RACER = Path(__file__).with_name("racer.py")


def test_a_tailing_reader_sees_exactly_the_committed_events_in_order(database):
    """Two shared pipelines, four writers: two through one store, two with a store of their own."""
    with connect(database) as shared, connect(database) as third, connect(database) as fourth:
        shared.append(SHOP, saved("users", {}))
        start = threading.Barrier(WRITERS + 1)

        def write(number, store):
            start.wait()
            return [
                stored
                for turn, size in enumerate(BATCHES * 2)
                for stored in store.append(
                    (SHOP, BANK)[turn % 2],
                    *(saved(f"stream {number}", {"turn": turn, "of": at}) for at in range(size)),
                )
            ]

        with ThreadPoolExecutor(WRITERS) as pool:
            stores = [shared, shared, third, fourth]
            writing = [pool.submit(write, *numbered) for numbered in enumerate(stores)]
            start.wait()
            seen = _tail(shared, {SHOP: 1}, until=lambda: all(w.done() for w in writing))
            committed = [stored for writer in writing for stored in writer.result()]

    for pipeline, first in ((SHOP, 2), (BANK, 1)):
        mine = [stored for stored in seen if stored.pipeline == pipeline]
        assert [stored.version for stored in mine] == list(range(first, first + len(mine)))
    assert len(seen) == len(committed) == WRITERS * 2 * sum(BATCHES)
    assert {stored.hash for stored in seen} == {stored.hash for stored in committed}


@pytest.mark.needs("MANY_PROCESSES")
def test_processes_that_race_on_one_pipeline_lose_nothing(database):
    """From the first table on: the database is empty when they start."""
    count = 25
    command = [sys.executable, RACER, database, SHOP.source, str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(WRITERS)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * WRITERS
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [json.loads(racer.communicate()[0]) for racer in racers]

    with connect(database) as store:
        history = list(store.history(SHOP))
    assert [stored.version for stored in history] == list(range(1, WRITERS * count + 1))
    acknowledged = {
        version: str(result["process"]) for result in results for version in result["versions"]
    }
    assert {stored.version: stored.run for stored in history} == acknowledged
    assert len(Counter(acknowledged.values())) == WRITERS


def test_threads_that_open_an_empty_database_at_once_all_append(database):
    start = threading.Barrier(WRITERS)

    def open_and_append(number):
        with connect(database) as store:
            start.wait()
            return store.append(SHOP, saved(f"stream {number}", {}))[0].version

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sorted(pool.map(open_and_append, range(WRITERS))) == [1, 2, 3, 4]


def test_threads_that_begin_pipelines_at_once_all_append(database):
    pipelines = [Pipeline(f"source-{number}") for number in range(WRITERS)]
    with connect(database) as store:
        store.pipelines()
        start = threading.Barrier(WRITERS)

        def begin(pipeline):
            start.wait()
            store.append(pipeline, saved("users", {}))

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(begin, pipelines))
        assert store.heads() == dict.fromkeys(pipelines, 1)


def test_of_several_who_saw_the_same_version_one_appends(database):
    with connect(database) as store:
        store.append(SHOP, saved("users", {}))
        start = threading.Barrier(WRITERS)

        def append(number):
            start.wait()
            try:
                store.append(SHOP, saved("users", {"writer": number}), expected=1)
            except HistoryConflict as conflict:
                return conflict.expected, conflict.actual
            return "appended"

        with ThreadPoolExecutor(WRITERS) as pool:
            outcomes = Counter(pool.map(append, range(WRITERS)))
        assert outcomes == {"appended": 1, (1, 2): WRITERS - 1}


def test_who_loses_a_race_waits_in_line_and_seldom_loses_again(database, caplog):
    """And so nobody is always last: a try that lost is logged."""
    appends = 40
    with ExitStack() as stack:
        stores = [stack.enter_context(connect(database)) for _ in range(WRITERS)]
        stores[0].append(SHOP, saved("users", {}))

        def append_many(store):
            for number in range(appends):
                store.append(SHOP, *(saved(f"stream {n}", {"n": number}) for n in range(5)))

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(append_many, stores))
    lost = [record for record in caplog.records if "lost race" in record.getMessage()]
    assert len(lost) < appends * WRITERS / 4


@pytest.mark.parametrize("begun", [True, False])
def test_two_appends_are_both_stored_wherever_one_interrupts_the_other(database, begun):
    with connect(database) as one, connect(database) as other:
        for interruption in everywhere():
            pipeline = Pipeline(f"source-{interruption.at}")
            if begun:
                one.append(pipeline, saved("users", {"cursor": 0}))
            batch = [saved("orders", {"cursor": 1}), saved("returns", {"cursor": 1})]
            with interruption.of(one.database.engine, partial(other.append, pipeline, *batch)):
                one.append(pipeline, saved("carts", {"cursor": 1}), saved("orders", {"cursor": 2}))

            streams = [str(stored.stream) for stored in one.history(pipeline)][int(begun) :]
            assert streams in (
                ["orders", "returns", "carts", "orders"],
                ["carts", "orders", "orders", "returns"],
            )
            assert latest_state(one, pipeline) == replay(one, pipeline, StateView(pipeline))


def test_two_pipelines_are_both_begun_wherever_one_interrupts_the_other(database):
    with connect(database) as one, connect(database) as other:
        one.pipelines()
        for interruption in everywhere():
            mine = Pipeline(f"source-{interruption.at}")
            theirs = Pipeline(f"source-{interruption.at}", "destination-lake")
            begin = partial(other.append, theirs, *emitted(3))
            with interruption.of(one.database.engine, begin):
                stored = one.append(mine, *emitted(2))
            assert list(one.history(mine)) == stored
            assert [event.version for event in one.history(theirs)] == [1, 2, 3]


@pytest.mark.parametrize(
    "read",
    [
        latest_state,
        lambda store, pipeline: state_as_of(store, pipeline, 2),
        lambda store, pipeline: state_as_of(store, pipeline, store.event(pipeline, 2).stored_at),
        lambda store, pipeline: state_as_of(store, pipeline, NEVER),
    ],
    ids=["latest", "version", "moment", "future"],
)
def test_a_state_is_of_one_version_whatever_is_appended_while_it_is_read(database, read):
    with connect(database) as one, connect(database) as other:
        for interruption in everywhere():
            pipeline = Pipeline(f"source-{interruption.at}")
            one.append(pipeline, saved("users", {"cursor": 1}), saved("orders", {"cursor": 1}))
            batch = [saved("users", {"cursor": 2}), StateSaved(global_state({}))]
            with interruption.of(one.database.engine, partial(other.append, pipeline, *batch)):
                view = read(one, pipeline)
            then = replay(one, pipeline, StateView(pipeline), up_to=view.version)
            assert (view.bodies, view.stored_at) == (then.bodies, then.stored_at)


@pytest.mark.parametrize(
    "read",
    [
        latest_catalog,
        lambda store, pipeline: catalog_as_of(store, pipeline, 2),
        lambda store, pipeline: catalog_as_of(store, pipeline, NEVER),
    ],
    ids=["latest", "version", "future"],
)
def test_a_catalog_is_of_one_version_whatever_is_registered_while_it_is_read(database, read):
    first = catalog(configured_stream("users", sync_id=1))
    second = catalog(
        configured_stream("users", columns=["id", "name"], sync_id=2),
        configured_stream("orders", sync_id=2),
    )
    with connect(database) as one, connect(database) as other:
        for interruption in everywhere():
            pipeline = Pipeline(f"source-{interruption.at}")
            register_catalog(one, pipeline, first)
            change = partial(register_catalog, other, pipeline, second)
            with interruption.of(one.database.engine, change):
                view = read(one, pipeline)
            then = replay(one, pipeline, CatalogView(pipeline), up_to=view.version)
            assert (view.streams, view.stored_at) == (then.streams, then.stored_at)


def test_a_registration_that_another_interrupts_sees_what_that_one_defined(database):
    registered = catalog(configured_stream("users"), configured_stream("orders"))
    with connect(database) as one, connect(database) as other:
        for interruption in everywhere():
            pipeline = Pipeline(f"source-{interruption.at}")
            same = partial(register_catalog, other, pipeline, registered)
            with interruption.of(one.database.engine, same):
                register_catalog(one, pipeline, registered)
            kinds = Counter(stored.kind for stored in one.history(pipeline))
            assert kinds == {"StreamDefined": 2, "CatalogRegistered": 2}


@pytest.mark.needs("MANY_PROCESSES")  # or nobody else can get at the database
def test_a_writer_notices_that_a_backup_was_restored_under_it(engine):
    """Another log, of the same length, in the same place: what it remembers is of no use."""
    writer = EventStore(engine)
    writer.append(SHOP, *emitted(2, "users"), *emitted(2, "orders"))
    metadata.drop_all(engine)
    EventStore(engine).append(SHOP, *emitted(2, "returns"), *emitted(2, "users"))

    appended = writer.append(SHOP, *emitted(2, "orders")[1:], *emitted(2, "users"))
    assert list(writer.history(SHOP, after=4)) == appended


def _tail(store, heads, *, until):
    """Read what comes after the heads, again and again, and once more after the end."""
    seen = []
    last = False
    while not last:
        last = until()
        for stored in store.log(after=heads):
            assert stored.version == heads.get(stored.pipeline, 0) + 1
            heads[stored.pipeline] = stored.version
            seen.append(stored)
    return seen
