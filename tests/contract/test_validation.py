"""What cannot be taken is refused at the door: the error says what and where, nothing is stored."""

import json
from collections import OrderedDict
from contextlib import contextmanager

import pytest

from eventstore import (
    CatalogRegistered,
    InvalidEvent,
    InvalidPipeline,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StreamDefined,
    StreamDescriptor,
)
from tests.messages import configured_stream, global_state, inner_state, saved, stream_state

SHOP = Pipeline("source-shop")

DESCRIPTOR = '"stream_descriptor":{"name":"users"}'


def _blob(text):
    return f'{{"type":"STREAM","stream":{{{DESCRIPTOR},"stream_state":{text}}}}}'


def _nested(depth):
    return '{"a":' * depth + "1" + "}" * depth


def _nested_dict(depth):
    blob = {}
    for _ in range(depth):
        blob = {"a": blob}
    return blob


def _cyclic():
    blob = {}
    blob["self"] = blob
    return json.loads(stream_state("users", {})) | {"stream": {"stream_state": blob}}


@contextmanager
def refused(store, problem):
    """The error names the problem, and nothing was stored."""
    heads = store.heads()
    with pytest.raises(InvalidEvent, match=problem):
        yield
    assert store.heads() == heads


BAD_TEXTS = {
    "nothing": ("", "not strict JSON"),
    "no JSON": ("state", "not strict JSON"),
    "cut off": (stream_state("users", {"cursor": 1})[:-1], "not strict JSON"),
    "two values": (stream_state("users", {}) * 2, "not strict JSON"),
    "a comment": (stream_state("users", {}) + " // done", "not strict JSON"),
    "single quotes": ("{'type':'LEGACY','data':{}}", "not strict JSON"),
    "NaN": (_blob('{"cursor":NaN}'), "not strict JSON"),
    "Infinity": (_blob('{"cursor":-Infinity}'), "not strict JSON"),
    "a number that overflows a double": (_blob('{"cursor":1e400}'), "not strict JSON"),
    "an integer that overflows a double": (_blob(f'{{"cursor":{"9" * 400}}}'), "not strict JSON"),
    "a lone surrogate": (_blob('{"cursor":"\ud800"}'), "surrogate"),
    "an escaped lone surrogate": (_blob(r'{"cursor":"\ud800"}'), "not strict JSON"),
    "a byte order mark": (("\ufeff" + stream_state("users", {})).encode(), "not strict JSON"),
    "bytes that are no UTF-8": (_blob('{"cursor":"é"}').encode("latin-1"), "not strict JSON"),
    "UTF-16": (stream_state("users", {}).encode("utf-16"), "not strict JSON"),
    "a list": ("[1]", "no JSON object"),
    "a list of states": (f"[{stream_state('users', {})}]", "no JSON object"),
    "a string": ('"state"', "no JSON object"),
    "null": ("null", "no JSON object"),
    "an empty object": ("{}", "neither a `type` nor `data`"),
    "an empty envelope": ('{"type":"STATE"}', "a STATE message needs `state`"),
    "an envelope of null": ('{"type":"STATE","state":null}', "`state` is no JSON object"),
    "an envelope of text": ('{"type":"STATE","state":"users"}', "`state` is no JSON object"),
    "an envelope of nothing": ('{"type":"STATE","state":{}}', "neither a `type` nor `data`"),
    "a record": ('{"type":"RECORD","record":{"stream":"users","data":{}}}', "type"),
    "an unknown type": ('{"type":"PARTITION","data":{}}', "type"),
    "a type in lower case": ('{"type":"stream","stream":{' + DESCRIPTOR + "}}", "type"),
    "STREAM without stream": ('{"type":"STREAM"}', "needs `stream`"),
    "STREAM with a null stream": ('{"type":"STREAM","stream":null}', "needs `stream`"),
    "STREAM without descriptor": (
        '{"type":"STREAM","stream":{"stream_state":{}}}',
        r"stream\.stream_descriptor",
    ),
    "STREAM without name": (
        '{"type":"STREAM","stream":{"stream_descriptor":{"namespace":"a"}}}',
        r"stream_descriptor\.name",
    ),
    "a name that is a number": (
        '{"type":"STREAM","stream":{"stream_descriptor":{"name":7}}}',
        r"stream_descriptor\.name",
    ),
    "a blob that is text": (_blob('"2026-11-20"'), r"stream\.stream_state"),
    "a blob that is a list": (_blob("[1,2]"), r"stream\.stream_state"),
    "a blob that is a number": (_blob("7"), r"stream\.stream_state"),
    "GLOBAL without global": ('{"type":"GLOBAL"}', "needs `global`"),
    "GLOBAL with a null global": ('{"type":"GLOBAL","global":null}', "needs `global`"),
    "GLOBAL without stream_states": (
        '{"type":"GLOBAL","global":{"shared_state":{}}}',
        "global.*stream_states",
    ),
    "GLOBAL with a bad stream": (
        '{"type":"GLOBAL","global":{"stream_states":[{"stream_descriptor":{}}]}}',
        r"stream_states\.0\.stream_descriptor\.name",
    ),
    "LEGACY without data": ('{"type":"LEGACY"}', "LEGACY state needs `data`"),
    "a long name": (stream_state("x" * 256, {}), "name has 256 characters"),
    "a long namespace": (stream_state("users", {}, "x" * 256), "namespace .*256 characters"),
    "a NUL in the name": (stream_state("use\x00rs", {}), "name holds a NUL"),
    "a NUL in the namespace": (stream_state("users", {}, "\x00"), "namespace .*NUL"),
    "a long name inside GLOBAL": (
        global_state({}, inner_state("x" * 256, {})),
        "name has 256 characters",
    ),
    "a NUL inside GLOBAL": (global_state({}, inner_state("users", {}, "\x00")), "NUL"),
    "201 levels": (_blob(_nested(201)), "no Airbyte state"),
    "1,000 levels": (_blob(_nested(1_000)), "no Airbyte state|not strict JSON"),
    "100,000 levels": (_blob(_nested(100_000)), "no Airbyte state|not strict JSON"),
    "more than 16 MiB": (_blob(f'{{"cursor":"{"x" * 16 * 1024 * 1024}"}}'), "at most 16777216"),
}

