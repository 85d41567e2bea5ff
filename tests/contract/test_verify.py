"""Verifying finds whatever was changed, and nothing where nothing was."""

import tracemalloc
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select, text

from eventstore import (
    AlteredBody,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StoreUnavailable,
    integrity,
)
from eventstore import recompute as recomputing
from eventstore.compression import PLAIN
from eventstore.erasure import erase, reapply, retention
from eventstore.integrity import verify
from eventstore.tables import BODY_VERSION, bodies, body_id, events, pipelines, streams
from eventstore.words import Words
from projections import connect, latest_state, register_catalog, state_as_of
from tests.contract.test_erasure import USERS, play
from tests.contract.test_erasure import _steps as steps
from tests.messages import catalog, configured_stream, emitted, global_state, saved, stream_state
from tests.tampering import rehash, tampering

SHOP = Pipeline("source-shop")
BANK = Pipeline("source-bank", "destination-lake", connection="eu")

ERASED, ERASURE, HEAD = 7, 10, 11


@pytest.fixture
def log(store):
    """Two histories with every kind of event; in each, version 3 points at 2, and 7 is erased."""
    for pipeline in (SHOP, BANK):
        store.append(pipeline, StateCleared(), actor="ann", reason="é", run="1")  # 1
        store.append(pipeline, saved("users", {"cursor": 1}))  # 2
        store.append(pipeline, StateSaved(stream_state("users", {"cursor": 1}), "restored", 2))
        store.append(pipeline, *emitted(2))  # 4, 5
        store.append(pipeline, StateSaved(global_state({"lsn": 1})))  # 6
        store.append(pipeline, saved("users", {"email": "a@example.org"}, "audit"))  # 7
        register_catalog(store, pipeline, catalog(configured_stream("users")))  # 8, 9
        erase(store, pipeline, version=7, reason="asked to")  # 10
        store.append(pipeline, saved("orders", {"cursor": 1}))  # 11
    return store


def test_an_untouched_log_is_whole(log):
    report = verify(log)
    assert report.is_whole
    assert [(found.pipeline, found.events, found.last_good) for found in report.pipelines] == [
        (SHOP, HEAD, HEAD),
        (BANK, HEAD, HEAD),
    ]
    assert (report.problems, report.notices) == ((), ())


def test_an_empty_log_is_whole(store):
    assert verify(store).is_whole


def test_some_pipelines_can_be_chosen(log):
    assert [found.pipeline for found in verify(log, [BANK]).pipelines] == [BANK]
    assert not verify(log, [Pipeline("source-unknown")]).is_whole


def _others(column, value):
    """Another value of the same type, one where there was none, and none where there was one."""
    if isinstance(value, memoryview | bytes):
        changed = [bytes([bytes(value)[0] ^ 1]) + bytes(value)[1:], bytes(value)[:-1]]
    elif isinstance(column.type, Words):
        changed = [word for word in column.type.listed if word != value]
    elif isinstance(value, int):
        changed = [value + 1]
    elif isinstance(value, str):
        changed = [value + " ", value[:-1]]
    else:
        types = {"BLOB": b"\0" * 32, "BIGINT": 1, "INTEGER": 1}
        changed = [types.get(str(column.type).split("(")[0], "")]
    return changed if value is None or not column.nullable else [*changed, None]


@pytest.mark.parametrize("column", [c.name for c in events.columns])
def test_every_column_of_an_event_is_proven(log, engine, column):
    with tampering(engine) as db:
        rows = db.execute(select(events).where(events.c.pipeline_id == 1)).mappings().all()
    tried = 0
    for row in rows:
        here = (events.c.pipeline_id == 1, events.c.version == row["version"])
        for other in _others(events.c[column], row[column]):
            with engine.begin() as db:
                db.execute(events.update().where(*here).values({column: other}))
            report = verify(log)
            assert not report.is_whole, (row["version"], other)
            bad = [found for found in report.pipelines if not found.is_whole]
            assert SHOP in [found.pipeline for found in bad]
            if column not in {"pipeline_id", "version"}:
                # Where nothing says any more that a body was erased, it is missing.
                forgotten = column == "kind" and row["version"] == ERASURE
                first_bad = ERASED if forgotten else row["version"]
                assert [found.first_bad for found in bad] == [first_bad]
                assert bad[0].last_good == first_bad - 1
            with engine.begin() as db:
                # By all its columns, since one of the key may have been changed.
                changed = {**row, column: other}
                same = [events.c[name] == changed[name] for name in ("pipeline_id", "version")]
                id_of = events.c.append_id == bytes(changed["append_id"])
                hashed = events.c.hash == bytes(changed["hash"])
                db.execute(events.delete().where(*same, id_of, hashed))
                db.execute(events.insert(), {**row})
            tried += 1
    assert tried >= HEAD
    assert verify(log).is_whole


