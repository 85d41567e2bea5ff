"""Unmodified PyAirbyte goes on writing to tables that are ours, and we open them again."""

import logging
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from airbyte.caches import _catalog_backend as own_catalogs
from airbyte.caches import _state_backend as own_states
from airbyte_protocol.models import AirbyteStateMessage, ConfiguredAirbyteCatalog
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

import projections
from eventstore import Pipeline, StateSaved
from projections import (
    SqlCatalogBackend,
    SqlStateBackend,
    connect,
    latest_catalog,
    latest_state,
    replay,
)
from projections.tables import ALL_TABLES, CACHE_STATE_TABLE
from projections.views import StateView
from tests.messages import catalog, configured_stream, global_state, stream_state
from tests.read_side import breakdowns
from tests.read_side.sql_config import SqlConfig

SHOP = Pipeline("source-shop")
CRM = Pipeline("source-crm")
LAKE = Pipeline("source-shop", "destination-lake")


@pytest.fixture
def config(database):
    config = SqlConfig(database)
    yield config
    config.dispose_engine()


def state(name, cursor, namespace=None):
    return AirbyteStateMessage.model_validate_json(
        stream_state(name, {"cursor": cursor}, namespace)
    )


def write(config, pipeline, *states, by):
    backend = by.SqlStateBackend(config, pipeline.table_prefix)
    writer = backend.get_state_writer(pipeline.source, pipeline.destination)
    for message in states:
        writer.write_state(message)


def cursors(config, pipeline):
    """The current state as the tables have it, which is what the history adds up to."""
    store = connect(config)
    view = latest_state(store, pipeline)
    folded = replay(store, pipeline, StateView(pipeline))
    assert (view.whole, view.streams) == (folded.whole, folded.streams)
    return {
        str(stream): message.stream.stream_state.model_dump()["cursor"]
        for stream, message in zip(view.streams, view.messages, strict=True)
    }


def all_rows(config):
    with config.get_sql_engine().connect() as db:
        return [sorted(map(repr, db.execute(table.select()))) for table in ALL_TABLES]


def origins(config, pipeline):
    return [stored.origin for stored in connect(config).history(pipeline)]


@pytest.mark.parametrize("pipeline", [SHOP, Pipeline("source-shop", table_prefix="raw_"), LAKE])
def test_what_pyairbyte_wrote_is_taken_in(config, pipeline):
    write(config, pipeline, state("users", 1), state("orders", 1), by=projections)
    write(config, pipeline, state("users", 2), state("refunds", 2), by=own_states)
    assert cursors(config, pipeline) == {"orders": 1, "users": 2, "refunds": 2}
    assert origins(config, pipeline) == ["source", "source", "foreign", "foreign"]


def test_the_second_opening_changes_nothing(config):
    write(config, SHOP, state("users", 1), by=projections)
    write(config, CRM, state("users", 2), by=own_states)
    connect(config).pipelines()
    rows, heads = all_rows(config), connect(config).heads()
    assert all_rows(config) == rows
    assert connect(config).heads() == heads


def test_what_its_write_deleted_of_another_source_is_put_back_and_marked(config, caplog):
    write(config, SHOP, state("users", 1), state("orders", 1), by=projections)
    write(config, CRM, state("users", 2), by=own_states)
    assert cursors(config, SHOP) == {"orders": 1, "users": 1}
    assert cursors(config, CRM) == {"users": 2}
    *_, put_back = connect(config).history(SHOP)
    assert (put_back.origin, put_back.of) == ("restored", 1)
    assert put_back.reason == "put back from @1: PyAirbyte had deleted its row"
    [warning] = [found for found in caplog.records if found.levelno == logging.WARNING]
    assert warning.getMessage() == (
        "put back rows of source-shop -> cache that PyAirbyte had deleted: users"
    )


def test_the_states_of_two_namespaces_are_put_back(config):
    write(config, SHOP, state("users", 1, "eu"), state("users", 2, "us"), by=projections)
    write(config, CRM, state("users", 3), by=own_states)
    assert cursors(config, SHOP) == {"eu.users": 1, "us.users": 2}


