"""Two moments, or two pipelines, side by side."""

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import Pipeline, StateSaved
from projections import CatalogView, StateView, audit, catalog_as_of, register_catalog, state_as_of
from projections.json_text import compact, parse
from tests.messages import catalog, configured_stream, global_state, inner_state, saved
from tests.read_side.test_changes import HISTORIES, appended

SHOP = Pipeline("source-shop")
BANK = Pipeline("source-bank", "destination-lake")


def told(changes):
    return [(move.change, str(move.stream or ""), move.path) for move in changes]


def test_two_pipelines_are_compared_stream_by_stream(store):
    store.append(SHOP, saved("orders", {"a": 1}), saved("users", {"b": 1}))
    store.append(BANK, saved("users", {"b": 2}), saved("users", {"b": 1}, "audit"))
    views = [state_as_of(store, SHOP, 2), state_as_of(store, BANK, 2)]
    assert told(audit.diff(*views)) == [
        ("removed", "orders", ""),
        ("changed", "users", "b"),
        ("added", "audit.users", ""),
    ]
    assert audit.stat(audit.diff(*views)).keys() == {move.stream for move in audit.diff(*views)}


def test_partitions_are_matched_by_what_they_are(store):
    first, second = ({"partition": {"id": id_}, "cursor": id_} for id_ in "ab")
    store.append(SHOP, saved("orders", {"states": [second]}))
    store.append(SHOP, saved("orders", {"states": [first, {**second, "cursor": "c"}]}))
    moves = audit.diff(state_as_of(store, SHOP, 1), state_as_of(store, SHOP, 2))
    assert told(moves) == [
        ("changed", "orders", 'states[partition={"id":"b"}].cursor'),
        ("added", "orders", 'states[partition={"id":"a"}]'),
    ]


@pytest.mark.parametrize(
    ("shared", "inner"),
    [
        (' { "lsn" : 1 } ', ' [ { "stream_descriptor" : {"name":"a"} , "stream_state" : {} } ] '),
        ("null", "[]"),
        ('{"x":"]}"}', '[{"stream_state":null,"stream_descriptor":{"namespace":"","name":"a"}}]'),
    ],
)
def test_a_global_state_is_cut_wherever_its_parts_stand(shared, inner, store):
    in_order = f'"shared_state":{shared},"stream_states":{inner}'
    turned = f'"stream_states":{inner},"z":[1],"shared_state":{shared}'
    texts = [
        f'{{"type":"GLOBAL","global":{{{in_order}}}}}',
        f' {{ "global" : {{{turned}}},"type":"GLOBAL"}}',
    ]
    store.append(SHOP, *map(StateSaved, texts))
    assert audit.diff(state_as_of(store, SHOP, 1), state_as_of(store, SHOP, 2)) == []
    fresh = audit.diff(StateView(SHOP), state_as_of(store, SHOP, 2))
    blob = parse(texts[0])["global"]
    assert [move.after for move in fresh] == [
        blob["shared_state"],
        *(stream["stream_state"] for stream in blob["stream_states"]),
    ]


BLOBS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "0", "1", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc~/"), inner),
    max_leaves=8,
)
STREAMS = st.dictionaries(st.sampled_from("abcd"), st.dictionaries(st.sampled_from("xyz"), BLOBS))


def whole(streams):
    body = global_state(None, *(inner_state(name, blob) for name, blob in streams.items()))
    return StateView(SHOP, whole=body.encode())


@given(before=STREAMS, after=STREAMS)
def test_a_part_is_never_taken_for_another(before, after):
    """Parts that are known from the state before are not parsed, and still are the right ones."""
    moved = {str(move.stream) for move in audit.diff(whole(before), whole(after)) if move.stream}
    names = before.keys() | after.keys()
    then, now = parse(compact(before)), parse(compact(after))
    same = {
        name
        for name in names
        if name in then and name in now and canonical(then[name]) == canonical(now[name])
    }
    assert moved == names - same


def canonical(value):
    """JSON whose members have one order."""
    if isinstance(value, dict):
        return compact({key: canonical(value[key]) for key in sorted(value)})
    return compact(list(map(canonical, value)) if isinstance(value, list) else value)


# JSON Patch


@given(history=HISTORIES, data=st.data())
def test_a_json_patch_makes_of_one_state_the_other(history, data, shared_store):
    pipeline = appended(shared_store, history)
    versions = st.integers(0, len(history))
    views = [state_as_of(shared_store, pipeline, data.draw(versions)) for _ in "ab"]
    assert_patch_leads(*views)


@given(before=STREAMS, after=STREAMS)
def test_a_json_patch_of_any_blobs_leads_to_the_same_json(before, after):
    assert_patch_leads(whole(before), whole(after))


