"""The past brought back, and states set by hand: by new events, and nothing is removed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select

from eventstore import (
    ErasedBody,
    EventStoreError,
    HistoryConflict,
    Invalid,
    Pipeline,
    StateCleared,
    StateSaved,
    StreamDescriptor,
    StreamNotFound,
    UnknownVersion,
)
from eventstore.erasure import erase
from eventstore.integrity import verify
from eventstore.tables import bodies
from projections import StateView, latest_state, parse_moment, replay, state_as_of
from projections.plans import append_together, plan_move, plan_rewind
from projections.rewind import clear, copy, move, rewind, set_state
from tests.contract.random_histories import STREAMS, histories, play
from tests.interruptions import at_commit, commit_then_die, die
from tests.messages import global_state, inner_state, legacy_state, saved, stream_state

SHOP = Pipeline("source-shop")
LAKE = Pipeline("source-shop", "destination-lake")

CURSORS = {"orders": 2, "users": 2}

WHY = {"reason": "lost orders", "actor": "maria"}


def state_of(store, pipeline=SHOP):
    return [json.loads(body) for body in latest_state(store, pipeline).bodies]


def cursors(store, pipeline=SHOP):
    view = latest_state(store, pipeline)
    return {
        str(stream): json.loads(body)["stream"]["stream_state"]["cursor"]
        for stream, body in view.streams.items()
    }


@pytest.fixture
def shop(store):
    """Three versions of two streams."""
    store.append(SHOP, saved("orders", {"cursor": 1}))
    store.append(SHOP, saved("users", {"cursor": 1}))
    store.append(SHOP, saved("orders", {"cursor": 2}), saved("users", {"cursor": 2}))
    return store


@settings(max_examples=10)
@given(history=histories, data=st.data())
def test_any_version_of_a_history_can_be_brought_back(shared_store, history, data):
    for pipeline, model in play(shared_store, history).items():
        version = data.draw(st.integers(0, model.head))
        then = state_as_of(shared_store, pipeline, version)
        planned = plan_rewind(shared_store, pipeline, version)
        rewind(shared_store, pipeline, version, **WHY)
        now = latest_state(shared_store, pipeline)
        assert (now.whole, now.streams) == (then.whole, then.streams)
        assert (planned.after.whole, planned.after.streams) == (then.whole, then.streams)
        assert now == replay(shared_store, pipeline, StateView(pipeline))
        assert rewind(shared_store, pipeline, version, **WHY) == []
        assert latest_state(shared_store, pipeline).version == now.version


@settings(max_examples=10)
@given(history=histories, data=st.data())
def test_a_stream_is_brought_back_and_the_others_stay(shared_store, history, data):
    for pipeline, model in play(shared_store, history).items():
        version = data.draw(st.integers(0, model.head))
        stream = data.draw(st.sampled_from(STREAMS))
        then = state_as_of(shared_store, pipeline, version)
        before = latest_state(shared_store, pipeline)
        try:
            rewind(shared_store, pipeline, version, [stream], **WHY)
        except (Invalid, StreamNotFound):
            assert latest_state(shared_store, pipeline) == before
            continue
        now = latest_state(shared_store, pipeline)
        if now.whole is None:
            assert now.streams.get(stream) == then.streams.get(stream)
            others = {key: body for key, body in before.streams.items() if key != stream}
            assert {key: body for key, body in now.streams.items() if key != stream} == others


def test_what_is_restored_says_what_it_restores_who_and_why(shop):
    restored = rewind(shop, SHOP, 2, reason="lost orders", actor="maria", run="repair")
    assert [(each.kind, each.origin, each.of) for each in restored] == [
        ("StateSaved", "restored", 1),
        ("StateSaved", "restored", 2),
    ]
    assert {(each.actor, each.reason, each.run) for each in restored} == {
        ("maria", "lost orders", "repair")
    }
    assert [each.version for each in shop.history(SHOP)] == [1, 2, 3, 4, 5, 6]


def test_what_is_restored_stores_no_body(shop):
    count = select(func.count()).select_from(bodies)
    before = shop.database.read(lambda db: db.scalar(count))
    for version in (1, 2, 4, 6):
        rewind(shop, SHOP, version, **WHY)
    assert shop.database.read(lambda db: db.scalar(count)) == before


def test_only_what_differs_is_restored(shop):
    shop.append(SHOP, saved("orders", {"cursor": 3}))
    [restored] = rewind(shop, SHOP, 4, **WHY)
    assert (str(restored.stream), restored.of) == ("orders", 3)


def test_one_stream_is_brought_back_by_its_name(shop):
    rewind(shop, SHOP, 2, ["orders"], **WHY)
    assert cursors(shop) == {"orders": 1, "users": 2}


def test_a_stream_that_did_not_exist_then_is_cleared(shop):
    rewind(shop, SHOP, 1, **WHY)
    assert cursors(shop) == {"orders": 1}


def test_before_the_first_version_there_is_no_state(shop):
    [cleared] = rewind(shop, SHOP, 0, **WHY)
    assert (cleared.event, cursors(shop)) == (StateCleared(), {})


def test_a_moment_counted_from_the_head_is_settled_once(shop):
    rewind(shop, SHOP, parse_moment("@-2"), **WHY)
    assert cursors(shop) == {"orders": 1, "users": 1}


def test_a_state_of_another_type_is_brought_back_whole(shop):
    shop.append(SHOP, StateSaved(global_state({"lsn": 7}, inner_state("users", {"cursor": 9}))))
    shop.append(SHOP, StateSaved(legacy_state({"old": 1})))
    rewind(shop, SHOP, 5, **WHY)
    assert state_of(shop)[0]["type"] == "GLOBAL"
    rewind(shop, SHOP, 2, **WHY)
    assert cursors(shop) == {"orders": 1, "users": 1}


def test_a_stream_inside_a_global_state_is_brought_back_and_the_rest_keeps_its_bytes(store):
    digits = '{"cursor": 0.1234567890123456789012}'
    text = (
        '{"type":"GLOBAL", "global": {"shared_state": {"lsn": %d},\n "stream_states": ['
        '{"stream_descriptor":{"name":"users"},"stream_state":%s},'
        '{"stream_descriptor":{"name":"orders"},"stream_state":{"cursor":%d}}]}}'
    )
    store.append(SHOP, StateSaved(text % (1, digits, 1)))
    store.append(SHOP, StateSaved(text % (2, '{"cursor": 2}', 2)))
    [edited] = rewind(store, SHOP, 1, ["users"], **WHY)
    assert (edited.origin, edited.of) == ("edited", 1)
    assert edited.body.decode() == text % (2, digits, 2)
    clear(store, SHOP, ["orders"], **WHY)
    [state] = state_of(store)
    names = [each["stream_descriptor"]["name"] for each in state["global"]["stream_states"]]
    assert (names, state["global"]["shared_state"]) == (["users"], {"lsn": 2})


def test_a_single_stream_of_a_legacy_state_cannot_be_told_apart(store):
    store.append(SHOP, StateSaved(legacy_state({"users": 1})))
    store.append(SHOP, StateSaved(legacy_state({"users": 2})))
    with pytest.raises(Invalid, match="leave the streams out"):
        rewind(store, SHOP, 1, ["users"], **WHY)


def test_whoever_has_seen_an_older_version_is_refused(shop):
    with pytest.raises(HistoryConflict) as conflict:
        rewind(shop, SHOP, 2, expected=3, **WHY)
    assert (conflict.value.expected, conflict.value.actual) == (3, 4)
    rewind(shop, SHOP, 2, expected=4, **WHY)


def test_a_plan_is_not_carried_out_on_a_history_that_has_moved_on(shop):
    plan = plan_rewind(shop, SHOP, 2)
    shop.append(SHOP, saved("orders", {"cursor": 5}))
    with pytest.raises(HistoryConflict):
        plan.append(shop, **WHY)
    assert cursors(shop) == {"orders": 5, "users": 2}


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_a_reason_is_needed(shop, reason):
    plan = plan_rewind(shop, SHOP, 2)
    for change in (
        lambda: rewind(shop, SHOP, 2, reason=reason),
        lambda: clear(shop, SHOP, reason=reason),
        lambda: set_state(shop, SHOP, [], reason=reason),
        lambda: copy(shop, SHOP, LAKE, reason=reason),
        lambda: move(shop, SHOP, LAKE, reason=reason),
        lambda: plan.append(shop, reason=reason),
    ):
        with pytest.raises(Invalid, match="reason"):
            change()
    assert shop.heads() == {SHOP: 4}


@pytest.mark.parametrize(
    ("to", "streams", "error"),
    [(9, None, UnknownVersion), (2, ["payments"], StreamNotFound), (2, [], Invalid)],
)
def test_what_is_not_there_cannot_be_brought_back(shop, to, streams, error):
    with pytest.raises(error):
        rewind(shop, SHOP, to, streams, **WHY)
    assert shop.heads() == {SHOP: 4}


def test_a_name_alone_is_that_of_the_stream_without_a_namespace(store):
    for cursor in (1, 2):
        store.append(
            SHOP, *(saved("users", {"cursor": cursor}, space) for space in (None, "audit", "eu"))
        )
    rewind(store, SHOP, 3, ["users"], **WHY)
    assert cursors(store) == {"users": 1, "audit.users": 2, "eu.users": 2}
    rewind(store, SHOP, 3, [StreamDescriptor("users", "audit"), "eu.users"], **WHY)
    assert cursors(store) == {"users": 1, "audit.users": 1, "eu.users": 1}


def test_a_name_in_several_namespaces_has_to_be_told(store):
    store.append(SHOP, saved("users", {"cursor": 1}, "eu"), saved("users", {"cursor": 1}, "audit"))
    with pytest.raises(Invalid, match="several namespaces"):
        clear(store, SHOP, ["users"], **WHY)
    clear(store, SHOP, ["eu.users"], **WHY)
    assert cursors(store) == {"audit.users": 1}


def test_what_was_erased_of_one_stream_does_not_keep_another_from_coming_back(shop):
    erase(shop, SHOP, version=1, reason="ticket 4711")
    rewind(shop, SHOP, 2, ["users"], **WHY)
    assert cursors(shop) == {"orders": 2, "users": 1}
    for streams in (None, ["orders"]):
        with pytest.raises(ErasedBody, match="ticket 4711"):
            rewind(shop, SHOP, 2, streams, **WHY)
    assert verify(shop).is_whole


def test_a_global_state_that_names_a_stream_twice_is_not_edited(store):
    twice = [inner_state("users", {"cursor": 1}), inner_state("users", {"cursor": 2})]
    store.append(SHOP, StateSaved(global_state({}, *twice, inner_state("orders", None))))
    with pytest.raises(Invalid, match="names stream users twice"):
        clear(store, SHOP, ["orders"], **WHY)


def test_where_a_key_stands_twice_the_last_one_is_edited(store):
    text = '{"type":"GLOBAL","global":{"stream_states":[],"stream_states":[%s]}}'
    users = json.dumps(inner_state("users", {"cursor": 1}))
    store.append(SHOP, StateSaved(text % users))
    [edited] = clear(store, SHOP, ["users"], **WHY)
    assert edited.body.decode() == text % ""


def test_a_state_is_cleared_whole_or_by_stream(shop):
    clear(shop, SHOP, ["orders"], **WHY)
    assert cursors(shop) == {"users": 2}
    clear(shop, SHOP, **WHY)
    assert cursors(shop) == {}
    assert clear(shop, SHOP, **WHY) == []


def test_a_state_that_is_set_is_the_only_one(shop):
    stored = set_state(shop, SHOP, [stream_state("orders", {"cursor": 8})], **WHY)
    assert [(each.kind, each.origin) for each in stored] == [
        ("StateCleared", None),
        ("StateSaved", "edited"),
    ]
    assert cursors(shop) == {"orders": 8}
    set_state(shop, SHOP, [], **WHY)
    assert cursors(shop) == {}


@pytest.mark.parametrize(
    "states",
    [
        [stream_state("orders", 1), stream_state("orders", 2)],
        [stream_state("orders", 1), legacy_state({})],
        ["no state"],
    ],
)
def test_states_that_contradict_each_other_are_refused(shop, states):
    with pytest.raises(Invalid):
        set_state(shop, SHOP, states, **WHY)
    assert cursors(shop) == {"orders": 2, "users": 2}


def test_a_state_is_copied_to_another_pipeline_with_where_it_came_from(shop):
    copied = copy(shop, SHOP, LAKE, 2, **WHY)
    assert [(each.origin, each.of) for each in copied] == [("copied", 1), ("copied", 2)]
    assert copied[0].reason == "lost orders (copied from source-shop -> cache @2)"
    assert cursors(shop, LAKE) == {"orders": 1, "users": 1}
    assert cursors(shop) == {"orders": 2, "users": 2}
    with pytest.raises(Invalid, match="use rewind"):
        copy(shop, SHOP, SHOP, **WHY)


def test_a_state_is_moved_to_another_pipeline(shop):
    shop.append(LAKE, saved("payments", {"cursor": 1}))
    move(shop, SHOP, LAKE, **WHY)
    assert (cursors(shop), cursors(shop, LAKE)) == ({}, {"orders": 2, "users": 2})


def test_a_state_that_was_moved_on_since_it_was_looked_at_is_not_moved(shop):
    plans = plan_move(shop, SHOP, LAKE)
    shop.append(SHOP, saved("orders", {"cursor": 9}))
    with pytest.raises(HistoryConflict):
        append_together(shop, plans, **WHY)
    with pytest.raises(HistoryConflict):
        move(shop, SHOP, LAKE, expected=4, **WHY)
    assert cursors(shop, LAKE) == {}
    plans = plan_move(shop, SHOP, LAKE)
    shop.append(LAKE, saved("orders", {"cursor": 9}))
    with pytest.raises(HistoryConflict):
        append_together(shop, plans, **WHY)
    assert cursors(shop) == {"orders": 9, "users": 2}


def test_a_state_is_moved_whole_or_not_at_all_wherever_it_is_cut_off(shop):
    def cut_off(*_):
        if next(left, None) is None:
            raise KeyboardInterrupt

    engine, done, steps = shop.database.engine, False, 0
    while not done:
        left = iter(range(steps))
        event.listen(engine, "before_cursor_execute", cut_off)
        try:
            done = bool(move(shop, SHOP, LAKE, **WHY))
        except KeyboardInterrupt:
            steps += 1
        finally:
            event.remove(engine, "before_cursor_execute", cut_off)
        expected = ({}, CURSORS) if done else (CURSORS, {})
        assert (cursors(shop), cursors(shop, LAKE)) == expected
    assert steps > 5


@pytest.mark.needs("NOW")  # a server, to which a connection can be lost
@pytest.mark.parametrize("lost", [die, commit_then_die])
def test_a_move_whose_acknowledgement_was_lost_is_done_once(shop, lost):
    with at_commit(shop.database.engine, lost):
        done = move(shop, SHOP, LAKE, **WHY)
    assert done == [*shop.history(LAKE), *shop.history(SHOP, after=4)]
    assert (cursors(shop), cursors(shop, LAKE)) == ({}, CURSORS)


def test_a_state_of_a_pipeline_nobody_knows_is_empty(store):
    assert rewind(store, SHOP, 0, **WHY) == []
    assert copy(store, SHOP, LAKE, **WHY) == []
    with pytest.raises(EventStoreError):
        rewind(store, SHOP, 1, **WHY)