def one_more_body(after, by):
    """A body of the first history once more, under an id that is higher by some."""
    id_, *kept = bodies.columns
    row = select(id_ + by, *kept).where(id_ == body_id(1, after))
    return bodies.insert().from_select(bodies.columns, row)


@pytest.mark.parametrize(
    ("change", "first_bad"),
    [
        ("DELETE FROM _eventstore_events WHERE pipeline_id = 1 AND version = 4", 4),
        ("DELETE FROM _eventstore_events WHERE pipeline_id = 1 AND version = 1", 1),
        ("DELETE FROM _eventstore_events WHERE pipeline_id = 1 AND version IN (10, 11)", 7),
        ("DELETE FROM _eventstore_events WHERE pipeline_id = 1", 1),
        ("UPDATE _eventstore_events SET version = 15 - version WHERE version IN (7, 8)", 7),
        ("INSERT INTO _eventstore_events SELECT * FROM _eventstore_events WHERE version = 5", 5),
        ("UPDATE _eventstore_events SET version = 900000000000 WHERE version = 11", 11),
        ("UPDATE _eventstore_events SET version = 0 WHERE version = 1", 0),
        ("UPDATE _eventstore_bodies SET data = "
         "(SELECT data FROM _eventstore_bodies ORDER BY data DESC LIMIT 1)", 2),
        (bodies.delete().where(BODY_VERSION == 2), 2),
        (bodies.delete().where(BODY_VERSION == 10), 7),
        (bodies.update().where(BODY_VERSION == 6).values(codec=9), 6),
        (bodies.update().where(BODY_VERSION == 2).values(id=bodies.c.id + 1), 2),
        (one_more_body(after=2, by=1), 3),
        (one_more_body(after=2, by=10), 12),
        (one_more_body(after=6, by=0), 6),
        (one_more_body(after=2, by=-1), 1),
        ("UPDATE _eventstore_events SET kind = 99 WHERE version = 4", 4),
        ("UPDATE _eventstore_events SET kind = -1 WHERE version = 4", 4),
        ("UPDATE _eventstore_events SET origin = 99 WHERE version = 6", 6),
        ("UPDATE _eventstore_events SET body_at = 11 WHERE version = 4", 4),
        ("UPDATE _eventstore_events SET body_at = version WHERE version = 4", 4),
        ("UPDATE _eventstore_streams SET name = 'other' WHERE number = 1", 2),
        ("UPDATE _eventstore_streams SET namespace = '' WHERE number = 1", 2),
        ("UPDATE _eventstore_streams SET name = 'other' WHERE number = 0", 1),
        ("DELETE FROM _eventstore_streams WHERE number = 1", 2),
        ("INSERT INTO _eventstore_streams VALUES (1, 9, NULL, 'more'), (2, 9, NULL, 'more')", None),
        ("INSERT INTO _eventstore_streams SELECT * FROM _eventstore_streams WHERE number = 1",
         None),
        (pipelines.update().where(pipelines.c.id == 1).values(source="other"), 1),
        (pipelines.update().where(pipelines.c.id == 1).values(key="other"), 1),
        ("UPDATE _eventstore_pipelines SET connection = 'other'", 1),
    ],
)  # fmt: skip
def test_a_change_of_rows_is_found_where_it_begins(log, engine, change, first_bad):
    with tampering(engine) as db:
        db.execute(text(change) if isinstance(change, str) else change)
    report = verify(log)
    assert not report.is_whole
    found = report.pipelines[0]
    assert (found.first_bad, found.is_whole) == (first_bad, False)
    assert found.problem
    if first_bad is not None:
        assert found.last_good == max(first_bad - 1, 0)
        assert found.problem.startswith(f"@{first_bad} ")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM _eventstore_pipelines WHERE id = 1",
        "UPDATE _eventstore_pipelines SET source = ''",
        "INSERT INTO _eventstore_pipelines SELECT * FROM _eventstore_pipelines WHERE id = 1",
        "INSERT INTO _eventstore_events SELECT 7, version, stored_at, append_id, kind, format, "
        "stream_number, origin, of_version, actor, reason, run, body_at, commitment, hash "
        "FROM _eventstore_events WHERE version = 1 AND pipeline_id = 1",
        one_more_body(after=2, by=body_id(6, 0)),
        one_more_body(after=2, by=-body_id(2, 0)),
        "INSERT INTO _eventstore_streams VALUES (7, 0, NULL, NULL)",
    ],
)
def test_rows_that_no_pipeline_owns_are_found(log, engine, change):
    with tampering(engine) as db:
        db.execute(text(change) if isinstance(change, str) else change)
    report = verify(log)
    assert report.problems
    assert not report.is_whole


