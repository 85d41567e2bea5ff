"""A real connector synced through PyAirbyte, in separate processes, into caches with a history."""

import json
import shutil
import subprocess
from collections import Counter

import pytest
from airbyte.caches import DuckDBCache

from eventstore import Pipeline
from projections import catalog_as_of, connect, latest_catalog, latest_state, state_as_of
from projections.pyairbyte import with_history
from tests.command_line import shell
from tests.e2e.syncs import CONFIG

pytestmark = pytest.mark.timeout(900)

FAKER = Pipeline("source-faker")
LAKE = Pipeline("source-faker", "destination-lake")


@pytest.fixture(scope="module")
def three_syncs(sync, tmp_path_factory):
    """The store behind a cache, and how three syncs into it went, a process each."""
    path = tmp_path_factory.mktemp("syncs") / "cache.duckdb"
    outcomes = []
    for streams in (["products"], ["products", "users"], ["products", "users"]):
        outcomes += sync((streams, {"cache_path": str(path)}))
    with connect(f"duckdb:///{path}") as store:
        yield store, outcomes


def runs(store, pipeline=FAKER):
    """The events of each run, oldest first."""
    found = {}
    for stored in store.history(pipeline):
        found.setdefault(stored.run, []).append(stored)
    return list(found.values())


def test_what_one_process_has_read_the_next_does_not_read_again(three_syncs):
    _, outcomes = three_syncs
    assert [outcome["records"] for outcome in outcomes] == [12, 12, 0]
    assert outcomes[-1]["rows"] == {"products": 12, "users": 12}


def test_the_history_of_three_syncs_has_three_runs(three_syncs):
    store, _ = three_syncs
    kinds = [
        [(event.kind, str(event.stream)) for event in run if event.kind != "StateEmitted"]
        for run in runs(store)
    ]
    registered = ("CatalogRegistered", "None")
    assert kinds[0] == [("StreamDefined", "products"), registered, ("StateSaved", "products")]
    assert kinds[1][:2] == [("StreamDefined", "users"), registered]
    assert kinds[2][0] == registered
    for run in kinds[1:]:
        assert set(run[-2:]) == {("StateSaved", "products"), ("StateSaved", "users")}


def test_states_and_catalogs_are_kept_under_the_sources_name(three_syncs):
    store, _ = three_syncs
    assert store.pipelines() == [FAKER]
    names = [stream.stream.name for stream in latest_catalog(store, FAKER).streams]
    assert sorted(names) == ["products", "users"]


def test_the_catalog_as_of_between_the_syncs_has_only_the_first_stream(three_syncs):
    store, _ = three_syncs
    between = runs(store)[0][-1].stored_at
    [stream] = catalog_as_of(store, FAKER, between).streams
    assert stream.stream.name == "products"
    assert stream.primary_key or stream.stream.source_defined_primary_key


def records_read(source_faker, folder, catalog, state):
    """How many records of each stream the connector itself reads with a state file."""
    files = {
        "config": json.dumps(CONFIG),
        "catalog": catalog.model_dump_json(exclude_none=True),
        "state": state,
    }
    arguments = []
    for name, text in files.items():
        (folder / name).write_text(text)
        arguments += [f"--{name}", folder / name]
    output = subprocess.check_output([source_faker, "read", *arguments], text=True)
    messages = [json.loads(line) for line in output.splitlines()]
    return Counter(
        message["record"]["stream"] for message in messages if message["type"] == "RECORD"
    )


def test_the_state_as_of_between_the_syncs_makes_the_connector_read_again_what_came_later(
    three_syncs, source_faker, tmp_path
):
    store, outcomes = three_syncs
    between = runs(store)[0][-1].stored_at
    connector = (source_faker, tmp_path, latest_catalog(store, FAKER).catalog)
    assert records_read(*connector, latest_state(store, FAKER).state_file()) == {}
    assert records_read(*connector, state_as_of(store, FAKER, between).state_file()) == {
        "users": outcomes[1]["records"]
    }


