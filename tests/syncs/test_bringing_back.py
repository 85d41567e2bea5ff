"""A past state brought back for the next read, and reads that overlap."""

import json
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest
from airbyte.exceptions import AirbyteConnectorFailedError

from eventstore import Pipeline, StaleWriter
from projections import connect, latest_state
from projections.pyairbyte import with_history
from projections.rewind import clear, rewind
from tests.messages import global_state, inner_state, stream_state
from tests.syncs.connectors import record, state

SHOP = Pipeline("source-shop", table_prefix="dev_")


def users(cursor):
    return stream_state("users", {"cursor": cursor})


def cdc(lsn):
    return global_state({"lsn": lsn}, inner_state("users", {"cursor": lsn}))


@pytest.mark.parametrize("form", [users, cdc])
def test_the_next_read_is_given_the_state_that_was_brought_back(plain_cache, shop, form):
    with with_history(plain_cache()) as cache:
        for cursor in (1, 2):
            shop.says(record("users"), state(form(cursor))).read(cache, skip_validation=True)
        store = connect(cache)
        first = next(each for each in store.history(SHOP) if each.kind == "StateSaved")
        rewind(store, SHOP, first.version, reason="lost users")
    with with_history(plain_cache()) as cache:
        shop.says(record("users"), state(form(3))).read(cache, skip_validation=True)
        clear(connect(cache), SHOP, reason="from the beginning")
        shop.says(record("users"), state(form(4))).read(cache, skip_validation=True)
    given = [json.loads(text) for text in shop.given]
    assert given == [[], [json.loads(form(1))], [json.loads(form(1))], []]


def test_a_read_that_was_taken_over_moves_no_cursor(plain_cache, shop):
    def one_that_hangs():
        with with_history(plain_cache(), exclusive=True, actor="zombie") as cache:
            lines = [state(users(1)), *[record("users")] * 3, state(users(2))]
            shop.says(*lines, pause=1).read(cache, skip_validation=True)

    with ThreadPoolExecutor(1) as pool, with_history(plain_cache(), exclusive=True) as cache:
        zombie = pool.submit(one_that_hangs)
        store = connect(cache)
        deadline = monotonic() + 60
        while "zombie" not in {each.actor for each in store.history(SHOP)}:
            assert monotonic() < deadline
            sleep(0.02)
        shop.says(record("users"), state(users(9))).read(cache, skip_validation=True)
        with pytest.raises((StaleWriter, AirbyteConnectorFailedError)) as stale:
            zombie.result()
        assert "took over" in repr(stale.value) + repr(stale.value.__cause__)
        [body] = latest_state(store, SHOP).bodies
        assert json.loads(body) == json.loads(users(9))
        by_zombie = [each.kind for each in store.history(SHOP) if each.actor == "zombie"]
        assert "StateSaved" not in by_zombie
