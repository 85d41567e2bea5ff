"""Random histories, and a model in plain Python of what they add up to."""

import json
from copy import deepcopy
from dataclasses import dataclass, field
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


@dataclass
class Model:
    """What a history adds up to, told once more: lists and dicts, and a copy for each version."""

    state: list = field(default_factory=list)  # (stream or None, text), least recent first
    definitions: dict = field(default_factory=dict)  # stream -> columns
    syncs: dict = field(default_factory=dict)  # stream -> the sync id it was last registered with
    past: list = field(default_factory=list)

    def __post_init__(self):
        self._happened()

    def append(self, event):
        match event:
            case StateSaved(message):
                stream = _stream(message)
                dropped = {None, stream} if stream else {None, *STREAMS}
                self._forget(dropped)
                self.state.append((stream, message))
            case StateCleared(None):
                self._forget({None, *STREAMS})
            case StateCleared(stream):
                self._forget({stream})
            case StreamDefined(configured):
                self.definitions[_descriptor(configured["stream"])] = _columns(configured)
        self._happened()

    def register(self, configured):
        for stream in configured:
            if self.definitions.get(_descriptor(stream["stream"])) != _columns(stream):
                self.append(StreamDefined(stream))
        for stream in configured:
            self.syncs[_descriptor(stream["stream"])] = stream.get("sync_id")
        self._happened()

    def _forget(self, streams):
        self.state = [(stream, text) for stream, text in self.state if stream not in streams]

    def _happened(self):
        self.past.append(
            (
                [text.encode() for _, text in self.state],
                {
                    stream: (columns, self.syncs.get(stream))
                    for stream, columns in self.definitions.items()
                },
            )
        )


def _stream(message):
    stream = json.loads(message).get("stream")
    return stream and _descriptor(stream["stream_descriptor"])


def _descriptor(named):
    return StreamDescriptor(named["name"], named.get("namespace"))


def _columns(configured):
    return list(configured["stream"]["json_schema"]["properties"])


_streams = st.sampled_from(STREAMS)
_blobs = st.none() | st.sampled_from([{}, {"cursor": 1}, {"cursor": 2}, {"cursor": None}])
_inner = st.builds(
    lambda stream, blob: inner_state(stream.name, blob, stream.namespace), _streams, _blobs
)
_stream_states = st.builds(
    lambda stream, blob: stream_state(stream.name, blob, stream.namespace), _streams, _blobs
)
_messages = st.one_of(
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
    lambda stream, columns, sync: configured_stream(
        stream.name, stream.namespace, columns=columns, **({"sync_id": sync} if sync else {})
    ),
    _streams,
    st.sampled_from([["id"], ["id", "name"], ["name"]]),
    st.sampled_from([None, 1, 2]),
)
_events = st.one_of(
    st.builds(StateSaved, _messages),
    st.builds(StateSaved, _messages),
    st.builds(StateEmitted, _messages),
    st.builds(StateCleared, st.none() | _streams),
    st.builds(StreamDefined, _configured.map(lambda stream: {**stream, "sync_id": None})),
)
_batches = st.lists(_events, min_size=1, max_size=4)
_registrations = st.lists(
    _configured, max_size=3, unique_by=lambda stream: _descriptor(stream["stream"])
)
_steps = st.one_of(
    _batches.map(lambda batch: ("append", batch)),
    _registrations.map(lambda streams: ("register", streams)),
)
histories = st.lists(st.tuples(st.sampled_from([0, 0, 1, 2]), _steps), max_size=7)


def play(store, history):
    """Append the same to three new pipelines and to their models."""
    name = next(_fresh)
    pipelines = [
        Pipeline("source-shop", connection=name),
        Pipeline("source-shop", table_prefix="users_", connection=name),
        Pipeline("source-shop", "destination-lake", connection=name),
    ]
    models = {pipeline: Model() for pipeline in pipelines}
    for number, (kind, what) in history:
        pipeline, model = pipelines[number], models[pipelines[number]]
        if kind == "register":
            register_catalog(store, pipeline, catalog(*deepcopy(what)))
            model.register(what)
        else:
            store.append(pipeline, *what)
            for event in what:
                model.append(event)
    return models