def test_another_connections_state_is_put_back(config):
    account_b = Pipeline("source-shop", connection="account-b")
    backend = SqlStateBackend(config, connection="account-b")
    backend.get_state_writer("source-shop").write_state(state("users", 1))
    write(config, SHOP, state("users", 2), by=own_states)
    assert cursors(config, account_b) == {"users": 1}
    assert cursors(config, SHOP) == {"users": 2}


def test_a_global_state_that_was_cleared_away_is_not_brought_back(config):
    writer = SqlStateBackend(config).get_state_writer("source-shop")
    writer.write_state(AirbyteStateMessage.model_validate_json(global_state({"lsn": 1})))
    writer.write_state(state("users", 1))
    write(config, CRM, state("users", 3), by=own_states)
    assert cursors(config, SHOP) == {"users": 1}


@pytest.mark.slow_on("duckdb")
def test_alternating_ten_times_loses_nothing(config):
    expected = {SHOP: {}, CRM: {}, LAKE: {}}
    for number in range(10):
        by = (projections, own_states)[number % 2]
        for pipeline, states in expected.items():
            for name in ("users", f"only_{number}"):
                write(config, pipeline, state(name, number), by=by)
                states[name] = number
            for other, its_states in expected.items():
                assert cursors(config, other) == its_states
    for pipeline in expected:
        found = [
            (stored.body, stored.stream.name)
            for stored in connect(config).history(pipeline)
            if stored.origin != "restored"
        ]
        assert len(found) == 20


@pytest.mark.slow_on("duckdb")
def test_interrupted_anywhere_it_is_as_before_and_the_next_opening_takes_all_in(config):
    write(config, SHOP, state("users", 1), by=projections)
    write(config, CRM, state("users", 2), state("orders", 2), by=own_states)
    own_catalogs.SqlCatalogBackend(config, "").register_source(
        "DuckDBCache", CATALOG, {"users", "orders"}
    )
    before = all_rows(config)
    for breakdown in breakdowns.everywhere():
        config.dispose_engine()
        with breakdown.of(config.get_sql_engine()):
            _ = connect(config).database.engine
        if breakdown.happened:
            assert all_rows(config) == before
    assert cursors(config, SHOP) == {"users": 1}
    assert cursors(config, CRM) == {"users": 2, "orders": 2}


def test_a_row_that_is_no_state_is_told_of_once_and_left_alone(config, caplog):
    write(config, SHOP, state("users", 1), by=projections)
    with config.get_sql_engine().begin() as db:
        table = ALL_TABLES[0]
        columns = {"source_name": "source-shop", "stream_name": "orders", "table_name": "orders"}
        db.execute(text(_insert(table, columns, "state_json", "no JSON")))
    for _ in range(2):
        assert cursors(config, SHOP) == {"users": 1}
    [told] = [found.getMessage() for found in caplog.records if "stays as it was" in found.msg]
    assert told.startswith("_airbyte_state: the row of orders stays as it was: the state is not")
    assert "no JSON" in str(all_rows(config)[0])


def _insert(table, columns, name, value):
    names = ", ".join([*columns, name])
    values = ", ".join(f"'{each}'" for each in [*columns.values(), value])
    return f"INSERT INTO {table.name} ({names}) VALUES ({values})"


def test_a_reader_says_that_there_is_more_and_writes_nothing(config, caplog):
    write(config, SHOP, state("users", 1), by=projections)
    write(config, SHOP, state("users", 2), by=own_states)
    before = all_rows(config)
    with connect(config, create=False) as store:
        assert store.heads() == {SHOP: 1}
    assert all_rows(config) == before
    assert "PyAirbyte has written states or catalogs that are not in the log yet" in caplog.text


def test_an_open_backend_takes_in_what_was_written_since(config):
    backend = SqlStateBackend(config)
    backend.get_state_writer("source-shop").write_state(state("users", 1))
    write(config, SHOP, state("users", 2), by=own_states)
    [found] = backend.get_state_provider("source-shop").state_message_artifacts
    assert found == state("users", 2)


