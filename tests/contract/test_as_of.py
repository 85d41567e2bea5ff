"""The state and the catalog of a pipeline as of a moment."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from eventstore import (
    InvalidMoment,
    Pipeline,
    StateCleared,
    StateSaved,
    StreamDescriptor,
    UnknownVersion,
)
from projections import (
    BeforeHead,
    CatalogView,
    StateView,
    catalog_as_of,
    connect,
    latest_catalog,
    latest_state,
    register_catalog,
    replay,
    state_as_of,
)
from projections.views import STATE_KINDS
from tests.messages import (
    catalog,
    configured_stream,
    emitted,
    global_state,
    legacy_state,
    saved,
    stream_state,
)
from tests.tampering import tampering

SHOP = Pipeline("source-shop", "destination-lake")
NOBODY = Pipeline("source-of-nothing")
INSTANT = timedelta(microseconds=1)
MANY = 1_000_000
"""As many events a history has that is looked through where it is long."""
TOMORROW = datetime.now(timezone.utc) + timedelta(days=1)

READS = pytest.mark.parametrize(
    ("as_of", "empty"), [(state_as_of, StateView), (catalog_as_of, CatalogView)]
)


@pytest.fixture(scope="module")
def shop(shared_store):
    """Version 1: users at 1. Version 2: users at 2. Version 3: orders at 1. Version 4: cleared."""
    shared_store.append(SHOP, saved("users", {"cursor": 1}))
    shared_store.append(SHOP, saved("users", {"cursor": 2}))
    shared_store.append(SHOP, saved("orders", {"cursor": 1}))
    shared_store.append(SHOP, StateCleared())
    return shared_store


def test_each_version_has_its_state(shop):
    states = [_cursors(state_as_of(shop, SHOP, version)) for version in range(5)]
    assert states == [{}, {"users": 1}, {"users": 2}, {"users": 2, "orders": 1}, {}]


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_moment_is_inclusive(shop, version):
    stored_at = shop.event(SHOP, version).stored_at
    assert state_as_of(shop, SHOP, stored_at).version == version
    assert state_as_of(shop, SHOP, stored_at - INSTANT).version == version - 1


def test_a_moment_may_be_given_in_any_time_zone(shop):
    stored_at = shop.event(SHOP, 2).stored_at.astimezone(timezone(timedelta(hours=-9)))
    assert state_as_of(shop, SHOP, stored_at).version == 2


def test_a_version_counted_from_the_head(shop):
    assert state_as_of(shop, SHOP, BeforeHead(1)) == state_as_of(shop, SHOP, 3)
    assert state_as_of(shop, SHOP, BeforeHead(0)).version == 4


def test_the_answer_carries_version_and_time_of_the_last_event_it_counts(shop):
    third = shop.event(SHOP, 3)
    view = state_as_of(shop, SHOP, third.stored_at)
    assert (view.pipeline, view.version, view.stored_at) == (SHOP, 3, third.stored_at)


def test_no_later_append_changes_an_answer_that_was_final(store):
    [stored] = store.append(SHOP, saved("users", {"cursor": 1}))
    before = state_as_of(store, SHOP, stored.stored_at)
    store.append(SHOP, saved("users", {"cursor": 9}))
    assert before.final
    assert state_as_of(store, SHOP, stored.stored_at) == before


def test_a_moment_after_the_newest_event_is_not_final(shop):
    view = state_as_of(shop, SHOP, shop.event(SHOP, 4).stored_at + INSTANT)
    assert (view.version, view.final) == (4, False)


@pytest.mark.parametrize("version", [0, 1, 4])
def test_a_version_is_final(shop, version):
    assert state_as_of(shop, SHOP, version).final


@READS
@pytest.mark.parametrize("moment", [5, -1, BeforeHead(5)], ids=str)
def test_a_version_that_is_not_there_is_an_error(shop, as_of, empty, moment):  # noqa: ARG001
    with pytest.raises(UnknownVersion, match=r"source-shop .* the versions 1 to 4"):
        as_of(shop, SHOP, moment)


@READS
def test_a_moment_without_a_time_zone_is_refused(shop, as_of, empty):  # noqa: ARG001
    with pytest.raises(InvalidMoment, match="time zone"):
        as_of(shop, SHOP, datetime(2026, 11, 20))  # noqa: DTZ001 - what is refused


@READS
@pytest.mark.parametrize("moment", [0, BeforeHead(0), TOMORROW], ids=["0", "head", "tomorrow"])
def test_an_unknown_pipeline_is_empty_at_version_0(shared_store, as_of, empty, moment):
    view = as_of(shared_store, NOBODY, moment)
    assert (view.pipeline, view.version, view.stored_at) == (NOBODY, 0, None)
    assert view in (empty(NOBODY), empty(NOBODY, final=True))


@READS
def test_an_unknown_pipeline_has_no_version_1(shared_store, as_of, empty):  # noqa: ARG001
    with pytest.raises(UnknownVersion, match="there are no events"):
        as_of(shared_store, NOBODY, 1)


def test_before_the_first_event_there_is_nothing(shop):
    view = state_as_of(shop, SHOP, datetime(2001, 1, 1, tzinfo=timezone.utc))
    assert (view.version, view.bodies, view.final) == (0, [], True)


def test_events_that_change_no_state_still_move_the_version(store):
    store.append(SHOP, saved("users", {"cursor": 1}), *emitted(2))
    view = latest_state(store, SHOP)
    assert (view.version, _cursors(view)) == (3, {"users": 1})
    assert state_as_of(store, SHOP, 3).bodies == view.bodies


def test_clearing_one_stream_leaves_the_others(store):
    store.append(SHOP, saved("users", {"cursor": 1}), saved("orders", {"cursor": 1}))
    store.append(SHOP, StateCleared(store.event(SHOP, 1).stream))
    assert _cursors(latest_state(store, SHOP)) == {"orders": 1}


def test_streams_that_were_silent_for_long_are_as_they_were_then(store):
    users, orders = (StreamDescriptor(name) for name in ("users", "orders"))
    store.append(SHOP, saved("users", {"cursor": 1}), saved("orders", {"cursor": 1}))
    store.append(SHOP, saved("users", {"cursor": 2}), saved("items", {"cursor": 1}))
    first = store.event(SHOP, 1).body
    store.append(SHOP, StateSaved(first, origin="restored", of=1), StateCleared(orders))
    store.append(SHOP, *emitted(100), *(saved("clicks", {"cursor": n}) for n in range(100)))
    for version in (4, 6, 50, 106, 150, 206):
        there = state_as_of(store, SHOP, version)
        assert there.streams == replay(store, SHOP, StateView(SHOP), up_to=version).streams
        said = store.newest_said(SHOP, STATE_KINDS, version, length=MANY)
        assert StateView(SHOP).with_(*said).streams == there.streams
    assert (len(there.streams), there.streams[users], orders in there.streams) == (3, first, False)


def test_a_moment_is_found_between_many_events_of_another_history(store):
    busy, rare = Pipeline("source-busy"), Pipeline("source-rare")
    for _ in range(5):
        store.append(rare, saved("users", {}), saved("orders", {}))
        store.append(busy, *emitted(40))
    stored = list(store.log())
    reached = {busy: 0, rare: 0, NOBODY: 0}
    for event in stored:
        for pipeline, version in reached.items():
            assert store.version_at(pipeline, event.stored_at - INSTANT) == version
        reached[event.pipeline] = event.version
        for pipeline, version in reached.items():
            assert store.version_at(pipeline, event.stored_at) == version
    assert reached == {busy: 200, rare: 10, NOBODY: 0}


@pytest.mark.parametrize("kind", ["'x'", "x'41'", "'0x'", "''"])
def test_a_kind_that_is_none_is_no_state_however_it_is_looked_for(tmp_path, kind):
    with connect(tmp_path / "state.db") as store:  # SQLite keeps any value there
        store.append(SHOP, saved("users", {"cursor": 1}), saved("users", {"cursor": 2}))
        with tampering(store.database.engine) as db:
            db.execute(text(f"UPDATE _eventstore_events SET kind = {kind} WHERE version = 2"))
        for length in (2, MANY):
            said = store.newest_said(SHOP, STATE_KINDS, 2, length=length)
            assert [each.version for each in said] == [1]


@pytest.mark.parametrize("whole", [global_state({"lsn": 1}), legacy_state({"users": 1})])
def test_clearing_one_stream_leaves_a_state_that_is_one_message(store, whole):
    store.append(SHOP, saved("users", {"cursor": 1}), StateSaved(whole))
    store.append(SHOP, StateCleared(store.event(SHOP, 1).stream))
    assert latest_state(store, SHOP).bodies == [whole.encode()]
    assert state_as_of(store, SHOP, 3).bodies == [whole.encode()]


@pytest.mark.parametrize("whole", [global_state({"lsn": 1}), legacy_state({"users": 1})])
def test_a_stream_state_after_a_whole_one_stands_alone(store, whole):
    store.append(SHOP, saved("users", {"cursor": 1}), StateSaved(whole), saved("orders", {}))
    assert latest_state(store, SHOP).bodies == [stream_state("orders", {}).encode()]
    assert state_as_of(store, SHOP, 3).bodies == [stream_state("orders", {}).encode()]


def test_a_stream_called_like_the_row_of_a_global_state_is_just_a_stream(store):
    store.append(SHOP, saved("_GLOBAL", {"cursor": 1}), saved("_LEGACY", {"cursor": 2}))
    assert _cursors(latest_state(store, SHOP)) == {"_GLOBAL": 1, "_LEGACY": 2}


def test_a_state_can_be_handed_to_a_runner(shop):
    provider = state_as_of(shop, SHOP, 3).provider()
    assert provider.known_stream_names == {"users", "orders"}
    assert provider.get_stream_state("users").stream.stream_state.cursor == 2
    assert [
        state["stream"]["stream_state"] for state in json.loads(provider.to_state_input_file_text())
    ] == [{"cursor": 2}, {"cursor": 1}]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (None, "[]"),
        (stream_state("users", {"n": None}), f"[{stream_state('users', {'n': None})}]"),
        (global_state({"lsn": 1}), f"[{global_state({'lsn': 1})}]"),
        ('{"type":"LEGACY","data":{"big":12345678901234567890}}', '{"big":12345678901234567890}'),
        ('{"data":{"users":1}}', '{"users":1}'),
        (legacy_state(None), "{}"),
    ],
    ids=["none", "stream", "global", "legacy", "untyped", "legacy null"],
)
def test_the_text_of_a_state_file_is_made_of_the_stored_bytes(store, message, text):
    if message:
        store.append(SHOP, StateSaved(message))
    assert latest_state(store, SHOP).state_file() == text


def test_a_catalog_comes_back_with_the_sync_it_was_registered_for(store):
    register_catalog(store, SHOP, catalog(configured_stream("users", sync_id=1)))
    register_catalog(store, SHOP, catalog(configured_stream("users", sync_id=2)))
    syncs = [
        [stream.sync_id for stream in catalog_as_of(store, SHOP, version).streams]
        for version in range(4)
    ]
    assert syncs == [[], [None], [1], [2]]
    assert [stream.sync_id for stream in latest_catalog(store, SHOP).streams] == [2]


def _cursors(view):
    return {
        str(stream): json.loads(body)["stream"]["stream_state"]["cursor"]
        for stream, body in view.streams.items()
    }
