"""`connect` works on any engine: with any pool, in threads, over forks, disposed and made anew."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from eventstore import Pipeline
from eventstore.dialects import dialect_of
from eventstore.erasure import retention
from eventstore.integrity import verify
from eventstore.transfer import export_histories
from projections import (
    connect,
    latest_catalog,
    latest_state,
    rebuild,
    register_catalog,
    state_as_of,
)
from projections.rewind import rewind
from tests.contract.forker import FORKS, PLACES
from tests.messages import catalog, configured_stream, saved

SHOP = Pipeline("source-shop")
FORKER = Path(__file__).with_name("forker.py")

POOLS = {
    "of one": {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0},
    "none": {"poolclass": NullPool},
    "one for all": {"poolclass": StaticPool},
    "one for each thread": {"poolclass": SingletonThreadPool},
    "one at a time": {"poolclass": AssertionPool},
}


def do_everything(store):
    store.append(SHOP, saved("users", {"cursor": 1}))
    register_catalog(store, SHOP, catalog(configured_stream("users")))
    store.append(SHOP, saved("users", {"cursor": 2}))
    rewind(store, SHOP, 1, reason="as it was")
    retention(store, timedelta(0), reason="of old")
    rebuild(store)
    assert latest_state(store, SHOP).bodies == [next(store.history(SHOP)).body]
    assert state_as_of(store, SHOP, store.heads()[SHOP]).bodies
    assert latest_catalog(store, SHOP).streams
    assert len(list(export_histories(store))) == 2 + store.heads()[SHOP]
    assert list(store.log()) == list(store.history(SHOP))
    assert verify(store).is_whole


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name != "none")) for name in POOLS]
)
def pooled(request, database):
    """A store on an engine with each of the pools."""
    engine = create_engine(database, **POOLS[request.param])
    with connect(engine) as store:
        yield store
    engine.dispose()


def test_everything_works_with_any_pool(pooled):
    do_everything(pooled)


def test_threads_share_a_store_with_any_pool(pooled):
    if isinstance(pooled.database.engine.pool, StaticPool | AssertionPool):
        pytest.skip("has one connection, of which one thread has the use")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: pooled.append(SHOP, saved("users", {"n": n})), range(20)))
    assert pooled.heads() == {SHOP: 20}


def test_an_engine_may_be_disposed_at_any_time(database):
    engine = create_engine(database)
    with connect(engine) as store:
        for cursor in range(3):
            store.append(SHOP, saved("users", {"cursor": cursor}))
            reading = iter(store.history(SHOP))
            next(reading)
            engine.dispose()
            assert len(list(reading)) == cursor
        assert store.heads() == {SHOP: 3}
    engine.dispose()


def test_a_store_is_used_by_both_sides_of_a_fork(database):
    url = make_url(database).render_as_string(hide_password=False)
    when = "at once" if dialect_of(make_url(database)).MANY_PROCESSES else "in turns"
    done = subprocess.run(
        [sys.executable, FORKER, url, SHOP.source, when],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    with connect(database) as store:
        assert store.heads() == {SHOP: 1 + 2 * PLACES * FORKS}
        assert verify(store).is_whole
