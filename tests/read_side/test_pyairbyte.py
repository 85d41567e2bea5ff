"""The backends inside PyAirbyte's caches: its types, its errors, and `with_history(cache)`."""

import gc
import subprocess
import sys
from datetime import datetime, timezone

import airbyte.caches.base
import pytest
from airbyte import exceptions as exc
from airbyte.caches import DuckDBCache, PostgresCache
from airbyte.caches._catalog_backend import CatalogBackendBase
from airbyte.caches._state_backend_base import StateBackendBase
from airbyte.shared.catalog_providers import CatalogProvider
from airbyte.shared.state_providers import JoinedStateProvider, StateProviderBase
from airbyte.shared.state_writers import StateWriterBase
from airbyte_protocol.models import AirbyteStateMessage, ConfiguredAirbyteCatalog
from sqlalchemy import make_url

from eventstore import Invalid, Pipeline
from projections import connect, pyairbyte
from projections.pyairbyte import with_history
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    stream_state,
)
from tests.read_side import breakdowns

SHOP = "source-shop"
LAKE = "destination-lake"


def state(name, cursor):
    return AirbyteStateMessage.model_validate_json(stream_state(name, {"cursor": cursor}))


def configured(*names):
    streams = [configured_stream(name, primary_key=[["id"]]) for name in names]
    return ConfiguredAirbyteCatalog.model_validate(catalog(*streams))


def cursors(provider):
    return {
        found.stream_descriptor.name: found.stream_state.model_dump()["cursor"]
        for found in provider.stream_state_artifacts
    }


@pytest.fixture
def duckdb_cache(tmp_path):
    """What opens a cache on one DuckDB file, again and again."""

    def opened(**settings):
        path = tmp_path / "cache.duckdb"
        return DuckDBCache(db_path=path, cache_dir=tmp_path / "files", **settings)

    return opened


@pytest.fixture(params=["duckdb", "postgresql"])
def prefixed_cache(request, tmp_path):
    """What opens a cache in a schema of its own with a table prefix, again and again."""
    where = {"schema_name": "raw", "table_prefix": "dev_", "cache_dir": tmp_path / "files"}
    if request.param == "duckdb":
        yield lambda: DuckDBCache(db_path=tmp_path / "cache.duckdb", **where)
        return
    with request.getfixturevalue("postgresql").empty_database() as text:
        url = make_url(text)
        at = {"host": url.host, "port": url.port, "username": url.username, "password": ""}
        yield lambda: PostgresCache(database=url.database, **at, **where)


@pytest.fixture
def cache(duckdb_cache):
    with with_history(duckdb_cache()) as cache:
        yield cache


# PyAirbyte's types and errors


def test_the_backends_and_what_they_hand_out_are_of_pyairbytes_types(cache):
    states, catalogs = cache._state_backend, cache._catalog_backend
    assert isinstance(states, StateBackendBase)
    assert isinstance(catalogs, CatalogBackendBase)
    assert isinstance(cache.get_state_provider(SHOP), StateProviderBase)
    assert isinstance(states.get_state_provider(SHOP, as_of=0), StateProviderBase)
    assert isinstance(cache.get_state_writer(SHOP), StateWriterBase)
    assert isinstance(catalogs.get_full_catalog_provider(), CatalogProvider)
    assert isinstance(catalogs.get_source_catalog_provider(SHOP), CatalogProvider)
    now = datetime.now(timezone.utc)
    assert isinstance(catalogs.get_full_catalog_provider(as_of=now), CatalogProvider)


def test_a_missing_state_is_pyairbytes_error(cache):
    writer = cache.get_state_writer(SHOP)
    writer.write_state(state("users", 1))
    for provider in (writer, cache.get_state_provider(SHOP)):
        with pytest.raises(exc.AirbyteStateNotFoundError) as missing:
            provider.get_stream_state("orders")
        assert missing.value.stream_name == "orders"
        assert missing.value.available_streams == ["users"]


def test_a_missing_stream_is_pyairbytes_error(cache):
    with pytest.raises(exc.AirbyteStreamNotFoundError):
        cache._catalog_backend.get_full_catalog_provider().get_stream_json_schema("users")


def test_what_is_no_cache_is_refused_a_history():
    with pytest.raises(Invalid, match="not to str"):
        with_history("shop.duckdb")


