"""The seeds' state API with no PyAirbyte involved, and the defects it must not have."""

import inspect
import json
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from itertools import count

import pytest
from airbyte_protocol.models import AirbyteStateMessage
from sqlalchemy import create_engine, make_url, select
from sqlalchemy import event as engine_event
from sqlalchemy import inspect as inspect_database
from sqlalchemy.orm import Session

import projections
from eventstore import (
    InvalidEvent,
    InvalidMoment,
    Pipeline,
    StateNotFound,
    StoreUnavailable,
    UnknownVersion,
)
from projections import (
    CacheStreamStateModel,
    DestinationStreamStateModel,
    SqlStateBackend,
    SqlStateWriter,
    connect,
)
from tests.interruptions import counted
from tests.messages import global_state, inner_state, legacy_state, stream_state
from tests.read_side import breakdowns
from tests.read_side.sql_config import SqlConfig

SHOP = "source-shop"
LAKE = "destination-lake"
WHOLE = {"global": global_state({"lsn": 1}), "legacy": legacy_state({"users": 1})}


@pytest.fixture
def config(database):
    config = SqlConfig(database)
    yield config
    config.dispose_engine()


@pytest.fixture
def backend(config):
    return SqlStateBackend(config)


def message(text):
    return AirbyteStateMessage.model_validate_json(text)


def users(cursor, namespace=None):
    return message(stream_state("users", {"cursor": cursor}, namespace))


def orders(cursor):
    return message(stream_state("orders", {"cursor": cursor}))


def cursors(provider):
    """What a provider offers, as {stream: cursor}; a namespace stands before the name."""
    found = {}
    for state in provider.stream_state_artifacts:
        descriptor = state.stream_descriptor
        namespace = "" if descriptor.namespace is None else f"{descriptor.namespace}."
        found[namespace + descriptor.name] = state.stream_state.model_dump()["cursor"]
    return found


def state_file(provider):
    return json.loads(provider.to_state_input_file_text())


def rows(config, model):
    with Session(config.get_sql_engine()) as session:
        return list(session.scalars(select(model)))


class SeedBackend:
    """The seeds' `SqlStateBackend`."""

    def __init__(self, sql_config, table_prefix=""): ...
    def _ensure_internal_tables(self): ...
    def get_state_provider(
        self,
        source_name,
        table_prefix="",
        streams_filter=None,
        *,
        refresh=True,
        destination_name=None,
    ): ...
    def get_state_writer(self, source_name, destination_name=None): ...


class SeedWriter:
    """The seeds' `SqlStateWriter`, and what it has from PyAirbyte's provider."""

    def __init__(self, source_name, backend, *, destination_name=None): ...
    def write_state(self, state_message): ...
    def _write_state(self, state_message): ...
    def to_state_input_file_text(self): ...
    def get_stream_state(self, /, stream_name, not_found="raise"): ...


def parameters(function, *, first=None):
    """Names, kinds and defaults; of the first parameters if a count is given."""
    found = inspect.signature(function).parameters.values()
    return [(found.name, found.kind, found.default) for found in found][:first]


@pytest.mark.parametrize(
    ("seed", "ours"), [(SeedBackend, SqlStateBackend), (SeedWriter, SqlStateWriter)]
)
def test_each_method_takes_the_seeds_arguments_with_the_seeds_defaults(seed, ours):
    for name, method in vars(seed).items():
        if inspect.isfunction(method):
            wanted = parameters(method)
            assert parameters(getattr(ours, name), first=len(wanted)) == wanted, name


def test_arguments_of_our_own_are_keywords_with_a_default():
    for method in (SqlStateBackend.__init__, SqlStateBackend.get_state_provider):
        seeds = set(inspect.signature(getattr(SeedBackend, method.__name__)).parameters)
        for name, found in inspect.signature(method).parameters.items():
            if name not in seeds:
                assert found.kind is inspect.Parameter.KEYWORD_ONLY
                assert found.default is not inspect.Parameter.empty


