"""Inside a history time only goes forward, whatever the clocks do."""

import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import create_engine, event, make_url, text

from eventstore import EventStore, Pipeline, head
from eventstore.integrity import verify
from projections import state_as_of
from tests.messages import emitted, saved, stream_state

SHOP = Pipeline("source-shop")
BANK = Pipeline("source-bank")

INSTANT = timedelta(microseconds=1)
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


@pytest.fixture
def clock(database):
    """A store, and a clock to set: the process's, or the database's where it has one."""
    with CLOCKS[make_url(database).get_backend_name()](database) as clock:
        yield clock


def test_an_event_carries_the_clocks_time(clock):
    store, set_clock = clock
    set_clock(NOON)
    [stored] = store.append(SHOP, saved("users", {}))
    assert stored.stored_at == NOON
    assert stored.stored_at.tzinfo is timezone.utc


def test_time_goes_forward_in_an_append_whose_events_come_at_one_instant(clock):
    store, set_clock = clock
    set_clock(NOON)
    stored = store.append(SHOP, *emitted(3))
    assert [event.stored_at for event in stored] == [NOON, NOON + INSTANT, NOON + 2 * INSTANT]


def test_time_goes_forward_while_the_clock_stands_still(clock):
    store, set_clock = clock
    set_clock(NOON)
    times = [store.append(SHOP, saved("users", {}))[0].stored_at for _ in range(3)]
    assert times == [NOON, NOON + INSTANT, NOON + 2 * INSTANT]


def test_time_goes_forward_while_the_clock_steps_back(clock):
    store, set_clock = clock
    set_clock(NOON)
    store.append(SHOP, saved("users", {"cursor": 1}))
    set_clock(NOON - timedelta(hours=1))
    [stored] = store.append(SHOP, saved("users", {"cursor": 2}))
    assert stored.stored_at == NOON + INSTANT


def test_a_clock_that_stepped_back_holds_up_one_pipeline_and_no_other(clock):
    store, set_clock = clock
    set_clock(NOON)
    store.append(SHOP, saved("users", {}))
    set_clock(NOON - timedelta(hours=1))
    [stored] = store.append(BANK, saved("users", {}))
    assert stored.stored_at == NOON - timedelta(hours=1)


def test_as_of_is_a_prefix_of_the_history_though_the_clock_stepped_back(clock):
    store, set_clock = clock
    set_clock(NOON)
    store.append(SHOP, saved("users", {"cursor": 1}))
    set_clock(NOON - timedelta(hours=1))
    store.append(SHOP, saved("users", {"cursor": 2}))
    view = state_as_of(store, SHOP, NOON)
    assert (view.version, view.bodies) == (1, [stream_state("users", {"cursor": 1}).encode()])


def test_nothing_is_lost_and_time_goes_forward_while_the_clock_steps_by_an_hour(clock):
    store, set_clock = clock
    hours, acknowledged = (0, 1, 0, -1, 2), []
    for cursor, hour in enumerate(hours):
        set_clock(NOON + timedelta(hours=hour))
        acknowledged += store.append(SHOP, saved("users", {"cursor": cursor}), *emitted(2))
    assert list(store.history(SHOP)) == acknowledged
    times = [stored.stored_at for stored in acknowledged]
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == (NOON, NOON + timedelta(hours=2) + 2 * INSTANT)
    for stored in acknowledged:
        assert state_as_of(store, SHOP, stored.stored_at).version == stored.version
    assert verify(store).is_whole


def test_microseconds_survive(clock):
    store, set_clock = clock
    moment = datetime(2026, 11, 20, 12, 0, 0, 123_457, tzinfo=timezone.utc)
    set_clock(moment)
    store.append(SHOP, saved("users", {}))
    assert [stored.stored_at for stored in store.history(SHOP)] == [moment]


def test_two_pipelines_of_one_instant_are_in_the_log_by_pipeline_and_version(clock):
    store, set_clock = clock
    set_clock(NOON)
    store.append(SHOP, *emitted(2))
    store.append(BANK, *emitted(2))
    log = [(stored.pipeline, stored.version) for stored in store.log()]
    assert log == [(SHOP, 1), (BANK, 1), (SHOP, 2), (BANK, 2)]
    assert list(store.log(after={})) == list(store.log())


@contextmanager
def _own_clock(database):
    engine = create_engine(database)
    now = [0]

    def set_clock(moment):
        now[0] = _microseconds(moment)

    yield EventStore(engine, clock=lambda: now[0]), set_clock
    engine.dispose()


@contextmanager
def _functions_clock(database):
    """A function of PostgreSQL's own name, found before it."""
    url = make_url(database).update_query_dict({"options": "-csearch_path=public,pg_catalog"})
    engine = create_engine(url)

    def set_clock(moment):
        instant = f"timestamptz 'epoch' + {_microseconds(moment)} * interval '1 microsecond'"
        with engine.begin() as db:
            db.execute(
                text(
                    "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz "
                    f"LANGUAGE SQL AS $$ SELECT {instant} $$"
                )
            )

    yield EventStore(engine), set_clock
    engine.dispose()


@contextmanager
def _sessions_clock(database):
    """On MariaDB a session may say what time it is."""
    engine = create_engine(database)
    now = [0]

    def set_clock(moment):
        now[0] = _microseconds(moment)

    @event.listens_for(engine, "checkout")
    def _set_session(connection, *_):
        half_a_microsecond_more = now[0] / 1_000_000 + 5e-7  # a double is cut, not rounded
        connection.query(f"SET timestamp = {half_a_microsecond_more:.7f}")

    yield EventStore(engine), set_clock
    engine.dispose()


CLOCKS = {
    "sqlite": _own_clock,
    "duckdb": _own_clock,
    "postgresql": _functions_clock,
    "mariadb": _sessions_clock,
}


def _microseconds(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // INSTANT


@pytest.mark.needs("INSERTS_TOGETHER")
def test_while_a_machine_sleeps_its_stopwatch_stands_still(store, monkeypatch):
    """On PostgreSQL the time is estimated; what is far from the server's is refused there."""
    slept_ns = 0
    monkeypatch.setattr(head, "monotonic_ns", lambda: time.monotonic_ns() - slept_ns)
    for number in range(3):
        store.append(SHOP, saved("users", {"page": number}))
    time.sleep(0.3)
    slept_ns = 300_000_000
    called = datetime.now(timezone.utc)
    [stored] = store.append(SHOP, saved("users", {"page": 3}))
    assert called <= stored.stored_at <= datetime.now(timezone.utc)