BAD_OBJECTS = {
    "None": (None, "not NoneType"),
    "a number": (7, "not int"),
    "a list": ([], "not list"),
    "a set": ({1}, "not set"),
    "a class": (dict, "not type"),
    "an empty dict": ({}, "neither a `type` nor `data`"),
    "NaN": (json.loads(_blob('{"cursor":NaN}')), "JSON"),
    "Infinity": (json.loads(_blob('{"cursor":Infinity}')), "JSON"),
    "a huge integer": (json.loads(_blob(f'{{"cursor":{"9" * 400}}}')), "JSON"),
    "an integer too long to print": ({"data": {"cursor": 10**5000}}, "JSON"),
    "a lone surrogate": (json.loads(_blob(r'{"cursor":"\ud800"}')), "surrogate"),
    "bytes inside": ({"type": "LEGACY", "data": {"cursor": b"x"}}, "JSON"),
    "a set inside": ({"type": "LEGACY", "data": {"cursor": {1}}}, "JSON"),
    "a key that is a tuple": ({"type": "LEGACY", "data": {(1, 2): 3}}, "JSON"),
    "an object inside": ({"type": "LEGACY", "data": {"cursor": object()}}, "JSON"),
    "1,000 levels": ({"type": "LEGACY", "data": _nested_dict(1_000)}, "nested|JSON|state"),
    "100,000 levels": ({"type": "LEGACY", "data": _nested_dict(100_000)}, "nested|JSON|state"),
    "a cycle": (_cyclic(), "nested|JSON|state"),
    "an unknown type": (OrderedDict(type="PARTITION", data={}), "type"),
}

BAD_EVENTS = {
    "no event": ("state", "str is no event"),
    "an event's class": (StateCleared, "type is no event"),
    "an origin nobody knows": (StateSaved(stream_state("users", {}), origin="magic"), "magic"),
    "a version that is text": (StateSaved(stream_state("users", {}), of="third"), "of|version"),
    "a version before the first": (StateSaved(stream_state("users", {}), of=0), "of|version"),
    "clearing a stream by text": (StateCleared("users"), "stream's name must be text"),
    "clearing a long name": (StateCleared(StreamDescriptor("x" * 256)), "256 characters"),
    "clearing a NUL": (StateCleared(StreamDescriptor("users", "\x00")), "NUL"),
    "clearing a lone surrogate": (StateCleared(StreamDescriptor("\ud800")), "surrogate"),
    "clearing a number": (StateCleared(StreamDescriptor(7)), "must be text, not int"),
    "a definition of nothing": (StreamDefined(None), "no JSON object"),
    "a definition without modes": (StreamDefined({"stream": {"name": "users"}}), "no configured"),
    "a definition of a long name": (StreamDefined(configured_stream("x" * 256)), "256"),
    "a registration of nothing": (CatalogRegistered(None), "stream"),
    "a registration of text": (CatalogRegistered("users"), "stream"),
    "a registration of names": (CatalogRegistered(["users"]), "stream"),
    "a registration without a name": (CatalogRegistered([{"sync_id": 1}]), "name"),
    "a registration of NaN": (
        CatalogRegistered([{"name": "users", "sync_id": float("nan")}]),
        "integer",
    ),
}