def test_an_invalid_state_is_the_error_that_a_read_catches(cache):
    with pytest.raises(exc.PyAirbyteInternalError):
        cache.get_state_writer(SHOP).write_state(AirbyteStateMessage())


def test_the_state_of_cache_and_destination_are_joined_by_pyairbyte(cache):
    cache.get_state_writer(SHOP).write_state(state("users", 1))
    cache.get_state_writer(SHOP, LAKE).write_state(state("orders", 2))
    joined = JoinedStateProvider(
        cache.get_state_provider(SHOP), cache.get_state_provider(SHOP, destination_name=LAKE)
    )
    assert cursors(joined) == {"users": 1, "orders": 2}


def test_the_provider_is_true_when_it_is_empty(cache):
    assert bool(cache.get_state_provider(SHOP)) is True
    assert cache.get_state_provider(SHOP).to_state_input_file_text() == "[]"


@pytest.mark.parametrize(
    "message",
    [global_state({"lsn": 1}, inner_state("users", None)), legacy_state({"users": 1})],
    ids=["global", "legacy"],
)
def test_states_of_the_whole_source_pass_through_pyairbytes_writer(cache, message):
    sent = AirbyteStateMessage.model_validate_json(message)
    cache.get_state_writer(SHOP).write_state(sent)
    assert list(cache.get_state_provider(SHOP).state_message_artifacts) == [sent]


def test_13_the_whole_configured_stream_survives_reopening(prefixed_cache):
    whole = configured_stream(
        "users", "public", primary_key=[["id"]], cursor_field=["id"], sync_id=8, generation_id=3
    )
    incoming = ConfiguredAirbyteCatalog.model_validate(catalog(whole))
    with with_history(prefixed_cache()) as cache:
        cache.register_source(SHOP, incoming, {"users"})
    with with_history(prefixed_cache()) as cache:
        found = cache.processor.catalog_provider.get_configured_stream_info("users")
    filled_in = {"minimum_generation_id": 1}  # by PyAirbyte's CatalogProvider
    assert found == incoming.streams[0].model_copy(update=filled_in)


def test_14_15_a_source_is_registered_in_parts_after_its_catalog_was_asked_for(cache):
    provider = cache._catalog_backend.get_source_catalog_provider(SHOP)
    for names in ({"users"}, {"users"}, {"users", "orders"}):
        cache.register_source(SHOP, configured("users", "orders", "refunds"), names)
    assert sorted(provider.stream_names) == sorted(cache.streams) == ["orders", "users"]


def test_19_a_failed_write_is_not_in_the_writers_memory(cache):
    writer = cache.get_state_writer(SHOP)
    for number, breakdown in enumerate(breakdowns.everywhere()):
        remembered = cursors(writer)
        with breakdown.of(cache.get_sql_engine()):
            writer.write_state(state("users", number))
        if breakdown.happened:
            assert cursors(writer) == cursors(cache.get_state_provider(SHOP)) == remembered
        writer.write_state(state("users", number))
        assert cursors(writer) == cursors(cache.get_state_provider(SHOP)) == {"users": number}


# Rebinding the two names is enough


def test_rebinding_the_two_names_gives_every_new_cache_a_history(monkeypatch, prefixed_cache):
    monkeypatch.setattr(airbyte.caches.base, "SqlStateBackend", pyairbyte.SqlStateBackend)
    monkeypatch.setattr(airbyte.caches.base, "SqlCatalogBackend", pyairbyte.SqlCatalogBackend)
    with prefixed_cache() as cache:
        cache.register_source(SHOP, configured("users", "orders"), {"users", "orders"})
        for cursor in (1, 2):
            cache.get_state_writer(SHOP).write_state(state("users", cursor))
        assert sorted(cache.processor.catalog_provider.stream_names) == ["orders", "users"]
    with prefixed_cache() as cache:
        assert cursors(cache.get_state_provider(SHOP)) == {"users": 2}
        assert (len(cache), "users" in cache) == (2, True)
        versions = connect(cache).heads()
        assert versions == {Pipeline(SHOP, table_prefix="dev_"): 2 + 1 + 2}


# One line for a cache that is there


def test_the_same_cache_is_given_back(duckdb_cache):
    cache = duckdb_cache()
    assert with_history(cache) is cache
    assert isinstance(cache, DuckDBCache)
    assert type(cache).__name__ == "DuckDBCache"
    assert cache.name == duckdb_cache().name


