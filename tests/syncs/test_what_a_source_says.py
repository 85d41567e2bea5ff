"""Everything a source says while PyAirbyte reads it is in the history."""

import json
import re
from collections import Counter
from contextlib import contextmanager
from threading import Thread
from time import sleep

import pytest
from airbyte.exceptions import AirbyteConnectorError, AirbyteConnectorFailedError
from sqlalchemy import event, select
from sqlalchemy import text as sql

from eventstore import EventStore, Pipeline
from eventstore.tables import KIND, events
from projections import connect, latest_state
from projections.pyairbyte import with_history
from tests.messages import global_state, inner_state, legacy_state, stream_state
from tests.read_side.breakdowns import BrokenDown
from tests.syncs.connectors import record, state

SHOP = Pipeline("source-shop", table_prefix="dev_")


@pytest.fixture
def cache(plain_cache):
    with with_history(plain_cache()) as cache:
        yield cache


def store_of(cache):
    return cache if isinstance(cache, EventStore) else connect(cache)


def said(cache, *kinds):
    """The kind and the state of each event of these kinds, oldest first."""
    return [
        (stored.kind, json.loads(stored.body))
        for stored in store_of(cache).history(SHOP)
        if stored.kind in (kinds or ("StateEmitted", "StateSaved"))
    ]


def kinds_among(parameters):
    """The numbers of kinds in one row by its names, in several, or in a list of each column."""
    if isinstance(parameters, dict):
        kinds = parameters["kind"]
        if isinstance(kinds, str):  # a list as text
            return [int(number) for number in kinds.strip("{}").split(",")]
    else:
        place = events.columns.keys().index("kind")
        is_lists = isinstance(parameters[0], list)
        kinds = parameters[place] if is_lists else parameters[place :: len(events.columns)]
    return [kinds] if isinstance(kinds, int) else kinds


