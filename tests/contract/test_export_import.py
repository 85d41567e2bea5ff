"""Whole histories move: from any database to any other, unchanged, or not at all."""

import io
import json
from hashlib import sha256
from itertools import islice
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from eventstore import (
    EventStore,
    HistoryDiffers,
    InvalidHistory,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StoreUnavailable,
    StreamDescriptor,
)
from eventstore.chain import GENESIS, commitment
from eventstore.erasure import erase
from eventstore.integrity import verify
from projections import (
    CachedStream,
    CacheStreamStateModel,
    DestinationStreamStateModel,
    catalog_as_of,
    connect,
    latest_catalog,
    latest_state,
    rebuild,
    register_catalog,
    state_as_of,
)
from projections.exchange import export_histories, import_histories
from tests.interruptions import everywhere
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    saved,
    stream_state,
)
from tests.tampering import event_hash

TABLES = [
    model.__table__ for model in (CacheStreamStateModel, DestinationStreamStateModel, CachedStream)
]

WILD = '\'; DROP TABLE "_eventstore_events"; --\n\t\x1b[2J\x9b \u202e 日本 😀 \\ %s :x ?'
DIGITS = '{"n":123456789012345678901234567890,"d":0.1234567890123456789012,"a":null,"e":1.0}'

SHOP = Pipeline("source-shop")
LAKE = Pipeline("source-shop", "destination-lake", connection="eu")
STRANGE = Pipeline(WILD, table_prefix=WILD, connection=WILD)


def write(store):
    """Every kind of event, shared bodies, every type of state, strange names."""
    for pipeline in (SHOP, LAKE, STRANGE):
        store.append(pipeline, saved("users", {"cursor": 1}), actor="ann", reason="é", run="1")
        store.append(
            pipeline,
            StateEmitted(stream_state("users", {"cursor": 2}, "")),
            StateSaved(stream_state("users", {"cursor": 2}, "")),
            StateSaved(stream_state("users", {"cursor": 2}, ""), "restored", 3),
            StateSaved(stream_state("orders", {"digits": 0}).replace('{"digits":0}', DIGITS)),
        )
        register_catalog(store, pipeline, catalog(configured_stream("users", sync_id=1)))
    store.append(SHOP, StateSaved(global_state({"lsn": 1}, inner_state("users", None))))
    store.append(SHOP, saved("users", {"cursor": 3}), saved("users", None, "audit"))
    store.append(SHOP, StateCleared(StreamDescriptor("users")))
    store.append(LAKE, StateCleared(), StateSaved(legacy_state({"page": 1})))
    said = {"actor": WILD, "reason": WILD, "run": WILD}
    store.append(STRANGE, saved(WILD, {WILD: WILD}, WILD), **said)
    register_catalog(store, STRANGE, catalog(configured_stream(WILD, WILD)), **said)


def exported(store, *pipelines):
    return b"".join(export_histories(store, pipelines or None))


def imported(store, export):
    return import_histories(store, io.BytesIO(export))


def log(store):
    return {pipeline: list(store.history(pipeline)) for pipeline in store.pipelines()}


def rows(store):
    with store.database.engine.connect() as db:
        return [
            [tuple(row) for row in db.execute(select(table).order_by(table.c.row_key))]
            for table in TABLES
        ]


@pytest.fixture
def there(other_database):
    with connect(other_database) as store:
        yield store


@pytest.fixture
def laptop(tmp_path):
    """A store in a SQLite file, whose histories are imported into one of each kind."""
    with connect(tmp_path / "laptop.db") as store:
        yield store


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    with connect(tmp_path_factory.mktemp("export") / "state.db") as store:
        write(store)
        return exported(store)


