"""What each event moved, beside what stood there before."""

import json
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import event as sqlalchemy_event

from eventstore import Pipeline, StateCleared, StateEmitted, StateSaved, StreamDescriptor
from projections import audit, register_catalog, state_as_of
from projections.json_text import Number, parse
from projections.wording import plain
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    saved,
    stream_state,
)

SHOP = Pipeline("source-shop")


def words(store, *events, pipeline=SHOP, **filters):
    store.append(pipeline, *events)
    return [each.words for each in audit.changes(store, pipeline, **filters)]


def told(store, *blobs):
    """What is said of the last of these states of one stream."""
    return words(store, *(saved("orders", blob) for blob in blobs))[-1]


def notes(store, *events):
    store.append(SHOP, *events)
    return [note.what for each in audit.changes(store, SHOP) for note in each.notes]


def parsed(value):
    return parse(json.dumps(value))


def partitions(**cursors):
    return {"states": [{"partition": {"id": id_}, "cursor": at} for id_, at in cursors.items()]}


# What moved


def test_a_value_that_moved_is_told_with_both_ends(store):
    assert told(store, {"at": "2026-11-20"}, {"at": "2026-11-21"}) == "at 2026-11-20 -> 2026-11-21"


def test_what_came_and_went_is_told(store):
    assert told(store, {"a": 1, "b": 2}, {"a": 1, "c": {"d": [3]}}) == '-b, +c {"d":[3]}'


def test_a_state_that_is_the_same_is_unchanged(store):
    assert told(store, {"a": 1}, {"a": 1}) == "unchanged"


def test_a_number_and_the_text_of_its_digits_are_told_apart(store):
    assert told(store, {"a": 1}, {"a": "1"}) == 'a 1 -> "1"'


def test_the_first_state_is_told_whole(store):
    assert told(store, {"page": 7}) == '{"page":7}'


def test_partitions_that_came_are_counted(store):
    before, after = partitions(a="1"), partitions(z="9", a="1", b="2", c="3")
    assert told(store, before, after) == "+3 partitions"


def test_partitions_are_known_by_what_they_are_and_not_by_their_place(store):
    before, after = partitions(a="1", b="1", c="1"), partitions(c="2", b="2")
    assert told(store, before, after) == "-1 partition, 2 partitions moved"


def test_of_a_single_partition_it_is_told_what_moved(store):
    path = 'states[partition={"id":"b"}].cursor'
    assert told(store, partitions(a="x", b="y"), partitions(a="x", b="z")) == f"{path} y -> z"


def test_items_of_a_list_are_counted(store):
    assert told(store, {"ids": [1]}, {"ids": [1, 2, 3]}) == "+2 items of ids"


def test_a_long_list_of_moves_is_cut_short(store):
    before, after = ({f"k{place}": value for place in range(7)} for value in (1, 2))
    assert told(store, before, after) == "k0 1 -> 2, k1 1 -> 2, k2 1 -> 2, and 4 more"


def test_record_counts_are_told(store):
    state = json.loads(stream_state("orders", {"a": 1}))
    state["sourceStats"] = {"recordCount": 12.0}
    state["destinationStats"] = {"recordCount": 11.0, "rejectedRecordCount": 1.0}
    [said] = words(store, StateSaved(json.dumps(state)))
    assert said == '{"a":1} (12 records, 11 written, 1 rejected)'


def test_inside_a_global_state_streams_are_named(store):
    orders, users = inner_state("orders", {"a": 1}), inner_state("users", {"b": 1}, "audit")
    moved = inner_state("users", {"b": 2}, "audit")
    said = words(
        store,
        StateSaved(global_state({"lsn": 1}, orders)),
        StateSaved(global_state({"lsn": 2}, orders, users)),
        StateSaved(global_state({"lsn": 2}, orders, moved)),
    )
    assert said[1:] == ["lsn 1 -> 2, +stream audit.users", "audit.users: b 1 -> 2"]


def test_a_definition_that_changed_says_how(store):
    for columns in (["id", "name"], ["id", "email"]):
        register_catalog(store, SHOP, catalog(configured_stream("orders", columns=columns)))
    said = [each.words for each in audit.changes(store, SHOP, kind="StreamDefined")]
    assert said == ["incremental, 2 fields", "-name (breaking), +email"]


# What stood there before


def test_an_emitted_state_is_compared_with_the_one_emitted_before(store):
    emitted = [StateEmitted(stream_state("orders", {"a": number})) for number in (1, 2)]
    assert words(store, *emitted)[-1] == "a 1 -> 2"


def test_a_saved_state_is_compared_with_what_was_saved_before(store):
    emitted = StateEmitted(stream_state("orders", {"a": 5}))
    assert words(store, saved("orders", {"a": 1}), emitted, saved("orders", {"a": 2})) == [
        '{"a":1}',
        "a 1 -> 5",
        "a 1 -> 2",
    ]


