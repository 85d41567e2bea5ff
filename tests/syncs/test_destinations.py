"""States of any type on their way through `Destination.write`, in and out."""

import json

import pytest
from airbyte.exceptions import AirbyteConnectorWriteError

from eventstore import Pipeline
from projections import connect, latest_state
from projections.pyairbyte import with_history
from tests.messages import global_state, inner_state, legacy_state, stream_state
from tests.syncs.connectors import record, state

SHOP = Pipeline("source-shop", table_prefix="dev_")
LAKE = Pipeline("source-shop", "destination-lake")

USERS = stream_state("users", {"cursor": 1})
ORDERS = stream_state("orders", {"cursor": 1})
GLOBAL = global_state({"lsn": 5}, inner_state("users", {"cursor": 5}))
LEGACY = legacy_state({"users": 3})
UNTYPED = '{"data":{"users":4}}'

whole_states = pytest.mark.parametrize(
    "text", [GLOBAL, LEGACY, UNTYPED], ids=["global", "legacy", "untyped"]
)
cached_or_not = pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])


@pytest.fixture
def cache(plain_cache):
    with with_history(plain_cache()) as cache:
        yield cache


def caching(cache, cached):
    return {"cache": cache} if cached else {"cache": False, "state_cache": cache}


def bodies(cache, pipeline):
    return latest_state(connect(cache), pipeline).bodies


def as_input(text):
    message = json.loads(text)
    return [message] if message.get("type") == "GLOBAL" else message["data"]


@whole_states
@cached_or_not
def test_the_state_of_the_whole_source_reaches_the_destination_and_comes_back(
    cache, shop, lake, text, cached
):
    source = shop.says(record("users"), state(text))
    lake.confirms().write(source, **caching(cache, cached))
    assert [json.loads(body) for body in bodies(cache, LAKE)] == [json.loads(text)]
    lake.confirms().write(source, **caching(cache, cached))
    assert [json.loads(given) for given in shop.given] == [[], as_input(text)]


def test_a_global_state_is_sent_under_its_name_and_after_the_records(cache, shop, lake):
    lake.confirms().write(shop.says(record("users"), state(GLOBAL), record("orders")), cache=cache)
    types = [message["type"] for message in lake.given]
    assert types.index("STATE") > max(at for at, type_ in enumerate(types) if type_ == "RECORD")
    [sent] = [message["state"] for message in lake.given if message["type"] == "STATE"]
    assert sent["global"] == json.loads(GLOBAL)["global"]
    assert "global_" not in sent


def test_a_read_result_is_written_with_its_global_state(cache, shop, lake):
    result = shop.says(record("users"), state(GLOBAL)).read(cache)
    lake.confirms().write(result)
    assert bodies(cache, LAKE) == [GLOBAL.encode()]


@cached_or_not
def test_each_state_that_the_destination_returned_is_saved(cache, shop, lake, cached):
    source = shop.says(record("users"), state(USERS), record("orders"), state(ORDERS))
    lake.confirms().write(source, **caching(cache, cached))
    saved = [stored for stored in connect(cache).history(LAKE) if stored.kind == "StateSaved"]
    assert sorted(str(stored.stream) for stored in saved) == ["orders", "users"]


@cached_or_not
def test_what_the_destination_had_confirmed_before_it_crashed_is_saved(cache, shop, lake, cached):
    source = shop.says(record("users"), state(USERS), record("orders"), state(ORDERS))
    with pytest.raises(AirbyteConnectorWriteError):
        lake.confirms(1).write(source, **caching(cache, cached))
    assert len(bodies(cache, LAKE)) == 1


def test_the_state_of_the_cache_goes_before_that_of_the_destination(cache, shop, lake):
    lake.confirms().write(shop.says(state(GLOBAL)), cache=False, state_cache=cache)
    shop.says(state(USERS)).read(cache)
    lake.confirms().write(shop.says(), cache=cache)
    assert json.loads(shop.given[-1]) == [json.loads(USERS)]


def test_streams_that_only_the_destination_knows_are_added(cache, shop, lake):
    lake.confirms().write(
        shop.says(state(ORDERS), state(stream_state("users", {"cursor": 9}))),
        cache=False,
        state_cache=cache,
    )
    shop.says(state(USERS)).read(cache)
    lake.confirms().write(shop.says(), cache=cache)
    given = {
        message["stream"]["stream_descriptor"]["name"]: message
        for message in json.loads(shop.given[-1])
    }
    assert given == {"users": json.loads(USERS), "orders": json.loads(ORDERS)}


@cached_or_not
def test_a_write_is_one_run_and_the_next_another(cache, shop, lake, cached):
    for _ in range(2):
        lake.confirms().write(shop.says(record("users"), state(USERS)), **caching(cache, cached))
    runs = {}
    for stored in connect(cache).log():
        runs.setdefault(stored.run, set()).add((stored.pipeline, stored.kind))
    expected = {(LAKE, "StateSaved")}
    if cached:
        expected |= {(SHOP, "CatalogRegistered"), (SHOP, "StateEmitted"), (SHOP, "StateSaved")}
    assert len(runs) == 2
    for done in runs.values():
        assert done >= expected


def test_the_state_of_a_read_that_is_written_later_is_of_that_write(cache, shop, lake):
    result = shop.says(record("users"), state(USERS)).read(cache)
    lake.confirms().write(result)
    store = connect(cache)
    [read] = {stored.run for stored in store.history(SHOP)}
    [written] = {stored.run for stored in store.history(LAKE)}
    assert read != written


def test_caches_without_a_history_are_left_alone(plain_cache, shop, lake):
    with with_history(plain_cache()):
        pass
    with plain_cache(table_prefix=None, schema_name="other") as cache:
        lake.confirms().write(shop.says(record("users"), state(USERS)), cache=cache)
        assert cache.get_state_provider("source-shop").known_stream_names == {"users"}
