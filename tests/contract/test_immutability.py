"""The database refuses to change the past, where it can."""

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from eventstore import Pipeline
from eventstore.tables import events
from tests.messages import emitted, saved

SHOP = Pipeline("source-shop")

COPY = f"SELECT {', '.join(events.columns.keys())} FROM {events.name}"

pytestmark = pytest.mark.needs("REFUSES_CHANGES")


@pytest.fixture(autouse=True)
def history(store):
    """Three events; afterwards they must still be there as they were."""
    appended = store.append(SHOP, saved("users", {"cursor": 1}), *emitted(2))
    yield appended
    assert list(store.history(SHOP, up_to=3)) == appended


def test_no_column_of_an_event_can_be_updated(engine):
    for column in events.columns.keys():  # noqa: SIM118 - its columns are not its keys
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as db:
            db.execute(events.update().values({column: events.c[column]}))


@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM {events.name}",
        f"DELETE FROM {events.name} WHERE version = 3",
        f"UPDATE {events.name} SET actor = 'nobody' WHERE version = 2",
    ],
)
def test_events_are_neither_changed_nor_deleted(engine, statement):
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as db:
        db.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT OR REPLACE INTO {events.name} {COPY} WHERE version = 2",
        f"REPLACE INTO {events.name} {COPY} WHERE version = 2",
        f"INSERT INTO {events.name} {COPY} WHERE version = 1 "
        "ON CONFLICT (pipeline_id, version) DO UPDATE SET actor = 'nobody'",
        f"INSERT INTO {events.name} {COPY} WHERE version = 1 "
        "ON DUPLICATE KEY UPDATE actor = 'nobody'",
        pytest.param(f"TRUNCATE {events.name}", marks=pytest.mark.needs("REFUSES_TRUNCATE")),
        f"TRUNCATE {events.name} CASCADE",
    ],
)
def test_statements_that_only_some_databases_know_are_refused_by_those(engine, statement):
    with pytest.raises(DBAPIError, match=r"append-only|syntax"), engine.begin() as db:
        db.execute(text(statement))


@pytest.mark.parametrize("change", ["UPDATE {} SET actor = 'nobody'", "DELETE FROM {}"])
def test_a_session_that_passes_for_a_replica_is_refused_as_well(engine, change):
    with engine.connect() as db:
        with suppress(DBAPIError):
            db.execute(text("SET session_replication_role = replica"))
        with pytest.raises(DBAPIError, match="append-only"):
            db.execute(text(change.format(events.name)))


def test_appending_is_still_possible(store, history):
    store.append(SHOP, saved("users", {"cursor": 2}), expected=len(history))
    assert store.heads() == {SHOP: 4}
