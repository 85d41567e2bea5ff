"""What a store remembers of a history is a hint: whatever others did, it goes on behind them."""

import time
from functools import partial

import pytest
from sqlalchemy import select

from eventstore import Pipeline
from eventstore.dialects import dialect_of
from eventstore.erasure import erase
from eventstore.events import to_microseconds
from eventstore.integrity import verify
from eventstore.tables import BODY_VERSION, bodies, events, pipelines, streams
from projections import connect, latest_state, rebuild, replay
from projections.views import StateView
from tests.interruptions import counted, everywhere
from tests.messages import emitted, saved
from tests.tampering import tampering

SHOP = Pipeline("source-shop")
BEFORE = 5


def others_append(store):
    with connect(store.database.engine) as other:
        other.append(SHOP, saved("users", {"by": "another"}))


def others_append_much(store):
    with connect(store.database.engine) as other:
        other.append(SHOP, *emitted(300), saved("orders", {"by": "another"}))


def others_erase(store):
    with connect(store.database.engine) as other:
        erase(other, SHOP, version=BEFORE, reason="asked to")


def others_rebuild(store):
    with connect(store.database.engine) as other:
        rebuild(other)


def the_engine_is_disposed(store):
    store.database.engine.dispose()


def it_is_closed(store):
    store.close()


def append(store, number):
    [stored] = store.append(SHOP, saved("users", {"cursor": number}))
    return stored.version


def check(store, length):
    assert [stored.version for stored in store.history(SHOP)] == list(range(1, length + 1))
    assert latest_state(store, SHOP) == replay(store, SHOP, StateView(SHOP))
    assert verify(store).is_whole


@pytest.mark.parametrize(
    "meanwhile",
    [
        *(others_append, others_append_much, others_erase, others_rebuild),
        *(the_engine_is_disposed, it_is_closed),
    ],
)
def test_it_goes_on_behind_what_happened_meanwhile(store, meanwhile):
    for number in range(BEFORE):
        append(store, number)
    meanwhile(store)
    there = store.head(SHOP).version
    assert [append(store, number) for number in range(4)] == list(range(there + 1, there + 5))
    check(store, there + 4)


def test_stores_that_append_in_turns_lose_no_race(store, caplog):
    with connect(store.database.engine) as other:
        for number in range(BEFORE):
            for each in (store, other):
                append(each, number)
    assert caplog.messages == []
    check(store, 2 * BEFORE)


@pytest.mark.parametrize("other", [others_append, others_erase, others_rebuild])
def test_it_goes_on_behind_what_happens_in_the_middle_of_an_append(store, engine, other):
    mine = connect(engine)
    for number, interruption in enumerate(everywhere()):
        for warm in range(BEFORE):
            append(mine, (number, warm))
        with interruption.of(engine, partial(other, store)):
            append(mine, (number, BEFORE))
    check(store, store.head(SHOP).version)


@pytest.mark.needs("INSERTS_TOGETHER")
def test_a_state_is_one_statement_while_nobody_else_appends(store):
    """The head is asked for once in a second, and where the time would be in the future."""

    def statements_of(number):
        with counted(store.database.engine) as taken:
            append(store, number)
        return len(taken)

    for _ in range(2):
        of_each = [statements_of(number) for number in range(30)]
        assert of_each.count(1) >= 10, of_each
        time.sleep(1.01)
        assert statements_of("after a second") == 2


@pytest.mark.needs("MANY_PROCESSES")
@pytest.mark.parametrize("left", [0, 2, BEFORE - 1])
def test_it_goes_on_behind_what_a_restored_backup_has_left(store, left):
    for number in range(BEFORE):
        append(store, number)
    with tampering(store.database.engine) as db:
        for table, version in ((events, events.c.version), (bodies, BODY_VERSION)):
            db.execute(table.delete().where(version > left))
        for table in (pipelines, streams) if not left else ():
            db.execute(table.delete())
    assert [append(store, number) for number in range(3)] == [left + 1, left + 2, left + 3]
    check(store, left + 3)


def test_a_restored_backup_in_which_others_went_on_has_their_streams(store):
    store.append(SHOP, saved("users", {}))
    store.append(SHOP, saved("orders", {}))
    with tampering(store.database.engine) as db:
        for table, first in ((events, events.c.version), (bodies, BODY_VERSION)):
            db.execute(table.delete().where(first > 1))
        db.execute(streams.delete().where(streams.c.name == "orders"))
    with connect(store.database.engine) as other:
        other.append(SHOP, *(saved("refunds", {"cursor": n}) for n in range(BEFORE)))
    store.append(SHOP, saved("orders", {}))
    names = [stored.stream.name for stored in store.history(SHOP)]
    assert names == ["users", *["refunds"] * BEFORE, "orders"]
    check(store, BEFORE + 2)


def test_stores_that_take_turns_find_each_others_events(store):
    with connect(store.database.engine) as other:
        versions = [append((store, other)[number % 2], number) for number in range(20)]
        assert versions == list(range(1, 21))
        check(other, 20)


def test_a_state_is_stored_at_the_time_of_the_databases_clock(store):
    clock = dialect_of(store.database.engine).NOW

    def now():
        if clock is None:
            return time.time_ns() // 1000
        return store.database.read(lambda db: int(db.scalar(select(clock))))

    for number in range(30):
        before = now()
        [stored] = store.append(SHOP, saved("users", {"cursor": number}))
        early, late = before - 500_000, now() + 500_000
        assert early <= to_microseconds(stored.stored_at) <= late, number
