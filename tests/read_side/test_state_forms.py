"""The state out in each form, and in again: the same values, with every digit."""

import json

import pytest
from airbyte.cloud._connection_state import (
    ConnectionStateResponse,
    _denormalize_protocol_state_to_api,
    _normalize_state_to_protocol,
)
from hypothesis import given
from hypothesis import strategies as st

from eventstore import InvalidEvent, Pipeline, StateSaved
from eventstore.errors import Invalid
from projections import connect, json_text, latest_state
from projections.exchange import FORMS, read_state, write_state
from tests.messages import envelope, global_state, inner_state, legacy_state, stream_state


def _object(pairs):
    return "{" + ", ".join(f"{json.dumps(key)} : {value}" for key, value in pairs.items()) + "}"


_DIGITS = r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?"
_numbers = st.from_regex(_DIGITS, fullmatch=True)
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
_values = st.recursive(
    st.sampled_from(["null", "true", "{}", "[]"]) | _numbers | _texts.map(json.dumps),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ " + ", ".join(items) + "]"),
        st.dictionaries(_texts, inner, max_size=3).map(_object),
    ),
    max_leaves=6,
)
_blobs = st.dictionaries(_texts, _values, max_size=3).map(_object)
_names = st.tuples(_texts, st.none() | _texts)


def _inner(names, blob):
    descriptor = {"name": names[0]} | ({} if names[1] is None else {"namespace": names[1]})
    state = "" if blob is None else f', "stream_state":{blob}'
    return f'{{"stream_descriptor": {json.dumps(descriptor)}{state}}}'