def test_a_state_that_we_saved_after_pyairbytes_stays_the_current_one(config):
    writer = SqlStateBackend(config).get_state_writer("source-shop")
    writer.write_state(state("users", 1))
    write(config, SHOP, state("users", 2), state("orders", 2), by=own_states)
    writer.write_state(state("users", 3))
    assert cursors(config, SHOP) == {"orders": 2, "users": 3}
    found = [(each.origin, each.of) for each in connect(config).history(SHOP)]
    assert sorted(found, key=str) == sorted(
        [("source", None), ("source", None), ("foreign", None), ("foreign", None), ("restored", 2)],
        key=str,
    )


def test_a_global_state_that_we_saved_after_pyairbytes_stays_the_current_one(config):
    write(config, SHOP, state("users", 1), by=projections)
    write(config, SHOP, state("users", 2), by=own_states)
    writer = projections.SqlStateBackend(config).get_state_writer("source-shop")
    message = AirbyteStateMessage.model_validate_json(global_state({"lsn": 9}))
    writer.write_state(message)
    [found] = SqlStateBackend(config).get_state_provider("source-shop").state_message_artifacts
    assert found == message


def test_a_row_that_was_deleted_and_not_written_again_is_put_back(config):
    """PyAirbyte deletes in one transaction and inserts in another, and may end between them."""
    backend = SqlStateBackend(config)
    for name in ("users", "orders"):
        backend.get_state_writer("source-shop").write_state(state(name, 1))
    with config.get_sql_engine().begin() as db:
        db.execute(text("DELETE FROM _airbyte_state WHERE table_name = 'users'"))
    assert backend.get_state_provider("source-shop").known_stream_names == {"users", "orders"}
    assert cursors(config, SHOP) == {"users": 1, "orders": 1}


def test_what_pyairbyte_writes_is_newer_than_what_was_put_back_while_it_wrote(config):
    backend = SqlStateBackend(config)
    write(config, SHOP, state("users", 1), by=projections)
    for cursor in (2, 3):
        with config.get_sql_engine().begin() as db:
            db.execute(text("DELETE FROM _airbyte_state WHERE table_name = 'users'"))
        assert backend.get_state_provider("source-shop").known_stream_names == {"users"}
        names = {"source_name": "source-shop", "stream_name": "users", "table_name": "users"}
        says = stream_state("users", {"cursor": cursor})
        with Session(config.get_sql_engine()) as session:
            session.add(own_states.CacheStreamStateModel(**names, state_json=says))
            session.commit()
        assert cursors(config, SHOP) == {"users": cursor}
    assert origins(config, SHOP) == ["source", *["restored", "foreign"] * 2]


@pytest.mark.parametrize("put_back", [False, True])
def test_a_global_state_outlives_a_process_that_began_before_it(config, put_back):
    """Whether or not its row was put back once."""
    SqlStateBackend(config).get_state_writer("source-shop").write_state(
        AirbyteStateMessage.model_validate_json(global_state({"lsn": 7}))
    )
    if put_back:
        with config.get_sql_engine().begin() as db:
            db.execute(CACHE_STATE_TABLE.delete())
        SqlStateBackend(config).get_state_provider("source-shop")
    names = {"source_name": "source-shop", "stream_name": "users", "table_name": "users"}
    began = datetime(2020, 1, 1, tzinfo=timezone.utc)
    with Session(config.get_sql_engine()) as session:
        row = {**names, "state_json": stream_state("users", {"cursor": 1}), "last_updated": began}
        session.add(own_states.CacheStreamStateModel(**row))
        session.commit()
    assert latest_state(connect(config), SHOP).whole == global_state({"lsn": 7}).encode()


