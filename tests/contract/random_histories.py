"""Random histories, and what is asked for in them."""

import json
from copy import deepcopy
from itertools import count

from hypothesis import strategies as st

from eventstore import (
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StreamDefined,
    StreamDescriptor,
)
from projections import register_catalog
from tests.contract.model import Model, columns, descriptor_of, stream_of
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    stream_state,
)

STREAMS = [
    StreamDescriptor("users"),
    StreamDescriptor("users", ""),
    StreamDescriptor("users", "audit"),
    StreamDescriptor("orders"),
    StreamDescriptor("_GLOBAL"),
]

_fresh = (str(number) for number in count())


streams = st.sampled_from(STREAMS)
_blobs = st.none() | st.sampled_from([{}, {"cursor": 1}, {"cursor": 2}, {"cursor": None}])
_inner = st.builds(
    lambda stream, blob: inner_state(stream.name, blob, stream.namespace), streams, _blobs
)
_stream_states = st.builds(
    lambda stream, blob: stream_state(stream.name, blob, stream.namespace), streams, _blobs
)
messages = st.one_of(
    _stream_states,
    _stream_states,
    _stream_states.map(lambda text: text.replace(',"stream_state":null', "")),
    st.builds(
        lambda shared, inner: global_state(shared, *inner), _blobs, st.lists(_inner, max_size=2)
    ),
    st.builds(legacy_state, _blobs),
    st.builds(legacy_state, _blobs).map(lambda text: text.replace('"type":"LEGACY",', "")),
)
_configured = st.builds(
    lambda stream, names, sync: configured_stream(
        stream.name, stream.namespace, columns=names, **({"sync_id": sync} if sync else {})
    ),
    streams,
    st.sampled_from([["id"], ["id", "name"], ["name"]]),
    st.sampled_from([None, 1, 2]),
)
_events = st.one_of(
    st.builds(StateSaved, messages),
    st.builds(StateSaved, messages),
    st.builds(StateEmitted, messages),
    st.builds(StateCleared, st.none() | streams),
    st.builds(StreamDefined, _configured.map(lambda stream: {**stream, "sync_id": None})),
)
batches = st.lists(_events, min_size=1, max_size=4)
registrations = st.lists(_configured, max_size=3, unique_by=descriptor_of)
_steps = st.one_of(
    batches.map(lambda batch: ("append", batch)),
    registrations.map(lambda configured: ("register", configured)),
)
histories = st.lists(st.tuples(st.sampled_from([0, 0, 1, 2]), _steps), max_size=7)


def new_pipelines():
    """Three that nobody has appended to: to a cache, to one with a prefix, to a destination."""
    name = next(_fresh)
    return [
        Pipeline("source-shop", connection=name),
        Pipeline("source-shop", table_prefix="users_", connection=name),
        Pipeline("source-shop", "destination-lake", connection=name),
    ]


def play(store, history):
    """Append the same to three new pipelines and to their models."""
    pipelines = new_pipelines()
    models = {pipeline: Model() for pipeline in pipelines}
    for number, (kind, what) in history:
        pipeline, model = pipelines[number], models[pipelines[number]]
        if kind == "register":
            before = model.catalog()
            model.append(register_catalog(store, pipeline, catalog(*deepcopy(what))))
            check_registered(before, model.catalog(), what)
        else:
            stored = store.append(pipeline, *what)
            check_appended(stored, what)
            model.append(stored)
    return models


def check_appended(stored, events):
    """What is acknowledged is what was given."""
    assert len(stored) == len(events)
    for each, event in zip(stored, events, strict=True):
        assert each.kind == type(event).__name__
        match event:
            case StateSaved(message) | StateEmitted(message):
                assert (each.stream, each.body) == (stream_of(message), message.encode())
            case StateCleared(stream):
                assert (each.stream, each.body) == (stream, b"")
            case StreamDefined(configured):
                assert each.stream == descriptor_of(configured)
                assert columns(json.loads(each.body)) == columns(configured)


def check_registered(before, after, configured):
    """The catalog has what was registered, and of the other streams what it had."""
    new = {descriptor_of(each): (columns(each), each.get("sync_id")) for each in configured}
    assert after == before | new