_inners = st.dictionaries(_names, _blobs | st.sampled_from([None, "null"]), max_size=3).map(
    lambda streams: [_inner(*each) for each in streams.items()]
)
_stats = st.sampled_from(["", ', "sourceStats": {"recordCount": 12.0}', ', "id": 3899'])
_stream_states = st.builds(
    lambda inners, stats: [f'{{"type":"STREAM","stream":{each}{stats}}}' for each in inners],
    _inners,
    _stats,
)
_global_states = st.builds(
    lambda shared, inners: [
        f'{{"type":"GLOBAL","global":{{{shared}"stream_states":[{",".join(inners)}]}}}}'
    ],
    st.just("") | (_blobs | st.just("null")).map(lambda blob: f'"shared_state":{blob},'),
    _inners,
)
_legacy_states = st.builds(
    lambda blob, of_type: [f'{{{of_type}"data":{blob}}}'],
    _blobs,
    st.sampled_from(["", '"type":"LEGACY",']),
)
_states = _stream_states | _global_states | _legacy_states


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A store, and pipelines that are all new."""
    with connect(tmp_path_factory.mktemp("forms") / "state.db") as store:
        yield store, iter(range(1_000_000))


def view_of(numbered, messages):
    store, numbers = numbered
    pipeline = Pipeline("source-shop", table_prefix=str(next(numbers)), connection="5f2c")
    store.append(pipeline, *map(StateSaved, messages))
    return latest_state(store, pipeline)


def values(bodies):
    """What the messages say, number by number, without what only the protocol has a place for."""
    found = [json_text.parse(body) for body in bodies]
    for message in found:
        for key in ("sourceStats", "id"):
            message.pop(key, None)
    typed = [{"type": message.pop("type", "LEGACY"), **message} for message in found]
    return json_text.compact(typed)


@pytest.mark.parametrize("form", FORMS)
@given(messages=_states)
def test_out_and_in_again_every_value_is_the_same(form, messages, numbered):
    view = view_of(numbered, messages)
    read = read_state(write_state(view, form).encode())
    assert values(read) == values(view.bodies)


@given(messages=_stream_states | _global_states)
def test_the_protocols_form_is_read_byte_for_byte(messages, numbered):
    view = view_of(numbered, messages)
    assert read_state(view.state_file().encode()) == view.bodies


@given(messages=_stream_states | _global_states)
def test_pyairbyte_reads_it_and_what_pyairbyte_writes_is_read(messages, numbered):
    view = view_of(numbered, messages)
    api, listed = (json.loads(write_state(view, form)) for form in ("api", "pyairbyte"))
    assert ConnectionStateResponse(**api).connection_id == "5f2c"
    assert len(_normalize_state_to_protocol(api)) == len(view.bodies)
    theirs = _denormalize_protocol_state_to_api(listed, "5f2c")
    assert len(read_state(json.dumps(theirs).encode())) == len(view.bodies)


def test_the_form_of_the_api(numbered):
    def written(*messages):
        return write_state(view_of(numbered, messages), "api")

    assert written() == '{"stateType":"not_set","connectionId":"5f2c"}'
    assert written(stream_state("users", {"c": 1}, "pub"), stream_state("orders", None)) == (
        '{"stateType":"stream","connectionId":"5f2c","streamState":['
        '{"streamDescriptor":{"name":"users","namespace":"pub"},"streamState":{"c":1}},'
        '{"streamDescriptor":{"name":"orders"},"streamState":null}]}'
    )
    assert written(global_state({"lsn": 1}, inner_state("users", {}))) == (
        '{"stateType":"global","connectionId":"5f2c","globalState":{"shared_state":{"lsn":1},'
        '"streamStates":[{"streamDescriptor":{"name":"users"},"streamState":{}}]}}'
    )
    assert written(legacy_state({"page": 1})) == (
        '{"stateType":"legacy","connectionId":"5f2c","state":{"page":1}}'
    )


USERS = stream_state("users", {"c": 1})
GLOBAL = global_state({"lsn": 1}, inner_state("users", {}))
API_GLOBAL = (
    '{"stateType":"global","globalState":{%s,"streamStates":'
    '[{"streamDescriptor":{"name":"users"},"streamState":{}}]}}'
)

READ = {
    "a list": (f"[{USERS}]", [USERS]),
    "an empty list": ("[]", []),
    "a list, indented": (f"\n[\n  {USERS}\n]\n", [USERS]),
    "one message": (USERS, [USERS]),
    "one message as it stands on stdout": (envelope(GLOBAL), [GLOBAL]),
    "a list of those": (f"[{envelope(USERS)}]", [USERS]),
    "a bare blob": ('{"users":{"c":1}}', [legacy_state({"users": {"c": 1}})]),
    "a bare blob with data in it": ('{"data":{"c":1}}', [legacy_state({"data": {"c": 1}})]),
    "an empty blob": ("{}", [legacy_state({})]),
    "an untyped message": ('[{"data":{"c":1}}]', ['{"data":{"c":1}}']),
    "what PyAirbyte stores": (
        '[{"type":"GLOBAL","stream":null,"global_":{"shared_state":{"lsn":1},"stream_states":[]}}]',
        ['{"type":"GLOBAL","stream":null,"global":{"shared_state":{"lsn":1},"stream_states":[]}}'],
    ),
    "nothing, by the API": ('{"stateType":"not_set","connectionId":"x"}', []),
    "streams that are null": ('{"stateType":"stream","streamState":null}', []),
    "shared_state": (API_GLOBAL % '"shared_state":{"lsn":1}', [GLOBAL]),
    "sharedState": (API_GLOBAL % '"sharedState":{"lsn":1}', [GLOBAL]),
    "both, one null": (API_GLOBAL % '"shared_state":null,"sharedState":{"lsn":1}', [GLOBAL]),
    "both, the same": (
        API_GLOBAL % '"shared_state":{"lsn":1},"sharedState":{"lsn": 1}',
        [GLOBAL],
    ),
    "the body of a request": (
        '{"connectionId":"x","connectionState":{"stateType":"legacy","state":{"c":1}}}',
        [legacy_state({"c": 1})],
    ),
}


@pytest.mark.parametrize(("text", "messages"), READ.values(), ids=READ)
def test_each_form_is_recognised(text, messages):
    assert read_state(text.encode()) == [message.encode() for message in messages]


REFUSED = {
    "": "is not strict JSON",
    "7": "is a list or an object, not '7'",
    '[{"a":NaN}]': "is not strict JSON",
    "[7]": "message 1 of the list: the state is no JSON object",
    f"[{USERS},{{}}]": "message 2 of the list: there is no state in it",
    f"[{USERS},{USERS}]": "names stream users twice",
    f"[{USERS},{GLOBAL}]": "stands alone",
    '{"type":"STREAM"}': "needs `stream`",
    '{"stateType":"streams"}': "stateType is one of stream, global, legacy, not_set",
    '{"stateType":[]}': "stateType is one of",
    '{"stateType":"global"}': "needs `globalState`",
    '{"stateType":"stream","streamState":{}}': "streamState is a list",
    '{"stateType":"stream","streamState":[{"streamState":{}}]}': "needs a `streamDescriptor`",
    '{"stateType":"stream","streamState":[7]}': "needs a `streamDescriptor`",
    '{"stateType":"stream","streamState":[{"streamDescriptor":{"name":7}}]}': "no Airbyte state",
    '{"stateType":"stream","streamState":[{"streamDescriptor":{"name":"a"},"streamState":7}]}': (
        "no Airbyte state"
    ),
    API_GLOBAL % '"shared_state":{"lsn":1},"sharedState":{"lsn":2}': "differ",
    '{"a":' + "[" * 900 + "]" * 900 + "}": "no Airbyte state",
}


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_no_state_is_refused_with_a_word_on_why(text, words):
    with pytest.raises(InvalidEvent, match=words):
        read_state(text.encode())


def test_a_form_that_there_is_not_is_refused(numbered):
    with pytest.raises(Invalid, match="there are protocol, api, pyairbyte"):
        write_state(view_of(numbered, [USERS]), "yaml")
