"""Rebuilding: the tables filled anew from the log are the tables of before."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from sqlalchemy import select

from eventstore import Pipeline, StateCleared, StateSaved, StreamDescriptor
from projections import (
    CachedStream,
    CacheStreamStateModel,
    CatalogView,
    DestinationStreamStateModel,
    StateView,
    connect,
    latest_catalog,
    latest_state,
    rebuild,
    rebuilding,
    register_catalog,
    replay,
)
from tests.interruptions import counted, everywhere, lost_race
from tests.messages import catalog, configured_stream, global_state, legacy_state, saved
from tests.read_side import breakdowns

PIPELINES = [
    Pipeline("source-shop"),
    Pipeline("source-shop", table_prefix="a_"),
    Pipeline("source-shop", "destination-lake"),
    Pipeline("source-shop", "destination-lake", connection="eu"),
    Pipeline("source-bank"),
]
SHOP = PIPELINES[0]

EXCHANGE = "DELETE FROM _airbyte_state WHERE"
"""How the first statement begins that changes a live table."""

TABLES = [
    model.__table__ for model in (CacheStreamStateModel, DestinationStreamStateModel, CachedStream)
]


@pytest.fixture
def shop(store):
    """Pipelines with every type of state, types changed, streams cleared, catalogs registered."""
    for pipeline in PIPELINES:
        register_catalog(store, pipeline, catalog(configured_stream("users", sync_id=1)))
        store.append(pipeline, StateSaved(legacy_state({"users": 1})))
        store.append(pipeline, saved("users", {"cursor": 1}), saved("users", {"cursor": 2}, ""))
    store.append(PIPELINES[1], StateSaved(global_state({"lsn": 1})))
    store.append(PIPELINES[2], StateCleared(StreamDescriptor("users", "")))
    store.append(PIPELINES[3], StateCleared(), saved("users", {"cursor": 3}, "audit"))
    store.append(PIPELINES[4], StateCleared())
    register_catalog(store, SHOP, catalog(configured_stream("users", columns=["name"], sync_id=2)))
    return store


def test_rebuilding_leaves_every_row_as_it_was(shop):
    before = rows(shop)
    rebuild(shop)
    assert rows(shop) == before


def test_what_only_the_last_look_before_an_exchange_has_read_is_there_once(shop, monkeypatch):
    monkeypatch.setattr(rebuilding, "_PASSES", 0)
    before = rows(shop)
    with shop.database.engine.begin() as db:
        db.execute(TABLES[0].update().values(version=7))
    rebuild(shop)
    assert rows(shop) == before


def test_rebuilding_what_is_right_makes_nobody_wait(shop):
    with counted(shop.database.engine) as statements:
        rebuild(shop)
    assert not [each for each in statements if EXCHANGE in each or "FOR UPDATE" in each]
    assert not [each for each in statements if each.startswith("LOCK")]


def test_rebuilding_says_how_many_pipelines_it_read(shop):
    assert rebuild(shop) == len(PIPELINES)


def test_rebuilding_an_empty_log_is_possible(store):
    assert rebuild(store) == 0
    assert rows(store) == [[], [], []]


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.delete(),
        lambda table: table.update().values(stream_name="broken"),
        lambda table: table.delete().where(table.c.stream_namespace.is_(None)),
        lambda table: table.update().values(version=7),
    ],
    ids=["emptied", "changed", "some removed", "versions changed"],
)
def test_rebuilding_repairs_the_tables(shop, damage):
    before = rows(shop)
    with shop.database.engine.begin() as db:
        for table in TABLES:
            db.execute(damage(table))
    assert rows(shop) != before
    rebuild(shop)
    assert rows(shop) == before


def test_rebuilding_leaves_rows_alone_that_somebody_else_wrote(shop):
    theirs = [
        {"source_name": "theirs", "stream_name": "t", "table_name": "t", "state_json": "{}"},
        {"destination_name": "theirs", "source_name": "theirs", "stream_name": "t"},
        {"source_name": "theirs", "stream_name": "t", "table_name": "t", "catalog_metadata": "{}"},
    ]
    with shop.database.engine.begin() as db:
        for table, row in zip(TABLES, theirs, strict=True):
            db.execute(table.insert(), row)
    before = rows(shop)
    rebuild(shop)
    assert rows(shop) == before


REFUSING_ONE_COMMIT = """
    CREATE SEQUENCE commits;
    GRANT ALL ON commits TO PUBLIC;
    CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('commits') = 1 THEN
            RAISE EXCEPTION 'not now' USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER refuse_one AFTER DELETE ON _airbyte_state
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_one()
"""


def test_a_rebuild_whose_commit_is_refused_is_committed_again(postgresql):
    """As a node of a Galera cluster does; what is beside the tables is still there."""
    with postgresql.empty_database() as url, connect(url) as store:
        store.append(SHOP, saved("users", {"cursor": 1}))
        before = rows(store)
        with store.database.engine.begin() as db:
            db.exec_driver_sql("UPDATE _airbyte_state SET stream_name = 'broken'")
            db.exec_driver_sql(REFUSING_ONE_COMMIT)
        rebuild(store)
        assert rows(store) == before
        with store.database.engine.begin() as db:
            assert db.exec_driver_sql("SELECT last_value FROM commits").scalar() > 1


@pytest.mark.slow_on("duckdb", "mariadb")
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loses", [False, True], ids=["", "and the exchange loses a race"])
def test_what_is_appended_anywhere_in_a_rebuild_is_in_the_tables_afterwards(database, loses, step):
    with connect(database) as one, connect(database) as other:
        one.append(SHOP, saved("users", {"cursor": 0}), saved("orders", {"cursor": 0}))
        for interruption in everywhere(step=step):
            begun = Pipeline(f"source-{interruption.at % 3}")  # few: each takes more statements

            def meanwhile(begun=begun, cursor=interruption.at):
                other.append(SHOP, saved("users", {"cursor": cursor}))
                other.append(begun, saved("users", {"cursor": cursor}))
                register_catalog(other, begun, catalog(configured_stream("users")))

            engine = one.database.engine
            if loses or interruption.at // step % 2:  # or there is nothing to exchange
                with engine.begin() as db:
                    orders = TABLES[0].c.stream_name == "orders"
                    db.execute(TABLES[0].update().where(orders).values(version=7))
            lost = lost_race(engine, EXCHANGE) if loses else nullcontext()
            with interruption.of(engine, meanwhile), lost:
                rebuild(one)
            assert_tables_equal_replay(one)


@pytest.mark.slow_on("duckdb", "postgresql")
def test_cut_off_anywhere_a_rebuild_leaves_the_tables_as_they_were(database, engine):
    with connect(database) as writer:
        for pipeline in PIPELINES[:3]:
            writer.append(pipeline, saved("users", {"cursor": 1}), saved("orders", {"cursor": 1}))
        whole = rows(writer)
        with writer.database.engine.begin() as db:
            for table in TABLES:
                db.execute(table.update().where(table.c.stream_name == "users").values(version=7))
                db.execute(table.delete().where(table.c.stream_name == "orders"))
        damaged = rows(writer)
        store = connect(engine)
        for breakdown in breakdowns.everywhere():
            with breakdown.of(engine):
                rebuild(store)
            # What comes after the exchange only tidies up.
            assert rows(writer) in ([damaged, whole] if breakdown.at > 20 else [damaged])
        assert rows(writer) == whole
        assert breakdown.at > 30


def test_a_rebuild_says_how_far_it_is(shop):
    told = []
    rebuild(shop, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (len(PIPELINES), len(PIPELINES))


@pytest.mark.needs("FOREIGN_TABLES")
def test_views_of_others_on_the_tables_outlive_a_rebuild(shop, engine):
    with engine.begin() as db:
        db.exec_driver_sql("CREATE VIEW cursors AS SELECT state_json FROM _airbyte_state")
        before = sorted(db.exec_driver_sql("SELECT * FROM cursors").all())
        db.execute(TABLES[0].delete())
    rebuild(shop)
    with engine.connect() as db:
        assert sorted(db.exec_driver_sql("SELECT * FROM cursors").all()) == before


def test_what_several_threads_append_during_rebuilds_is_in_the_tables_afterwards(database):
    def append(number):
        with connect(database) as writer:
            for cursor in range(10):
                writer.append(SHOP, saved(f"stream {number}", {"cursor": cursor}))
                writer.append(SHOP, saved("shared", {"number": number, "cursor": cursor}))

    with connect(database) as store, ThreadPoolExecutor(2) as pool:
        store.pipelines()
        writing = [pool.submit(append, number) for number in range(2)]
        while not all(writer.done() for writer in writing):
            rebuild(store)
        for writer in writing:
            writer.result()
        assert_tables_equal_replay(store)


def rows(store):
    """All rows of the three tables, in an order of their own."""
    with store.database.engine.connect() as db:
        return [
            [tuple(row) for row in db.execute(select(table).order_by(table.c.row_key))]
            for table in TABLES
        ]


def assert_tables_equal_replay(store):
    for pipeline in store.pipelines():
        state, registered = latest_state(store, pipeline), latest_catalog(store, pipeline)
        assert state == replay(store, pipeline, StateView(pipeline))
        assert registered == replay(store, pipeline, CatalogView(pipeline))
    assert [len(table) for table in rows(store)] == _expected_counts(store)


def _expected_counts(store):
    """No row is there twice, and none for a pipeline that the log does not know."""
    counts = [0, 0, 0]
    for pipeline in store.pipelines():
        counts[pipeline.destination is not None] += len(latest_state(store, pipeline).bodies)
        counts[2] += len(latest_catalog(store, pipeline).streams)
    return counts