def test_a_json_patch_keeps_every_digit(store):
    for digits in ("1700000000.123456789", "1700000000.123456790", '"1700000000.123456790"'):
        state = saved("orders", {"a": "X"}).message.replace('"X"', digits)
        store.append(SHOP, StateSaved(state))
    views = [state_as_of(store, SHOP, version) for version in (1, 2, 3)]
    path = "/0/stream/stream_state/a"
    for before, after, value in ((0, 1, "1700000000.123456790"), (1, 2, '"1700000000.123456790"')):
        patch = compact(audit.json_patch(views[before], views[after]))
        assert patch == f'[{{"op":"replace","path":"{path}","value":{value}}}]'


def assert_patch_leads(before, after):
    patch = parse(compact(audit.json_patch(before, after)))
    patched = jsonpatch.apply_patch(parse(before.state_file()), patch)
    assert canonical(patched) == canonical(parse(after.state_file()))


# Catalogs


def definition(fields, **configuration):
    stream = configured_stream("orders", **configuration)
    stream["stream"]["json_schema"] = {"type": "object", "properties": fields}
    return stream


def catalog_changes(store, *streams):
    for number, stream in enumerate(streams):
        register_catalog(store, Pipeline(f"source-{number}"), catalog(stream))
    then, now = (catalog_as_of(store, Pipeline(f"source-{number}"), 2) for number in (0, 1))
    return [
        (each.change, each.what, each.path, each.breaking)
        for each in audit.diff_catalogs(then, now)
    ]


TEXT, WHOLE, NUMBER = ({"type": name} for name in ("string", "integer", "number"))
MAYBE = {"type": ["null", "string"]}
DAY = {"type": "string", "format": "date"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": TEXT}, {"a": TEXT}, []),
        ({"a": TEXT}, {"a": TEXT, "b": TEXT}, [("added", "field", "b", False)]),
        ({"a": TEXT, "b": TEXT}, {"a": TEXT}, [("removed", "field", "b", True)]),
        ({"a": TEXT}, {"a": WHOLE}, [("changed", "type", "a", True)]),
        ({"a": WHOLE}, {"a": NUMBER}, [("changed", "type", "a", False)]),
        ({"a": NUMBER}, {"a": WHOLE}, [("changed", "type", "a", True)]),
        ({"a": TEXT}, {"a": MAYBE}, [("changed", "type", "a", False)]),
        ({"a": TEXT}, {"a": DAY}, [("changed", "type", "a", True)]),
        (
            {"a": {"type": "object", "properties": {"b": TEXT}}},
            {"a": {"type": "object", "properties": {"c": TEXT}}},
            [("removed", "field", "a.b", True), ("added", "field", "a.c", False)],
        ),
        (
            {"a": {"type": "array", "items": TEXT}},
            {"a": {"type": "array", "items": WHOLE}},
            [("changed", "type", "a[]", True)],
        ),
        (
            {"a.b": TEXT},
            {"a": {"type": "object", "properties": {"b": TEXT}}},
            [
                ("removed", "field", "a.b", True),
                ("added", "field", "a", False),
                ("added", "field", "a.b", False),
            ],
        ),
        ({"a": {}}, {"a": TEXT}, [("changed", "type", "a", True)]),
        ({"a": TEXT}, {"a": {}}, [("changed", "type", "a", False)]),
        (
            {"a": {"type": "object", "oneOf": [TEXT]}},
            {"a": {"type": "object", "oneOf": [WHOLE]}},
            [("changed", "type", "a", True)],
        ),
    ],
)
def test_fields_and_types_are_compared(before, after, expected, store):
    assert catalog_changes(store, definition(before), definition(after)) == expected


@pytest.mark.parametrize(
    ("configuration", "what", "breaking"),
    [
        ({"sync_mode": ("incremental", "full_refresh")}, "sync mode", False),
        ({"destination_sync_mode": ("append", "overwrite")}, "destination sync mode", False),
        ({"primary_key": ([["id"]], [["id"], ["shop"]])}, "primary key", True),
        ({"cursor_field": (["id"], ["at"])}, "cursor", True),
        ({"primary_key": ([], [["id"]])}, "primary key", False),
        ({"cursor_field": ([], ["at"])}, "cursor", False),
    ],
)
def test_how_streams_are_synced_is_compared(configuration, what, breaking, store):
    [(field, values)] = configuration.items()
    streams = [definition({}, **{field: value}) for value in values]
    assert catalog_changes(store, *streams) == [("changed", what, "", breaking)]


def test_streams_that_came_and_went_are_told(store):
    register_catalog(store, SHOP, catalog(configured_stream("orders")))
    register_catalog(store, BANK, catalog(configured_stream("orders", "b")))
    views = [catalog_as_of(store, pipeline, 2) for pipeline in (SHOP, BANK)]
    assert [
        (each.change, str(each.stream), each.breaking) for each in audit.diff_catalogs(*views)
    ] == [
        ("removed", "orders", True),
        ("added", "b.orders", False),
    ]
    assert audit.diff_catalogs(CatalogView(SHOP), views[0])[0].change == "added"