def test_a_history_moves_between_any_two_databases(store, there):
    write(store)
    done = imported(there, exported(store))
    assert done.written == store.heads()
    assert not done.unchanged
    assert log(there) == log(store)
    for pipeline, head in store.heads().items():
        assert latest_state(there, pipeline) == latest_state(store, pipeline)
        assert latest_catalog(there, pipeline) == latest_catalog(store, pipeline)
        for version in range(head + 1):
            for as_of in (state_as_of, catalog_as_of):
                assert as_of(there, pipeline, version) == as_of(store, pipeline, version)
    assert exported(there) == exported(store)


def test_the_tables_are_those_that_a_rebuild_would_leave(store, export):
    imported(store, export)
    found = rows(store)
    assert [bool(table) for table in found] == [True, True, True]
    rebuild(store)
    assert rows(store) == found


def test_a_history_goes_on_after_it_was_moved(store, export, database):
    imported(store, export)
    before = log(store)
    for writer in (store, connect(database)):
        [stored] = writer.append(SHOP, saved("users", {"cursor": 9}, "new"))
        before[SHOP].append(stored)
    writer.append(Pipeline("source-new"), saved("users", {"cursor": 1}))
    assert log(store) | before == log(store)
    assert imported(connect(database), exported(store)).unchanged == store.heads()
    writer.close()


def test_importing_again_changes_nothing(store, export):
    first = imported(store, export)
    before = log(store), rows(store)
    again = imported(store, export)
    assert (again.written, again.unchanged) == ({}, first.written)
    assert (log(store), rows(store)) == before


def test_an_older_export_of_what_is_there_changes_nothing(store, export):
    imported(store, export)
    store.append(SHOP, saved("users", {"cursor": 9}))
    assert set(imported(store, export).unchanged) == {SHOP, LAKE, STRANGE}


def test_pipelines_that_are_not_there_are_written_beside_those_that_are(laptop, store):
    write(laptop)
    assert set(imported(store, exported(laptop, LAKE)).written) == {LAKE}
    done = imported(store, exported(laptop))
    assert (set(done.written), set(done.unchanged)) == ({SHOP, STRANGE}, {LAKE})
    assert log(store) == {pipeline: log(laptop)[pipeline] for pipeline in (LAKE, SHOP, STRANGE)}


@pytest.mark.parametrize("pipeline", [SHOP, STRANGE], ids=["first", "last"])
def test_nothing_is_imported_over_another_history(pipeline, store, export):
    store.append(pipeline, saved("users", {"cursor": 1}))
    before = log(store), rows(store)
    with pytest.raises(HistoryDiffers, match="has a history of its own here, up to version 1"):
        imported(store, export)
    assert (log(store), rows(store)) == before


def test_a_history_is_not_continued_by_an_import(laptop, store):
    laptop.append(SHOP, saved("users", {"cursor": 1}))
    imported(store, exported(laptop))
    laptop.append(SHOP, saved("users", {"cursor": 2}))
    with pytest.raises(HistoryDiffers):
        imported(store, exported(laptop))
    assert store.heads() == {SHOP: 1}


def test_an_erased_body_stays_erased(laptop, store):
    write(laptop)
    newest = latest_state(laptop, STRANGE).version - 2  # what erase takes from the tables, too
    for version in (1, newest):
        erase(laptop, STRANGE, version=version, reason="ticket 4711")
    imported(store, exported(laptop))
    assert log(store) == log(laptop)
    assert [stored.version for stored in store.history(STRANGE) if stored.erased] == [
        stored.version for stored in laptop.history(STRANGE) if stored.erased
    ]
    assert latest_state(store, STRANGE) == latest_state(laptop, STRANGE)
    assert verify(store).is_whole


def test_an_export_during_which_a_body_is_erased_says_that_it_is_of_no_use(store):
    store.append(SHOP, *(saved("users", {"page": number}) for number in range(2000)))
    export = export_histories(store)
    next(export)
    next(export)
    erase(store, SHOP, version=1990, reason="asked to")
    with pytest.raises(StoreUnavailable, match="at @2001: export again"):
        list(export)
    assert len(list(export_histories(store))) == 2003


