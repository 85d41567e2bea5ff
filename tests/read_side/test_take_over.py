"""Tables that unmodified PyAirbyte made and filled, taken over at the first use."""

import json
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from airbyte.caches import _catalog_backend as own_catalogs
from airbyte.caches import _state_backend as own_states
from airbyte_protocol.models import AirbyteStateMessage, ConfiguredAirbyteCatalog
from sqlalchemy import inspect, select, update
from sqlalchemy.orm import Session

from eventstore import Pipeline
from projections import SqlCatalogBackend, SqlStateBackend, connect
from tests.messages import catalog, configured_stream, legacy_state, stream_state
from tests.read_side import breakdowns
from tests.read_side.sql_config import SqlConfig

SHOP = "source-shop"
LAKE = "destination-lake"

OWN_MODELS = (
    own_states.CacheStreamStateModel,
    own_states.DestinationStreamStateModel,
    own_catalogs.CachedStream,
)


pytestmark = pytest.mark.needs("FOREIGN_TABLES")


@pytest.fixture
def config(database):
    config = SqlConfig(database)
    yield config
    config.dispose_engine()


@pytest.fixture
def pyairbytes(config):
    """A database in which PyAirbyte has kept states and catalogs, with a prefix and without."""
    for prefix in ("", "raw_"):
        states = own_states.SqlStateBackend(config, prefix)
        states.get_state_writer(SHOP).write_state(state("users", 1))
        states.get_state_writer(SHOP).write_state(state("orders", 2))
        catalogs = own_catalogs.SqlCatalogBackend(config, prefix)
        catalogs.register_source("DuckDBCache", CATALOG, {"users", "orders"})
    states.get_state_writer("source-crm").write_state(state("contacts", 3))
    states.get_state_writer(SHOP, LAKE).write_state(state("users", 4))
    return config


CATALOG = ConfiguredAirbyteCatalog.model_validate(
    catalog(configured_stream("users", columns=["id", "email"]), configured_stream("orders"))
)

PIPELINES = {
    Pipeline(SHOP): {"users": 1, "orders": 2},
    Pipeline(SHOP, table_prefix="raw_"): {"users": 1, "orders": 2},
    Pipeline("source-crm", table_prefix="raw_"): {"contacts": 3},
    Pipeline(SHOP, LAKE): {"users": 4},
}


def state(name, cursor, namespace=None):
    message = stream_state(name, {"cursor": cursor, "none": None}, namespace)
    return AirbyteStateMessage.model_validate_json(message)


def own_rows(config, model=own_states.CacheStreamStateModel):
    """What PyAirbyte's own model shows of a table, in any order."""
    columns = [column.name for column in model.__table__.columns]
    with Session(config.get_sql_engine()) as session:
        rows = session.scalars(select(model)).all()
        return sorted(repr([getattr(row, column) for column in columns]) for row in rows)


def all_own_rows(config):
    return [own_rows(config, model) for model in OWN_MODELS]


def cursors(provider):
    return {
        found.stream_descriptor.name: found.stream_state.model_dump()["cursor"]
        for found in provider.stream_state_artifacts
    }


def ours(config, pipeline):
    backend = SqlStateBackend(config, pipeline.table_prefix)
    return backend.get_state_provider(pipeline.source, destination_name=pipeline.destination)


def own(config, pipeline):
    backend = own_states.SqlStateBackend(config, pipeline.table_prefix)
    return backend.get_state_provider(
        pipeline.source, pipeline.table_prefix, destination_name=pipeline.destination
    )


def test_each_state_is_there(pyairbytes):
    for provider in (own, ours):
        for pipeline, states in PIPELINES.items():
            assert cursors(provider(pyairbytes, pipeline)) == states