@pytest.mark.needs("MANY_PROCESSES")
def test_a_pipeline_that_begins_meanwhile_alters_nothing(log, database):
    engine, others = log.database.engine, count()
    with connect(database) as other:

        def begin(*_):
            other.append(Pipeline(f"source-{next(others)}"), saved("users", {}))

        event.listen(engine, "before_cursor_execute", begin)
        report = verify(log)
        event.remove(engine, "before_cursor_execute", begin)
    assert next(others) > 5
    assert (report.is_whole, report.problems) == (True, ())


def test_a_body_beside_an_event_that_has_none_is_not_shown(log, engine):
    with engine.begin() as db:
        db.execute(one_more_body(after=2, by=-1))
    assert next(log.history(SHOP)).body == b""
    assert latest_state(log, SHOP).bodies == state_as_of(log, SHOP, HEAD).bodies


def test_a_byte_moved_from_salt_to_body_is_found(log, engine):
    place = bodies.c.id == body_id(1, 2)
    with tampering(engine) as db:
        row = db.execute(select(bodies).where(place)).one()
        salt, data = bytes(row.salt), bytes(row.data)
        moved = {"salt": salt[:-1], "data": salt[-1:] + data}
        db.execute(bodies.update().where(place).values(moved))
    assert verify(log).pipelines[0].first_bad == 2


def test_a_body_exchanged_for_another_of_its_event_is_found_though_hashed_anew(log, engine):
    """Its event can be forged, too; the one that points at it cannot be made to agree."""
    with tampering(engine) as db:
        place = bodies.c.id == body_id(1, 2)
        db.execute(bodies.update().where(place).values(data=b"{}"))
        db.execute(
            text("UPDATE _eventstore_events SET body_at = 6 WHERE pipeline_id = 1 AND version = 7")
        )
        rehash(db, SHOP)
        other = (events.c.pipeline_id == 1, events.c.version == 3)
        db.execute(events.update().where(*other).values(body_at=1))
        rehash(db, SHOP)
    assert verify(log).pipelines[0].first_bad == 3


def test_time_that_runs_backwards_is_found_though_hashed_anew(log, engine):
    with tampering(engine) as db:
        place = (events.c.pipeline_id == 1, events.c.version == 4)
        db.execute(events.update().where(*place).values(stored_at=1))
        rehash(db, SHOP)
    found = verify(log).pipelines[0]
    assert (found.first_bad, found.last_good) == (4, 3)


def test_an_erased_body_that_is_back_is_found_and_can_be_erased_again(log, engine):
    with engine.begin() as db:
        row = {"id": body_id(1, 7), "salt": b"s" * 16, "codec": PLAIN, "data": b"{}"}
        db.execute(bodies.insert(), row)
    found = verify(log).pipelines[0]
    assert (found.first_bad, found.last_good) == (7, 6)
    assert "@10" in found.problem
    assert "erase --reapply" in found.problem
    reapply(log)
    assert verify(log).is_whole


@pytest.mark.parametrize(
    "value", ["CAST(x'ff' AS TEXT)", "x'00'", "'x'", "3.5", "NULL", "9223372036854775807"]
)
@pytest.mark.parametrize("column", events.columns.keys())
def test_a_value_that_no_event_holds_is_found(tmp_path, column, value):
    """SQLite keeps values of any type in any column."""
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, *emitted(2), saved("users", {"cursor": 1}), saved("users", {}))
        with tampering(store.database.engine) as db:
            db.execute(text(f"UPDATE {events.name} SET {column} = {value} WHERE version = 3"))
            unchanged = value == "NULL" and column in {"of_version", "reason"}
        if value.startswith("CAST") and column in {"pipeline_id", "version"}:
            # Not even the versions can be counted: nobody can tell, which is no "whole" either.
            with pytest.raises(StoreUnavailable, match="decode"):
                verify(store)
            return
        report = verify(store)
        assert report.is_whole == unchanged
        if not unchanged and column != "pipeline_id":
            assert report.pipelines[0].last_good == 2


@pytest.mark.parametrize("value", ["'abc'", "x'00'"])
def test_what_is_no_version_of_a_body_is_told_where_it_is_read(tmp_path, value):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, saved("users", {"cursor": 1}), saved("users", {"cursor": 2}))
        with tampering(store.database.engine) as db:
            db.execute(text(f"UPDATE {events.name} SET body_at = {value} WHERE version = 2"))
            db.execute(bodies.delete().where(bodies.c.id == body_id(1, 2)))
        with pytest.raises(AlteredBody, match=r"@2 says that .* keeps its body: see `verify`"):
            state_as_of(store, SHOP, 2)


