"""What `append` promises: a place for each event, all of them or none."""

from dataclasses import fields
from datetime import datetime, timezone
from uuid import UUID

import pytest

from eventstore import (
    EventStore,
    HistoryConflict,
    InvalidEvent,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StoredEvent,
    StoreUnavailable,
    StreamDefined,
    StreamDescriptor,
    inserts,
)
from eventstore.integrity import verify
from eventstore.rows import pipeline_row
from eventstore.tables import PIPELINES, pipelines
from projections import latest_state
from tests.messages import configured_stream, emitted, global_state, saved, stream_state

SHOP = Pipeline("source-shop", "destination-lake")


def test_one_state_is_appended_and_read_back(store):
    message = stream_state("users", {"cursor": 1}, "audit")
    [stored] = store.append(SHOP, StateSaved(message), actor="nightly", reason="sync 8", run="8")

    assert list(store.history(SHOP)) == [stored]
    assert (stored.pipeline, stored.version, stored.kind) == (SHOP, 1, "StateSaved")
    assert stored.stream == StreamDescriptor("users", "audit")
    assert stored.body == message.encode()
    assert (stored.actor, stored.reason, stored.run) == ("nightly", "sync 8", "8")
    assert (stored.origin, stored.of) == ("source", None)
    assert isinstance(stored.id, UUID)
    assert len(stored.hash) == 32


ODD_TEXTS = [
    '"',
    "\\",
    '\\"',
    "{",
    "}",
    ",",
    "NULL",
    "null",
    " ",
    "'",
    "\n",
    r"\x00",
    "%s",
    ":a",
    "€😀",
]


def test_texts_are_stored_in_batches_as_they_are(store):
    for text in ODD_TEXTS:
        said = {"actor": text, "reason": text, "run": text}
        store.append(
            SHOP, *(saved(text, {text: n}, text) for n in range(3)), StateCleared(), **said
        )
    read = list(store.history(SHOP))
    texts = [(each.actor, each.reason, each.run) for each in read[::4]]
    assert texts == [(text, text, text) for text in ODD_TEXTS]
    assert [each.stream for each in read[::4]] == [
        StreamDescriptor(text, text) for text in ODD_TEXTS
    ]
    assert verify(store).is_whole