def test_after_a_rewind_the_next_sync_reads_again_what_came_later(
    three_syncs, source_faker, sync, tmp_path
):
    """Through the pipe, with what `eventstore state` prints, and through PyAirbyte."""
    store, outcomes = three_syncs
    read_by_the_second = {"users": outcomes[1]["records"]}
    path = tmp_path / "cache.duckdb"
    shutil.copy(store.database.engine.url.database, path)
    version = runs(store)[0][-1].version
    db = ("--db", path)
    done = shell.run("rewind", f"@{version}", "--reason", "users were lost", "--yes", *db)
    assert done.code == 0, done.err
    sent = shell.run("state", *db).out
    catalog = latest_catalog(store, FAKER).catalog
    assert records_read(source_faker, tmp_path, catalog, sent) == read_by_the_second
    [outcome] = sync((["products", "users"], {"cache_path": str(path)}))
    assert outcome["records"] == sum(read_by_the_second.values())


def test_caches_with_different_prefixes_have_their_own_state(sync, tmp_path):
    path = tmp_path / "cache.duckdb"
    outcomes = sync(
        *(
            (["products"], {"cache_path": str(path), "prefix": prefix})
            for prefix in ("a_", "b_", "a_")
        )
    )
    assert [outcome["records"] for outcome in outcomes] == [12, 12, 0]
    with connect(f"duckdb:///{path}") as store:
        assert store.pipelines() == [
            Pipeline("source-faker", table_prefix="a_"),
            Pipeline("source-faker", table_prefix="b_"),
        ]


@pytest.fixture(scope="module")
def rows_by_strategy(sync, tmp_path_factory):
    """How many rows there are after everything was read twice, by a cache opened again."""
    folder = tmp_path_factory.mktemp("strategies")
    paths = {name: folder / f"{name}.duckdb" for name in ("append", "merge", "replace", "auto")}
    copies = [str(path) for path in paths.values()]
    again = {"force_full_refresh": True}
    outcomes = sync(
        (
            ["products"],
            {"cache_path": str(folder / "once.duckdb"), "copies": copies},
        ),
        *(
            (["products"], {"cache_path": str(path), "write_strategy": name, **again})
            for name, path in paths.items()
        ),
    )
    assert {outcome["records"] for outcome in outcomes} == {12}
    return {
        strategy: outcome["rows"]["products"]
        for strategy, outcome in zip(paths, outcomes[1:], strict=True)
    }


@pytest.mark.parametrize(
    ("strategy", "rows"), [("append", 24), ("merge", 12), ("replace", 12), ("auto", 12)]
)
def test_every_write_strategy_works(rows_by_strategy, strategy, rows):
    assert rows_by_strategy[strategy] == rows


@pytest.fixture(scope="module")
def written_to_lake(sync, destination_lake, tmp_path_factory):
    """A cache with a prefix that keeps a destination's state, after two processes."""
    path = tmp_path_factory.mktemp("lake") / "cache.duckdb"
    where = {"prefix": "raw_", "destination_path": str(destination_lake)}
    into_lake = (["users"], {"cache_path": str(path), **where})
    return path, [*sync(into_lake), *sync(into_lake)]


def test_what_one_process_has_written_to_a_destination_the_next_does_not_read_again(
    written_to_lake,
):
    _, outcomes = written_to_lake
    assert [outcome["records"] for outcome in outcomes] == [12, 0]


def test_every_state_a_destination_confirms_is_in_the_history(written_to_lake):
    path, _ = written_to_lake
    lines = path.with_suffix(".confirmed").read_text().splitlines()
    confirmed = [json.loads(line)["state"]["stream"]["stream_state"] for line in lines]
    with connect(f"duckdb:///{path}") as store:
        assert store.pipelines() == [LAKE]
        bodies = [json.loads(stored.body) for stored in store.history(LAKE)]
    assert [body["stream"]["stream_state"] for body in bodies] == confirmed
    assert len(confirmed) > 2


def test_a_destinations_state_is_read_back_and_written_through_the_cache(written_to_lake):
    path, _ = written_to_lake
    with DuckDBCache(db_path=path, table_prefix="raw_", cache_dir=path.parent) as plain:
        cache = with_history(plain)
        lake = {"source_name": "source-faker", "destination_name": "destination-lake"}
        assert cache.get_state_provider("source-faker").known_stream_names == set()
        state = cache.get_state_provider(**lake).get_stream_state("users")
        cache.get_state_writer(**lake).write_state(state)
        assert cache.get_state_provider(**lake).get_stream_state("users") == state