@pytest.mark.parametrize("event", [StateSaved, StateEmitted])
@pytest.mark.parametrize(
    ("message", "problem"),
    [
        pytest.param(*bad, id=f"{kind}: {name}")
        for kind, table in (("text", BAD_TEXTS), ("object", BAD_OBJECTS))
        for name, bad in table.items()
    ],
)
def test_what_is_no_state_is_refused(shared_store, event, message, problem):
    with refused(shared_store, problem):
        shared_store.append(SHOP, event(message))


@pytest.mark.parametrize(
    ("event", "problem"), [pytest.param(*bad, id=name) for name, bad in BAD_EVENTS.items()]
)
def test_what_is_no_event_is_refused(shared_store, event, problem):
    with refused(shared_store, problem):
        shared_store.append(SHOP, event)


@pytest.mark.parametrize(
    ("attribution", "problem"),
    [
        ({"actor": "x" * 256}, "the actor has 256 characters"),
        ({"actor": "nul\x00"}, "the actor holds a NUL"),
        ({"actor": "\ud800"}, "the actor holds a lone surrogate"),
        ({"actor": 7}, "the actor must be text"),
        ({"run": "x" * 256}, "the run has 256 characters"),
        ({"run": "nul\x00"}, "the run holds a NUL"),
        ({"reason": "x" * 4001}, "the reason has 4001 characters"),
        ({"reason": "nul\x00"}, "the reason holds a NUL"),
        ({"reason": 7}, "the reason must be text"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_attribution_that_cannot_be_stored_is_refused(shared_store, attribution, problem):
    with refused(shared_store, problem):
        shared_store.append(SHOP, saved("users", {}), **attribution)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"source": ""}, "source is empty"),
        ({"source": None}, "source must be text"),
        ({"source": "x" * 256}, "source has 256 characters"),
        ({"source": "nul\x00"}, "source holds a NUL"),
        ({"source": "\ud800"}, "source holds a lone surrogate"),
        ({"source": "s", "destination": ""}, "destination is empty"),
        ({"source": "s", "destination": "x" * 256}, "destination has 256 characters"),
        ({"source": "s", "table_prefix": None}, "table_prefix must be text"),
        ({"source": "s", "table_prefix": "x" * 256}, "table_prefix has 256 characters"),
        ({"source": "s", "connection": 7}, "connection must be text"),
        ({"source": "s", "destination": "d", "table_prefix": "p_"}, "not both"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_names_that_make_no_pipeline_are_refused(names, problem):
    with pytest.raises(InvalidPipeline, match=problem):
        Pipeline(**names)


@pytest.mark.parametrize(
    "message",
    [
        stream_state("x" * 255, {}, "y" * 255),
        stream_state("", {}, ""),
        stream_state("é😀" * 100, {}),
        _blob(_nested(100)),
        _blob(f'{{"cursor":"{"x" * 1024 * 1024}"}}'),
        _blob('{"cursor":1e308,"tiny":1e-400}'),
        _blob(r'{"cursor":"\u0000"}'),
        global_state(None),
        '{"type":"LEGACY","data":null}',
        '{"data":{}}',
        '{"type":"STREAM","stream":{' + DESCRIPTOR + "}}",
    ],
    ids=lambda message: message[:40],
)
def test_what_is_just_within_the_limits_is_taken(store, message):
    [stored] = store.append(SHOP, StateSaved(message))
    assert store.event(SHOP, 1) == stored
    assert stored.body == message.encode()


def test_names_and_texts_just_within_the_limits_are_taken(store):
    pipeline = Pipeline("é" * 255, "d" * 255, connection="😀" * 255)
    stored = store.append(
        pipeline, saved("users", {}), actor="é" * 255, run="r" * 255, reason="😀" * 4000
    )
    assert list(store.history(pipeline)) == stored
    assert store.pipelines() == [pipeline]