@pytest.mark.needs("REFUSES_CHANGES")
def test_missing_guards_are_a_notice(log, engine):
    with tampering(engine):
        pass
    report = verify(log)
    assert report.is_whole
    assert "`eventstore rebuild` puts it back" in report.notices[0]


def test_bodies_of_any_size_are_verified(store, engine):
    store.append(SHOP, *(saved("users", {"text": "x" * size}) for size in (10, 40_000, 400_000)))
    assert verify(store).is_whole
    with tampering(engine) as db:
        larger = stream_state("users", {"text": "y" * 40_000}).encode()
        db.execute(bodies.update().where(BODY_VERSION == 2).values(data=larger))
    assert verify(store).pipelines[0].first_bad == 2


@pytest.mark.parametrize("page", [1, 2, 3, 10])
def test_pages_follow_each_other(log, engine, monkeypatch, page):
    monkeypatch.setattr(recomputing, "PAGE", page)
    told = []
    assert verify(log, progress=lambda done, of: told.append((done, of))).is_whole
    assert told[-1] == (2 * HEAD, 2 * HEAD)
    with tampering(engine) as db:
        db.execute(text("INSERT INTO _eventstore_events SELECT * FROM _eventstore_events "
                        "WHERE pipeline_id = 1 AND version = 10"))  # fmt: skip
    assert verify(log).pipelines[0].first_bad == 10


@pytest.mark.parametrize("part", [1, 2, 6, 7, 8])
def test_parts_follow_each_other(log, engine, monkeypatch, part):
    monkeypatch.setattr(integrity, "_LONGEST_PART", part)
    assert verify(log).is_whole
    with engine.begin() as db:
        row = {"id": body_id(1, 7), "salt": b"s" * 16, "codec": PLAIN, "data": b"{}"}
        db.execute(bodies.insert(), row)
    found, other = verify(log).pipelines
    assert (found.first_bad, found.last_good) == (7, 6)
    assert "@10" in found.problem
    assert other.is_whole


def test_what_was_erased_takes_next_to_no_memory(tmp_path, monkeypatch):
    """A bit for each body, where a dict takes a hundred bytes."""
    monkeypatch.setattr(recomputing, "PAGE", 100)
    monkeypatch.setattr(recomputing, "_REMEMBERED", 1000)
    peaks = []
    with connect(tmp_path / "state.db") as store:
        for _ in range(2):
            store.append(SHOP, *emitted(12_000))
            retention(store, timedelta(0))
            tracemalloc.start()
            assert verify(store).is_whole
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 12_000 * 20


@pytest.mark.parametrize("damaged", [None, 1, 2_500, 5_000])
def test_several_processes_find_the_same(tmp_path, damaged):
    path = tmp_path / "state.db"
    with connect(path) as store:
        store.append(BANK, saved("users", {"cursor": 1}))
        store.append(SHOP, *_many)
        if damaged:
            with tampering(store.database.engine) as db:
                place = (events.c.pipeline_id == 2, events.c.version == damaged)
                db.execute(events.update().where(*place).values(actor="mallory"))
        report = verify(store, processes=2)
        assert report == verify(store)
        bad = {found.pipeline: found.first_bad for found in report.pipelines}
        assert bad == {BANK: None, SHOP: damaged}


_many = [StateEmitted(stream_state("users", {"cursor": cursor % 7})) for cursor in range(5_000)]


def test_where_there_can_be_one_process_only_there_is_one(log):
    assert verify(log, processes=2).is_whole


_fresh = (f"proof {number}" for number in count())


@settings(max_examples=20)
@given(history=st.lists(steps, max_size=10))
def test_any_history_with_erasures_is_whole(shared_store, history):
    pipeline = Pipeline("source-shop", connection=next(_fresh))
    play(shared_store, pipeline, history)
    head = shared_store.head(pipeline).version
    report = verify(shared_store, [pipeline] if head else [])
    assert report.is_whole, report
    assert [found.last_good for found in report.pipelines] == ([head] if head else [])


def test_a_log_that_grows_meanwhile_is_whole(log):
    def grow(done, of):
        del done, of
        log.append(SHOP, saved("customers", {"cursor": 1}))
        erase(log, BANK, stream=USERS, reason="asked to")

    assert verify(log, progress=grow).is_whole
    assert verify(log).is_whole


def test_every_table_of_the_log_is_looked_at():
    assert {pipelines.name, streams.name, events.name, bodies.name} == {
        "_eventstore_pipelines",
        "_eventstore_streams",
        "_eventstore_events",
        "_eventstore_bodies",
    }
