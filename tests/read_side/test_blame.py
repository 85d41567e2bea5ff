"""For every value of a state, the event that set it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import Pipeline, StateCleared, StateEmitted, StateSaved, StreamDescriptor
from projections import audit, state_as_of
from tests.messages import global_state, inner_state, saved, stream_state
from tests.read_side.test_changes import HISTORIES, all_leaves, appended

SHOP = Pipeline("source-shop")


def blamed(store, *events, moment=None):
    """The version that set each path."""
    store.append(SHOP, *events)
    found = audit.blame(store, SHOP) if moment is None else audit.blame(store, SHOP, moment)
    return {(str(each.stream or ""), each.path): each.stored.version for each in found}


def test_each_value_was_set_by_the_event_since_which_it_is_the_same(store):
    steps = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": []}]
    found = blamed(store, *(saved("orders", blob) for blob in steps))
    assert found == {("orders", "a"): 3, ("orders", "b"): 1, ("orders", "c"): 4}


def test_an_event_says_who_when_and_why(store):
    [event] = store.append(SHOP, saved("orders", {"a": 1}), actor="maria", reason="why", run="8")
    [value] = audit.blame(store, SHOP)
    assert value == (StreamDescriptor("orders"), "a", "1", event)
    assert (value.stored.actor, value.stored.reason, value.stored.run) == ("maria", "why", "8")


def test_only_what_was_saved_sets_a_value(store):
    emitted = StateEmitted(stream_state("orders", {"a": 2}))
    assert blamed(store, saved("orders", {"a": 1}), emitted, saved("orders", {"a": 1})) == {
        ("orders", "a"): 1
    }


@pytest.mark.parametrize(
    "between",
    [
        StateCleared(),
        StateCleared(StreamDescriptor("orders")),
        StateSaved(global_state(None, inner_state("orders", {"a": 1}))),
    ],
    ids=["clear", "clear of the stream", "another type"],
)
def test_a_value_that_was_forgotten_was_set_when_it_came_back(between, store):
    again = saved("orders", {"a": 1})
    assert blamed(store, again, between, again) == {("orders", "a"): 3}


def test_each_stream_of_a_global_state_is_told_by_itself(store):
    orders, users = inner_state("orders", {"a": 1}), inner_state("users", {"b": [1, {"c": 2}]})
    states = [
        global_state({"lsn": 1}, users),
        global_state({"lsn": 2}, orders, users),
        global_state({"lsn": 3}, users, inner_state("orders", {"a": 1, "z": 1})),
    ]
    assert blamed(store, *map(StateSaved, states)) == {
        ("", "lsn"): 3,
        ("orders", "a"): 2,
        ("orders", "z"): 3,
        ("users", "b[0]"): 1,
        ("users", "b[1].c"): 1,
    }


def test_partitions_are_known_by_what_they_are(store):
    first, second = ({"partition": {"id": id_}, "cursor": id_} for id_ in "ab")
    events = [saved("orders", {"states": states}) for states in ([second], [first, second])]
    found = blamed(store, *events)
    assert found["orders", 'states[partition={"id":"a"}].cursor'] == 2
    assert found["orders", 'states[partition={"id":"b"}].cursor'] == 1


def test_the_past_is_blamed_as_of_then(store):
    events = [saved("orders", {"a": number}) for number in (1, 1, 2)]
    assert blamed(store, *events, moment=2) == {("orders", "a"): 1}
    assert audit.blame(store, SHOP, 0) == []


def test_a_value_set_long_ago_is_found(store):
    for start in range(0, 300, 100):
        events = [saved("orders", {"n": number, "seed": 7}) for number in range(start, start + 100)]
        store.append(SHOP, *events)
    assert blamed(store) == {("orders", "n"): 300, ("orders", "seed"): 1}


@settings(max_examples=10)
@given(history=HISTORIES, data=st.data())
def test_every_value_is_as_it_was_set_and_was_not_so_before(history, data, shared_store):
    pipeline = appended(shared_store, history)
    version = data.draw(st.integers(0, len(history)))
    states = [
        all_leaves(state_as_of(shared_store, pipeline, number)) for number in range(version + 1)
    ]
    found = {
        (each.stream, *("" if each.path == "." else each.path).split(".")): each
        for each in audit.blame(shared_store, pipeline, version)
    }
    assert {key: each.value for key, each in found.items()} == {
        key if len(key) > 1 else (*key, ""): value for key, value in states[version].items()
    }
    moved = list(audit.changes(shared_store, pipeline))
    for (stream, *path), each in found.items():
        key = (stream, *path) if path != [""] else (stream,)
        there = [state.get(key) for state in states]
        first = each.stored.version
        assert set(map(str, there[first:])) == {str(each.value)}
        assert there[first - 1] != each.value or moved[first - 1].before is None
