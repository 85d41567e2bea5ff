"""A state may be given as text, bytes, dicts, Airbyte's models or the CDK's dataclasses."""

import json

import airbyte_cdk.models as cdk
import pytest
from airbyte_protocol import models as protocol
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import Pipeline, StateSaved, StreamDescriptor
from projections import latest_state
from tests.messages import envelope, global_state, inner_state, legacy_state, stream_state

SHOP = Pipeline("source-shop")

BLOB = {"z": 1, "a": None, "nested": {"b": [None, {"c": None}]}, "empty": {}}

BLOB_TEXT = json.dumps(BLOB, separators=(",", ":")).encode()

STATES = {
    "STREAM": stream_state("users", BLOB),
    "STREAM with namespace": stream_state("users", BLOB, "audit"),
    "STREAM with empty namespace": stream_state("users", BLOB, ""),
    "STREAM to reset": stream_state("users", None),
    "STREAM with empty state": stream_state("users", {}),
    "GLOBAL": global_state(BLOB, inner_state("users", BLOB), inner_state("orders", None, "audit")),
    "LEGACY": legacy_state(BLOB),
}


def _pydantic(text):
    return protocol.AirbyteStateMessage.model_validate_json(text)


def _dataclass(text):
    return cdk.AirbyteStateMessageSerializer.load(json.loads(text))


TEXTS = {
    "text": str,
    "bytes": str.encode,
    "bytearray": lambda text: bytearray(text.encode()),
    "memoryview": lambda text: memoryview(text.encode()),
    "envelope as text": envelope,
    "envelope as bytes": lambda text: envelope(text).encode(),
}

OBJECTS = {
    "dict": json.loads,
    "envelope as dict": lambda text: json.loads(envelope(text)),
    "model": _pydantic,
    "envelope as model": lambda text: protocol.AirbyteMessage.model_validate_json(envelope(text)),
    "dataclass": _dataclass,
    "envelope as dataclass": lambda text: cdk.AirbyteMessage(
        type=cdk.Type.STATE, state=_dataclass(text)
    ),
}

FORMS = {**TEXTS, **OBJECTS}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("form", TEXTS.values(), ids=TEXTS)
def test_a_state_given_as_text_is_stored_byte_for_byte(shared_store, form, state):
    [stored] = shared_store.append(SHOP, StateSaved(form(state)))
    assert stored.body == state.encode()
    assert latest_state(shared_store, SHOP).bodies[-1] == state.encode()


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("form", OBJECTS.values(), ids=OBJECTS)
def test_a_state_given_as_an_object_is_stored_compactly_and_whole(shared_store, form, state):
    [stored] = shared_store.append(SHOP, StateSaved(form(state)))
    assert json.loads(stored.body) == json.loads(state)
    assert len(stored.body) == len(state)
    assert (BLOB_TEXT in stored.body) == (BLOB_TEXT in state.encode())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_stream_is_found_in_every_form(shared_store, form):
    [stored] = shared_store.append(SHOP, StateSaved(form(STATES["STREAM with namespace"])))
    assert stored.stream == StreamDescriptor("users", "audit")


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(blob=st.dictionaries(st.text(), _VALUES, max_size=4))
def test_a_dict_is_stored_compactly_with_its_blob_untouched(shared_store, blob):
    message = json.loads(stream_state("users", {})) | {"stream": inner_state("users", blob)}
    [stored] = shared_store.append(SHOP, StateSaved(message))
    expected = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    assert stored.body.decode() == expected


def test_a_model_written_by_hand_is_dumped_with_the_protocols_names(shared_store):
    message = protocol.AirbyteStateMessage(
        type=protocol.AirbyteStateType.GLOBAL,
        **{"global": protocol.AirbyteGlobalState(stream_states=[])},
    )
    [stored] = shared_store.append(SHOP, StateSaved(message))
    assert stored.body == b'{"type":"GLOBAL","global":{"stream_states":[]}}'


def test_statistics_and_unknown_keys_survive_in_objects(shared_store):
    message = {
        **json.loads(stream_state("users", BLOB)),
        "sourceStats": {"recordCount": 12.0},
        "destinationStats": {"recordCount": 11.0, "rejectedRecordCount": 1.0},
        "id": 3899,
    }
    [stored] = shared_store.append(SHOP, StateSaved(message))
    assert json.loads(stored.body) == message


PYAIRBYTE = (
    '{{"type":"{}","stream":{},"global_":{},"data":{},"sourceStats":null,"destinationStats":null}}'
)
EXACT = '{"cursor": 0.1234567890123456789012, "id":12345678901234567890123, "null" : null}'


def test_pyairbytes_form_of_a_stream_state_is_read(shared_store):
    stream = '{"stream_descriptor":{"name":"users","namespace":null},"stream_state":' + EXACT + "}"
    [stored] = shared_store.append(
        SHOP, StateSaved(PYAIRBYTE.format("STREAM", stream, "null", "null"))
    )
    assert stored.stream == StreamDescriptor("users")
    assert EXACT.encode() in stored.body
    assert b"global_" not in stored.body


def test_pyairbytes_form_of_a_global_state_is_read_with_the_blobs_text_kept(shared_store):
    shared = (
        '{"shared_state":' + EXACT + ',"stream_states":[{"stream_descriptor":{"name":"users"},'
        '"stream_state":' + EXACT + "}]}"
    )
    [stored] = shared_store.append(
        SHOP, StateSaved(PYAIRBYTE.format("GLOBAL", "null", shared, "null"))
    )
    assert b'"global":' + shared.encode() in stored.body
    assert b"global_" not in stored.body
    assert stored.event.message.global_.shared_state.cursor == pytest.approx(0.1234567890123456789)


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"GLOBAL","global":{"stream_states":[]},"global_":null}',
        '{"type":"GLOBAL","global_":null,"global":{"stream_states":[]}}',
        '{"type":"GLOBAL","global_":null,"global_":{"stream_states":[]}}',
    ],
)
@pytest.mark.parametrize("form", [str, json.loads, _pydantic], ids=["text", "dict", "model"])
def test_a_null_under_pyairbytes_spelling_does_not_hide_the_state(shared_store, form, message):
    [stored] = shared_store.append(SHOP, StateSaved(form(message)))
    assert stored.event.message.global_.stream_states == []
    assert b"global_" not in stored.body


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_model_read_from_a_row_of_pyairbytes_is_stored_like_any_other(shared_store, state):
    written = _pydantic(state).model_dump_json()
    [stored] = shared_store.append(SHOP, StateSaved(_pydantic(written)))
    assert stored.body == state.encode()


@pytest.mark.parametrize(
    "line",
    [
        '{{"type":"STATE","state":{}}}\n',
        '{{"state":{},"type":"STATE"}}\r\n',
        ' {{ "state" : {} }} ',
        '{{"type":"STATE","emitted_at":1,"state":{},"x":{{"state":{{"data":{{}}}}}}}}',
        '{{"type":"STATE","st\\u0061te":{}}}',
    ],
)
def test_an_envelope_may_be_spelled_in_any_way(shared_store, line):
    [stored] = shared_store.append(SHOP, StateSaved(line.format(STATES["STREAM"])))
    assert stored.body == STATES["STREAM"].encode()