@pytest.mark.parametrize("of", [1, 2])
def test_what_was_copied_since_is_newer_than_what_pyairbyte_wrote(config, of):
    """Whatever version of another history the copy is of."""
    write(config, SHOP, state("users", 1), by=projections)
    write(config, CRM, *(state("orders", number) for number in range(2)), by=projections)
    write(config, SHOP, state("users", 2), by=own_states)
    of_pyairbyte = CACHE_STATE_TABLE.c.version.is_(None)
    with config.get_sql_engine().begin() as db:
        theirs = db.execute(CACHE_STATE_TABLE.select().where(of_pyairbyte)).mappings().one()
        db.execute(CACHE_STATE_TABLE.delete().where(of_pyairbyte))
    store = connect(config)
    store.append(SHOP, StateSaved(stream_state("users", {"cursor": 100}), "copied", of))
    with config.get_sql_engine().begin() as db:
        db.execute(CACHE_STATE_TABLE.insert(), dict(theirs))
    assert cursors(config, SHOP) == {"users": 100}


def test_what_is_too_large_for_this_store_is_taken_in_and_put_back_all_the_same(config):
    write(config, SHOP, state("users", 1), by=projections)
    write(config, CRM, state("users", 2), by=own_states)
    register_by_pyairbyte(config, CATALOG)
    with connect(config, body_limit=10) as store:
        assert set(store.heads()) == {SHOP, CRM}
    assert cursors(config, SHOP) == {"users": 1}


def test_a_name_that_is_too_long_stays_as_it_was(config, caplog):
    write(config, SHOP, state("users", 1), by=projections)
    long = "x" * 300
    write(config, SHOP, state(long, 2), state("orders", 2), by=own_states)
    register_by_pyairbyte(config, registered(configured_stream(long), configured_stream("users")))
    assert cursors(config, SHOP) == {"users": 1, "orders": 2}
    told = [found.getMessage() for found in caplog.records if "stays as it was" in found.msg]
    assert len(told) == 2
    assert all("300 characters" in each for each in told)


# Catalogs: PyAirbyte writes them anew at each read, under the cache's class name


CATALOG = ConfiguredAirbyteCatalog.model_validate(
    catalog(configured_stream("users"), configured_stream("orders"))
)


def registered(*streams):
    return ConfiguredAirbyteCatalog.model_validate(catalog(*streams))


def known(config, pipeline=SHOP):
    return {found.stream.name: found for found in latest_catalog(connect(config), pipeline).streams}


def register_by_pyairbyte(config, incoming, prefix=""):
    names = {stream.stream.name for stream in incoming.streams}
    backend = own_catalogs.SqlCatalogBackend(config, prefix)
    backend.register_source("DuckDBCache", incoming, names)


def test_a_registration_with_the_same_schema_keeps_all_that_pyairbyte_does_not_store(config):
    whole = registered(configured_stream("users", "public", primary_key=[["id"]]))
    SqlCatalogBackend(config, "").register_source("source-shop", whole, {"users"})
    register_by_pyairbyte(config, whole)
    assert known(config)["users"].primary_key == [["id"]]
    assert known(config)["users"].stream.namespace == "public"
    assert [stored.kind for stored in connect(config).history(SHOP)] == [
        "StreamDefined",
        "CatalogRegistered",
        "CatalogRegistered",
    ]
    assert SqlCatalogBackend(config, "").stream_names == ["users"]


def test_its_registration_alone_is_no_loss_to_warn_of(config, caplog):
    SqlCatalogBackend(config, "").register_source("source-shop", CATALOG, {"users", "orders"})
    register_by_pyairbyte(config, CATALOG)
    assert set(known(config)) == {"users", "orders"}
    assert [found for found in caplog.records if found.levelname == "WARNING"] == []


def test_two_registrations_that_raced_are_one(config):
    """On our tables nothing keeps two reads of PyAirbyte from inserting the same stream."""
    SqlCatalogBackend(config, "").register_source("source-shop", CATALOG, {"users"})
    for _ in range(2):
        backend = own_catalogs.SqlCatalogBackend(config, "")
        backend.register_source("DuckDBCache", CATALOG, {"users"})  # inserts orders each time
    assert sorted(SqlCatalogBackend(config, "").stream_names) == ["orders", "users"]


