"""`connect` works on any engine: with any pool, in threads, over forks, disposed and made anew."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from itertools import count
from linecache import getline
from pathlib import Path

import duckdb
import psycopg
import pytest
from duckdb_engine import ConnectionWrapper
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from eventstore import EventStore, NotAnEventStore, Pipeline, StoreUnavailable
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
from projections.tables_check import check_tables
from tests.contract.forker import FORKS, PLACES
from tests.messages import catalog, configured_stream, emitted, saved

SHOP = Pipeline("source-shop")
FORKER = Path(__file__).with_name("forker.py")

LINES = 8
"""Of `each_alone`, at least."""

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


def test_what_others_append_is_seen_where_the_pool_does_not_roll_back(database):
    engine = create_engine(database, pool_reset_on_return=None)
    with connect(database) as other, connect(engine) as store:
        for number in range(1, 6, 2):
            other.append(SHOP, saved("users", {"page": number}))
            assert (store.head(SHOP).version, store.count()) == (number, number)
            store.append(SHOP, saved("users", {"page": number + 1}))
    engine.dispose()


def test_one_file_of_duckdb_is_opened_once_by_whatever_name(tmp_path):
    (tmp_path / "folder").mkdir()
    there = tmp_path / "folder" / "state.duckdb"
    (tmp_path / "link").symlink_to(there.parent)
    spellings = [
        there,
        tmp_path / "folder" / ".." / "folder" / there.name,
        tmp_path / "link" / there.name,
    ]
    with ExitStack() as stack:
        stores = [stack.enter_context(connect(str(each))) for each in spellings]
        versions = [
            each.append(SHOP, saved("users", {"n": n}))[0].version
            for n, each in enumerate(stores * 3)
        ]
        assert versions == list(range(1, 10))
        theirs = create_engine(f"duckdb:///{spellings[2]}")
        with pytest.raises(StoreUnavailable, match="use that path"):
            connect(theirs).heads()
        theirs.dispose()
    assert connect(theirs).heads() == {SHOP: 9}
    theirs.dispose()


@pytest.mark.parametrize("name", ["", "state.duckdb"])
def test_stores_on_one_database_of_duckdb_take_turns_whoever_made_the_connections(tmp_path, name):
    base = duckdb.connect(str(tmp_path / name) if name else ":memory:")

    def cursor():
        return ConnectionWrapper(base.cursor())

    engines = [create_engine("duckdb://", creator=cursor, poolclass=NullPool) for _ in range(2)]
    stores = [connect(engine, schema="main") for engine in engines * 2]
    stores[0].append(SHOP, saved("first", {}))

    def work(number):
        for place in range(15):
            stores[number].append(SHOP, saved(f"stream_{number}_{place}", {}))

    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(work, range(len(stores))))
    assert stores[0].heads() == {SHOP: 61}
    assert check_tables(stores[0]).problems == ()
    base.close()


@pytest.mark.parametrize("style", ["named", "numeric"])
def test_an_engine_of_another_paramstyle_is_refused_and_leaves_others_alone(tmp_path, style):
    odd = create_engine(f"sqlite:///{tmp_path / 'odd.db'}", paramstyle=style)
    with pytest.raises(StoreUnavailable, match="paramstyle"):
        do_everything(connect(odd))
    odd.dispose()
    with connect(tmp_path / "state.db") as store:
        do_everything(store)


def test_who_sends_begin_itself_is_told_what_to_do(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
    event.listen(engine, "connect", lambda db, _: setattr(db, "isolation_level", None))
    event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN"))
    with pytest.raises(StoreUnavailable, match="give the store an engine of its own"):
        do_everything(connect(engine))
    engine.dispose()


def test_who_listens_to_the_dialect_hears_of_each_statement(tmp_path):
    engine, heard = create_engine(f"sqlite:///{tmp_path / 'state.db'}"), []
    store = connect(engine)
    store.append(SHOP, saved("users", {"page": 1}))
    event.listen(engine, "do_execute", lambda _, sql, *__: heard.append(sql.split()[0]))
    store.append(SHOP, saved("users", {"page": 2}))
    assert {"BEGIN", "INSERT"} <= set(heard)
    engine.dispose()


@pytest.mark.parametrize(
    "options",
    [
        {"connect_args": {"options": "-c standard_conforming_strings=off"}},
        {"connect_args": {"options": "-c bytea_output=escape -c datestyle=german"}},
        {"connect_args": {"cursor_factory": psycopg.ClientCursor}},
        {"connect_args": {"prepare_threshold": None}},
        {"isolation_level": "SERIALIZABLE"},
    ],
    ids=str,
)
def test_sessions_and_cursors_of_any_kind_will_do(postgresql, options):
    with postgresql.empty_database() as url:
        theirs = options.get("connect_args", {}).keys() - {"options"}
        if theirs and not make_url(url).drivername.endswith("psycopg"):
            pytest.skip("of psycopg 3 alone")
        engine = create_engine(url, poolclass=NullPool, **options)
        with connect(engine) as store:
            do_everything(store)
            store.append(SHOP, *emitted(20))
            assert verify(store).is_whole


def test_a_session_in_which_lists_hold_no_null_is_refused(postgresql):
    with postgresql.empty_database() as url:
        engine = create_engine(url, connect_args={"options": "-c array_nulls=off"})
        with connect(engine) as store, pytest.raises(StoreUnavailable, match="array_nulls = on"):
            do_everything(store)
        engine.dispose()


def test_threads_share_a_store_with_any_pool(pooled):
    if isinstance(pooled.database.engine.pool, StaticPool | AssertionPool):
        pytest.skip("has one connection, of which one thread has the use")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: pooled.append(SHOP, saved("users", {"n": n})), range(20)))
    assert pooled.heads() == {SHOP: 20}


def test_who_listens_to_an_engine_may_have_begun_a_transaction(database):
    engine = create_engine(database)

    @event.listens_for(engine, "checkout")
    def _ask(connection, *_):
        connection.cursor().execute("SELECT 1")

    with connect(engine) as store:
        do_everything(store)
    engine.dispose()


def test_who_listens_to_an_engine_may_set_what_holds_for_each_transaction(postgresql):
    with postgresql.empty_database() as url:
        engine = create_engine(url)
        with engine.begin() as db:
            db.exec_driver_sql("CREATE SCHEMA tenant")
        event.listen(engine, "begin", lambda db: db.exec_driver_sql("SET LOCAL search_path=tenant"))
        with connect(engine) as store:
            do_everything(store)
        engine.dispose()
        with connect(url, create=False) as nobodys, pytest.raises(NotAnEventStore):
            nobodys.pipelines()


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 2}], ids=str)
def test_an_engine_may_stream_what_is_read(database, options):
    with connect(database) as store:
        do_everything(store)
        history = list(store.history(SHOP))
    engine = create_engine(database, execution_options=options)
    with connect(engine, create=False) as streaming:
        assert list(streaming.history(SHOP)) == list(streaming.log()) == history
        assert latest_state(streaming, SHOP).version == streaming.head(SHOP).version
    engine.dispose()


def test_a_read_that_is_interrupted_leaves_a_connection_as_it_was(postgresql):
    """Ctrl-C comes between any two lines."""
    with postgresql.empty_database() as url, connect(url) as store:
        store.append(SHOP, saved("users", {"cursor": 1}))
        for place in count(1):
            left = [place]
            sys.settrace(partial(interrupt, left))
            try:
                store.head(SHOP)
            except KeyboardInterrupt:
                assert left == [0]
            finally:
                sys.settrace(None)
            with store.database.engine.connect() as db:
                assert not db.connection.driver_connection.autocommit
            if left != [0]:
                break
        assert place > LINES


def interrupt(left, frame, what, _):
    """Count the lines down of what switches a connection over, and interrupt the last."""
    if frame.f_code.co_name == "each_alone" and what == "line":
        line = getline(frame.f_code.co_filename, frame.f_lineno)
        left[0] -= line.strip() != "try:"  # which does nothing that could be interrupted
        if left == [0]:
            raise KeyboardInterrupt
    return partial(interrupt, left)


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


def test_a_connection_that_has_committed_is_put_back_as_it_is(engine):
    """To roll back what is committed takes DuckDB as long as an INSERT."""
    store, put_back = connect(engine), []

    @event.listens_for(engine, "reset")
    def _note(_connection, _record, state):
        put_back.append(state.transaction_was_reset)

    store.append(SHOP, saved("users", {"n": 0}))
    put_back.clear()
    store.append(SHOP, saved("users", {"n": 1}))
    assert put_back == [True]


def test_an_append_leaves_alone_what_a_thread_has_opened_before():
    """There each thread has one connection, whoever asks for it."""
    engine = create_engine("sqlite://", poolclass=SingletonThreadPool)
    store = connect(engine)
    with engine.connect() as mine:
        assert mine.exec_driver_sql("SELECT 1").scalar() == 1
        store.append(SHOP, saved("users", {"n": 0}))
        assert mine.exec_driver_sql("SELECT count(*) FROM _eventstore_events").scalar() == 1


def test_a_projection_that_ends_the_transaction_is_found_out(engine):
    """Or the event would be told as stored, and the next one leave a gap."""
    refuses_to_be_ended(engine, lambda db: db.rollback())


@pytest.mark.parametrize(
    "end", [lambda db: db.connection.rollback(), lambda db: db.exec_driver_sql("ROLLBACK")]
)
def test_so_is_one_that_goes_behind_sqlalchemys_back_where_the_driver_can_tell(tmp_path, end):
    refuses_to_be_ended(create_engine(f"sqlite:///{tmp_path / 'log.db'}"), end)


def refuses_to_be_ended(engine, end):
    connect(engine).append(SHOP, saved("users", {"n": 0}))
    failing = [end]

    def inline(db, _):
        if failing:
            failing.pop()(db)

    store = EventStore(engine, inline=inline)
    with pytest.raises(StoreUnavailable, match="must neither commit nor roll back"):
        store.append(SHOP, saved("users", {"n": 1}))
    [stored] = store.append(SHOP, saved("users", {"n": 2}))
    assert stored.version == 2
    assert verify(store).is_whole
