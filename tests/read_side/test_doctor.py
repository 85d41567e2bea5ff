"""What looks wrong in a database."""

import json
import time
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import make_url, select
from sqlalchemy.exc import DBAPIError

from eventstore import EventStore, InvalidMoment, Pipeline, StateEmitted, StateSaved
from eventstore.tables import events
from projections import audit, connect, rebuild, register_catalog
from projections.projector import apply_inline
from projections.tables import ALL_TABLES
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    saved,
    stream_state,
)

SHOP = Pipeline("source-shop", "destination-lake")
CACHE = Pipeline("source-shop")
BACKWARDS = [saved("orders", {"at": "2026-11-21"}), saved("orders", {"at": "2026-11-20"})]

DROP_GUARD = {
    "sqlite": ["DROP TRIGGER _eventstore_no_delete"],
    "postgresql": ["DROP TRIGGER _eventstore_no_change ON _eventstore_events"],
    "mariadb": ["DROP TRIGGER _eventstore_no_delete"],
}
WEAKEN_GUARD = {
    "sqlite": [
        "DROP TRIGGER _eventstore_no_delete",
        "CREATE TRIGGER _eventstore_no_delete BEFORE DELETE ON _eventstore_events "
        "BEGIN SELECT 1; END",
    ],
    "postgresql": ["ALTER TABLE _eventstore_events DISABLE TRIGGER _eventstore_no_change"],
    "mariadb": [
        "CREATE OR REPLACE TRIGGER _eventstore_no_delete BEFORE DELETE ON _eventstore_events "
        "FOR EACH ROW SET @nothing = 1"
    ],
}


def found(store, *pipelines):
    return [(each.version, each.what) for each in audit.doctor(store, pipelines or None)]


def test_nothing_looks_wrong_in_a_history_like_any_other(store):
    register_catalog(store, SHOP, catalog(configured_stream("orders")), run="1")
    for number in range(3):
        states = [stream_state("orders", {"at": number})] * 2
        store.append(SHOP, StateEmitted(states[0]), StateSaved(states[1]), run=str(number))
    store.append(CACHE, saved("users", {"page": 1}))
    assert found(store) == []


def test_what_was_stored_before_a_time_is_not_looked_at(store):
    store.append(SHOP, *BACKWARDS)
    last = list(store.history(SHOP))[-1]
    for since, seen in (
        (datetime(1, 1, 1, tzinfo=timezone.utc), True),
        (last.stored_at, True),
        (last.stored_at + timedelta(microseconds=1), False),
        (last.stored_at + timedelta(days=1), False),
    ):
        assert bool(list(audit.doctor(store, since=since))) is seen
    with pytest.raises(InvalidMoment):
        list(audit.doctor(store, since=datetime(2026, 11, 20)))  # noqa: DTZ001


def test_an_empty_log_looks_fine(store):
    assert found(store) == []


def test_what_log_marks_is_found_with_its_version(store):
    store.append(SHOP, *BACKWARDS)
    [finding] = audit.doctor(store)
    assert (finding.pipeline, finding.version) == (SHOP, 2)
    assert finding.detail == "at went backwards: 2026-11-21 -> 2026-11-20"


def counting(state, read, written=None, rejected=None):
    """A state, with the counts of records that a source and a destination give."""
    destination = {"recordCount": written, "rejectedRecordCount": rejected}
    stats = {
        "sourceStats": {"recordCount": read},
        "destinationStats": {
            name: count for name, count in destination.items() if count is not None
        },
    }
    return json.dumps(json.loads(state) | stats)


@pytest.mark.parametrize(
    ("counts", "detail"),
    [
        ((120.0, 0.0), "0 of 120 records written"),
        ((120, 119), "119 of 120 records written"),
        ((120, 100, 19), "100 of 120 records written, 19 rejected"),
        ((120, 100, 20), None),
        ((120, 120), None),
        ((120, 121), None),
        ((120,), None),
        ((0, 0), None),
    ],
)
@pytest.mark.parametrize(
    "state",
    [stream_state("users", {}), global_state(None, inner_state("users", {})), legacy_state({})],
    ids=["STREAM", "GLOBAL", "LEGACY"],
)
def test_records_that_were_read_and_not_written_are_found(state, counts, detail, store):
    store.append(SHOP, StateSaved(counting(state, *counts)), run="1")
    assert [(each.version, each.detail) for each in audit.doctor(store)] == (
        [(1, detail)] if detail else []
    )


def test_records_not_written_are_told_once_and_only_of_what_a_destination_confirmed(store):
    lost, better = (counting(stream_state("users", {}), 120, written) for written in (0, 120))
    store.append(SHOP, StateEmitted(lost), StateSaved(lost), StateSaved(lost), run="1")
    store.append(SHOP, StateSaved(better), StateSaved(lost, "restored", 2), run="1")
    assert found(store) == [(2, "records not written")]


def test_only_the_pipelines_that_are_asked_for_are_looked_at(store):
    store.append(SHOP, *BACKWARDS)
    store.append(CACHE, saved("users", {}))
    assert found(store, CACHE) == []
    assert len(found(store, CACHE, SHOP)) == 1


