"""The seeds' catalog API with no PyAirbyte involved, and the defects it must not have."""

import inspect
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from airbyte_protocol.models import ConfiguredAirbyteCatalog
from sqlalchemy import inspect as inspect_database
from sqlalchemy import select
from sqlalchemy.orm import Session

from eventstore import InvalidMoment, Pipeline, StreamNotFound
from projections import CachedStream, CatalogBackendBase, SqlCatalogBackend, connect
from tests.messages import catalog, configured_stream
from tests.read_side import breakdowns
from tests.read_side.sql_config import SqlConfig

SHOP = "source-shop"


@pytest.fixture
def config(database):
    config = SqlConfig(database)
    yield config
    config.dispose_engine()


@pytest.fixture
def backend(config):
    return SqlCatalogBackend(config, "")


def configured(*streams):
    return ConfiguredAirbyteCatalog.model_validate(catalog(*streams))


def register(backend, *streams, source=SHOP):
    names = {stream["stream"]["name"] for stream in streams}
    backend.register_source(source, configured(*streams), names)


def names(provider):
    return [stream.stream.name for stream in provider.configured_catalog.streams]


def streams(provider):
    """The configured streams whole, as plain values."""
    found = provider.configured_catalog.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found["streams"]


USERS = configured_stream(
    "users",
    columns=("id", "updated_at"),
    sync_mode="incremental",
    destination_sync_mode="append_dedup",
    primary_key=[["id"]],
    cursor_field=["updated_at"],
    generation_id=3,
    minimum_generation_id=2,
    sync_id=8812,
)
USERS["stream"] |= {
    "namespace": "public",
    "source_defined_primary_key": [["id"]],
    "default_cursor_field": ["updated_at"],
    "source_defined_cursor": True,
    "is_resumable": True,
}
ORDERS = configured_stream("orders")


class SeedBackend:
    """The seeds' `SqlCatalogBackend`."""

    def __init__(self, sql_config, table_prefix): ...
    def _ensure_internal_tables(self): ...
    def register_source(self, source_name, incoming_source_catalog, incoming_stream_names): ...
    def _save_catalog_info(self, source_name, incoming_source_catalog, incoming_stream_names): ...
    def _fetch_streams_info(self, *, source_name=None, table_prefix=None): ...
    def get_full_catalog_provider(self): ...
    def get_source_catalog_provider(self, source_name): ...


