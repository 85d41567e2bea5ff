"""The tables that runners read, compared with the log."""

import tracemalloc

import pytest
from sqlalchemy import select, text

from eventstore import Pipeline, StateSaved
from eventstore.erasure import erase
from eventstore.tables import pipelines, streams
from projections import (
    CachedStream,
    CacheStreamStateModel,
    DestinationStreamStateModel,
    connect,
    rebuild,
    register_catalog,
)
from projections.tables_check import check_tables
from tests.messages import catalog, configured_stream, global_state, saved

SHOP = Pipeline("source-shop")
LAKE = Pipeline("source-shop", "destination-lake")
BANK = Pipeline("source-bank")

CACHE, DESTINATION, STREAMS = (
    model.__table__ for model in (CacheStreamStateModel, DestinationStreamStateModel, CachedStream)
)


@pytest.fixture
def shop(store):
    for pipeline in (SHOP, LAKE):
        register_catalog(store, pipeline, catalog(configured_stream("users")))
        store.append(pipeline, saved("users", {"cursor": 1}), saved("users", {"cursor": 2}, "a"))
    store.append(BANK, saved("orders", {}), StateSaved(global_state({"lsn": 1})))
    erase(store, SHOP, version=4, reason="asked to")
    return store


def test_untouched_tables_say_what_the_log_says(shop):
    report = check_tables(shop)
    assert (report.problems, report.notices) == ((), ())


@pytest.mark.parametrize(
    "statement",
    [
        CACHE.update().where(CACHE.c.source_name == "source-bank").values(state_json="{}"),
        CACHE.update().where(CACHE.c.source_name == "source-bank").values(version=9),
        CACHE.update().where(CACHE.c.source_name == "source-bank").values(source_name="x"),
        CACHE.update().where(CACHE.c.source_name == "source-bank").values(pipeline_key="x"),
        CACHE.update().where(CACHE.c.source_name == "source-bank").values(last_updated=None),
        CACHE.delete().where(CACHE.c.source_name == "source-bank"),
        CACHE.update().values(last_updated=text("'2026-01-01'")),
        DESTINATION.delete(),
        DESTINATION.update().values(stream_namespace="b"),
        STREAMS.update().values(configured_stream="{}"),
        STREAMS.update().values(catalog_metadata="{}"),
        STREAMS.delete(),
    ],
)
def test_a_changed_row_is_found_and_rebuilding_repairs_it(shop, engine, statement):
    with engine.begin() as db:
        db.execute(statement)
    assert check_tables(shop).problems
    rebuild(shop)
    if "pipeline_key" not in str(statement):
        assert check_tables(shop).problems == ()


def test_rows_of_unmodified_pyairbyte_are_a_notice(shop, engine):
    """It deletes by the name of the table, and inserts its own columns."""
    theirs = {
        "source_name": "source-shop",
        "stream_name": "users",
        "table_name": "users",
        "state_json": "{}",
    }
    with engine.begin() as db:
        db.execute(CACHE.delete().where(CACHE.c.table_name == "users"))
        db.execute(CACHE.insert(), theirs)
    report = check_tables(shop)
    assert report.problems == ()
    assert any("PyAirbyte" in notice for notice in report.notices)


def test_a_stream_whose_name_is_gone_hides_no_other(shop, engine):
    with engine.begin() as db:
        bank = select(pipelines.c.id).where(pipelines.c.key == BANK.key).scalar_subquery()
        db.execute(streams.delete().where(streams.c.number == 1, streams.c.pipeline_id == bank))
        db.execute(DESTINATION.update().values(state_json="{}"))
    problems = " ".join(check_tables(shop).problems)
    assert str(LAKE) in problems
    assert str(SHOP) + " " not in problems
    rebuild(shop)
    assert check_tables(shop).problems == ()


def test_large_states_of_many_pipelines_are_not_compared_all_at_once(store):
    few, many = (traced_while_checking(store, first, first + 24) for first in (0, 24))
    assert many < 1.5 * few


def traced_while_checking(store, first, last):
    """The bytes that are in memory, at most, after more states of a megabyte were saved."""
    for number in range(first, last):
        state = {"text": f"{number}" + "x" * 1_000_000}
        store.append(Pipeline(f"source-{number}"), saved("users", state))
    tracemalloc.start()
    try:
        assert check_tables(store).problems == ()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("table", [CACHE, DESTINATION], ids=str)
def test_a_time_that_is_none_is_found(tmp_path, table):
    with connect(tmp_path / "state.db") as store:  # SQLite keeps any text there
        for pipeline in (SHOP, LAKE):
            store.append(pipeline, saved("users", {}))
        with store.database.engine.begin() as db:
            db.execute(table.update().values(last_updated=text("'x'")))
        [problem] = check_tables(store).problems
        assert "has another last_updated" in problem