@contextmanager
def before_writing(kind, engine, act):
    """Let somebody act just before each statement that writes events of a kind."""

    def look(_connection, _cursor, statement, parameters, *_):
        into_events = re.search(rf"INSERT INTO \S*{events.name} ", statement)
        if into_events and KIND.numbers[kind] in kinds_among(parameters):
            act()

    event.listen(engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", look)


def users(cursor, namespace=None):
    return stream_state("users", {"cursor": cursor}, namespace)


def orders(cursor):
    return stream_state("orders", {"cursor": cursor})


LEGACY = legacy_state({"users": 3})
UNTYPED = '{"data":{"users":4}}'
GLOBAL = global_state({"lsn": 5}, inner_state("users", {"cursor": 5}))


def test_each_state_is_emitted_and_the_last_of_each_stream_is_saved(cache, shop):
    states = [users(1), orders(1), users(2), users(3)]
    cache_result = shop.says(
        *(line for text in states for line in (record("users"), state(text)))
    ).read(cache, skip_validation=True)
    assert cache_result.processed_records == 4
    assert said(cache, "StateEmitted") == [("StateEmitted", json.loads(text)) for text in states]
    saved = said(cache, "StateSaved")
    assert {found["stream"]["stream_descriptor"]["name"] for _, found in saved} == {
        "users",
        "orders",
    }
    assert [kind for kind, _ in said(cache)] == ["StateEmitted"] * 4 + ["StateSaved"] * 2
    assert set(latest_state(connect(cache), SHOP).bodies) == {orders(1).encode(), users(3).encode()}


def test_a_saved_state_points_at_the_emitted_one(cache, shop):
    shop.says(state(users(1)), state(orders(1))).read(cache, skip_validation=True)
    with cache.get_sql_engine().connect() as db:
        rows = db.execute(
            select(events.c.kind, events.c.version, events.c.body_at)
            .where(events.c.kind.in_(["StateEmitted", "StateSaved"]))
            .order_by(events.c.version)
        ).all()
    emitted = [version for kind, version, _ in rows if kind == "StateEmitted"]
    saved = [keeper for kind, _, keeper in rows if kind == "StateSaved"]
    assert len(rows) == 4
    assert sorted(saved) == emitted


@pytest.mark.parametrize("text", [GLOBAL, LEGACY, UNTYPED], ids=["global", "legacy", "untyped"])
def test_the_last_state_of_the_whole_source_is_saved_and_given_to_the_next_read(cache, shop, text):
    source = shop.says(record("users"), state(global_state({"lsn": 1})), state(text))
    source.read(cache, skip_validation=True)
    kinds = [kind for kind, _ in said(cache)]
    assert kinds == ["StateEmitted", "StateEmitted", "StateSaved"]
    assert latest_state(connect(cache), SHOP).bodies == [text.encode()]
    source.read(cache, skip_validation=True)
    [first, second] = map(json.loads, shop.given)
    assert first == []
    assert second == ([json.loads(text)] if text == GLOBAL else json.loads(text)["data"])


@pytest.mark.parametrize("text", [users(1), GLOBAL], ids=["stream", "global"])
def test_a_state_is_saved_when_the_data_is_there(cache, shop, text):
    engine = cache.get_sql_engine()
    rows = []

    def count():
        with engine.connect() as db:
            rows.append(db.scalar(sql("SELECT count(*) FROM raw.dev_users")))

    source = shop.says(record("users"), state(text), record("users", 1))
    with before_writing("StateSaved", engine, count):
        source.read(cache, skip_validation=True)
    assert rows == [2]


def test_states_of_two_namespaces_are_both_saved(cache, shop):
    shop.says(state(users(1, "eu")), state(users(2, "us")), state(users(3, "eu"))).read(
        cache, skip_validation=True
    )
    assert set(latest_state(connect(cache), SHOP).bodies) == {
        users(3, "eu").encode(),
        users(2, "us").encode(),
    }


def test_the_state_of_a_stream_in_no_catalog_is_emitted_and_never_saved(cache, shop):
    """Its records are not kept, so that a later read has to begin at the beginning."""
    shop.says(state(users(1)), state(orders(1)), streams=["users"]).read(
        cache, skip_validation=True
    )
    assert len(said(cache, "StateEmitted")) == 2
    assert latest_state(connect(cache), SHOP).bodies == [users(1).encode()]


@pytest.mark.parametrize(
    ("states", "last"),
    [
        ([LEGACY, users(1), orders(1)], [users(1), orders(1)]),
        ([users(1), LEGACY], [LEGACY]),
        ([users(1), GLOBAL, orders(1)], [orders(1)]),
        ([GLOBAL, LEGACY], [LEGACY]),
        ([users(1), orders(1), GLOBAL, users(2)], [users(2)]),
    ],
    ids=["legacy first", "legacy last", "global between", "global, legacy", "stream again"],
)
def test_where_types_are_mixed_the_state_is_the_one_put_out_last(cache, shop, states, last):
    shop.says(*map(state, states)).read(cache, skip_validation=True)
    assert set(latest_state(connect(cache), SHOP).bodies) == {text.encode() for text in last}


CRASHING = [record("users"), users(1), users(2), orders(1), GLOBAL, LEGACY, UNTYPED]


@pytest.mark.parametrize("at", range(len(CRASHING) + 1))
def test_after_a_crash_all_it_said_is_in_the_history_and_nothing_is_saved(cache, shop, at):
    lines = [CRASHING[0], *map(state, CRASHING[1:])]
    with pytest.raises(AirbyteConnectorFailedError):
        shop.says(*lines, crash_at=at).read(cache, skip_validation=True)
    put_out = [json.loads(text) for text in CRASHING[1:at]]
    assert said(cache) == [("StateEmitted", found) for found in put_out]
    assert latest_state(connect(cache), SHOP).bodies == []
    shop.says(*lines).read(cache, skip_validation=True)
    assert latest_state(connect(cache), SHOP).bodies == [UNTYPED.encode()]


def test_an_invalid_state_ends_the_read_and_what_was_said_before_is_in_the_history(cache, shop):
    with pytest.raises(AirbyteConnectorError, match="needs `stream`"):
        shop.says(state(users(1)), state('{"type":"STREAM"}')).read(cache, skip_validation=True)
    assert said(cache) == [("StateEmitted", json.loads(users(1)))]


def test_the_catalog_is_registered_under_the_sources_name(cache, shop):
    shop.says(record("users")).read(cache, skip_validation=True)
    assert connect(cache).pipelines() == [SHOP]
    provider = cache._catalog_backend.get_source_catalog_provider("source-shop")
    assert sorted(provider.stream_names) == ["orders", "users"]
    shop.says(record("refunds"), streams=["refunds"]).read(cache, skip_validation=True)
    assert sorted(provider.stream_names) == ["orders", "refunds", "users"]


def test_a_read_is_one_run_of_one_actor(plain_cache, shop):
    with with_history(plain_cache(), actor="nightly") as cache:
        for cursor in (1, 2):
            shop.says(record("users"), state(users(cursor)), state(GLOBAL)).read(
                cache, skip_validation=True
            )
        events = list(connect(cache).history(SHOP))
    assert {stored.actor for stored in events} == {"nightly"}
    runs = Counter(stored.run for stored in events)
    assert len(runs) == 2
    for run in runs:
        kinds = {stored.kind for stored in events if stored.run == run}
        assert {"CatalogRegistered", "StateEmitted", "StateSaved"} <= kinds


def test_two_connections_of_one_source_do_not_share_a_cursor(plain_cache, shop):
    for connection in ("account-a", "account-b"):
        with with_history(plain_cache(), connection=connection) as cache:
            shop.says(record("users"), state(users(1))).read(cache, skip_validation=True)
    assert [json.loads(text) for text in shop.given] == [[], []]


def test_a_state_is_in_the_history_while_the_source_is_silent(cache, shop):
    source = shop.says(state(users(1)), state(users(2)), record("users"), pause=2.5)
    seen = [0]

    def watch():
        store = connect(cache)
        # Until the last: a reader in the same process lets PyAirbyte's CHECKPOINT at the end fail.
        for _ in range(100):
            count = sum(kind == "StateEmitted" for kind, _ in said(store))
            if seen[-1] != count:
                seen.append(count)
            if count == 2:
                return
            sleep(0.1)

    watcher = Thread(target=watch)
    watcher.start()
    source.read(cache, skip_validation=True)
    still_silent = not watcher.is_alive()
    watcher.join()
    assert still_silent
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("pause", [0, 1.5], ids=["at the end", "by the thread"])
def test_a_state_that_cannot_be_stored_ends_the_read(cache, shop, pause):
    source = shop.says(state(users(1)), state(users(2)), record("users"), pause=pause)

    def fail():
        raise BrokenDown

    failing = before_writing("StateEmitted", cache.get_sql_engine(), fail)
    with failing, pytest.raises(BrokenDown):
        source.read(cache, skip_validation=True)
    assert said(cache) == []
    source.read(cache, skip_validation=True)
    assert len(said(cache, "StateEmitted")) == 2


def test_ctrl_c_while_states_are_being_stored_loses_none(cache, shop):
    source = shop.says(*(state(users(number)) for number in range(150)))
    interrupted = []

    def interrupt():
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    interrupting = before_writing("StateEmitted", cache.get_sql_engine(), interrupt)
    with interrupting, pytest.raises(KeyboardInterrupt):
        source.read(cache, skip_validation=True)
    assert len(said(cache, "StateEmitted")) == 100