def test_each_row_of_state_is_one_event_that_says_where_it_came_from(pyairbytes):
    for pipeline, states in PIPELINES.items():
        history = connect(pyairbytes).history(pipeline)
        history = [stored for stored in history if stored.kind == "StateSaved"]
        assert {stored.stream.name for stored in history} == set(states)
        assert len(history) == len(states)
        for stored in history:
            assert (stored.kind, stored.origin) == ("StateSaved", "adopted")
            assert "taken over from _airbyte_" in stored.reason


def test_each_registered_stream_is_one_event_and_each_catalog_another(pyairbytes):
    for prefix in ("", "raw_"):
        history = [
            stored
            for stored in connect(pyairbytes).history(Pipeline(SHOP, table_prefix=prefix))
            if stored.kind != "StateSaved"
        ]
        assert sorted((stored.kind, str(stored.stream)) for stored in history) == [
            ("CatalogRegistered", "None"),
            ("StreamDefined", "orders"),
            ("StreamDefined", "users"),
        ]
        assert {stored.origin for stored in history} == {"adopted"}


def test_a_catalog_under_the_caches_class_name_is_of_the_source_that_wrote_the_state(pyairbytes):
    assert set(connect(pyairbytes).pipelines()) == set(PIPELINES)


@pytest.mark.parametrize("prefix", ["", "raw_"])
def test_each_registered_stream_is_in_the_catalog_as_pyairbyte_read_it(pyairbytes, prefix):
    def streams(backend):
        found = backend.get_full_catalog_provider().configured_catalog.streams
        wanted = {"generation_id", "minimum_generation_id", "sync_id"}
        return {stream.stream.name: stream.model_dump(exclude=wanted) for stream in found}

    before = streams(own_catalogs.SqlCatalogBackend(pyairbytes, prefix))
    assert set(before) == {"users", "orders"}
    assert streams(SqlCatalogBackend(pyairbytes, prefix)) == before


def test_no_row_is_lost_and_its_names_and_blob_are_kept(pyairbytes):
    def states(config):
        with Session(config.get_sql_engine()) as session:
            rows = session.scalars(select(own_states.CacheStreamStateModel)).all()
        return {
            (row.source_name, row.stream_name, row.table_name): json.loads(row.state_json)["stream"]
            | {"stream_descriptor": row.stream_name}
            for row in rows
        }

    before = states(pyairbytes)
    connect(pyairbytes).pipelines()
    assert len(before) == 5
    assert states(pyairbytes) == before


def test_pyairbytes_wrong_name_for_global_is_dropped(pyairbytes):
    text = ours(pyairbytes, Pipeline(SHOP)).to_state_input_file_text()
    assert len(json.loads(text)) == 2
    assert "global_" not in text


def test_the_second_opening_changes_nothing(pyairbytes):
    heads = connect(pyairbytes).heads()
    rows = all_own_rows(pyairbytes)
    pyairbytes.dispose_engine()
    assert connect(pyairbytes).heads() == heads
    assert all_own_rows(pyairbytes) == rows


def test_the_next_write_goes_on_from_the_first_events(pyairbytes):
    backend = SqlStateBackend(pyairbytes)
    backend.get_state_writer(SHOP).write_state(state("users", 9))
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 9, "orders": 2}
    assert cursors(backend.get_state_provider(SHOP, as_of=2)) == {"users": 1, "orders": 2}
    assert cursors(ours(pyairbytes, Pipeline(SHOP, table_prefix="raw_"))) == {
        "users": 1,
        "orders": 2,
    }


@pytest.mark.slow_on("duckdb")
def test_interrupted_anywhere_it_is_as_before_and_the_next_opening_takes_over(config):
    writers = own_states.SqlStateBackend(config)
    writers.get_state_writer(SHOP).write_state(state("users", 1))
    writers.get_state_writer(SHOP, LAKE).write_state(state("users", 4))
    own_catalogs.SqlCatalogBackend(config, "").register_source(SHOP, CATALOG, {"users", "orders"})
    before = all_own_rows(config)
    engine = config.get_sql_engine()
    for breakdown in breakdowns.everywhere():
        with breakdown.of(engine):
            connect(config).pipelines()
        if breakdown.happened and not inspect(engine).has_table("_eventstore_schema"):
            assert all_own_rows(config) == before
    assert breakdown.at > 20
    assert connect(config).heads() == {Pipeline(SHOP): 4, Pipeline(SHOP, LAKE): 1}
    assert cursors(ours(config, Pipeline(SHOP))) == {"users": 1}
    assert cursors(ours(config, Pipeline(SHOP, LAKE))) == {"users": 4}


