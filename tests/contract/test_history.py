"""Reading: histories in pages, the log of all pipelines, heads, and the tail."""

import itertools
import tracemalloc
from datetime import timedelta

import pytest
from sqlalchemy import event

from eventstore import (
    EventStore,
    Invalid,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    UnknownVersion,
)
from eventstore.events import KINDS
from projections import connect
from projections.exchange import export_histories
from tests.messages import emitted, global_state, saved, stream_state

SHOP = Pipeline("source-shop")
BANK = Pipeline("source-bank")
LAKE = Pipeline("source-shop", "destination-lake")

MANY = 2500  # more than two pages


@pytest.fixture(scope="module")
def busy(shared_store):
    """Three pipelines, their events interleaved."""
    fill(shared_store)
    return shared_store


def fill(store):
    store.append(SHOP, saved("users", {"cursor": 1}), actor="ann", run="monday")
    store.append(BANK, saved("users", {"cursor": 1}, "audit"), actor="bob", run="monday")
    store.append(SHOP, saved("orders", {"cursor": 2}), actor="ann", run="tuesday")
    store.append(LAKE, *emitted(2), actor="bob", run="tuesday")
    store.append(SHOP, StateCleared(), StateSaved(global_state({"lsn": 1})), run="wednesday")


def test_a_history_of_many_pages_is_read_whole_and_oldest_first(store):
    appended = store.append(SHOP, *emitted(MANY))
    assert list(store.history(SHOP)) == appended


def test_of_large_bodies_a_few_are_read_at_a_time(tmp_path):
    with connect(tmp_path / "log.db") as store:
        for number in range(3):
            blobs = [{"x" * 1_000_000: number * 50 + each} for each in range(50)]
            store.append(SHOP, *(StateEmitted(stream_state("users", blob)) for blob in blobs))
            del blobs
        for read in (
            lambda: store.history(SHOP),
            store.log,
            lambda: store.log(after={}),
            lambda: export_histories(store),
        ):
            tracemalloc.start()
            assert sum(1 for _ in read()) >= 150
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert most < 100_000_000


def test_a_history_is_bounded_by_versions(store):
    whole = store.append(SHOP, *emitted(MANY))
    for after, up_to in itertools.product((0, 7, 999, 1000, 2000, 2500), (0, 1, 1001, 2000, None)):
        assert list(store.history(SHOP, after=after, up_to=up_to)) == whole[after:up_to]


def test_an_unknown_pipeline_has_an_empty_history(store):
    assert list(store.history(SHOP)) == []


def test_between_pages_no_connection_is_held(engine):
    in_use = []
    event.listen(engine, "checkout", lambda *_: in_use.append("connection"))
    event.listen(engine, "checkin", lambda *_: in_use.pop())
    store = connect(engine)
    store.append(SHOP, *emitted(1500))

    history = store.history(SHOP)
    for _ in range(1200):
        next(history)
    assert in_use == []


def test_a_reader_between_pages_sees_what_was_appended_meanwhile(store):
    store.append(SHOP, *emitted(1000))
    history = store.history(SHOP)
    next(history)
    store.append(SHOP, *emitted(5))
    assert [stored.version for stored in history] == list(range(2, 1006))


def test_one_event_is_read_by_its_version(busy):
    second = list(busy.history(SHOP))[1]
    assert busy.event(SHOP, 2) == second


@pytest.mark.parametrize("version", [-1, 0, 5])
def test_a_version_outside_the_history_is_unknown(busy, version):
    with pytest.raises(UnknownVersion, match=rf"no version {version}: .* 1 to 4"):
        busy.event(SHOP, version)


def test_a_history_that_has_not_begun_has_no_version_at_all(store):
    with pytest.raises(UnknownVersion, match="there are no events"):
        store.event(SHOP, 1)


def test_pipelines_are_listed_in_the_order_of_their_first_event(busy):
    assert busy.pipelines() == [SHOP, BANK, LAKE]


def test_heads_are_the_versions_that_histories_have_reached(busy):
    assert busy.heads() == {SHOP: 4, BANK: 1, LAKE: 2}


def test_the_log_reads_all_pipelines_by_time(busy):
    log = list(busy.log())
    assert [(stored.pipeline, stored.version) for stored in log] == [
        (SHOP, 1),
        (BANK, 1),
        (SHOP, 2),
        (LAKE, 1),
        (LAKE, 2),
        (SHOP, 3),
        (SHOP, 4),
    ]


