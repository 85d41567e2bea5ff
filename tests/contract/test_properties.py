"""Random histories: the tables, the replay, the past and a model in plain Python all agree."""

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from projections import (
    CachedStream,
    CacheStreamStateModel,
    CatalogView,
    DestinationStreamStateModel,
    StateView,
    catalog_as_of,
    latest_catalog,
    latest_state,
    rebuild,
    replay,
    state_as_of,
)
from projections.views import STATE_KINDS
from tests.contract.random_histories import histories, play

INSTANT = timedelta(microseconds=1)
MANY = 1_000_000

TABLES = [
    model.__table__ for model in (CacheStreamStateModel, DestinationStreamStateModel, CachedStream)
]


@given(history=histories)
def test_the_latest_tables_equal_replay_and_model(shared_store, history):
    for pipeline, model in play(shared_store, history).items():
        state, registered = (
            latest_state(shared_store, pipeline),
            latest_catalog(shared_store, pipeline),
        )
        assert state == replay(shared_store, pipeline, StateView(pipeline))
        assert (state.version, state.bodies) == (model.head, list(model.state().values()))
        assert registered == replay(shared_store, pipeline, CatalogView(pipeline))
        assert (registered.version, _defined(registered)) == (model.head, model.catalog())


@settings(max_examples=10)
@given(history=histories)
def test_the_past_equals_the_model_at_every_version(shared_store, history):
    for pipeline, model in play(shared_store, history).items():
        times = [None, *(stored.stored_at for stored in shared_store.history(pipeline))]
        for version in range(model.head + 1):
            state = state_as_of(shared_store, pipeline, version)
            registered = catalog_as_of(shared_store, pipeline, version)
            assert state.bodies == list(model.state(version).values())
            assert _defined(registered) == model.catalog(version)
            # A long history is not looked through as a short one is.
            said = shared_store.newest_said(pipeline, STATE_KINDS, version, length=MANY)
            assert StateView(pipeline).with_(*said).bodies == state.bodies
            for view in (state, registered):
                assert (view.version, view.stored_at, view.final) == (version, times[version], True)


@settings(max_examples=10)
@given(history=histories)
def test_the_past_equals_the_model_at_every_moment(shared_store, history):
    for pipeline, model in play(shared_store, history).items():
        for stored in shared_store.history(pipeline):
            state = state_as_of(shared_store, pipeline, stored.stored_at)
            assert (state.version, state.final) == (stored.version, True)
            assert state.bodies == list(model.state(stored.version).values())
            registered = catalog_as_of(shared_store, pipeline, stored.stored_at - INSTANT)
            assert (registered.version, registered.final) == (stored.version - 1, True)
            assert _defined(registered) == model.catalog(stored.version - 1)
            if stored.version == model.head:
                later = state_as_of(shared_store, pipeline, stored.stored_at + INSTANT)
                assert (later.version, later.final) == (model.head, False)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories)
def test_rebuilt_tables_equal_those_kept_inline(store, history):
    """A store of its own: it rebuilds the pipelines of all examples so far."""
    play(store, history)
    inline = _rows(store)
    with store.database.engine.begin() as db:
        for table in TABLES:
            db.execute(table.delete())
    rebuild(store)
    assert _rows(store) == inline


def _defined(view):
    return {
        stream: (list(configured.stream.json_schema["properties"]), configured.sync_id)
        for stream, configured in view.by_descriptor.items()
    }


def _rows(store):
    with store.database.engine.connect() as db:
        return [
            [tuple(row) for row in db.execute(select(table).order_by(table.c.row_key))]
            for table in TABLES
        ]