def test_tables_without_rows_are_taken_over_too(config):
    own_states.SqlStateBackend(config)._ensure_internal_tables()
    own_catalogs.SqlCatalogBackend(config, "")
    backend = SqlStateBackend(config)
    assert connect(config).heads() == {}
    backend.get_state_writer(SHOP).write_state(state("users", 1, "public"))
    backend.get_state_writer(SHOP).write_state(state("users", 2, "audit"))
    assert len(backend.get_state_provider(SHOP).stream_state_artifacts) == 2


def test_a_catalog_without_states_is_taken_over_alone(config):
    own_catalogs.SqlCatalogBackend(config, "").register_source(SHOP, CATALOG, {"users", "orders"})
    assert sorted(SqlCatalogBackend(config, "").stream_names) == ["orders", "users"]
    assert connect(config).heads() == {Pipeline(SHOP): 3}


def test_states_without_a_catalog_are_taken_over_alone(config):
    own_states.SqlStateBackend(config).get_state_writer(SHOP).write_state(state("users", 1))
    assert cursors(ours(config, Pipeline(SHOP))) == {"users": 1}
    assert SqlCatalogBackend(config, "").stream_names == []


def test_a_legacy_state_that_typed_ones_had_followed_stays_in_the_history_alone(config):
    writer = own_states.SqlStateBackend(config).get_state_writer(SHOP)
    writer.write_state(state("users", 1))
    writer.write_state(AirbyteStateMessage.model_validate_json(legacy_state({"users": 0})))
    assert cursors(ours(config, Pipeline(SHOP))) == {"users": 1}
    assert [str(stored.stream) for stored in connect(config).history(Pipeline(SHOP))] == [
        "None",
        "users",
    ]


def test_a_legacy_state_alone_is_the_state(config):
    legacy = AirbyteStateMessage.model_validate_json(legacy_state({"users": 0}))
    own_states.SqlStateBackend(config).get_state_writer(SHOP).write_state(legacy)
    [found] = ours(config, Pipeline(SHOP)).state_message_artifacts
    assert (found.type, found.data) == (legacy.type, legacy.data)


def test_a_global_state_under_its_python_name_is_read(config):
    backend = own_states.SqlStateBackend(config)
    backend._ensure_internal_tables()
    with Session(config.get_sql_engine()) as session:
        message = '{"type":"GLOBAL","global_":{"shared_state":{"lsn":1},"stream_states":[]}}'
        session.add(own_cache_row("_GLOBAL", message))
        session.commit()
    [found] = ours(config, Pipeline(SHOP)).state_message_artifacts
    assert found.global_.shared_state.model_dump() == {"lsn": 1}


@pytest.mark.parametrize("broken", ["no JSON", "[]", '{"type":"STREAM"}', "{}", None])
def test_a_row_that_is_no_state_stays_as_it_was_and_the_others_are_taken_over(config, broken):
    backend = own_states.SqlStateBackend(config)
    backend.get_state_writer(SHOP).write_state(state("users", 1))
    with Session(config.get_sql_engine()) as session:
        session.add(own_cache_row("orders", broken))
        session.commit()
    before = [row for row in own_rows(config) if "'orders'" in row]
    assert cursors(ours(config, Pipeline(SHOP))) == {"users": 1}
    assert [row for row in own_rows(config) if "'orders'" in row] == before
    assert connect(config).heads() == {Pipeline(SHOP): 1}


