"""Registering a catalog again: many a sync does, and nothing of it may be taken on trust."""

import re
from copy import deepcopy
from itertools import count

import pytest
from airbyte_protocol.models import ConfiguredAirbyteCatalog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from eventstore import InvalidEvent, Pipeline, StateEmitted, StreamDefined
from eventstore.erasure import erase
from eventstore.tables import metadata
from projections import SqlCatalogBackend, connect, latest_catalog, register_catalog
from projections.models import SqlAlchemyModel
from projections.tables import STREAMS_TABLE
from tests.messages import catalog, configured_stream, stream_state
from tests.read_side.sql_config import SqlConfig

NUMBERS = count()
A_PAGE = 40
"""More events than one looks through to find out that none is of the catalog."""

USERS, WIDE_USERS = configured_stream("users"), configured_stream("users", columns=("a", "b"))
ORDERS = configured_stream("orders")


def configured(*streams):
    return ConfiguredAirbyteCatalog.model_validate(catalog(*streams))


def timeless(body):
    return re.sub(rb'"registered_at":\d+', b"", body)


def registered(stored):
    """What a history says of catalogs, but for times."""
    return [(each.kind, each.stream, each.origin, timeless(each.body)) for each in stored]


CATALOGS = st.sampled_from([(USERS,), (WIDE_USERS,), (USERS, ORDERS), (ORDERS, USERS)])
STEPS = st.one_of(
    st.tuples(st.just("register"), st.integers(0, 1), CATALOGS),
    st.tuples(st.just("register"), st.just(0), CATALOGS),
    st.tuples(st.just("states"), st.sampled_from([1, A_PAGE]), st.none()),
    st.tuples(st.just("define"), st.none(), st.sampled_from([USERS, WIDE_USERS])),
    st.tuples(st.just("erase"), st.none(), st.none()),
)


REGISTER = ("register", 0, (USERS,))


@example(steps=[REGISTER, ("define", None, WIDE_USERS), REGISTER])
@example(steps=[REGISTER, ("register", 1, (WIDE_USERS,)), REGISTER])
@example(steps=[REGISTER, ("erase", None, None), REGISTER])
@example(steps=[REGISTER, ("states", 1, None), REGISTER, ("states", A_PAGE, None), REGISTER])
@example(steps=[REGISTER, ("states", A_PAGE, None), ("define", None, WIDE_USERS), REGISTER])
@example(steps=[REGISTER, ("rows gone", None, None), REGISTER])
@settings(max_examples=10, deadline=None)
@given(steps=st.lists(STEPS, min_size=2, max_size=8))
def test_whoever_registers_again_stores_what_a_newcomer_would_have(shared_store, steps):
    engine, mine = shared_store.database.engine, STREAMS_TABLE.c.pipeline_key
    prefix = f"of_{next(NUMBERS)}_"
    here, there = (Pipeline(place, table_prefix=prefix) for place in ("here", "there"))
    backends = [SqlCatalogBackend(engine, prefix, store=shared_store) for _ in range(2)]
    for step, which, what in steps:
        for pipeline in (here, there):
            if step == "register" and pipeline is here:
                names = {stream["stream"]["name"] for stream in what}
                backends[which].register_source(pipeline.source, configured(*what), names)
            elif step == "register":
                register_catalog(shared_store, pipeline, configured(*what))
            elif step == "states":
                states = [StateEmitted(stream_state("users", {"n": n})) for n in range(which)]
                shared_store.append(pipeline, *states)
            elif step == "define":
                shared_store.append(pipeline, StreamDefined(what))
            elif step == "rows gone":
                with engine.begin() as db:
                    db.execute(STREAMS_TABLE.delete().where(mine == pipeline.key))
            elif defined := shared_store.newest(pipeline, ["StreamDefined"]):
                erase(shared_store, pipeline, version=defined[-1].version, reason="a test")
    histories = [registered(shared_store.history(pipeline)) for pipeline in (here, there)]
    assert histories[0] == histories[1]
    found = [latest_catalog(shared_store, pipeline) for pipeline in (here, there)]
    assert found[0].definitions == found[1].definitions
    assert list(found[0].registered) == list(found[1].registered)