@pytest.mark.parametrize("clear", [StateCleared(StreamDescriptor("orders")), StateCleared()])
def test_after_a_clear_there_is_nothing_to_compare_with(clear, store):
    said = words(store, saved("orders", {"a": 1}), clear, saved("orders", {"a": 0}))
    assert said == ['{"a":1}', "state forgotten", '{"a":0}']
    gone = list(audit.changes(store, SHOP))[1].moves
    assert [(move.change, str(move.stream), move.before) for move in gone] == [
        ("removed", "orders", {"a": "1"})
    ]


def test_streams_of_one_name_in_two_namespaces_are_two(store):
    said = words(store, saved("orders", {"a": 1}), saved("orders", {"a": 2}, "b"))
    assert said == ['{"a":1}', '{"a":2}']


# What looks wrong


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (10, 9),
        (9.5, 9.25),
        (2**70, 2**70 - 1),
        ("2026-11-20", "2026-11-19"),
        ("2026-11-20T09:00:00Z", "2026-11-20T10:00:00+02:00"),
        ("2026-11-20T09:00:00.5Z", "2026-11-20T09:00:00.25Z"),
    ],
)
def test_a_cursor_that_went_backwards_is_noted_and_forwards_it_is_not(before, after, store):
    steps = [saved("orders", {"at": value}) for value in (before, after, before)]
    store.append(SHOP, *steps)
    _, back, forth = audit.changes(store, SHOP)
    assert [note.what for note in back.notes] == ["cursor went backwards"]
    assert back.words == f"! at went backwards: {plain(parsed(before))} -> {plain(parsed(after))}"
    assert forth.notes == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("b", "a"),
        ("10", "9"),
        ("2026-11-20", 5),
        ("2026-11-20", "2026-11-19T00:00:00Z"),
        ("2026-11-20T09:00:00", "2026-11-20T08:00:00"),
        ("2026-13-20", "2026-12-20"),
        (True, False),
        (1, None),
    ],
)
def test_what_cannot_be_compared_is_not_guessed(before, after, store):
    assert notes(store, saved("orders", {"at": before}), saved("orders", {"at": after})) == []


def test_the_cursor_of_one_partition_is_not_compared_with_another_s(store):
    before, after = partitions(a="2026-11-20"), partitions(b="2026-11-19", a="2026-11-20")
    assert notes(store, saved("orders", before), saved("orders", after)) == []


def test_partitions_that_went_backwards_are_told_together(store):
    before, after = partitions(a=2, b=2, c=2), partitions(a=1, b=1, c=3)
    path = 'states[partition={"id":"a"}].cursor'
    assert told(store, before, after) == (
        f"! {path} went backwards: 2 -> 1 (and 1 more in states); "
        'states[partition={"id":"c"}].cursor 2 -> 3'
    )


def test_a_state_that_was_put_back_on_purpose_is_not_noted(store):
    back = StateSaved(stream_state("orders", {"a": 1}), origin="restored", of=1)
    assert notes(store, saved("orders", {"a": 1}), saved("orders", {"a": 2}), back) == []


def test_a_stream_that_vanished_from_a_global_state_is_noted(store):
    orders, users = inner_state("orders", {"a": 1}), inner_state("users", {})
    states = [global_state(None, orders, users), global_state(None, orders)]
    said = words(store, *map(StateSaved, states))
    assert said[1] == "! users vanished"


WHOLE = StateSaved(global_state({"lsn": 1}, inner_state("orders", {"a": 1})))
LEGACY = StateSaved(legacy_state({"a": 1}))


@pytest.mark.parametrize(
    ("before", "after", "noted"),
    [
        (saved("orders", {"a": 1}), WHOLE, True),
        (WHOLE, saved("orders", {"a": 0}), True),
        (WHOLE, LEGACY, True),
        (LEGACY, WHOLE, False),
        (LEGACY, saved("orders", {"a": 0}), False),
    ],
)
def test_a_type_that_changed_is_noted_unless_it_was_legacy(before, after, noted, store):
    assert notes(store, before, after) == ["state type changed"] * noted


# Which events


def test_only_events_that_changed_a_field_are_read(store):
    store.append(
        SHOP,
        saved("orders", {"a": {"b": 1}, "c": 1}),
        saved("orders", {"a": {"b": 1}, "c": 2}),
        saved("orders", {"a": {"b": 2}, "c": 2}),
        saved("orders", {"a": {"b": 2}, "c": 2, "ab": 1}),
        StateCleared(),
    )

    def versions(path, **filters):
        found = audit.changes(store, SHOP, changed=path, **filters)
        return [each.stored.version for each in found]

    assert versions("a") == versions("a.b") == [1, 3, 5]
    assert versions("c") == [1, 2, 5]
    assert versions("d") == versions("a.b.c") == []
    assert versions(".") == [1, 2, 3, 4, 5]
    assert versions("a", last=2) == [3, 5]


