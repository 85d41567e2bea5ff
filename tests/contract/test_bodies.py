"""Bytes in, bytes out; and equal bodies are kept once."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from eventstore import Pipeline, StateCleared, StateEmitted, StateSaved
from eventstore.tables import bodies
from projections import connect, latest_state, register_catalog, state_as_of
from tests.messages import catalog, configured_stream, global_state, legacy_state, stream_state

SHOP = Pipeline("source-shop")

BLOBS = [
    "{}",
    "null",
    '{"cursor":null,"nested":{"a":null,"b":[null]}}',
    '{"id":123456789012345678901234567890,"negative":-98765432109876543210}',
    '{"price":0.1234567890123456789012,"small":1e-9,"big":1.50E+10,"zero":-0.0}',
    '{"z":1,"a":2,"m":{"z":1,"a":2}}',
    '{ "spaced" :\t[ 1 ,\n  2 ] ,\r\n "more":  { } }',
    r'{"escaped":"\u00e9\/\n\"\\ \ud83d\ude00 \u0000","raw":"é😀"}',
    '{"twice":1,"twice":2}',
]

FORMS = {
    "STREAM": '{{"type":"STREAM","stream":{{"stream_descriptor":{{"name":"users"}},'
    '"stream_state":{}}}}}',
    "GLOBAL": '{{"type":"GLOBAL","global":{{"stream_states":[{{"stream_descriptor":'
    '{{"name":"users"}},"stream_state":{}}}]}}}}',
    "LEGACY": '{{"type":"LEGACY","data":{}}}',
    "untyped": '{{"data":{}}}',
    "statistics": '{{ "id": 3899, "type": "STREAM", "stream": {{"stream_state": {}, '
    '"stream_descriptor": {{"namespace": null, "name": "users"}}}},'
    '"sourceStats": {{"recordCount": 12.0}} }}',
}


@pytest.mark.parametrize("blob", BLOBS)
@pytest.mark.parametrize("form", FORMS)
def test_a_state_leaves_as_the_bytes_it_came_as(shared_store, form, blob):
    pipeline, message = Pipeline("source-bytes", connection=form + blob), FORMS[form].format(blob)
    [stored] = shared_store.append(pipeline, StateSaved(message))
    assert stored.body == message.encode()
    assert list(shared_store.history(pipeline)) == [stored]
    assert latest_state(shared_store, pipeline).bodies == [message.encode()]
    assert state_as_of(shared_store, pipeline, 1).bodies == [message.encode()]
    assert blob in latest_state(shared_store, pipeline).state_file() or blob == "null"


@pytest.mark.parametrize("blob", BLOBS)
def test_an_envelope_is_cut_away_byte_for_byte(shared_store, blob):
    message = FORMS["STREAM"].format(blob)
    line = f' {{ "emitted_at" : 1, "state" : {message} , "type":"STATE", "more":{blob} }}\r\n'
    pipeline = Pipeline("source-envelope", connection=blob)
    [stored] = shared_store.append(pipeline, StateSaved(line.encode()))
    assert stored.body == message.encode()


_NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
)
_TEXTS = st.builds(json.dumps, st.text(), ensure_ascii=st.booleans())
_SPACES = st.text(" \t\r\n", max_size=2)
_LEAVES = _NUMBERS | _TEXTS | st.sampled_from(["null", "true", "false"])


def _objects(values):
    pairs = st.builds("{}{}{}:{}".format, _SPACES, _TEXTS, _SPACES, values)
    return st.builds("{{{}{}}}".format, st.lists(pairs, max_size=3).map(",".join), _SPACES)


def _lists(values):
    return st.lists(values, max_size=3).map(" ,".join).map("[{}]".format)


_VALUES = st.recursive(_LEAVES, lambda inner: _objects(inner) | _lists(inner), max_leaves=10)


@settings(max_examples=100)
@given(blob=_objects(_VALUES))
def test_any_json_survives(shared_store, blob):
    message = FORMS["STREAM"].format(blob)
    [stored] = shared_store.append(SHOP, StateSaved(f'{{"type":"STATE","state":{message}}}'))
    assert shared_store.event(SHOP, stored.version).body == message.encode()
    assert latest_state(shared_store, SHOP).bodies == [message.encode()]


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([StateSaved(stream_state("users", {"cursor": 1}))] * 5, 1),
        (
            [
                StateEmitted(stream_state("users", {"cursor": 1})),
                StateSaved(stream_state("users", {"cursor": 1})),
            ],
            1,
        ),
        (
            [
                StateSaved(stream_state("users", {"cursor": 1})),
                StateSaved(stream_state("users", {"cursor": 2})),
            ],
            2,
        ),
        ([StateSaved(global_state({"lsn": 1}))] * 2, 1),
        ([StateSaved(legacy_state({"cursor": 1}))] * 2, 1),
        ([StateCleared()] * 2, 0),
    ],
    ids=["saved again", "emitted then saved", "different", "global", "legacy", "cleared"],
)
def test_equal_bodies_are_stored_once(store, events, kept):
    together = store.append(SHOP, *events)
    assert _count_bodies(store) == kept
    assert list(store.history(SHOP)) == together


def test_equal_bodies_of_two_appends_are_stored_once(store):
    for _ in range(3):
        store.append(SHOP, StateSaved(stream_state("users", {"cursor": 1})))
    assert _count_bodies(store) == 1


def test_an_unchanged_catalog_costs_no_further_body(store):
    registered = catalog(*(configured_stream(f"stream {number}") for number in range(50)))
    register_catalog(store, SHOP, registered)
    first = _count_bodies(store)
    register_catalog(store, SHOP, registered)
    assert (first, _count_bodies(store)) == (51, 51)


def test_a_body_that_another_writer_replaced_is_stored_again(database):
    one_body = StateSaved(stream_state("users", {"cursor": 1}))
    with connect(database) as one, connect(database) as other:
        one.append(SHOP, one_body)
        other.append(SHOP, StateSaved(stream_state("users", {"cursor": 2})))
        one.append(SHOP, one_body)
        stored = [json.loads(event.body)["stream"]["stream_state"] for event in one.history(SHOP)]
    assert stored == [{"cursor": 1}, {"cursor": 2}, {"cursor": 1}]


def _count_bodies(store):
    with store.database.engine.connect() as db:
        return db.scalar(select(func.count()).select_from(bodies))


def test_a_state_that_is_restored_at_once_is_not_stored_again(store):
    """Whatever way the appends before it took: on some databases those have a shorter one."""
    states = [stream_state("users", {"cursor": number}) for number in range(3)]
    for state in states:
        [stored] = store.append(SHOP, StateSaved(state))
        assert stored.body_version == stored.version
    [restored] = store.append(SHOP, StateSaved(states[0], "restored", of=1))
    assert (restored.version, restored.body_version) == (4, 1)
    assert store.event(SHOP, 4) == restored
    assert latest_state(store, SHOP).bodies == [states[0].encode()]