def test_a_log_of_many_pages_breaks_ties_by_pipeline_and_version(engine):
    store = EventStore(engine, clock=lambda: 1_000_000)
    for pipeline in (SHOP, BANK):
        store.append(pipeline, *emitted(1200))
    log = list(store.log())
    places = [(stored.stored_at, stored.pipeline == BANK, stored.version) for stored in log]
    assert places == sorted(places)
    assert len(set(places)) == 2400


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"among": [SHOP]}, [(SHOP, 1), (SHOP, 2), (SHOP, 3), (SHOP, 4)]),
        ({"among": [BANK, LAKE]}, [(BANK, 1), (LAKE, 1), (LAKE, 2)]),
        ({"among": []}, []),
        ({"stream": "users"}, [(SHOP, 1), (BANK, 1), (LAKE, 1), (LAKE, 2)]),
        ({"namespace": "audit"}, [(BANK, 1)]),
        ({"stream": "orders", "namespace": "audit"}, []),
        ({"kind": "StateCleared"}, [(SHOP, 3)]),
        ({"kind": "StateSaved", "stream": "users"}, [(SHOP, 1), (BANK, 1)]),
        ({"actor": "bob"}, [(BANK, 1), (LAKE, 1), (LAKE, 2)]),
        ({"run": "tuesday"}, [(SHOP, 2), (LAKE, 1), (LAKE, 2)]),
        ({"actor": "bob", "run": "monday"}, [(BANK, 1)]),
        ({"stream": "nobody"}, []),
        ({"last": 2}, [(SHOP, 3), (SHOP, 4)]),
        ({"last": 1, "stream": "users"}, [(LAKE, 2)]),
        ({"last": 100, "actor": "ann"}, [(SHOP, 1), (SHOP, 2)]),
        ({"after": {SHOP: 4, BANK: 1}}, [(LAKE, 1), (LAKE, 2)]),
        ({"after": {SHOP: 2, BANK: 1, LAKE: 1}, "kind": "StateSaved"}, [(SHOP, 4)]),
        ({"after": {SHOP: 9, BANK: 9, LAKE: 9}}, []),
    ],
    ids=str,
)
def test_the_log_is_filtered(busy, filters, expected):
    assert [(stored.pipeline, stored.version) for stored in busy.log(**filters)] == expected


def test_the_newest_of_the_tail_are_read_with_after_and_last(busy):
    tail = busy.log(after={SHOP: 1}, last=2)
    assert [(stored.pipeline, stored.version) for stored in tail] == [(SHOP, 3), (SHOP, 4)]


def test_since_and_until_are_inclusive(busy):
    log = list(busy.log())
    between = busy.log(since=log[2].stored_at, until=log[4].stored_at)
    assert list(between) == log[2:5]


def test_an_instant_later_than_an_event_leaves_it_out(busy):
    log = list(busy.log())
    instant = timedelta(microseconds=1)
    between = busy.log(since=log[2].stored_at + instant, until=log[4].stored_at - instant)
    assert list(between) == log[3:4]


def test_a_kind_that_there_is_not_is_refused(store):
    store.append(SHOP, saved("users", {}))
    reads = [
        lambda: store.log(kind="Nope"),
        lambda: store.newest(SHOP, ["StateSaved", "Nope"]),
        lambda: store.newest_said(SHOP, ["Nope"], 1, length=1),
        lambda: store.before([], ["Nope"]),
        lambda: store.backwards(SHOP, "Nope", None, up_to=1, after=0),
    ]
    for read in reads:
        with pytest.raises(Invalid, match="no kind of event 'Nope'; there are StateSaved, "):
            read()


def test_the_newest_of_a_pipeline_are_read_as_often_as_it_is_named(store):
    fill(store)
    those = [*store.pipelines(), Pipeline("nobody"), *store.pipelines()]
    read = store.database.read(lambda db: list(store.newest_by_pipeline(db, those, KINDS)))
    assert read == [(pipeline, store.newest(pipeline, KINDS)) for pipeline in those]


def test_after_the_heads_comes_exactly_what_was_appended_since(store):
    fill(store)
    heads = store.heads()
    assert list(store.log(after=heads)) == []
    new = Pipeline("source-new")
    appended = [
        *store.append(BANK, saved("users", {})),
        *store.append(new, saved("users", {})),
        *store.append(SHOP, *emitted(3)),
    ]
    assert list(store.log(after=heads)) == appended


def test_a_tail_of_many_pages_is_whole_and_by_time(store):
    appended = [
        stored
        for _ in range(3)
        for name in (SHOP, BANK)
        for stored in store.append(name, *emitted(450))
    ]
    assert list(store.log(after={})) == appended


def test_the_count_is_that_of_what_is_committed_whoever_commits(database):
    with connect(database) as store, connect(database) as other:
        for number in (1, 2, 3):
            other.append(SHOP, saved("users", {"cursor": number}))
            assert (store.count(), store.count()) == (number, number)

        def append_and_wait(db):
            other.append_within(db, SHOP, saved("users", {"cursor": 4}))
            assert (store.count(), store.count()) == (3, 3)

        other.database.transact(append_and_wait)
        assert (store.count(), store.count()) == (4, 4)
