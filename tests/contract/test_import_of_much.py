"""Much is taken in: in the memory of a little, and with every guard and index back in its place."""

import json
import tracemalloc
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from eventstore import InvalidHistory, Pipeline, StateSaved, StoreUnavailable, inspection
from eventstore.chain import commitment
from eventstore.erasure import retention
from eventstore.integrity import verify
from eventstore.transfer import EVENT
from projections import (
    CacheStreamStateModel,
    DestinationStreamStateModel,
    connect,
    latest_state,
    rebuild,
    register_catalog,
    replay,
)
from projections.exchange import export_histories, import_histories
from projections.tables_check import check_tables
from projections.views import StateView
from tests.contract.test_export_import import imported, sealed
from tests.messages import (
    catalog,
    configured_stream,
    emitted,
    global_state,
    saved,
    stream_state,
)
from tests.tampering import event_hash

SHOP = Pipeline("source-shop")


def schema(store):
    """Every table, index and trigger, and the SQL that made it."""
    with store.database.engine.connect() as db:
        return set(db.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master")))


@pytest.fixture
def export(tmp_path):
    with connect(tmp_path / "from.db") as store:
        store.append(SHOP, *emitted(3000))
        return b"".join(export_histories(store))


@pytest.fixture
def there(tmp_path):
    """An empty log in a SQLite file."""
    with connect(tmp_path / "there.db") as store:
        store.pipelines()
        yield store


def test_an_import_leaves_the_tables_as_they_were_made(there, export):
    before = schema(there)
    imported(there, export)
    assert schema(there) == before
    assert verify(there).notices == ()
    replaced = text("INSERT OR REPLACE INTO _eventstore_events SELECT * FROM _eventstore_events")
    with there.database.engine.connect() as db, pytest.raises(IntegrityError, match="replaced"):
        db.execute(replaced)


def test_a_guard_that_was_gone_is_not_put_back_in_silence(there, export):
    dropped = text("DROP TRIGGER _eventstore_no_replace")
    there.database.transact(lambda db: db.execute(dropped))
    before = schema(there)
    imported(there, export)
    assert schema(there) == before
    assert verify(there).notices


def test_wherever_an_import_ends_in_an_error_nothing_was_changed(there, export):
    """The disk is full after so many pages, until there are enough for all of it."""
    before = schema(there)
    pages = 0

    @event.listens_for(there.database.engine, "begin")
    def limit(db):
        db.connection.execute(f"PRAGMA max_page_count = {pages}")

    failed = 0
    for pages in range(60, 2000, 40):  # noqa: B007 - read by the listener
        try:
            imported(there, export)
            break
        except StoreUnavailable as error:
            assert "full" in str(error)  # noqa: PT017 - not every turn fails
        failed += 1
        assert schema(there) == before
        assert there.heads() == {}
    assert failed > 5
    assert (schema(there), there.heads()) == (before, {SHOP: 3000})


def test_many_histories_are_read_together_and_none_is_taken_for_another(store, tmp_path):
    many = [
        Pipeline(f"source-{n}", "lake" if n % 3 else None, connection=f"{n}") for n in range(230)
    ]
    with connect(tmp_path / "from.db") as elsewhere:
        for number, pipeline in enumerate(many):
            told = [saved(f"s{n}", {"n": number * n}, "a") for n in range(1 + number % 4)]
            elsewhere.append(pipeline, *told, *emitted(3))
        elsewhere.append(many[7], StateSaved(global_state({"lsn": 7})))
        register_catalog(elsewhere, many[8], catalog(configured_stream("users")))
        elsewhere.append(Pipeline("emits-only"), *emitted(3))
        import_histories(store, export_histories(elsewhere))
    for pipeline in [*many, Pipeline("emits-only")]:
        replayed = replay(store, pipeline, StateView(pipeline))
        assert latest_state(store, pipeline) == replayed
    assert check_tables(store).problems == ()

    altered = {many[0], many[7], many[8], many[99], many[229]}
    table_of = {True: CacheStreamStateModel.__table__, False: DestinationStreamStateModel.__table__}
    for pipeline in altered:
        table = table_of[pipeline.destination is None]
        changed = table.update().where(table.c.pipeline_key == pipeline.key).values(state_json="{}")
        store.database.transact(lambda db, changed=changed: db.execute(changed))
    problems = check_tables(store).problems
    assert {each for each in many if any(f"of {each} has" in line for line in problems)} == altered
    assert rebuild(store) == 231
    assert check_tables(store).problems == ()


def test_a_body_is_pointed_at_from_afar(store, there, monkeypatch):
    store.append(SHOP, saved("users", {"cursor": 1}), *emitted(300))
    store.append(SHOP, StateSaved(stream_state("users", {"cursor": 1}), "restored", 1))
    monkeypatch.setattr(inspection, "_AT_HAND", 2 * 32)
    lines = [orjson.loads(line) for line in export_histories(store)]
    assert lines[-2]["body_version"] == 1
    with pytest.raises(InvalidHistory, match="version 302 commits to another body than version 2"):
        imported(there, with_last(lines, body_version=2))
    imported(there, with_last(lines))
    assert list(there.history(SHOP)) == list(store.history(SHOP))


def test_which_body_is_missing_is_found_among_many_that_were_erased(there, tmp_path):
    with connect(tmp_path / "from.db") as store:
        store.append(SHOP, *emitted(100))
        retention(store, timedelta(0))
        lines = [orjson.loads(line) for line in export_histories(store)]
    for forgotten in (1, 8, 9, 57, 100):
        named = [version for version in range(1, 101) if version != forgotten]
        with pytest.raises(InvalidHistory, match=f"the body of version {forgotten} of"):
            imported(there, with_last(lines, body=json.dumps({"versions": named})))
    imported(there, with_last(lines))
    assert all(stored.erased for stored in there.history(SHOP, up_to=100))
    assert verify(there).is_whole


@pytest.mark.parametrize(("events", "size"), [(1_500, 1), (20, 200_000)])
def test_much_takes_no_more_memory_than_a_little(tmp_path, monkeypatch, events, size):
    monkeypatch.setattr(inspection, "_AT_HAND", 100 * 32)
    monkeypatch.setattr(inspection, "_BATCH_SIZE", 1_000_000)
    monkeypatch.setattr(inspection, "PAGE", 500)
    imported_within(tmp_path / "first", events, size)  # compiles statements
    of_a_little = imported_within(tmp_path / "little", events, size)
    # An erasure names each of its versions: a hundred bytes for each.
    assert imported_within(tmp_path / "much", 6 * events, size) < of_a_little + 1_000_000


def imported_within(folder, count, size):
    """The bytes that are in memory, at most, while so many events are imported, all but erased."""
    folder.mkdir()
    with connect(folder / "from.db") as store:
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            store.append(SHOP, *(saved("users", {"n": n, "text": "x" * size}) for n in numbers))
        if size == 1:
            retention(store, timedelta(0))
        with (folder / "export.jsonl").open("wb") as file:
            file.writelines(export_histories(store))
    with connect(folder / "there.db") as there, (folder / "export.jsonl").open("rb") as file:
        tracemalloc.start()
        try:
            import_histories(there, file)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def with_last(lines, **changes):
    """An export whose last event is another, and all that depends on it computed anew."""
    *before, last, end = lines
    last = last | changes
    if "body" in changes:
        salt = bytes.fromhex(last["salt"])
        last["commitment"] = commitment(salt, last["body"].encode()).hex()
    fields = [
        bytes.fromhex(value) if key in {"append_id", "commitment"} else value
        for key, value in zip(EVENT[:-1], last.values(), strict=False)
    ]
    previous = bytes.fromhex(before[-1]["hash"])
    last["hash"] = event_hash(previous, fields).hex()
    return sealed([*before, last, {**end, "heads": [end["heads"][0] | {"hash": last["hash"]}]}])