def test_a_restored_backup_is_given_the_definitions_that_it_lacks(store):
    engine = store.database.engine
    ours = SqlCatalogBackend(engine, "", store=connect(engine))
    ours.register_source("source-shop", configured(USERS), {"users"})
    metadata.drop_all(engine)
    SqlAlchemyModel.metadata.drop_all(engine)
    others = SqlCatalogBackend(engine, "", store=connect(engine))
    others.register_source("source-shop", configured(ORDERS), {"orders"})
    assert others.stream_names == ["orders"]  # two events, as before
    ours.register_source("source-shop", configured(USERS), {"users"})
    assert sorted(others.stream_names) == ["orders", "users"]


def test_a_catalog_that_is_no_json_any_more_is_refused(database):
    backend = SqlCatalogBackend(SqlConfig(database), "")
    incoming = configured(USERS)
    incoming.streams[0].stream.json_schema["default"] = None
    backend.register_source("source-shop", incoming, {"users"})
    incoming.streams[0].stream.json_schema["default"] = float("nan")
    with pytest.raises(InvalidEvent, match="not JSON compliant"):
        backend.register_source("source-shop", incoming, {"users"})


@pytest.mark.parametrize("number", [True, 1.0])
def test_a_definition_that_only_python_takes_for_the_same_is_another(database, number):
    backend = SqlCatalogBackend(SqlConfig(database), "")
    incoming = configured(USERS)
    for value in (1, number):
        incoming.streams[0].stream.json_schema["default"] = value
        backend.register_source("source-shop", incoming, {"users"})
    [stream] = (
        SqlCatalogBackend(SqlConfig(database), "")
        .get_full_catalog_provider()
        .configured_catalog.streams
    )
    assert repr(stream.stream.json_schema["default"]) == repr(number)


def test_what_is_registered_again_is_shown_by_the_objects_that_came_last(database):
    backend = SqlCatalogBackend(SqlConfig(database), "")
    provider = backend.get_source_catalog_provider("source-shop")
    for _ in range(3):
        incoming = configured(USERS, ORDERS)
        backend.register_source("source-shop", incoming, {"users", "orders"})
        held = provider.configured_catalog.streams
        assert [id(stream) for stream in held] == [id(stream) for stream in incoming.streams]


def test_a_generation_that_is_no_number_is_refused(database):
    backend = SqlCatalogBackend(SqlConfig(database), "")
    incoming = configured(USERS)
    incoming.streams[0].generation_id = None
    backend.register_source("source-shop", incoming, {"users"})
    incoming.streams[0].generation_id = float("nan")
    with pytest.raises(InvalidEvent, match="generation_id"):
        backend.register_source("source-shop", incoming, {"users"})


def test_what_says_the_same_is_registered_again_by_one_event(store):
    backend = SqlCatalogBackend(store.database.engine, "", store=store)
    incoming = configured(USERS, ORDERS)
    backend.register_source("source-shop", incoming, {"users", "orders"})
    for same in (incoming, deepcopy(incoming), incoming.model_copy(deep=True)):
        backend.register_source("source-shop", same, {"users", "orders"})
    [pipeline] = store.pipelines()
    kinds = [stored.kind for stored in store.history(pipeline)]
    assert kinds == [*["StreamDefined"] * 2, *["CatalogRegistered"] * 4]


def test_a_model_in_a_schema_is_registered_whenever_it_comes(database):
    class Model(BaseModel):
        unit: str = "m"

    backend = SqlCatalogBackend(SqlConfig(database), "")
    incoming = configured(USERS)
    incoming.streams[0].stream.json_schema["of"] = Model(unit="cm")
    for _ in range(2):
        backend.register_source("source-shop", incoming, {"users"})
        assert backend.stream_names == ["users"]
