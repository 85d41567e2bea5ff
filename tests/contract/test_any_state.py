"""Any state there can be: Airbyte's model, to which most are never shown, has to agree."""

import json
import re
from dataclasses import dataclass
from enum import Enum

import pytest
from airbyte_protocol.models import AirbyteStateMessage, AirbyteStateType
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import RootModel, ValidationError

from eventstore import InvalidEvent, StateCleared, StateSaved, StreamDescriptor
from eventstore.codec import encode
from eventstore.strict_json import dump, dump_if_exact
from tests.messages import stream_state

_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

_OURS = re.compile("needs `|no state in it|NUL|lone surrogate")
"""What we refuse and the model does not."""

_NUMBER_OR_NOT = st.none() | st.booleans() | st.integers() | st.floats(0, 1e9) | st.text(max_size=2)
_NAMES = st.text(max_size=3) | _NUMBER_OR_NOT
_BLOBS = st.none() | st.dictionaries(st.text(max_size=3), _NUMBER_OR_NOT, max_size=3) | _NAMES
_COUNTS = st.dictionaries(
    st.sampled_from(["recordCount", "rejectedRecordCount", "more"]), _NUMBER_OR_NOT
)


def _some_of(**values):
    return st.fixed_dictionaries({}, optional=values)


_STREAMS = _some_of(
    stream_descriptor=_some_of(name=_NAMES, namespace=_NAMES, more=_BLOBS) | _BLOBS,
    stream_state=_BLOBS,
    more=_BLOBS,
)
_STATES = _some_of(
    type=st.sampled_from(["STREAM", "STREAM", "GLOBAL", "LEGACY", "PARTITION", None, 1]),
    stream=_STREAMS | _BLOBS,
    data=_BLOBS,
    sourceStats=_COUNTS | _BLOBS,
    destinationStats=_COUNTS | _BLOBS,
    more=_BLOBS,
) | _some_of(
    type=st.just("STREAM"),
    stream=_some_of(stream_descriptor=_some_of(name=st.just("a"), namespace=_NAMES)),
    sourceStats=_COUNTS,
    **{"global": _BLOBS},
)


def encoded(message):
    """What would be stored of a state that the model takes; None where we alone refuse it."""
    try:
        return encode(StateSaved(message))
    except InvalidEvent as refusal:
        if not _OURS.search(str(refusal)):
            raise
        return None


@settings(max_examples=1000)
@given(state=_STATES)
def test_a_state_is_taken_exactly_if_airbytes_model_takes_it(state):
    """Whichever way it was found valid: most states are never shown to the model."""
    text = json.dumps(state)
    try:
        model = AirbyteStateMessage.model_validate_json(text)
    except ValidationError:
        with pytest.raises(InvalidEvent):
            encode(StateSaved(text))
        return
    draft = encoded(text)
    if draft is None:
        return
    stream = draft.stream
    if stream:
        its = model.stream.stream_descriptor
        assert (stream.name, stream.namespace) == (its.name, its.namespace)
    assert (stream is not None) == (model.type is AirbyteStateType.STREAM)


@settings(max_examples=1000)
@given(state=_STATES)
def test_a_model_is_stored_as_all_that_was_said_with_it(state):
    """Nulls of the envelope are nothing that was said: as such they read as before."""
    try:
        model = AirbyteStateMessage.model_validate(state)
    except ValidationError:
        return
    draft = encoded(model)
    assert draft is None or AirbyteStateMessage.model_validate_json(draft.body) == model


@settings(max_examples=2000)
@given(value=st.dictionaries(st.text(max_size=3), _ANYTHING, max_size=3))
def test_an_object_is_written_in_one_way(value):
    """However it is given: the same bytes are the same state, and may be appended again."""
    written = dump_if_exact(value)
    assert written is None or written == dump(value)


@pytest.mark.parametrize("digits", ["9" * 300, "1" * 5000 + "e-4990", "1." + "2" * 5000, "0" * 3])
def test_a_number_that_cannot_be_read_again_is_not_taken(digits):
    text = stream_state("users", {"n": "digits"}).replace('"digits"', digits)
    try:
        draft = encode(StateSaved(text))
    except InvalidEvent:
        return
    assert AirbyteStateMessage.model_validate_json(draft.body)


def test_what_is_no_state_is_refused_as_a_model_too():
    with pytest.raises(InvalidEvent, match="a state is an object"):
        encode(StateSaved(RootModel[list[int]]([1])))


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ('{"type":"STATE","state":{"data":{"b":2}}}', '{"data":{"b":2}}'),
        ('{"state":{"data":{"b":2}},"log":null}', '{"data":{"b":2}}'),
        ('{"type":"STATE","state":{"data":{"b":2}},"stream":null}', '{"data":{"b":2}}'),
        ('{"type":"LEGACY","data":{"a":1},"state":{"data":{"b":2}}}', None),
        ('{"data":{"a":1},"state":{"data":{"b":2}}}', None),
        ('{"type":"LOG","state":{"data":{"b":2}}}', InvalidEvent),
        ('{"type":"GLOBAL","state":{"data":{"b":2}}}', InvalidEvent),
    ],
)
def test_a_state_is_taken_out_of_an_envelope_alone_however_it_is_given(text, inner):
    for given_as in (text, text.encode(), json.loads(text)):
        if inner is InvalidEvent:
            with pytest.raises(InvalidEvent):
                encode(StateSaved(given_as))
        else:
            assert encode(StateSaved(given_as)).body == (inner or text).encode()


def test_names_and_keys_of_other_types_are_what_they_say():
    class Name(str, Enum):
        USERS = "users"

    @dataclass
    class Blob:
        model_dump: int

    stream = encode(StateCleared(StreamDescriptor(Name.USERS))).stream
    assert (type(stream.name), str(stream)) == (str, "users")
    body = encode(StateSaved({"data": Blob(1)})).body
    assert body == b'{"data":{"model_dump":1}}'