@pytest.mark.parametrize("name", [name for name in vars(SeedBackend) if name != "__dict__"])
def test_each_method_takes_the_seeds_arguments_with_the_seeds_defaults(name):
    seed = getattr(SeedBackend, name)
    if inspect.isfunction(seed):
        wanted = [(p.name, p.kind, p.default) for p in inspect.signature(seed).parameters.values()]
        ours = inspect.signature(getattr(SqlCatalogBackend, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours][: len(wanted)] == wanted
        for added in list(ours)[len(wanted) :]:
            assert added.kind is inspect.Parameter.KEYWORD_ONLY
            assert added.default is not inspect.Parameter.empty


def test_the_base_class_has_the_seeds_abstract_methods():
    assert CatalogBackendBase.__abstractmethods__ == {
        "_save_catalog_info",
        "get_full_catalog_provider",
        "get_source_catalog_provider",
        "register_source",
        "stream_names",
    }
    assert issubclass(SqlCatalogBackend, CatalogBackendBase)


def test_the_database_is_an_object_with_an_engine_an_engine_or_a_url(database, config):
    register(SqlCatalogBackend(config, ""), USERS)
    for given in (config, config.get_sql_engine(), config.get_sql_engine().url, database):
        backend = SqlCatalogBackend(given, "")
        assert backend.stream_names == ["users"]
        backend._store.close()


def test_the_constructor_makes_the_table(config):
    SqlCatalogBackend(sql_config=config, table_prefix="")
    assert inspect_database(config.get_sql_engine()).has_table("_airbyte_streams")


def test_the_engine_is_asked_for_at_each_use(config, backend):
    for stream in (USERS, ORDERS):
        config.dispose_engine()
        register(backend, stream)
    config.dispose_engine()
    assert backend.stream_names == ["users", "orders"]


def test_a_new_backend_knows_no_streams(backend):
    assert backend.stream_names == []
    assert names(backend.get_full_catalog_provider()) == []
    assert names(backend.get_source_catalog_provider(SHOP)) == []


def test_the_model_shows_every_column_of_the_seeds_to_a_session(config):
    register(SqlCatalogBackend(config, "raw_"), USERS)
    with Session(config.get_sql_engine()) as session:
        [row] = session.scalars(select(CachedStream))
    assert (row.source_name, row.stream_name, row.table_name) == (SHOP, "users", "raw_users")
    assert json.loads(row.catalog_metadata) == USERS["stream"]["json_schema"]


def test_stream_names_are_in_the_order_of_registration(backend):
    register(backend, configured_stream("z"), configured_stream("a"))
    register(backend, configured_stream("m"))
    assert backend.stream_names == ["z", "a", "m"]


def test_a_stream_that_is_registered_again_is_there_once_as_it_was_registered_last(backend):
    register(backend, configured_stream("users"), ORDERS)
    register(backend, USERS)
    assert sorted(backend.stream_names) == ["orders", "users"]
    provider = backend.get_full_catalog_provider()
    assert provider.get_primary_keys("users") == ["id"]


def test_of_two_sources_with_one_stream_name_the_full_catalog_has_the_newer(backend):
    for source, column in (("source-a", "a"), ("source-b", "b")):
        register(backend, configured_stream("users", columns=[column]), source=source)
    provider = backend.get_full_catalog_provider()
    assert list(provider.get_stream_properties("users")) == ["b"]


def test_of_two_namespaces_with_one_stream_name_the_full_catalog_has_the_newer(backend):
    for namespace in ("public", "audit"):
        register(backend, configured_stream("users", namespace))
    stream = backend.get_full_catalog_provider().get_configured_stream_info("users")
    assert stream.stream.namespace == "audit"


def test_the_catalog_of_one_source_has_no_other_sources_streams(backend):
    register(backend, USERS, source="source-a")
    register(backend, ORDERS, source="source-b")
    assert names(backend.get_source_catalog_provider("source-a")) == ["users"]
    assert names(backend.get_source_catalog_provider("source-nobody")) == []
    assert names(backend.get_full_catalog_provider()) == ["users", "orders"]


def test_the_catalog_of_another_prefix_is_another_catalog(config, backend):
    register(SqlCatalogBackend(config, "raw_"), USERS)
    assert backend.stream_names == []
    assert SqlCatalogBackend(config, "raw_").stream_names == ["users"]


def test_the_streams_of_all_sources_and_prefixes_are_fetched_unless_one_is_named(config):
    raw, dev = SqlCatalogBackend(config, "raw_"), SqlCatalogBackend(config, "dev_")
    register(raw, USERS, source="source-a")
    register(raw, ORDERS, source="source-b")
    register(dev, ORDERS, source="source-a")

    def fetched(**only):
        return [stream.stream.name for stream in raw._fetch_streams_info(**only)]

    assert sorted(fetched()) == ["orders", "orders", "users"]
    assert sorted(fetched(table_prefix="raw_")) == ["orders", "users"]
    assert sorted(fetched(source_name="source-a")) == ["orders", "users"]
    assert fetched(source_name="source-a", table_prefix="dev_") == ["orders"]


def test_saving_alone_is_enough_for_the_next_backend(config, backend):
    backend._save_catalog_info(
        source_name=SHOP,
        incoming_source_catalog=configured(USERS),
        incoming_stream_names={"users"},
    )
    assert SqlCatalogBackend(config, "").stream_names == ["users"]


def test_a_provider_answers_by_stream_name(backend):
    register(backend, USERS)
    provider = backend.get_full_catalog_provider()
    assert provider.stream_names == ["users"]
    assert provider.get_stream_json_schema("users") == USERS["stream"]["json_schema"]
    assert list(provider.get_stream_properties("users")) == ["id", "updated_at"]
    assert provider.get_primary_keys("users") == ["id"]
    assert provider.get_cursor_key("users") == ["updated_at"]
    with pytest.raises(StreamNotFound, match="users"):
        provider.get_configured_stream_info("orders")


# As of, the point of the project


@pytest.fixture
def past(backend):
    """Users with one column; a moment later with two, and orders."""
    register(backend, configured_stream("users", columns=["id"]))
    moment = datetime.now(timezone.utc)
    register(backend, configured_stream("users", columns=["id", "email"]), ORDERS)
    return moment


def test_both_catalogs_are_shown_as_of_a_time(backend, past):
    for provider in (
        backend.get_full_catalog_provider(as_of=past),
        backend.get_source_catalog_provider(SHOP, as_of=past),
    ):
        assert names(provider) == ["users"]
        assert list(provider.get_stream_properties("users")) == ["id"]


def test_as_of_now_the_catalog_is_the_current_one(backend, past):
    now = datetime.now(timezone.utc)
    assert past < now
    for provider in (
        backend.get_full_catalog_provider(as_of=now),
        backend.get_source_catalog_provider(SHOP, as_of=now),
    ):
        assert streams(provider) == streams(backend.get_full_catalog_provider())


def test_before_the_first_registration_the_catalog_is_empty(backend, past):
    long_ago = past - timedelta(days=400)
    assert names(backend.get_full_catalog_provider(as_of=long_ago)) == []
    assert names(backend.get_source_catalog_provider(SHOP, as_of=long_ago)) == []


def test_a_look_at_the_past_does_not_change_the_present(backend, past):
    backend.get_full_catalog_provider(as_of=past)
    backend.get_source_catalog_provider(SHOP, as_of=past)
    assert sorted(backend.stream_names) == ["orders", "users"]
    assert sorted(names(backend.get_source_catalog_provider(SHOP))) == ["orders", "users"]


def test_a_time_without_a_zone_is_an_error(backend, past):
    with pytest.raises(InvalidMoment):
        backend.get_full_catalog_provider(as_of=past.replace(tzinfo=None))
    with pytest.raises(InvalidMoment):
        backend.get_source_catalog_provider(SHOP, as_of=past.replace(tzinfo=None))


# The defects of the original, by their numbers in the table


def test_05_a_failure_anywhere_in_a_registration_loses_nothing_and_the_next_works(engine):
    def reopened():
        provider = SqlCatalogBackend(engine, "").get_full_catalog_provider()
        return list(provider.get_stream_properties("users")), provider.stream_names

    backend = SqlCatalogBackend(engine, "")
    register(backend, configured_stream("users", columns=["c0"]))
    for number, breakdown in enumerate(breakdowns.everywhere(), 1):
        users = configured_stream("users", columns=[f"c{number}"])
        new = configured_stream(f"new_{number}")
        with breakdown.of(engine):
            register(backend, users, new)
        columns, names = reopened()
        is_registered = f"new_{number}" in names
        assert columns == [f"c{number if is_registered else number - 1}"]
        assert is_registered or breakdown.happened

        register(backend, users, new)
        columns, names = reopened()
        assert (columns, f"new_{number}" in names) == ([f"c{number}"], True)
    assert number > 5


def test_06_registering_a_source_leaves_another_sources_stream_of_that_name(backend):
    register(backend, configured_stream("users", columns=["a"]), source="source-a")
    register(backend, configured_stream("users", columns=["b"]), source="source-b")
    provider = backend.get_source_catalog_provider("source-a")
    assert list(provider.get_stream_properties("users")) == ["a"]


def test_07_namespaces_do_not_overwrite_each_other(config, backend):
    register(backend, configured_stream("users", "public"), configured_stream("users", "audit"))
    with Session(config.get_sql_engine()) as session:
        assert len(session.scalars(select(CachedStream)).all()) == 2
    history = connect(config).history(Pipeline(SHOP))
    assert [str(stored.stream) for stored in history if stored.stream] == [
        "public.users",
        "audit.users",
    ]


def test_08_a_prefix_and_a_name_are_not_another_prefix_and_another_name(config):
    plain, prefixed = SqlCatalogBackend(config, ""), SqlCatalogBackend(config, "a_")
    register(plain, configured_stream("a_b"))
    register(prefixed, configured_stream("b"))
    assert SqlCatalogBackend(config, "").stream_names == ["a_b"]
    assert SqlCatalogBackend(config, "a_").stream_names == ["b"]


def test_13_the_whole_configured_stream_survives_reopening(config, backend):
    register(backend, USERS)
    reopened = SqlCatalogBackend(config, "")
    for provider in (
        reopened.get_full_catalog_provider(),
        reopened.get_source_catalog_provider(SHOP),
    ):
        [stream] = streams(provider)
        assert stream == USERS


def test_14_of_a_catalog_only_the_named_streams_are_registered(config, backend):
    backend.register_source(SHOP, configured(USERS, ORDERS), {"users"})
    assert backend.stream_names == ["users"]
    assert SqlCatalogBackend(config, "").stream_names == ["users"]


def test_14_registering_a_subset_twice_and_then_the_rest_keeps_everything(config, backend):
    for wanted in ({"users"}, {"users"}, {"orders"}, {"users", "orders"}):
        backend.register_source(SHOP, configured(USERS, ORDERS), wanted)
    assert sorted(SqlCatalogBackend(config, "").stream_names) == ["orders", "users"]


def test_15_a_source_can_be_registered_after_its_catalog_was_asked_for(backend):
    register(backend, USERS)
    provider = backend.get_source_catalog_provider(SHOP)
    register(backend, ORDERS)
    assert names(provider) == ["users", "orders"]


def test_23_the_full_catalog_is_updated_in_place(backend):
    provider = backend.get_full_catalog_provider()
    held = provider.configured_catalog
    register(backend, USERS)
    assert names(provider) == ["users"]
    assert provider.configured_catalog is held


def test_23_the_streams_of_the_catalog_are_the_objects_that_were_registered(backend):
    incoming = configured(USERS)
    backend.register_source(SHOP, incoming, {"users"})
    [stream] = backend.get_full_catalog_provider().configured_catalog.streams
    assert stream is incoming.streams[0]


def test_23_an_open_backend_sees_what_another_one_registers(config, backend):
    provider = backend.get_full_catalog_provider()
    register(SqlCatalogBackend(config, ""), USERS)
    assert backend.stream_names == ["users"]
    assert names(backend.get_full_catalog_provider()) == ["users"]
    assert names(backend.get_source_catalog_provider(SHOP)) == ["users"]
    assert names(provider) == ["users"]


@pytest.mark.needs("MANY_PROCESSES")
def test_23_an_open_backend_sees_what_another_process_registers(database, backend):
    register(backend, ORDERS)
    program = f"""
from airbyte_protocol.models import ConfiguredAirbyteCatalog
from projections import SqlCatalogBackend

catalog = ConfiguredAirbyteCatalog.model_validate({catalog(USERS)!r})
SqlCatalogBackend({database!r}, "").register_source({SHOP!r}, catalog, {{"users"}})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert backend.stream_names == ["orders", "users"]
    register(backend, configured_stream("refunds"))
    assert names(backend.get_full_catalog_provider()) == ["orders", "users", "refunds"]


def test_20_every_registration_is_in_the_history_also_an_equal_one(config):
    backend = SqlCatalogBackend(config, "", actor="nightly", run="8812")
    for _ in range(2):
        register(backend, USERS)
    history = list(connect(config).history(Pipeline(SHOP)))
    assert [stored.kind for stored in history] == [
        "StreamDefined",
        "CatalogRegistered",
        "CatalogRegistered",
    ]
    assert {(stored.actor, stored.run) for stored in history} == {("nightly", "8812")}
