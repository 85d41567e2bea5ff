"""One append id names one append, however often it is sent."""

from contextlib import suppress
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from eventstore import (
    AppendIdReused,
    InvalidEvent,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StoreUnavailable,
    StreamDescriptor,
)
from projections import connect, latest_state
from tests.interruptions import at_commit, commit_then_die, die, everywhere
from tests.messages import saved, stream_state

SHOP = Pipeline("source-shop")
BATCH = [
    saved("users", {"cursor": 1}),
    StateCleared(StreamDescriptor("orders")),
    StateEmitted(stream_state("users", {"cursor": 2})),
]


def test_the_same_append_again_returns_the_original_events(store):
    append_id = uuid4()
    original = store.append(SHOP, *BATCH, id=append_id, actor="ann")
    store.append(SHOP, saved("users", {"cursor": 9}))

    assert store.append(SHOP, *BATCH, id=append_id, actor="bob") == original
    assert store.heads() == {SHOP: 4}


def test_the_same_append_again_does_not_touch_the_tables(store):
    append_id = uuid4()
    store.append(SHOP, saved("users", {"cursor": 1}), id=append_id)
    store.append(SHOP, saved("users", {"cursor": 2}))
    store.append(SHOP, saved("users", {"cursor": 1}), id=append_id)
    assert latest_state(store, SHOP).bodies == [stream_state("users", {"cursor": 2}).encode()]


def test_an_append_is_known_to_other_stores_under_its_id(database):
    append_id = uuid4()
    with connect(database) as one, connect(database) as other:
        original = one.append(SHOP, *BATCH, id=append_id)
        assert other.append(SHOP, *BATCH, id=str(append_id)) == original


def test_the_same_append_again_is_no_conflict(store):
    append_id = uuid4()
    original = store.append(SHOP, *BATCH, id=append_id, expected=0)
    assert store.append(SHOP, *BATCH, id=append_id, expected=0) == original


@pytest.mark.parametrize(
    "events",
    [
        [saved("users", {"cursor": 2})],
        [saved("users", {"cursor": 1}, "audit")],
        [saved("users", {"cursor": 1}), saved("users", {"cursor": 1})],
        [StateEmitted(stream_state("users", {"cursor": 1}))],
        [StateSaved(stream_state("users", {"cursor": 1}), origin="restored")],
        [StateSaved(stream_state("users", {"cursor": 1}), of=1)],
        [StateCleared()],
    ],
    ids=["blob", "namespace", "count", "kind", "origin", "of", "clear"],
)
def test_the_same_id_with_other_content_is_refused(store, events):
    append_id = uuid4()
    store.append(SHOP, saved("users", {"cursor": 1}), id=append_id)
    with pytest.raises(AppendIdReused, match=str(append_id)):
        store.append(SHOP, *events, id=append_id)
    assert store.heads() == {SHOP: 1}


def test_the_same_id_for_another_pipeline_is_refused(store):
    append_id = uuid4()
    store.append(SHOP, *BATCH, id=append_id)
    with pytest.raises(AppendIdReused, match="source-shop"):
        store.append(Pipeline("source-bank"), *BATCH, id=append_id)


@pytest.mark.parametrize("bad", ["", "8812", "not-a-uuid", 7, b"x" * 16])
def test_an_append_id_is_a_uuid(store, bad):
    with pytest.raises(InvalidEvent, match="an append id is a UUID"):
        store.append(SHOP, *BATCH, id=bad)


def test_a_caller_whose_acknowledgement_was_lost_finds_the_append_under_its_id(engine):
    store = connect(engine)
    append_id = uuid4()
    store.append(SHOP, saved("users", {"cursor": 0}))

    with at_commit(engine, commit_then_die):
        stored = _append_until_acknowledged(store, append_id)
    assert [event.version for event in stored] == [2, 3, 4]
    assert store.append(SHOP, *BATCH, id=append_id) == stored
    assert store.heads() == {SHOP: 4}


def test_a_caller_whose_connection_died_before_the_commit_appends_once(engine):
    store = connect(engine)
    append_id = uuid4()
    store.append(SHOP, saved("users", {"cursor": 0}))

    with at_commit(engine, die):
        stored = _append_until_acknowledged(store, append_id)
    assert [event.version for event in stored] == [2, 3, 4]
    assert store.heads() == {SHOP: 4}


@pytest.mark.needs("NOW")  # a server, to which a connection can be lost
@pytest.mark.parametrize("died", ["before", "after"])
def test_a_store_finds_out_by_itself_what_became_of_an_append(engine, died):
    store = connect(engine)
    store.append(SHOP, saved("users", {"cursor": 0}))

    with at_commit(engine, commit_then_die if died == "after" else die):
        stored = store.append(SHOP, *BATCH)
    assert list(store.history(SHOP, after=1)) == stored


@pytest.mark.needs("NOW")  # a server, which can end a connection
def test_an_append_outlives_a_connection_that_the_server_ends_anywhere(database, store, engine):
    for interruption in everywhere():
        pipeline = Pipeline(f"source-{interruption.at}")
        with interruption.of(store.database.engine, lambda: _end_connections(engine)):
            stored = store.append(pipeline, *BATCH)
        with connect(database) as reader:
            assert list(reader.history(pipeline)) == stored


@pytest.mark.needs("NOW")  # a server, which can end a connection
def test_a_read_outlives_the_end_of_idle_connections(store, engine):
    stored = store.append(SHOP, *BATCH)
    _end_connections(engine)
    assert list(store.history(SHOP)) == stored


@pytest.mark.parametrize("begun", [True, False])
def test_one_append_sent_twice_at_the_same_time_is_stored_once(database, begun):
    with connect(database) as one, connect(database) as other:
        for interruption in everywhere():
            pipeline, append_id = Pipeline(f"source-{interruption.at}"), uuid4()
            if begun:
                other.append(pipeline, saved("users", {}))
            again = []

            def send_again(pipeline=pipeline, append_id=append_id, again=again):
                again += other.append(pipeline, *BATCH, id=append_id)

            with interruption.of(one.database.engine, send_again):
                stored = one.append(pipeline, *BATCH, id=append_id)
            assert again == stored == list(one.history(pipeline, after=int(begun)))


def _append_until_acknowledged(store, append_id):
    try:
        return store.append(SHOP, *BATCH, id=append_id)
    except StoreUnavailable:
        return store.append(SHOP, *BATCH, id=append_id)


OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist "
    "WHERE db = database() AND id <> connection_id()",
}
END = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}


def _end_connections(engine):
    with engine.connect() as db:
        for other in db.scalars(text(OTHERS[engine.name])).all():
            with suppress(DBAPIError):  # it has ended by itself
                db.execute(text(END[engine.name].format(other)))


def test_an_append_is_stored_once_where_a_trigger_keeps_its_row_from_a_table(postgresql):
    """The row that shows a state is not what tells whether the event is there."""
    trigger = (
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER swallow BEFORE INSERT ON _airbyte_state "
        "FOR EACH ROW EXECUTE FUNCTION swallow()",
    )
    with postgresql.empty_database() as url, connect(url) as store:
        appended = [store.append(SHOP, saved("users", {"cursor": 0}))[0]]
        with store.database.engine.begin() as db:
            for statement in trigger:
                db.exec_driver_sql(statement)
        for number in range(1, 4):
            appended += store.append(SHOP, saved("users", {"cursor": number}))
        assert list(store.history(SHOP)) == appended