def test_a_stream_in_a_long_history_is_found_by_a_few_statements(store):
    for number in range(150):
        store.append(
            SHOP,
            saved("orders", {"a": number}),
            StateEmitted(stream_state("users", {"b": number})),
            run=f"run {number % 2}",
        )
    count = 0

    def counted(*_):
        nonlocal count
        count += 1

    sqlalchemy_event.listen(store.database.engine, "before_cursor_execute", counted)
    for filters, events in (({}, 300), ({"stream": "orders"}, 150), ({"run": "run 1"}, 150)):
        count = 0
        assert len(list(audit.changes(store, SHOP, **filters))) == events
        assert count <= 12


# Any history


CURSORS = st.fixed_dictionaries(
    {"k": st.integers(0, 2)},
    optional={"a": st.integers(0, 2), "b": st.fixed_dictionaries({"c": st.integers(0, 2)})},
)
NAMES = st.sampled_from(["orders", "users"])
INNER = st.dictionaries(NAMES, CURSORS, max_size=2)


def whole(shared, inner):
    return global_state(shared, *(inner_state(name, blob) for name, blob in inner.items()))


EVENTS = st.one_of(
    st.builds(saved, NAMES, CURSORS),
    st.builds(saved, NAMES, CURSORS),
    st.builds(lambda name, blob: StateEmitted(stream_state(name, blob)), NAMES, CURSORS),
    st.builds(lambda shared, inner: StateSaved(whole(shared, inner)), CURSORS, INNER),
    st.builds(lambda shared, inner: StateEmitted(whole(shared, inner)), CURSORS, INNER),
    st.builds(lambda blob: StateSaved(legacy_state(blob)), CURSORS),
    st.builds(lambda name: StateCleared(StreamDescriptor(name)), NAMES),
    st.just(StateCleared()),
)
HISTORIES = st.lists(st.tuples(EVENTS, st.sampled_from("xy")), min_size=1, max_size=12)


def appended(store, history):
    """Append a history to a pipeline of its own."""
    pipeline = Pipeline(f"source-{len(store.pipelines())}")
    for event, run in history:
        store.append(pipeline, event, run=run)
    return pipeline


def leaves(blob, path=()):
    """Every value of a state, by the names that lead to it."""
    if not isinstance(blob, dict):
        return {path: blob}
    return {key: value for name in blob for key, value in leaves(blob[name], (*path, name)).items()}


def all_leaves(view):
    """Every value of a view, by stream and path."""
    found = {}
    for move in audit.diff(type(view)(view.pipeline), view):
        path = () if not move.path else tuple(move.path.split("."))
        found |= {(move.stream, *key): value for key, value in leaves(move.after, path).items()}
    return found


@given(history=HISTORIES)
@example(
    history=[  # to clear a stream leaves the state of all streams, which the next one replaces
        (StateSaved(whole({"k": 0}, {})), "x"),
        (StateCleared(StreamDescriptor("orders")), "x"),
        (saved("orders", {"k": 0}), "x"),
    ]
)
def test_all_changes_together_lead_to_the_state(history, shared_store):
    pipeline = appended(shared_store, history)
    state = {}
    for each in audit.changes(shared_store, pipeline):
        if each.stored.kind == "StateEmitted":
            continue
        for move in each.moves:
            at = (move.stream, *(move.path.split(".") if move.path else ()))
            state = {key: value for key, value in state.items() if key[: len(at)] != at}
            if move.change != "removed":
                path = at[1:]
                state |= {(at[0], *key): value for key, value in leaves(move.after, path).items()}
    view = state_as_of(shared_store, pipeline, len(history))
    assert state == all_leaves(view)


@given(history=HISTORIES)
def test_an_event_has_moved_the_same_however_it_was_found(history, shared_store):
    pipeline = appended(shared_store, history)
    everything = list(audit.changes(shared_store, pipeline))
    for filters in ({"run": "x"}, {"kind": "StateSaved"}, {"stream": "orders"}, {"last": 3}):
        found = list(audit.changes(shared_store, pipeline, **filters))
        versions = {each.stored.version for each in found}
        assert found == [each for each in everything if each.stored.version in versions]


@given(before=st.decimals(allow_nan=False, allow_infinity=False), after=st.integers())
def test_numbers_are_compared_by_all_their_digits(before, after):
    move = audit.Change("changed", None, "a", Number(before), Number(after))
    assert audit.went_backwards(move) == (Decimal(after) < before)