def test_runs_that_take_turns_are_found_once_for_every_two(store):
    for run in ("a", "a", "b", "a", "b", "c", "b"):
        store.append(SHOP, saved("orders", {}), run=run)
    assert found(store) == [(4, "runs interleave"), (7, "runs interleave")]


def test_runs_that_follow_each_other_are_fine(store):
    for run in ("a", "b", "c"):
        store.append(SHOP, saved("orders", {}), saved("users", {}), run=run)
    assert found(store) == []


@pytest.mark.parametrize(
    "state",
    [stream_state("users", {}), global_state(None, inner_state("users", {}))],
    ids=["STREAM", "GLOBAL"],
)
def test_a_state_for_a_stream_in_no_catalog_is_found(state, store):
    register_catalog(store, SHOP, catalog(configured_stream("orders")))
    store.append(SHOP, StateSaved(state))
    assert found(store) == [(None, "stream in no catalog")]
    assert found(store, CACHE) == []


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_clock_that_ran_ahead_is_found_by_what_it_left(kind, tmp_path):
    now = time.time_ns() // 1000
    times = iter([now - 10, now - 10**9, now - 10**9, now - 5, now + 10**10])
    with connect(f"{kind}:///{tmp_path / 'state.db'}") as made:
        made.heads()
        clocked = EventStore(made.database.engine, inline=apply_inline, clock=lambda: next(times))
        for _ in range(5):
            clocked.append(SHOP, saved("orders", {}), run="one")
        assert found(made) == [(2, "clock ran ahead"), (5, "clock ran ahead")]


@pytest.mark.needs("REFUSES_CHANGES")
@pytest.mark.parametrize("statements", [DROP_GUARD, WEAKEN_GUARD], ids=["dropped", "weakened"])
def test_a_guard_that_is_gone_is_found_and_put_back(statements, store, database, caplog):
    store.append(SHOP, saved("orders", {}))
    with store.database.engine.begin() as db:
        for statement in statements[make_url(database).get_backend_name()]:
            db.exec_driver_sql(statement)
    [finding] = audit.doctor(store)
    assert finding.what == "guard missing"
    assert "_eventstore_no_" in finding.detail
    rebuild(store)
    assert "put back the trigger _eventstore_no_" in caplog.text
    assert found(store) == []
    with store.database.engine.begin() as db, pytest.raises(DBAPIError, match="append-only"):
        db.execute(events.delete())


def change(store, table, **values):
    with store.database.engine.begin() as db:
        db.execute(table.update().values(values) if values else table.delete())


@pytest.fixture
def filled(store):
    """Rows in all three tables."""
    for pipeline in (SHOP, CACHE):
        store.append(pipeline, saved("orders", {"a": 1}))
        register_catalog(store, pipeline, catalog(configured_stream("orders")))
    return store


def test_rows_that_are_as_the_log_says_are_fine(filled):
    assert found(filled) == []
    rebuild(filled)
    assert found(filled) == []


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_rows_that_were_deleted_are_found(table, filled):
    change(filled, table)
    details = [each.detail for each in audit.doctor(filled) if each.what == "row changed"]
    assert details
    assert all(each.startswith(f"{table.name}: the row of orders of ") for each in details)
    assert all(" is missing" in each for each in details)
    rebuild(filled)
    assert found(filled) == []


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *((ALL_TABLES[0], name) for name in ("state_json", "source_name", "stream_namespace")),
        (ALL_TABLES[1], "state_json"),
        (ALL_TABLES[2], "configured_stream"),
        (ALL_TABLES[2], "catalog_metadata"),
    ],
    ids=str,
)
def test_rows_that_were_changed_are_found(table, column, filled):
    change(filled, table, **{column: "{}"})
    details = [each.detail for each in audit.doctor(filled) if each.what == "row changed"]
    assert details
    for detail in details:
        assert "the row of orders of " in detail
        assert f" has another {column}, which is not what the log says" in detail


def test_rows_that_no_event_tells_of_are_found(filled):
    [table, *_] = ALL_TABLES
    with filled.database.engine.begin() as db:
        row = dict(db.execute(select(table)).one()._mapping)
        db.execute(table.insert(), row | {"row_key": "x" * 32, "stream_name": "mine"})
    [finding] = audit.doctor(filled, [CACHE])
    assert finding.what == "row changed"
    assert finding.detail.startswith(f"{table.name}: the row of mine of {CACHE} is there")
    assert list(audit.doctor(filled, [SHOP])) == []


def test_rows_that_pyairbyte_wrote_are_told_of(filled, database):
    [table, *_] = ALL_TABLES
    theirs = {"source_name": "s", "stream_name": "n", "table_name": "n", "state_json": "{}"}
    with filled.database.engine.begin() as db:
        db.execute(table.insert(), {**theirs, "row_key": "y" * 32})
    with connect(database, create=False) as reading:
        [finding] = audit.doctor(reading)
    assert finding.what == "rows not in the log"
    assert finding.detail.startswith(f"{table.name}: 1 row(s) written by unmodified PyAirbyte")