def test_in_a_schema_with_a_prefix_all_is_kept_and_read_back(prefixed_cache):
    with with_history(prefixed_cache()) as cache:
        cache.register_source(SHOP, configured("users"), {"users"})
        cache.get_state_writer(SHOP).write_state(state("users", 1))
        cache.get_state_writer(SHOP, LAKE).write_state(state("users", 2))
    with with_history(prefixed_cache()) as cache:
        assert cursors(cache.get_state_provider(SHOP)) == {"users": 1}
        assert cursors(cache.get_state_provider(SHOP, destination_name=LAKE)) == {"users": 2}
        provider = cache.processor.catalog_provider
        assert provider.get_primary_keys("users") == ["id"]
        assert connect(cache).heads() == {
            Pipeline(SHOP, table_prefix="dev_"): 3,
            Pipeline(SHOP, LAKE): 1,
        }


def test_all_tables_are_in_the_caches_schema(prefixed_cache):
    with with_history(prefixed_cache()) as cache:
        cache.get_state_writer(SHOP).write_state(state("users", 1))
        found = cache.run_sql_query(
            "SELECT DISTINCT table_schema FROM information_schema.tables "
            "WHERE table_name LIKE '%eventstore%' OR table_name LIKE '%airbyte_s%'"
        )
    assert found == [{"table_schema": "raw"}]


def test_twice_is_harmless(duckdb_cache):
    cache = with_history(with_history(duckdb_cache()))
    assert type(cache).__mro__.count(DuckDBCache) == 1
    cache.register_source(SHOP, configured("users"), {"users"})
    cache.get_state_writer(SHOP).write_state(state("users", 1))
    assert connect(cache).heads() == {Pipeline(SHOP): 3}
    assert cursors(cache.get_state_provider(SHOP)) == {"users": 1}


def test_twice_the_second_settings_count(duckdb_cache):
    cache = with_history(with_history(duckdb_cache(), actor="first"), actor="second")
    cache.get_state_writer(SHOP).write_state(state("users", 1))
    [stored] = connect(cache).log()
    assert stored.actor == "second"


def test_a_copy_of_the_cache_has_the_same_history(cache):
    copy = cache.model_copy()
    copy.get_state_writer(SHOP).write_state(state("users", 1))
    cache.get_state_writer(SHOP).write_state(state("users", 2))
    for each in (cache, copy):
        assert isinstance(each, DuckDBCache)
        assert cursors(each.get_state_provider(SHOP)) == {"users": 2}
    copy.close()
    assert cursors(cache.get_state_provider(SHOP)) == {"users": 2}


def test_a_cache_without_history_is_left_alone(duckdb_cache, tmp_path):
    with_history(duckdb_cache())
    other = DuckDBCache(db_path=tmp_path / "other.duckdb", cache_dir=tmp_path / "files")
    assert type(other) is DuckDBCache
    assert not isinstance(other._state_backend, pyairbyte.SqlStateBackend)


def test_the_read_processor_sees_what_is_registered(cache):
    provider = cache.processor.catalog_provider
    cache.register_source(SHOP, configured("users", "orders"), {"users"})
    assert provider.stream_names == ["users"]
    assert cache.processor.catalog_provider is provider
    assert (list(cache.streams), len(cache), "users" in cache) == (["users"], 1, True)


def test_an_identical_catalog_is_a_registration_and_no_new_definition(cache):
    for _ in range(2):
        provider = CatalogProvider(configured("users"))  # fills in generation and sync ids
        cache.get_record_processor(SHOP, provider, cache.get_state_writer(SHOP))
    kinds = [stored.kind for stored in connect(cache).history(Pipeline(SHOP))]
    assert kinds == ["StreamDefined", "CatalogRegistered", "CatalogRegistered"]


def test_16_the_catalog_of_a_read_is_the_sources_and_not_the_caches(cache):
    provider = CatalogProvider(configured("users"))
    cache.get_record_processor(cache.name, provider, cache.get_state_writer(SHOP))
    assert connect(cache).pipelines() == [Pipeline(SHOP)]
    assert cache._catalog_backend.get_source_catalog_provider(SHOP).stream_names == ["users"]


