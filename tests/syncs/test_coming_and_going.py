"""Years of PyAirbyte in a file, then with us, then without, then with us again."""

import json
import logging

import pytest
from airbyte.caches import DuckDBCache
from airbyte.caches import _state_backend as own_states
from airbyte_protocol.models import AirbyteStateMessage
from sqlalchemy.orm import Session

from eventstore import Pipeline
from projections import connect, latest_catalog, latest_state
from projections.pyairbyte import with_history
from projections.tables import ALL_TABLES
from tests.command_line import shell
from tests.messages import stream_state
from tests.syncs.connectors import record, state

SHOP = Pipeline("source-shop", table_prefix="dev_")
CDC = Pipeline("source-cdc", table_prefix="dev_")
LAKE = Pipeline("source-shop", "destination-lake")

GLOBAL = '{"type":"GLOBAL","stream":null,"global_":{"shared_state":{"lsn":1},"stream_states":[]}}'


def users(cursor):
    return stream_state("users", {"cursor": cursor})


@pytest.fixture
def years_of_pyairbyte(plain_cache, shop, lake):
    """Its three tables, filled by syncs; and a state such as its cloud exports have."""
    with plain_cache() as cache:
        shop.says(record("users"), state(users(1))).read(cache, skip_validation=True)
        with Session(cache.get_sql_engine()) as session:
            session.add(
                own_states.CacheStreamStateModel(
                    source_name="source-cdc",
                    stream_name="_GLOBAL",
                    table_name="dev__GLOBAL",
                    state_json=GLOBAL,
                )
            )
            session.commit()
    with plain_cache(table_prefix=None) as cache:
        # A cache with a prefix cannot write to a destination there (defect 10).
        source = shop.says(record("users"), state(users(2)))
        lake.confirms().write(source, cache=False, state_cache=cache)
    return plain_cache


def rows(cache):
    with cache.get_sql_engine().connect() as db:
        return [sorted(map(repr, db.execute(table.select()))) for table in ALL_TABLES]


def test_all_of_it_is_taken_over_at_the_first_use(years_of_pyairbyte, caplog):
    caplog.set_level(logging.INFO, logger="projections")
    with with_history(years_of_pyairbyte()) as cache:
        store = connect(cache)
        assert set(store.pipelines()) == {SHOP, CDC, LAKE}
        assert {stored.origin for stored in store.log()} == {"adopted"}
        assert [json.loads(body)["global"] for body in latest_state(store, CDC).bodies] == [
            {"shared_state": {"lsn": 1}, "stream_states": []}
        ]
        names = [stream.stream.name for stream in latest_catalog(store, SHOP).streams]
        assert sorted(names) == ["orders", "users"]
    told = [found for found in caplog.records if found.name.startswith("projections")]
    assert [(found.levelname, found.getMessage()) for found in told] == [
        ("INFO", "took over 5 rows of PyAirbyte's tables as the first events")
    ]


def test_a_second_opening_changes_nothing(years_of_pyairbyte):
    found = []
    for _ in range(2):
        with with_history(years_of_pyairbyte()) as cache:
            found.append((connect(cache).heads(), rows(cache)))
    assert found[0] == found[1]


def test_the_next_sync_reads_nothing_twice(years_of_pyairbyte, shop, lake):
    with with_history(years_of_pyairbyte()) as cache:
        source = shop.says(record("users"), state(users(3)))
        source.read(cache, skip_validation=True)
        assert json.loads(shop.given[-1])[0]["stream"]["stream_state"] == {"cursor": 1}
        lake.confirms().write(source, cache=False, state_cache=cache)
        assert json.loads(shop.given[-1])[0]["stream"]["stream_state"] == {"cursor": 2}


def test_syncs_with_us_and_without_go_on_from_each_other(plain_cache, shop):
    """Ten syncs in turn; and another source, whose rows PyAirbyte's writes delete."""
    with with_history(plain_cache()) as cache:
        writer = cache.get_state_writer("source-crm")
        writer.write_state(own_state("users", 1000))
    for number in range(10):
        cache = plain_cache()
        if number % 2 == 0:
            with_history(cache)
        with cache:
            source = shop.says(record("users"), state(users(number)))
            source.read(cache, skip_validation=True)
    cursors = [
        [found["stream"]["stream_state"]["cursor"] for found in json.loads(given)]
        for given in shop.given
    ]
    assert cursors == [[], *([number] for number in range(9))]
    with with_history(plain_cache()) as cache:
        store = connect(cache)
        saved = [
            (json.loads(stored.body)["stream"]["stream_state"]["cursor"], stored.origin)
            for stored in store.history(SHOP)
            if stored.kind == "StateSaved" and stored.origin != "restored"
        ]
        assert saved == [
            (number, "source" if number % 2 == 0 else "foreign") for number in range(10)
        ]
        crm = Pipeline("source-crm", table_prefix="dev_")
        [body] = latest_state(store, crm).bodies
        assert json.loads(body)["stream"]["stream_state"] == {"cursor": 1000}
        assert latest_catalog(store, SHOP).streams[0].stream.supported_sync_modes


def own_state(name, cursor):
    return AirbyteStateMessage.model_validate_json(stream_state(name, {"cursor": cursor}))


def test_the_command_line_says_that_it_took_over(shop, tmp_path):
    path = tmp_path / "cache.duckdb"
    with DuckDBCache(db_path=path, cache_dir=tmp_path / "files") as cache:
        shop.says(record("users"), state(users(1))).read(cache, skip_validation=True)
    done = shell.run("record", "--source", "source-shop", "--db", path, "--schema", "main")
    assert done.complaints[0] == (
        "eventstore: took over 3 rows of PyAirbyte's tables as the first events"
    )