def test_the_seeds_constants_have_the_seeds_values():
    assert projections.CACHE_STATE_TABLE_NAME == "_airbyte_state"
    assert projections.DESTINATION_STATE_TABLE_NAME == "_airbyte_destination_state"
    assert projections.STREAMS_TABLE_NAME == "_airbyte_streams"
    assert projections.GLOBAL_STATE_STREAM_NAME == "_GLOBAL"
    assert projections.LEGACY_STATE_STREAM_NAME == "_LEGACY"
    assert projections.GLOBAL_STATE_STREAM_NAMES == ["_GLOBAL", "_LEGACY"]


def test_one_declarative_base_holds_all_three_models():
    tables = {model.__tablename__ for model in projections.SqlAlchemyModel.__subclasses__()}
    assert tables == {"_airbyte_state", "_airbyte_destination_state", "_airbyte_streams"}


def test_no_pyairbyte_is_needed(tmp_path):
    program = f"""
import sys
sys.modules["airbyte"] = None  # from here on `import airbyte` fails
from airbyte_protocol.models import AirbyteStateMessage
from projections import SqlCatalogBackend, SqlStateBackend

url = "sqlite:///{tmp_path}/state.db"
SqlCatalogBackend(url, "")
backend = SqlStateBackend(url)
state = AirbyteStateMessage.model_validate_json({stream_state("users", {"cursor": 1})!r})
backend.get_state_writer("source-shop").write_state(state)
print(backend.get_state_provider("source-shop").known_stream_names)
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "{'users'}\n"


@pytest.mark.parametrize("given_as", ["object", "engine", "url", "text"])
def test_the_database_is_an_object_with_an_engine_an_engine_or_a_url(database, config, given_as):
    given = {
        "object": config,
        "engine": config.get_sql_engine(),
        "url": make_url(database),
        "text": database,
    }[given_as]
    backend = SqlStateBackend(sql_config=given)
    backend.get_state_writer(SHOP).write_state(users(1))
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 1}
    backend._store.close()


def test_the_constructor_opens_nothing(tmp_path):
    SqlStateBackend(f"sqlite:///{tmp_path}/state.db")
    assert list(tmp_path.iterdir()) == []


def test_the_engine_is_asked_for_at_each_use(config, backend):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(1))
    for cursor in (2, 3):
        config.dispose_engine()
        writer.write_state(users(cursor))
        config.dispose_engine()
        assert cursors(backend.get_state_provider(SHOP)) == {"users": cursor}


def test_the_tables_can_be_made_before_the_first_write(config, backend):
    backend._ensure_internal_tables()
    tables = inspect_database(config.get_sql_engine())
    assert tables.has_table("_airbyte_state")
    assert tables.has_table("_airbyte_destination_state")


def test_the_models_show_every_column_of_the_seeds_to_a_session(config):
    backend = SqlStateBackend(config, "raw_")
    backend.get_state_writer(SHOP).write_state(users(1))
    backend.get_state_writer(SHOP, LAKE).write_state(users(2))

    [of_cache] = rows(config, CacheStreamStateModel)
    assert (of_cache.source_name, of_cache.stream_name, of_cache.table_name) == (
        SHOP,
        "users",
        "raw_users",
    )
    assert json.loads(of_cache.state_json) == json.loads(stream_state("users", {"cursor": 1}))
    [of_lake] = rows(config, DestinationStreamStateModel)
    assert (of_lake.destination_name, of_lake.source_name, of_lake.stream_name) == (
        LAKE,
        SHOP,
        "users",
    )
    assert json.loads(of_lake.state_json) == json.loads(stream_state("users", {"cursor": 2}))
    assert of_cache.last_updated <= of_lake.last_updated


@pytest.mark.parametrize(
    ("text", "name"), [(global_state({}), "_GLOBAL"), (legacy_state({}), "_LEGACY")]
)
def test_a_state_of_the_whole_source_has_the_seeds_stream_name(config, text, name):
    SqlStateBackend(config, "raw_").get_state_writer(SHOP).write_state(message(text))
    [row] = rows(config, CacheStreamStateModel)
    assert (row.stream_name, row.table_name) == (name, f"raw_{name}")


def test_a_provider_of_an_unknown_source_is_empty(backend):
    provider = backend.get_state_provider("source-nobody")
    assert list(provider.state_message_artifacts) == []
    assert provider.known_stream_names == set()
    assert provider.to_state_input_file_text() == "[]"


def test_a_provider_is_a_snapshot(backend):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(1))
    before = backend.get_state_provider(SHOP, refresh=False)
    writer.write_state(users(2))
    assert cursors(before) == {"users": 1}
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 2}


def test_a_provider_can_be_read_many_times(backend):
    backend.get_state_writer(SHOP).write_state(users(1))
    provider = backend.get_state_provider(SHOP)
    assert list(provider.state_message_artifacts) == list(provider.state_message_artifacts)
    assert bool(provider) is True


def test_a_provider_gives_each_stream_by_name_and_all_as_a_file(backend):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(1))
    writer.write_state(orders(2))
    provider = backend.get_state_provider(SHOP)
    assert provider.known_stream_names == {"users", "orders"}
    assert provider.get_stream_state("users").stream == users(1).stream
    assert provider.get_stream_state(stream_name="orders").stream == orders(2).stream
    assert state_file(provider) == [
        json.loads(stream_state("users", {"cursor": 1})),
        json.loads(stream_state("orders", {"cursor": 2})),
    ]


def test_a_missing_stream_is_an_error_or_what_the_caller_says(backend):
    backend.get_state_writer(SHOP).write_state(users(1))
    provider = backend.get_state_provider(SHOP)
    with pytest.raises(StateNotFound, match="users"):
        provider.get_stream_state("orders")
    assert provider.get_stream_state("orders", None) is None
    assert provider.get_stream_state("orders", not_found=users(7)) == users(7)


def test_the_filter_keeps_the_named_streams(backend):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(1))
    writer.write_state(orders(2))
    provider = backend.get_state_provider(SHOP, streams_filter=["orders"])
    assert cursors(provider) == {"orders": 2}
    assert [state["stream"]["stream_state"] for state in state_file(provider)] == [{"cursor": 2}]


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_the_filter_keeps_states_of_the_whole_source(backend, text):
    backend.get_state_writer(SHOP).write_state(message(text))
    provider = backend.get_state_provider(SHOP, streams_filter=["orders"])
    assert [state.type for state in provider.state_message_artifacts] == [message(text).type]


def test_the_writer_provides_what_it_has_written(backend):
    backend.get_state_writer(SHOP).write_state(orders(9))
    writer = backend.get_state_writer(SHOP)
    assert writer.known_stream_names == set()
    assert writer.to_state_input_file_text() == "[]"

    writer.write_state(users(1))
    writer.write_state(users(2))
    assert writer.known_stream_names == {"users"}
    assert cursors(writer) == {"users": 2}
    assert [state.stream for state in writer.state_message_artifacts] == [users(2).stream]
    assert writer.get_stream_state("users").stream == users(2).stream
    assert state_file(writer) == [json.loads(stream_state("users", {"cursor": 2}))]


def test_the_writer_shows_its_source_and_destination(backend):
    writer = SqlStateWriter(SHOP, backend, destination_name=LAKE)
    assert (writer.source_name, writer.destination_name) == (SHOP, LAKE)
    assert backend.get_state_writer(SHOP).destination_name is None


def test_a_destination_without_a_name_is_the_cache(backend):
    backend.get_state_writer(SHOP, destination_name="").write_state(users(1))
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 1}
    assert cursors(backend.get_state_provider(SHOP, destination_name="")) == {"users": 1}


def test_a_prefix_given_to_the_provider_is_another_caches(config):
    SqlStateBackend(config, "raw_").get_state_writer(SHOP).write_state(users(1))
    SqlStateBackend(config, "dev_").get_state_writer(SHOP).write_state(users(2))
    provider = SqlStateBackend(config, "raw_").get_state_provider(SHOP, table_prefix="dev_")
    assert cursors(provider) == {"users": 2}


def test_two_configurations_of_one_connector_are_told_apart_by_their_connection(config):
    for connection, cursor in (("account A", 1), ("account B", 2)):
        backend = SqlStateBackend(config, connection=connection)
        backend.get_state_writer(SHOP).write_state(users(cursor))
    backend = SqlStateBackend(config, connection="account A")
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 1}


# As of, the point of the project


@pytest.fixture
def past(config):
    """Two states of users in each of three places, with the moment between them."""
    backend = SqlStateBackend(config, "raw_")
    writers = [backend.get_state_writer(SHOP), backend.get_state_writer(SHOP, LAKE)]
    for writer in writers:
        writer.write_state(users(1))
    moment = datetime.now(timezone.utc)
    for writer in writers:
        writer.write_state(users(2))
        writer.write_state(orders(2))
    return backend, moment


def test_a_provider_shows_the_state_as_of_a_time(past):
    backend, moment = past
    for destination in (None, LAKE):
        provider = backend.get_state_provider(SHOP, destination_name=destination, as_of=moment)
        assert cursors(provider) == {"users": 1}
        assert len(state_file(provider)) == 1


def test_a_provider_shows_the_state_as_of_a_version(past):
    backend, _ = past
    found = [cursors(backend.get_state_provider(SHOP, as_of=version)) for version in range(4)]
    assert found == [{}, {"users": 1}, {"users": 2}, {"users": 2, "orders": 2}]


def test_as_of_the_very_time_of_a_write_the_write_is_there(past, config):
    backend, _ = past
    with Session(config.get_sql_engine()) as session:
        query = select(CacheStreamStateModel.last_updated).filter_by(stream_name="users")
        written = utc(session.scalar(query))
    earlier = written - timedelta(microseconds=1)
    assert cursors(backend.get_state_provider(SHOP, as_of=written)) == {"users": 2}
    assert cursors(backend.get_state_provider(SHOP, as_of=earlier)) == {"users": 1}


def test_before_the_first_write_and_for_unknown_sources_the_past_is_empty(past):
    backend, moment = past
    long_ago = moment - timedelta(days=400)
    assert cursors(backend.get_state_provider(SHOP, as_of=long_ago)) == {}
    assert cursors(backend.get_state_provider("source-nobody", as_of=moment)) == {}


def test_the_past_is_filtered_by_stream_too(past):
    backend, _ = past
    now = datetime.now(timezone.utc)
    provider = backend.get_state_provider(SHOP, streams_filter=["orders"], as_of=now)
    assert cursors(provider) == {"orders": 2}


def test_the_past_of_another_prefix_is_another_past(past):
    backend, _ = past
    now = datetime.now(timezone.utc)
    assert cursors(backend.get_state_provider(SHOP, "dev_", as_of=now)) == {}


def test_a_time_without_a_zone_and_a_version_that_is_not_there_are_errors(past):
    backend, moment = past
    with pytest.raises(InvalidMoment):
        backend.get_state_provider(SHOP, as_of=moment.replace(tzinfo=None))
    with pytest.raises(UnknownVersion):
        backend.get_state_provider(SHOP, as_of=99)


# The defects of the original, by their numbers in the table


@pytest.mark.parametrize(
    "text",
    [
        global_state({"lsn": 23}, inner_state("users", {"cursor": 1}), inner_state("orders", None)),
        legacy_state({"users": {"cursor": "3"}}),
        '{"data":{"users":{"cursor":"3"}}}',
    ],
    ids=["global", "legacy", "untyped"],
)
def test_01_global_and_untyped_states_are_stored_and_handed_back(backend, text):
    for destination in (None, LAKE):
        backend.get_state_writer(SHOP, destination).write_state(message(text))
        provider = backend.get_state_provider(SHOP, destination_name=destination)
        assert list(provider.state_message_artifacts) == [message(text)]


def test_01_a_connector_is_given_a_global_state_as_a_list_and_a_legacy_state_bare(backend):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(message(global_state({"lsn": 23})))
    assert state_file(backend.get_state_provider(SHOP)) == [json.loads(global_state({"lsn": 23}))]
    writer.write_state(message(legacy_state({"users": {"cursor": "3"}})))
    assert state_file(backend.get_state_provider(SHOP)) == {"users": {"cursor": "3"}}


@pytest.mark.parametrize("text", ["{}", '{"type":"STREAM"}', '{"type":"GLOBAL"}'])
def test_01_what_is_no_state_is_refused_and_leaves_nothing(backend, text):
    writer = backend.get_state_writer(SHOP)
    with pytest.raises(InvalidEvent):
        writer.write_state(message(text))
    assert list(writer.state_message_artifacts) == []
    assert list(backend.get_state_provider(SHOP).state_message_artifacts) == []


def test_03_global_is_written_as_global(backend, config):
    backend.get_state_writer(SHOP).write_state(message(global_state({"lsn": 23})))
    [row] = rows(config, CacheStreamStateModel)
    assert set(json.loads(row.state_json)) == {"type", "global"}
    assert "global_" not in backend.get_state_provider(SHOP).to_state_input_file_text()


def test_03_global_under_its_python_name_is_read(backend):
    mislabelled = global_state({"lsn": 23}).replace('"global"', '"global_"')
    backend.get_state_writer(SHOP).write_state(message(mislabelled))
    [state] = backend.get_state_provider(SHOP).state_message_artifacts
    assert state == message(global_state({"lsn": 23}))


def test_03_a_state_that_was_loaded_and_written_again_has_no_duplicate_key(backend):
    writer = backend.get_state_writer(SHOP)
    pyairbytes = stream_state("users", {"cursor": 1})[:-1] + ',"global_":null,"data":null}'
    writer.write_state(message(pyairbytes))
    [loaded] = backend.get_state_provider(SHOP).state_message_artifacts
    writer.write_state(loaded)
    pairs = json.loads(
        backend.get_state_provider(SHOP).to_state_input_file_text()[1:-1],
        object_pairs_hook=lambda pairs: [key for key, _ in pairs],
    )
    assert pairs == ["type", "stream"]


def test_04_last_updated_is_the_time_of_the_write(backend, config):
    writer = backend.get_state_writer(SHOP)
    for cursor in (1, 2, 3):
        before = datetime.now(timezone.utc)
        writer.write_state(users(cursor))
        after = datetime.now(timezone.utc)
        [row] = rows(config, CacheStreamStateModel)
        assert before <= utc(row.last_updated) <= after


def utc(time):
    """SQLite keeps no zone; what is written there is UTC."""
    return time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)


@pytest.mark.parametrize("destination", [None, LAKE])
def test_05_a_failure_anywhere_in_a_write_loses_nothing_and_the_next_write_works(
    engine, destination
):
    backend = SqlStateBackend(engine)
    writer = backend.get_state_writer(SHOP, destination)
    writer.write_state(users(0))
    for number, breakdown in enumerate(breakdowns.everywhere(), 1):
        with breakdown.of(engine):
            writer.write_state(users(number))
        provider = backend.get_state_provider(SHOP, destination_name=destination)
        assert cursors(provider) == {"users": number - breakdown.happened}
        writer.write_state(users(number))
        provider = backend.get_state_provider(SHOP, destination_name=destination)
        assert cursors(provider) == {"users": number}
    assert number >= 3


@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
def test_05_a_failure_anywhere_in_a_change_of_the_states_type_loses_nothing(engine, whole):
    backend = SqlStateBackend(engine)
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(0))
    for breakdown in breakdowns.everywhere():
        with breakdown.of(engine):
            writer.write_state(message(whole))
        if breakdown.happened:
            assert cursors(backend.get_state_provider(SHOP)) == {"users": 0}
    [state] = backend.get_state_provider(SHOP).state_message_artifacts
    assert state == message(whole)


def test_05_a_failure_anywhere_in_the_first_write_leaves_a_database_to_write_to(engine):
    writer = SqlStateBackend(engine).get_state_writer(SHOP)
    for breakdown in breakdowns.everywhere():
        with breakdown.of(engine):
            writer.write_state(users(1))
        if breakdown.happened:
            assert writer.known_stream_names == set()
    assert cursors(SqlStateBackend(engine).get_state_provider(SHOP)) == {"users": 1}


def test_05_a_full_disk_loses_nothing_and_the_next_write_works(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/state.db")
    backend = SqlStateBackend(engine)
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(1))
    with engine.connect() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar()
        db.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        writer.write_state(users("x" * 1_000_000))
    assert cursors(backend.get_state_provider(SHOP)) == cursors(writer) == {"users": 1}
    with engine.connect() as db:
        db.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1000}")
    writer.write_state(users(2))
    assert cursors(backend.get_state_provider(SHOP)) == cursors(writer) == {"users": 2}
    engine.dispose()


def test_05_a_reader_who_is_in_the_way_of_the_commit_is_waited_for(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/state.db", connect_args={"timeout": 0})
    reader = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    writer = SqlStateBackend(engine).get_state_writer(SHOP)
    writer.write_state(users(1))
    attempts = count(1)

    def read_at_the_first_commit_and_leave_at_the_second(_):
        match next(attempts):
            case 1:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM _airbyte_state").fetchone()
            case 2:
                reader.execute("COMMIT")

    engine_event.listen(engine, "commit", read_at_the_first_commit_and_leave_at_the_second)
    writer.write_state(users(2))
    assert cursors(SqlStateBackend(engine).get_state_provider(SHOP)) == {"users": 2}
    reader.close()
    engine.dispose()


@pytest.mark.parametrize("destination", [None, LAKE])
def test_06_two_sources_with_a_stream_of_one_name_do_not_overwrite_each_other(backend, destination):
    backend.get_state_writer("source-a", destination).write_state(users(1))
    backend.get_state_writer("source-b", destination).write_state(users(2))
    provider = backend.get_state_provider("source-a", destination_name=destination)
    assert cursors(provider) == {"users": 1}


@pytest.mark.parametrize("destination", [None, LAKE])
def test_07_namespaces_do_not_overwrite_each_other(backend, destination):
    writer = backend.get_state_writer(SHOP, destination)
    for cursor, namespace in enumerate(["public", "audit", "", None]):
        writer.write_state(users(cursor, namespace))
    expected = {"public.users": 0, "audit.users": 1, ".users": 2, "users": 3}
    provider = backend.get_state_provider(SHOP, destination_name=destination)
    assert cursors(provider) == cursors(writer) == expected
    assert len(state_file(provider)) == len(state_file(writer)) == 4


def test_08_a_prefix_and_a_name_are_not_another_prefix_and_another_name(config):
    plain, prefixed = SqlStateBackend(config), SqlStateBackend(config, "a_")
    plain.get_state_writer(SHOP).write_state(message(stream_state("a_b", {"cursor": 1})))
    prefixed.get_state_writer(SHOP).write_state(message(stream_state("b", {"cursor": 2})))
    assert cursors(plain.get_state_provider(SHOP)) == {"a_b": 1}
    assert cursors(prefixed.get_state_provider(SHOP)) == {"b": 2}


@pytest.mark.parametrize("name", ["_GLOBAL", "_LEGACY"])
def test_08_a_stream_may_be_called_as_the_seeds_call_the_whole_source(backend, name):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(users(1))
    writer.write_state(message(stream_state(name, {"cursor": 2})))
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 1, name: 2}


def test_09_what_a_prefixed_backend_wrote_it_reads(config):
    backend = SqlStateBackend(config, table_prefix="raw_")
    backend.get_state_writer(SHOP).write_state(users(1))
    assert cursors(backend.get_state_provider(SHOP)) == {"users": 1}
    assert cursors(backend.get_state_provider(SHOP, table_prefix="raw_")) == {"users": 1}


def test_10_what_a_prefixed_backend_wrote_for_a_destination_it_reads(config):
    backend = SqlStateBackend(config, table_prefix="raw_")
    backend.get_state_writer(SHOP, LAKE).write_state(users(1))
    for prefix in ("", "raw_", "dev_"):
        provider = backend.get_state_provider(SHOP, prefix, destination_name=LAKE)
        assert cursors(provider) == {"users": 1}
    assert cursors(backend.get_state_provider(SHOP)) == {}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_11_providers_work_beside_global_and_legacy_states(backend, text):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(message(text))
    for provider in (backend.get_state_provider(SHOP), writer):
        assert provider.known_stream_names == set()
        assert provider.stream_state_artifacts == []
        assert provider.get_stream_state("users", None) is None
        with pytest.raises(StateNotFound):
            provider.get_stream_state("users")


@pytest.mark.parametrize("destination", [None, LAKE])
def test_22_a_typed_state_replaces_a_legacy_one(backend, destination):
    writer = backend.get_state_writer(SHOP, destination)
    for typed in (stream_state("users", {"cursor": 1}), global_state({"lsn": 1})):
        writer.write_state(message(legacy_state({"users": 1})))
        writer.write_state(message(typed))
        provider = backend.get_state_provider(SHOP, destination_name=destination)
        assert list(provider.state_message_artifacts) == [message(typed)]
        assert list(writer.state_message_artifacts) == [message(typed)]


def test_22_of_another_source_a_typed_state_replaces_nothing(backend):
    backend.get_state_writer("source-old").write_state(message(legacy_state({"users": 1})))
    backend.get_state_writer("source-new").write_state(users(1))
    [state] = backend.get_state_provider("source-old").state_message_artifacts
    assert state == message(legacy_state({"users": 1}))


def test_19_a_failed_write_is_not_in_the_writers_memory(engine):
    writer = SqlStateBackend(engine).get_state_writer(SHOP)
    for number, breakdown in enumerate(breakdowns.everywhere()):
        remembered = cursors(writer)
        with breakdown.of(engine):
            writer.write_state(users(number))
        if breakdown.happened:
            assert cursors(writer) == remembered
        writer.write_state(users(number))
        assert cursors(writer) == {"users": number}


def test_20_every_write_is_in_the_history_also_an_equal_one(config, backend):
    first, second = backend.get_state_writer(SHOP), backend.get_state_writer(SHOP)
    for writer, cursor in ((first, 1), (second, 1), (first, 2), (second, 1)):
        writer.write_state(users(cursor))
    history = connect(config).history(Pipeline(SHOP))
    written = [json.loads(stored.body)["stream"]["stream_state"]["cursor"] for stored in history]
    assert written == [1, 1, 2, 1]


def test_20_the_history_says_who_wrote_and_in_which_run(config):
    backend = SqlStateBackend(config, "raw_", actor="nightly", run="8812")
    backend.get_state_writer(SHOP).write_state(users(1))
    [stored] = connect(config).history(Pipeline(SHOP, table_prefix="raw_"))
    assert (stored.actor, stored.run, stored.origin) == ("nightly", "8812", "source")


def test_21_a_write_is_one_transaction_of_few_statements(engine):
    writer = SqlStateBackend(engine).get_state_writer(SHOP)
    for cursor in (1, 2):
        writer.write_state(users(cursor))
    commits = []
    engine_event.listen(engine, "commit", commits.append)
    with counted(engine) as statements:
        writer.write_state(users(3))
    assert len(commits) == 1
    assert len(statements) <= 5, statements


BLOBS = {
    "nulls": '{"cursor":null,"nested":{"a":null},"list":[null]}',
    "big integers": '{"cursor":1180591620717411303424,"negative":-9223372036854775809}',
    "order of keys": '{"z":1,"a":2,"m":{"y":1,"b":2}}',
    "any text": '{"cursor":"ä \\u0001 \\" \\\\ 漢 🦆","":""}',
    "a decimal": '{"cursor":0.1,"exponent":1e-7}',
    "empty": "{}",
}


@pytest.mark.parametrize("destination", [None, LAKE])
def test_29_blobs_survive(backend, destination):
    writer = backend.get_state_writer(SHOP, destination)
    for name, blob in BLOBS.items():
        text = stream_state(name, "the blob").replace('"the blob"', blob)
        writer.write_state(message(text))
        for provider in (writer, backend.get_state_provider(SHOP, destination_name=destination)):
            assert provider.get_stream_state(name) == message(text)
            found = state_file(provider)[-1]["stream"]["stream_state"]
            assert json.dumps(found) == json.dumps(json.loads(blob))


def test_29_nulls_inside_a_global_state_survive(backend):
    text = global_state({"lsn": None}, inner_state("users", None), inner_state("o", {"c": None}))
    backend.get_state_writer(SHOP).write_state(message(text))
    assert state_file(backend.get_state_provider(SHOP)) == [json.loads(text)]


def test_29_no_state_and_an_empty_state_are_told_apart(backend):
    writer = backend.get_state_writer(SHOP)
    writer.write_state(message(stream_state("users", None)))
    writer.write_state(message(stream_state("orders", {})))
    found = {
        state["stream"]["stream_descriptor"]["name"]: state["stream"].get("stream_state")
        for state in state_file(backend.get_state_provider(SHOP))
    }
    assert found == {"users": None, "orders": {}}