def test_primary_keys_of_two_sources_with_one_stream_are_kept(config):
    whole = registered(configured_stream("users", primary_key=[["id"]]))
    for source in ("source-shop", "source-crm"):
        SqlCatalogBackend(config, "").register_source(source, whole, {"users"})
    register_by_pyairbyte(config, whole)
    [found] = SqlCatalogBackend(config, "").get_full_catalog_provider().configured_catalog.streams
    assert found.primary_key == [["id"]]


def test_a_new_schema_is_taken_in_and_the_rest_is_kept(config):
    before = registered(configured_stream("users", primary_key=[["id"]]))
    SqlCatalogBackend(config, "").register_source("source-shop", before, {"users"})
    register_by_pyairbyte(config, registered(configured_stream("users", columns=["id", "email"])))
    found = known(config)["users"]
    assert set(found.stream.json_schema["properties"]) == {"id", "email"}
    assert found.primary_key == [["id"]]
    assert connect(config).pipelines() == [SHOP]


def test_a_new_stream_is_of_the_source_that_wrote_its_state(config):
    SqlCatalogBackend(config, "").register_source("source-shop", CATALOG, {"users"})
    register_by_pyairbyte(config, registered(configured_stream("refunds")))
    write(config, SHOP, state("refunds", 1), by=own_states)
    assert set(known(config)) == {"users", "refunds"}
    assert connect(config).pipelines() == [SHOP]


def test_a_stream_that_nobody_is_known_to_have_is_under_the_class_name(config):
    SqlCatalogBackend(config, "").register_source("source-shop", CATALOG, {"users"})
    register_by_pyairbyte(config, registered(configured_stream("refunds")))
    assert set(known(config, Pipeline("DuckDBCache"))) == {"refunds"}


def test_a_stream_of_another_source_that_was_deleted_is_put_back(config):
    for source, column in (("source-shop", "id"), ("source-crm", "email")):
        incoming = registered(configured_stream("users", columns=[column]))
        SqlCatalogBackend(config, "").register_source(source, incoming, {"users"})
    write(config, CRM, state("users", 1), by=own_states)
    register_by_pyairbyte(config, registered(configured_stream("users", columns=["phone"])))
    assert set(known(config)["users"].stream.json_schema["properties"]) == {"id"}
    assert set(known(config, CRM)["users"].stream.json_schema["properties"]) == {"phone"}


# At the same time


@pytest.mark.needs("MANY_PROCESSES", "FOREIGN_TABLES")
def test_two_processes_at_the_same_time_one_without_us_lose_nothing(config, database):
    writes = 40
    connect(config).pipelines()
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("stranger.py"))]
    url = make_url(database).render_as_string(hide_password=False)
    stranger = subprocess.Popen(
        [*program, url, "source-crm", str(writes)], stdout=subprocess.PIPE, text=True
    )
    assert stranger.stdout.readline() == "ready\n"
    writer = SqlStateBackend(config).get_state_writer("source-shop")
    for number in range(writes):
        writer.write_state(state(f"s{number % 4}", number))
        if number % 10 == 9:
            connect(config).pipelines()
    assert stranger.wait(60) == 0
    last = {f"s{number % 4}": number for number in range(writes)}
    assert cursors(config, SHOP) == last
    assert cursors(config, CRM) == last
    saved = [stored for stored in connect(config).history(SHOP) if stored.origin == "source"]
    assert [stored.body for stored in saved] == [
        stream_state(f"s{number % 4}", {"cursor": number}).encode() for number in range(writes)
    ]


# Leaving


def test_after_pip_uninstall_pyairbyte_goes_on(config, database):
    write(config, SHOP, state("users", 1), state("orders", 1), by=projections)
    SqlCatalogBackend(config, "").register_source("source-shop", CATALOG, {"users", "orders"})
    config.dispose_engine()
    program = Path(__file__).with_name("stranger.py")
    url = make_url(database).render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, url, "source-shop", "1"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "ready",
        "knew ['orders', 'users'] with the streams ['orders', 'users']",
    ]
    assert cursors(config, SHOP) == {"users": 1, "orders": 1, "s0": 0}