def test_a_body_that_is_missing_without_its_erasure_is_refused(store):
    store.append(SHOP, *(saved("users", {"cursor": n}) for n in range(3)))
    lines = [orjson.loads(line) for line in exported(store).splitlines()]
    lines[2] |= {"salt": None, "body": None}
    with connect("sqlite://") as there:
        with pytest.raises(InvalidHistory, match=r"the body of version 2 of .* is missing"):
            imported(there, sealed(lines))
        assert there.pipelines() == []


def test_an_empty_log_moves_too(laptop, store):
    assert imported(store, exported(laptop)).written == {}
    assert store.pipelines() == []


def test_a_long_history_is_read_in_pages(store, tmp_path):
    store.append(SHOP, *(StateEmitted(stream_state("users", {"n": n})) for n in range(4500)))
    lines = export_histories(store)
    begun = b"".join(islice(lines, 10))
    store.append(SHOP, saved("users", {"cursor": 1}))
    with connect(tmp_path / "there.db") as there:
        imported(there, begun + b"".join(lines))
        assert log(there)[SHOP] == log(store)[SHOP][:-1]


def test_a_store_that_does_not_know_the_tables_imports_nothing(store, engine, export):
    store.pipelines()
    with pytest.raises(StoreUnavailable, match="must keep up to date"):
        imported(EventStore(engine), export)
    assert store.pipelines() == []


def test_another_writer_may_begin_the_same_pipelines_meanwhile(database, export):
    """Whoever comes first has the pipeline; a pipeline of another name disturbs nobody."""
    with connect(database) as store, connect(database) as other:
        other.append(Pipeline("source-old"), saved("users", {"cursor": 1}))
        for interruption in everywhere(at_most=5):
            begun = Pipeline(f"source-new-{interruption.at}")
            with interruption.of(
                store.database.engine,
                lambda begun=begun: other.append(begun, saved("users", {"cursor": 1})),
            ):
                imported(store, export)
            assert store.heads()[begun] == 1
            assert len(list(store.history(SHOP))) == store.heads()[SHOP] > 1


# What was changed, or is not whole


def assert_refused_or_the_same(store, changed, export):
    """Refused whole, and nothing is written; unless it says the same."""
    try:
        done = imported(store, changed)
    except InvalidHistory:
        return
    assert [orjson.loads(line) for line in changed.splitlines()] == [
        orjson.loads(line) for line in export.splitlines()
    ]
    assert not done.written