@pytest.mark.parametrize(
    "event",
    [
        saved("users", {"cursor": 1}),
        StateSaved(global_state({"lsn": 1}), origin="restored", of=3),
        StateEmitted(stream_state("users", {"cursor": 1})),
        StateCleared(),
        StateCleared(StreamDescriptor("users", "")),
        StreamDefined(configured_stream("users", "audit")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_append_returns_is_what_is_read_back(store, event):
    [appended] = store.append(SHOP, event)
    [read] = store.history(SHOP)
    assert appended == read
    names = {field.name for field in fields(StoredEvent)}
    assert vars(appended).keys() == vars(read).keys() == names


def test_an_event_read_back_holds_airbytes_model(store):
    store.append(SHOP, StateSaved(stream_state("users", {"cursor": 1}), "restored", 7))
    [stored] = store.history(SHOP)
    assert (stored.event.origin, stored.event.of) == ("restored", 7)
    assert stored.event.message.stream.stream_state.cursor == 1


def test_versions_count_from_one_without_gaps(store):
    for size in (1, 5, 20):
        store.append(SHOP, *emitted(size))
    assert [stored.version for stored in store.history(SHOP)] == list(range(1, 27))


def test_one_append_has_one_id_on_all_its_events(store):
    first = store.append(SHOP, *emitted(3))
    second = store.append(SHOP, *emitted(3))
    assert len({stored.id for stored in first}) == 1
    assert {stored.id for stored in first}.isdisjoint(stored.id for stored in second)


def test_appending_nothing_stores_nothing(store):
    assert store.append(SHOP) == []
    assert store.heads() == {}


def test_attribution_defaults_to_the_operating_systems_user_and_one_run_per_store(store):
    first, second = (store.append(SHOP, saved("users", {}))[0] for _ in range(2))
    assert first.actor == store.actor != ""
    assert first.run == second.run == store.run
    assert first.reason is None


def test_an_event_is_stored_at_the_time_of_its_append(store):
    for number in range(20):
        before = datetime.now(timezone.utc)
        [stored] = store.append(SHOP, saved("users", {"page": number}))
        assert before <= stored.stored_at <= datetime.now(timezone.utc)


def test_any_version_is_expected_unless_one_is_named(store):
    store.append(SHOP, saved("users", {}))
    assert store.append(SHOP, saved("users", {}), expected=None)[0].version == 2


@pytest.mark.parametrize("head", [0, 1, 5])
def test_an_append_at_the_expected_version_succeeds(store, head):
    store.append(SHOP, *emitted(head))
    assert store.append(SHOP, saved("users", {}), expected=head)[0].version == head + 1


@pytest.mark.parametrize(("head", "expected"), [(0, 1), (1, 0), (5, 4), (5, 6), (5, 0)])
def test_an_append_at_another_version_names_both_and_stores_nothing(store, head, expected):
    store.append(SHOP, *emitted(head))
    with pytest.raises(HistoryConflict) as conflict:
        store.append(SHOP, saved("users", {}), expected=expected)
    assert (conflict.value.expected, conflict.value.actual) == (expected, head)
    assert store.head(SHOP).version == head


def test_a_store_appends_on_after_a_conflict(store):
    store.append(SHOP, saved("users", {"cursor": 1}))
    with pytest.raises(HistoryConflict):
        store.append(SHOP, saved("orders", {"cursor": 2}), expected=0)
    store.append(SHOP, saved("orders", {"cursor": 3}), expected=1)
    assert [str(stored.stream) for stored in store.history(SHOP)] == ["users", "orders"]


def test_a_pipeline_for_which_there_is_no_room_is_refused(store):
    with store.database.engine.begin() as db:
        db.execute(pipelines.insert(), pipeline_row(PIPELINES - 2, Pipeline("source-last-but-one")))
    [stored] = store.append(SHOP, saved("users", {}))
    assert list(store.history(SHOP)) == [stored]
    assert verify(store, [SHOP]).pipelines[0].is_whole
    with pytest.raises(StoreUnavailable, match="8388607 pipelines and no room for more"):
        store.append(Pipeline("source-one-too-many"), saved("users", {}))


@pytest.mark.parametrize("bad_at", [0, 1, 2])
def test_one_invalid_event_keeps_its_whole_batch_out(store, bad_at):
    batch = [saved("users", {}), saved("orders", {})]
    batch.insert(bad_at, StateSaved("{}"))
    with pytest.raises(InvalidEvent):
        store.append(SHOP, *batch)
    assert store.heads() == {}
    assert latest_state(store, SHOP).bodies == []


def test_a_batch_too_heavy_for_one_statement_is_stored_by_several(store, monkeypatch):
    for weight in ("_WEIGHT", "_WEIGHT_OF_LISTS"):
        monkeypatch.setattr(inserts, weight, 1000)
    batch = [saved(f"s{n}", {"cursor": "x" * (n * 97 % 1500)}) for n in range(25)]
    stored = store.append(SHOP, *batch)
    assert list(store.history(SHOP)) == stored
    assert latest_state(store, SHOP).bodies == [each.body for each in stored]
    assert verify(store).is_whole


def test_when_the_inline_tables_fail_the_log_keeps_nothing(engine):
    def fail(_db, _stored):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        EventStore(engine, inline=fail).append(SHOP, saved("users", {}))
    assert EventStore(engine).heads() == {}


def test_a_store_appends_on_after_its_inline_tables_failed(engine):
    failures = [ZeroDivisionError()]

    def fail_once(_db, _stored):
        if failures:
            raise failures.pop()

    store = EventStore(engine, inline=fail_once)
    with pytest.raises(ZeroDivisionError):
        store.append(SHOP, saved("users", {"cursor": 1}))
    store.append(SHOP, saved("orders", {"cursor": 2}), expected=0)
    assert [str(stored.stream) for stored in store.history(SHOP)] == ["orders"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Pipeline("source-a"), Pipeline("source-b")),
        (Pipeline("source-a"), Pipeline("source-a", "lake")),
        (Pipeline("source-a", "lake"), Pipeline("source-a", "warehouse")),
        (Pipeline("source-a"), Pipeline("source-a", connection="eu")),
        (Pipeline("source-a", table_prefix="a_"), Pipeline("source-a", table_prefix="b_")),
        (Pipeline("source-a", table_prefix="a_"), Pipeline("source-a", connection="a_")),
    ],
    ids=str,
)
def test_pipelines_that_differ_in_any_name_have_histories_and_states_of_their_own(
    store, one, other
):
    store.append(one, saved("users", {"cursor": 1}))
    store.append(other, saved("users", {"cursor": 2}))
    assert store.heads() == {one: 1, other: 1}
    assert latest_state(store, one).bodies == [stream_state("users", {"cursor": 1}).encode()]
    assert latest_state(store, other).bodies == [stream_state("users", {"cursor": 2}).encode()]


def test_prefix_and_stream_that_join_to_the_same_text_are_kept_apart(store):
    short, long = Pipeline("source-a"), Pipeline("source-a", table_prefix="a_")
    store.append(short, saved("a_b", {"cursor": 1}))
    store.append(long, saved("b", {"cursor": 2}))
    assert latest_state(store, short).bodies == [stream_state("a_b", {"cursor": 1}).encode()]
    assert latest_state(store, long).bodies == [stream_state("b", {"cursor": 2}).encode()]


def test_a_null_and_an_empty_namespace_are_two(store):
    store.append(SHOP, saved("users", {"cursor": 1}), saved("users", {"cursor": 2}, ""))
    without, empty = store.history(SHOP)
    assert (without.stream, empty.stream) == (
        StreamDescriptor("users"),
        StreamDescriptor("users", ""),
    )
    assert latest_state(store, SHOP).streams == {
        StreamDescriptor("users"): stream_state("users", {"cursor": 1}).encode(),
        StreamDescriptor("users", ""): stream_state("users", {"cursor": 2}, "").encode(),
    }