def own_cache_row(name, message):
    return own_states.CacheStreamStateModel(
        source_name=SHOP, stream_name=name, table_name=name, state_json=message
    )


@pytest.mark.parametrize("broken", ["no JSON", "[]", None])
def test_a_row_that_is_no_schema_stays_as_it_was_and_the_others_are_taken_over(config, broken):
    backend = own_catalogs.SqlCatalogBackend(config, "")
    backend.register_source(SHOP, CATALOG, {"users", "orders"})
    model = own_catalogs.CachedStream
    with Session(config.get_sql_engine()) as session:
        session.execute(
            update(model).where(model.stream_name == "orders").values(catalog_metadata=broken)
        )
        session.commit()
    before = own_rows(config, model)
    assert SqlCatalogBackend(config, "").stream_names == ["users"]
    assert own_rows(config, model) == before


def test_a_row_without_a_source_stays_as_it_was(config):
    own_states.SqlStateBackend(config)._ensure_internal_tables()
    with Session(config.get_sql_engine()) as session:
        message = stream_state("users", {"cursor": 1})
        session.add(
            own_states.CacheStreamStateModel(
                stream_name="users", table_name="users", state_json=message
            )
        )
        session.commit()
    before = own_rows(config)
    assert connect(config).heads() == {}
    assert own_rows(config) == before


def test_unmodified_pyairbyte_reads_what_was_taken_over_and_what_we_write(pyairbytes):
    for pipeline, states in PIPELINES.items():
        backend = SqlStateBackend(pyairbytes, pipeline.table_prefix)
        writer = backend.get_state_writer(pipeline.source, pipeline.destination)
        writer.write_state(state("refunds", 5))
        assert cursors(own(pyairbytes, pipeline)) == {**states, "refunds": 5}


def test_unmodified_pyairbyte_writes_to_the_tables_and_reads_it_back(pyairbytes):
    connect(pyairbytes).pipelines()
    for pipeline, states in PIPELINES.items():
        backend = own_states.SqlStateBackend(pyairbytes, pipeline.table_prefix)
        writer = backend.get_state_writer(pipeline.source, pipeline.destination)
        for name, cursor in (("items", 7), ("items", 8), *((name, 9) for name in states)):
            writer.write_state(state(name, cursor))
        found = cursors(own(pyairbytes, pipeline))
        assert found == {"items": 8, **dict.fromkeys(states, 9)}


def test_unmodified_pyairbyte_reads_and_registers_catalogs_in_the_tables(pyairbytes):
    SqlCatalogBackend(pyairbytes, "")
    backend = own_catalogs.SqlCatalogBackend(pyairbytes, "")
    assert sorted(backend.stream_names) == ["orders", "users"]
    refunds = configured_stream("refunds")
    incoming = ConfiguredAirbyteCatalog.model_validate(catalog(refunds))
    backend.register_source(SHOP, incoming, {"refunds"})
    reopened = own_catalogs.SqlCatalogBackend(pyairbytes, "")
    assert sorted(reopened.stream_names) == ["orders", "refunds", "users"]


@pytest.mark.needs("MANY_PROCESSES")
def test_what_pyairbyte_is_writing_meanwhile_is_taken_over_too(config, database):
    own_states.SqlStateBackend(config)._ensure_internal_tables()
    own_catalogs.SqlCatalogBackend(config, "")
    other = SqlConfig(database)
    with Session(other.get_sql_engine()) as session, ThreadPoolExecutor() as threads:
        session.add(own_cache_row("users", stream_state("users", {"cursor": 1})))
        session.flush()
        taking_over = threads.submit(lambda: connect(config).heads())
        wait([taking_over], 0.5)
        session.commit()
        assert taking_over.result() == {Pipeline(SHOP): 1}
    other.dispose_engine()
    assert cursors(ours(config, Pipeline(SHOP))) == {"users": 1}
