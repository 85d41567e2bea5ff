"""Erasing: bodies go for good, the events that had them stay, and everybody is told."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select

from eventstore import (
    ErasedBody,
    EventStore,
    InvalidEvent,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StreamDescriptor,
    StreamNotFound,
    UnknownVersion,
)
from eventstore.dialects import dialect_of
from eventstore.erasure import erase, erasure_of, reapply, retention
from eventstore.events import to_microseconds
from eventstore.integrity import verify
from eventstore.tables import BODY_VERSION, bodies, body_id
from projections import (
    CachedStream,
    CacheStreamStateModel,
    CatalogView,
    DestinationStreamStateModel,
    StateView,
    catalog_as_of,
    connect,
    latest_catalog,
    latest_state,
    rebuild,
    register_catalog,
    replay,
    state_as_of,
)
from projections.projector import apply_inline
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    legacy_state,
    saved,
    stream_state,
)

SHOP = Pipeline("source-shop")
USERS, ORDERS = StreamDescriptor("users"), StreamDescriptor("orders")

TABLES = [
    model.__table__ for model in (CacheStreamStateModel, DestinationStreamStateModel, CachedStream)
]


@pytest.fixture
def shop(store):
    """users at 1, again at 1, at 2; orders at 1."""
    store.append(SHOP, saved("users", {"email": "a@example.org"}))
    store.append(SHOP, saved("users", {"email": "a@example.org"}))
    store.append(SHOP, saved("orders", {"cursor": 1}))
    store.append(SHOP, saved("users", {"cursor": 2}))
    return store


def test_erasing_an_event_names_every_event_that_points_at_its_body(shop):
    erasure = erase(shop, SHOP, version=2, reason="asked to", actor="ann")
    assert erasure.bodies == (1,)
    assert [(pointer.version, pointer.stream) for pointer in erasure.events] == [
        (1, USERS),
        (2, USERS),
    ]
    assert erasure.version == 5
    said = shop.event(SHOP, 5)
    assert (said.kind, said.actor, said.reason) == ("BodyErased", "ann", "asked to")
    assert said.event.versions == [1]
    assert erasure_of(shop, SHOP, 1) == said
    assert erasure_of(shop, SHOP, 3) is None


def test_the_body_is_gone_and_the_event_is_there(shop):
    before = shop.event(SHOP, 1)
    erase(shop, SHOP, version=1, reason="asked to")
    after = shop.event(SHOP, 1)
    assert (after.body, after.erased, after.hash) == (b"", True, before.hash)
    assert _kept(shop) == [3, 4, 5]
    with pytest.raises(ErasedBody, match="erased"):
        _ = after.event


def test_an_event_that_never_had_a_body_is_not_erased(store):
    [cleared] = store.append(SHOP, StateCleared())
    assert not cleared.erased
    assert not store.event(SHOP, 1).erased
    assert store.event(SHOP, 1).event == StateCleared()
    assert erase(store, SHOP, version=1, reason="asked to").bodies == ()
    assert store.heads() == {SHOP: 1}


def test_the_past_says_erased_and_never_gives_an_older_state(shop):
    shop.append(SHOP, saved("users", {"cursor": 3}))
    erase(shop, SHOP, version=4, reason="asked to", actor="ann")
    assert [body for body in state_as_of(shop, SHOP, 3).bodies if b"users" in body] == [
        stream_state("users", {"email": "a@example.org"}).encode()
    ]
    with pytest.raises(ErasedBody, match="erased at @6 by ann: asked to"):
        state_as_of(shop, SHOP, 4)
    assert len(state_as_of(shop, SHOP, 5).bodies) == 2


def test_from_the_erasure_on_the_stream_has_no_state(shop):
    erase(shop, SHOP, version=4, reason="asked to")
    orders = [stream_state("orders", {"cursor": 1}).encode()]
    assert latest_state(shop, SHOP).bodies == orders
    assert state_as_of(shop, SHOP, 5).bodies == orders
    assert state_as_of(shop, SHOP, 5).erased == {USERS: 4}
    with pytest.raises(ErasedBody):
        state_as_of(shop, SHOP, 4)


@pytest.mark.parametrize("whole", [global_state({"lsn": 1}), legacy_state({"users": 1})])
def test_a_whole_state_can_be_erased(shop, whole):
    [stored] = shop.append(SHOP, StateSaved(whole))
    erase(shop, SHOP, version=stored.version, reason="asked to")
    assert latest_state(shop, SHOP).bodies == []
    _check_agreement(shop)


def test_a_catalog_can_be_erased_and_registered_again(store):
    users = catalog(configured_stream("users", sync_id=1), configured_stream("orders"))
    register_catalog(store, SHOP, users)
    erase(store, SHOP, stream=USERS, reason="asked to")
    assert [stream.stream.name for stream in latest_catalog(store, SHOP).streams] == ["orders"]
    _check_agreement(store)
    with pytest.raises(ErasedBody):
        catalog_as_of(store, SHOP, 3)
    register_catalog(store, SHOP, users)
    names = [stream.stream.name for stream in latest_catalog(store, SHOP).streams]
    assert sorted(names) == ["orders", "users"]
    _check_agreement(store)


def test_erasing_a_stream_leaves_the_others_alone(shop):
    shop.append(SHOP, saved("users", {"cursor": 9}, "audit"))
    erasure = erase(shop, SHOP, stream=USERS, reason="asked to")
    assert erasure.bodies == (1, 4)
    assert set(latest_state(shop, SHOP).streams) == {ORDERS, StreamDescriptor("users", "audit")}


def test_erasing_before_a_moment_leaves_what_was_stored_right_then(shop):
    moment = shop.event(SHOP, 3).stored_at
    assert erase(shop, SHOP, before=moment, reason="asked to").bodies == (1,)


def test_an_erasure_is_never_erased(shop):
    erase(shop, SHOP, version=1, reason="asked to")
    later = datetime.now(timezone.utc) + timedelta(days=1)
    erasure = erase(shop, SHOP, before=later, reason="all of it")
    assert erasure.bodies == (3, 4)
    assert not shop.event(SHOP, 5).erased
    assert erase(shop, SHOP, version=5, reason="asked to").bodies == ()


def test_a_dry_run_shows_the_same_and_changes_nothing(shop):
    planned = erase(shop, SHOP, stream=USERS, reason="asked to", dry_run=True)
    assert (shop.heads(), _kept(shop), planned.version) == ({SHOP: 4}, [1, 3, 4], None)
    done = erase(shop, SHOP, stream=USERS, reason="asked to")
    assert (done.bodies, done.events) == (planned.bodies, planned.events)


@pytest.mark.parametrize("writers", ["the same store", "another store"])
def test_an_equal_body_that_comes_later_is_stored_anew(shop, database, writers):
    erase(shop, SHOP, version=4, reason="asked to")
    if writers == "the same store":
        [again] = shop.append(SHOP, saved("users", {"cursor": 2}))
    else:
        with connect(database) as other:
            [again] = other.append(SHOP, saved("users", {"cursor": 2}))
    assert again.body_version == again.version
    assert not shop.event(SHOP, again.version).erased


def test_a_writer_that_knew_the_body_stores_it_anew(shop, database):
    with connect(database) as other:
        other.append(SHOP, saved("users", {"cursor": 3}))
        erase(shop, SHOP, version=5, reason="asked to")
        [again] = other.append(SHOP, saved("users", {"cursor": 3}))
    assert again.body_version == again.version


def test_an_append_is_repeated_though_its_body_was_erased(store):
    named = "01912e33-8b43-7c5c-9f1e-000000000000"
    [first] = store.append(SHOP, saved("users", {"cursor": 1}), id=named)
    erase(store, SHOP, version=1, reason="asked to")
    [again] = store.append(SHOP, saved("users", {"cursor": 1}), id=named)
    assert (again.hash, again.erased) == (first.hash, True)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({}, InvalidEvent),
        ({"version": 1, "stream": USERS}, InvalidEvent),
        ({"version": 1, "reason": " "}, InvalidEvent),
        ({"version": 5}, UnknownVersion),
        ({"version": 0}, UnknownVersion),
        ({"stream": StreamDescriptor("users", "")}, StreamNotFound),
        ({"stream": "users"}, InvalidEvent),
    ],
    ids=["nothing", "two things", "no reason", "too late", "too early", "no such stream", "text"],
)
def test_what_cannot_be_erased_is_refused(shop, wrong, error):
    with pytest.raises(error):
        erase(shop, SHOP, **{"reason": "asked to", **wrong})
    assert shop.heads() == {SHOP: 4}


def test_nobody_claims_an_erasure_by_hand(shop):
    from eventstore import BodyErased  # noqa: PLC0415 - only to be refused

    with pytest.raises(InvalidEvent, match="erase"):
        shop.append(SHOP, BodyErased([1]))


def test_a_restored_body_is_erased_again(shop):
    with shop.database.engine.connect() as db:
        backup = [dict(row) for row in db.execute(select(bodies)).mappings()]
    erase(shop, SHOP, version=4, reason="asked to")
    with shop.database.engine.begin() as db:
        db.execute(bodies.insert(), [row for row in backup if row["id"] == body_id(1, 4)])
    rebuild(shop)
    assert len(latest_state(shop, SHOP).bodies) == 2
    [planned] = reapply(shop, dry_run=True)
    assert (planned.bodies, len(_kept(shop))) == ((4,), 4)
    assert reapply(shop, [Pipeline("another")]) == []
    [again] = reapply(shop)
    assert (again.bodies, again.version) == ((4,), 5)
    assert _kept(shop) == [1, 3, 5]
    assert len(latest_state(shop, SHOP).bodies) == 1
    assert reapply(shop) == []
    _check_agreement(shop)


def test_what_was_erased_again_is_not_pointed_at(shop):
    [first] = shop.append(SHOP, saved("users", {"address": "of a person"}))
    with shop.database.engine.connect() as db:
        backup = [dict(row) for row in db.execute(select(bodies)).mappings()]
    erase(shop, SHOP, version=first.version, reason="asked to")
    with shop.database.engine.begin() as db:
        its_own = [row for row in backup if row["id"] == body_id(1, first.version)]
        db.execute(bodies.insert(), its_own)
    shop.append(SHOP, StateSaved(first.body, "restored", first.version))
    reapply(shop)
    [again] = shop.append(SHOP, StateSaved(first.body))
    assert again.body_version == again.version
    assert shop.event(SHOP, again.version) == again
    _check_agreement(shop)


def test_nothing_legible_is_left_in_a_file_that_can_be_overwritten(tmp_path):
    path = tmp_path / "state.db"
    with connect(path) as store:
        store.append(SHOP, saved("users", {"email": "a@example.org"}))
        erase(store, SHOP, version=1, reason="asked to")
        with store.database.engine.connect() as db:
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        assert b"a@example.org" not in path.read_bytes()


def test_the_setting_of_a_connection_comes_back(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
    with engine.connect() as db:
        db.exec_driver_sql("PRAGMA secure_delete = OFF")
        with dialect_of(db).overwriting(db):
            assert db.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
        assert db.exec_driver_sql("PRAGMA secure_delete").scalar() == 0
    engine.dispose()


NOW = datetime.now(timezone.utc)


class Clock:
    """The time events are stored at: so many days ago."""

    days = 200

    def __call__(self):
        return to_microseconds(NOW - timedelta(days=self.days))


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_retention_keeps_current_states_catalogs_and_what_younger_events_point_at(tmp_path, kind):
    """Not on PostgreSQL: its own clock says when an event is stored."""
    with connect(f"{kind}:///{tmp_path / 'state.db'}") as store:
        store.heads()
        clock = Clock()
        writer = EventStore(store.database.engine, inline=apply_inline, clock=clock)
        register_catalog(writer, SHOP, catalog(configured_stream("users")))  # 1, 2
        writer.append(SHOP, saved("users", {"cursor": 1}))  # 3
        writer.append(SHOP, StateEmitted(stream_state("users", {"cursor": 2})))  # 4
        writer.append(SHOP, saved("users", {"cursor": 3}))  # 5, which 7 points at
        writer.append(SHOP, saved("orders", {"cursor": 1}))  # 6, current
        clock.days = 10
        writer.append(SHOP, saved("users", {"cursor": 3}))  # 7
        writer.append(SHOP, saved("users", {"cursor": 4}))  # 8, current
        [planned] = retention(store, timedelta(days=90), dry_run=True)
        assert planned.bodies == (3, 4)
        [done] = retention(store, timedelta(days=90))
        assert (done.bodies, done.version) == ((3, 4), 9)
        assert store.event(SHOP, 9).reason == "retention: older than 90 days, 0:00:00"
        assert _kept(store) == [1, 2, 5, 6, 8, 9]
        assert retention(store, timedelta(days=90)) == []
        _check_agreement(store)


def test_retention_of_nothing_old_changes_nothing(shop):
    assert retention(shop, timedelta(days=1)) == []
    assert shop.heads() == {SHOP: 4}


_streams = st.sampled_from([USERS, ORDERS, StreamDescriptor("users", "")])
_states = st.builds(
    lambda stream, cursor: saved(stream.name, {"cursor": cursor}, stream.namespace),
    _streams,
    st.integers(1, 2),
)
_wholes = st.sampled_from(
    [StateSaved(global_state({"lsn": 1})), StateSaved(legacy_state({"users": 1})), StateCleared()]
)
_steps = st.one_of(
    _states.map(lambda event: ("append", event)),
    _states.map(lambda event: ("append", event)),
    _wholes.map(lambda event: ("append", event)),
    _streams.map(lambda stream: ("append", StateCleared(stream))),
    st.integers(1, 9).map(lambda version: ("erase", version)),
    st.sampled_from(["users", "orders"]).map(lambda name: ("register", name)),
)
_fresh = (f"history {number}" for number in count())


@settings(max_examples=12)
@given(steps=st.lists(_steps, max_size=10))
def test_after_any_erasures_tables_replay_and_rebuild_agree(shared_store, steps):
    pipeline = Pipeline("source-shop", connection=next(_fresh))
    play(shared_store, pipeline, steps)
    _check_views(shared_store, pipeline)
    inline = _rows(shared_store, pipeline)
    rebuild(shared_store)
    assert _rows(shared_store, pipeline) == inline


def play(store, pipeline, steps):
    """Append, register and erase; what is not there cannot be erased."""
    for what, value in steps:
        if what == "append":
            store.append(pipeline, value)
        elif what == "register":
            register_catalog(store, pipeline, catalog(configured_stream(value)))
        elif value <= store.head(pipeline).version:
            erase(store, pipeline, version=value, reason="asked to")


def _check_agreement(store):
    for pipeline in store.pipelines():
        _check_views(store, pipeline)
        inline = _rows(store, pipeline)
        rebuild(store)
        assert _rows(store, pipeline) == inline


def _check_views(store, pipeline):
    state, registered = latest_state(store, pipeline), latest_catalog(store, pipeline)
    assert state == replay(store, pipeline, StateView(pipeline))
    assert registered == replay(store, pipeline, CatalogView(pipeline))
    assert state.bodies == state_as_of(store, pipeline, state.version).bodies
    assert registered.streams == catalog_as_of(store, pipeline, state.version).streams


def _rows(store, pipeline):
    with store.database.engine.connect() as db:
        return [
            [
                tuple(row)
                for row in db.execute(
                    select(table)
                    .where(table.c.pipeline_key == pipeline.key)
                    .order_by(table.c.row_key)
                )
            ]
            for table in TABLES
        ]


def _kept(store):
    with store.database.engine.connect() as db:
        return list(db.scalars(select(BODY_VERSION).order_by(bodies.c.id)))


@pytest.mark.slow_on("duckdb")
def test_no_writer_points_at_a_body_that_is_being_erased(store, database):
    """An event that lost its body had it when it was erased: none came after, pointing at it."""
    with connect(database) as other, ThreadPoolExecutor(1) as pool:
        store.append(SHOP, saved("users", {"cursor": 1}))
        writing = pool.submit(
            lambda: [other.append(SHOP, saved("users", {"cursor": 1})) for _ in range(40)]
        )
        written = False
        while not written:
            written = writing.done()  # before the first look on a machine that is slow
            erase(store, SHOP, version=store.head(SHOP).version, reason="asked to")
        writing.result()
    gone = [stored for stored in store.history(SHOP) if stored.erased]
    assert gone
    for stored in gone:
        assert erasure_of(store, SHOP, stored.body_version).version > stored.version
    assert verify(store).is_whole
    _check_agreement(store)