@pytest.fixture(scope="module")
def full(shared_store, export):
    """A database that has the export: whatever else it takes would show."""
    imported(shared_store, export)
    yield shared_store
    assert exported(shared_store) == export


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_byte_is_found(data, full, export):
    place = data.draw(st.integers(0, len(export) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = export[:place] + bytes([byte]) + export[place + 1 :]
    assert_refused_or_the_same(full, changed, export)


@settings(max_examples=100)
@given(data=st.data())
def test_a_cut_is_found(data, full, export):
    end = data.draw(st.integers(0, len(export) - 1))
    assert_refused_or_the_same(full, export[:end], export)


@settings(max_examples=100)
@given(data=st.data())
def test_lines_that_are_missing_doubled_or_moved_are_found(data, full, export):
    lines = export.splitlines(keepends=True)
    kept = data.draw(st.lists(st.sampled_from(lines), max_size=5) | st.permutations(lines))
    place = data.draw(st.integers(0, len(lines) - 1))
    for changed in (kept, lines[:place] + lines[place + 1 :], [*lines, lines[place]]):
        assert_refused_or_the_same(full, b"".join(changed), export)


_VALUES = st.sampled_from([None, 0, 1, -1, 2**64, 1.5, True, "", "x", "00" * 16, "00" * 32, [], {}])


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_field_is_found_also_where_the_last_line_was_made_to_agree(data, full, export):
    lines = [orjson.loads(line) for line in export.splitlines()]
    event = data.draw(st.sampled_from(lines[1:-1]))
    key = data.draw(st.sampled_from(list(event)))
    value = data.draw(_VALUES | st.sampled_from([line[key] for line in lines[1:-1] if key in line]))
    if value == event[key] or (key == "body" and event["salt"] is None):
        return
    event[key] = value
    with pytest.raises(InvalidHistory):
        imported(full, sealed(lines))


def sealed(lines):
    """An export whose last line agrees with the others, as a forger would write it."""

    before = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines[:-1])
    return before + orjson.dumps({**lines[-1], "sha256": sha256(before).hexdigest()})


FORGED = {
    "another kind": {"kind": "StreamRenamed"},
    "another format": {"format": 2},
    "a version left out": {"version": 2},
    "a body of another kind": {"kind": "StreamDefined"},
    "a body of another stream": {"stream": "orders"},
    "a body that is no JSON": {"body": "{"},
    "a body that is no state": {"body": "[]"},
    "no actor": {"actor": None},
    "an actor with a NUL": {"actor": "\x00"},
    "a name that is too long": {"stream": "x" * 256},
    "a source that is empty": {"source": ""},
    "a time beyond calendars": {"stored_at": 2**62},
    "a version that no history has": {"of": 2**63},
    "an unknown origin": {"origin": "magic"},
    "a body that an event to come keeps": {"body_version": 2},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_what_no_log_could_hold_is_refused_though_every_hash_is_right(change, tmp_path):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, saved("users", {"cursor": 1}))
        lines = [orjson.loads(line) for line in export_histories(store)]
    forge(lines[1], {})
    with connect(tmp_path / "as it was.db") as there:
        assert imported(there, ended(lines)).written == {SHOP: 1}
    forge(lines[1], change)
    with connect(tmp_path / "new.db") as there:
        with pytest.raises(InvalidHistory, match=r"^line 2: "):
            imported(there, ended(lines))
        assert there.pipelines() == []


@pytest.mark.parametrize("key", ["append_id", "commitment", "salt", "hash"])
@pytest.mark.parametrize("change", [str.upper, "{} ".format], ids=["upper case", "a space"])
def test_bytes_are_written_in_one_way(key, change, tmp_path):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, saved("users", {"cursor": 1}), id=UUID(int=0xABC))
        lines = [orjson.loads(line) for line in export_histories(store)]
    lines[1][key] = change(lines[1][key])
    with connect(tmp_path / "new.db") as there:
        with pytest.raises(InvalidHistory, match=r"^(line 2: |version 1 of )"):
            imported(there, ended(lines))
        assert there.pipelines() == []


def forge(event, change):
    """Change an event, and compute all that depends on it."""
    event |= change
    digest = commitment(bytes.fromhex(event["salt"]), event["body"].encode())
    event["commitment"] = digest.hex()
    fields = list(event.values())[: list(event).index("hash")]
    fields[6], fields[-1] = bytes.fromhex(event["append_id"]), digest
    event["hash"] = event_hash(GENESIS, fields).hex()


def ended(lines):
    event = lines[1]
    head = {key: event[key] for key in lines[-1]["heads"][0]}
    return sealed([*lines[:-1], {**lines[-1], "heads": [head]}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "was cut"),
        (b"{}\n", "no export"),
        (b"[1]\n", "an object in each line"),
        (b"\x00\xff", "line 1 is not JSON"),
        (b'{"airbyte-eventstore":"histories","format":2}\n', "upgrade airbyte-eventstore"),
    ],
)
def test_what_is_no_export_is_refused_and_makes_no_database(text, words, tmp_path):
    with connect(tmp_path / "state.db") as store, pytest.raises(InvalidHistory, match=words):
        imported(store, text)
    assert list(tmp_path.iterdir()) == []