def test_each_read_is_a_run_of_its_own(cache):
    for cursor in (1, 2):
        writer = cache.get_state_writer(SHOP)
        cache.get_record_processor(SHOP, CatalogProvider(configured("users")), writer)
        writer.write_state(state("users", cursor))
    runs = {}
    for stored in connect(cache).history(Pipeline(SHOP)):
        runs.setdefault(stored.run, []).append(stored.kind)
    assert list(runs.values()) == [
        ["StreamDefined", "CatalogRegistered", "StateSaved"],
        ["CatalogRegistered", "StateSaved"],
    ]


def test_actor_run_and_connection_are_on_each_event(duckdb_cache):
    cache = with_history(duckdb_cache(), actor="nightly", run="8812", connection="account A")
    writer = cache.get_state_writer(SHOP)
    cache.get_record_processor(SHOP, CatalogProvider(configured("users")), writer)
    writer.write_state(state("users", 1))
    events = list(connect(cache).log())
    assert {(stored.actor, stored.run) for stored in events} == {("nightly", "8812")}
    assert {stored.pipeline for stored in events} == {Pipeline(SHOP, connection="account A")}


def test_two_connections_of_one_source_have_their_own_state(duckdb_cache):
    for connection, cursor in (("account A", 1), ("account B", 2)):
        with with_history(duckdb_cache(), connection=connection) as cache:
            assert cursors(cache.get_state_provider(SHOP)) == {}
            cache.get_state_writer(SHOP).write_state(state("users", cursor))
    with with_history(duckdb_cache(), connection="account A") as cache:
        assert cursors(cache.get_state_provider(SHOP)) == {"users": 1}


def opened_by_a_second_process(path):
    program = f"import duckdb; duckdb.connect({str(path)!r}).execute('CREATE TABLE t (a INT)')"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    return done.returncode == 0


def test_a_closed_cache_frees_its_file_for_a_second_process(cache):
    cache.register_source(SHOP, configured("users"), {"users"})
    cache.get_state_writer(SHOP).write_state(state("users", 1))
    provider = cache.get_state_provider(SHOP)
    assert not opened_by_a_second_process(cache.db_path)
    cache.close()
    assert opened_by_a_second_process(cache.db_path)
    assert cursors(provider) == {"users": 1}


def test_a_forgotten_cache_frees_its_file_for_a_second_process(duckdb_cache):
    cache = with_history(duckdb_cache())
    cache.get_state_writer(SHOP).write_state(state("users", 1))
    path = cache.db_path
    del cache
    gc.collect()
    assert opened_by_a_second_process(path)


def test_a_closed_cache_can_be_used_again(cache):
    writer = cache.get_state_writer(SHOP)
    for cursor in (1, 2):
        writer.write_state(state("users", cursor))
        cache.register_source(SHOP, configured("users"), {"users"})
        cache.close()
    assert cursors(cache.get_state_provider(SHOP)) == {"users": 2}
    assert len(cache) == 1


def test_what_pyairbyte_had_kept_is_taken_over(prefixed_cache):
    with prefixed_cache() as plain:
        plain.register_source(SHOP, configured("users", "orders"), {"users", "orders"})
        plain.get_state_writer(SHOP).write_state(state("users", 1))
    with with_history(prefixed_cache()) as cache:
        assert cursors(cache.get_state_provider(SHOP)) == {"users": 1}
        assert sorted(cache.processor.catalog_provider.stream_names) == ["orders", "users"]
        origins = {stored.origin for stored in connect(cache).log()}
        assert origins == {"adopted"}
        cache.get_state_writer(SHOP).write_state(state("users", 2))
    with with_history(prefixed_cache()) as cache:
        assert cursors(cache.get_state_provider(SHOP)) == {"users": 2}


def test_the_cache_can_go_back_to_unmodified_pyairbyte(prefixed_cache):
    with with_history(prefixed_cache()) as cache:
        cache.register_source(SHOP, configured("users"), {"users"})
        cache.get_state_writer(SHOP).write_state(state("users", 1))
    with prefixed_cache() as plain:
        assert cursors(plain.get_state_provider(SHOP)) == {"users": 1}
        assert "users" in plain
        plain.get_state_writer(SHOP).write_state(state("users", 2))
        assert cursors(plain.get_state_provider(SHOP)) == {"users": 2}
