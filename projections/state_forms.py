"""The state of a pipeline in the forms others write and read.

`protocol` is what a connector's `--state` file takes, `api` the ConnectionState of Airbyte's API,
`pyairbyte` the list that PyAirbyte's `dump_raw_state` returns and its `import_raw_state` takes.
All are put together from pieces of text: a blob keeps every digit, its order and its nulls.
The last two have no place for counts of records and other keys beside a blob.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from eventstore import codec, payload
from eventstore.errors import Invalid, InvalidEvent
from eventstore.events import StateSaved
from eventstore.json_reader import elements, spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from projections.views import StateView

Form = Literal["protocol", "api", "pyairbyte"]
FORMS: tuple[str, ...] = get_args(Form)

_SHARED = ("shared_state", "sharedState")
"""How the API spells it, and how PyAirbyte does."""

_STATE_TYPES = ("stream", "global", "legacy", "not_set")


def write_state(view: StateView, form: str = "protocol") -> str:
    """Write a state in one of the FORMS; raises Invalid for another."""
    if form == "protocol":
        return view.state_file()
    if form == "api":
        return _object([*_api_members(view)])
    if form == "pyairbyte":
        return "[" + "\n, ".join(_message(body.decode()) for body in view.bodies) + "]"
    raise Invalid(f"there is no form {form!r} of a state; there are {', '.join(FORMS)}")


def read_state(text: bytes | str) -> list[bytes]:
    """Read a state in any of the FORMS, or one message; none where it says that there is no state.

    An object that is neither a message nor the API's is the bare blob of a LEGACY state. Raises
    InvalidEvent, saying what is wrong and where.
    """
    text = text.encode() if isinstance(text, str) else text
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"the state is not strict JSON: {error}") from error
    if not isinstance(parsed, dict | list):
        raise InvalidEvent(f"a state is a list or an object, not {payload.shown(text)}")
    try:
        messages = list(_messages(text.decode().strip(), parsed))
    except RecursionError as error:
        raise InvalidEvent("no Airbyte state: nested too deeply") from error
    return _checked(messages, listed=isinstance(parsed, list))


def _messages(text: str, parsed: Any) -> Iterator[str]:
    if isinstance(parsed, list):
        yield from elements(text)
    elif isinstance(parsed.get("connectionState"), dict):  # the body of a request to the API
        inner = _members(text)["connectionState"]
        yield from _from_api(inner, parsed["connectionState"])
    elif "stateType" in parsed:
        yield from _from_api(text, parsed)
    elif parsed.get("type") in ("STATE", "STREAM", "GLOBAL", "LEGACY"):
        yield text
    else:
        yield _object([("type", '"LEGACY"'), ("data", text)])


def _checked(messages: list[str], *, listed: bool) -> list[bytes]:
    """The messages as they would be stored; raises InvalidEvent if together they are no state."""
    bodies: list[bytes] = []
    seen = set()
    for number, message in enumerate(messages, 1):
        try:
            draft = codec.encode(StateSaved(message))
        except InvalidEvent as error:
            if not listed:
                raise
            raise InvalidEvent(f"message {number} of the list: {error}") from error
        if draft.stream in seen and draft.stream is not None:
            raise InvalidEvent(f"the state names stream {draft.stream} twice")
        seen.add(draft.stream)
        bodies.append(draft.body)
    if None in seen and len(bodies) > 1:
        raise InvalidEvent("a GLOBAL or LEGACY state stands alone, and here are other messages too")
    return bodies


def _api_members(view: StateView) -> Iterator[tuple[str, str]]:
    bodies = [_members(body.decode()) for body in view.bodies]
    of_type = payload.state_kind(view.bodies[0]).lower() if bodies else "not_set"
    yield "stateType", _string(of_type)
    yield "connectionId", _string(view.pipeline.connection)
    if of_type == "stream":
        yield "streamState", _list(_to_api(each["stream"]) for each in bodies)
    elif of_type == "global":
        inner = _members(bodies[0]["global"])
        shared = [("shared_state", inner["shared_state"])] if "shared_state" in inner else []
        states = _list(map(_to_api, elements(inner["stream_states"])))
        yield "globalState", _object([*shared, ("streamStates", states)])
    elif of_type == "legacy":
        yield "state", bodies[0]["data"]


def _from_api(text: str, parsed: dict[str, Any]) -> Iterator[str]:
    of_type, found = parsed.get("stateType"), _members(text)
    if of_type not in _STATE_TYPES:
        raise InvalidEvent(f"stateType is one of {', '.join(_STATE_TYPES)}, not {of_type!r}")
    if of_type == "stream":
        for entry in _list_in(found, "streamState"):
            yield _object([("type", '"STREAM"'), ("stream", _to_protocol(entry))])
    elif of_type == "legacy":
        yield _object([("type", '"LEGACY"'), ("data", found.get("state", "null"))])
    elif of_type == "global":
        if not isinstance(parsed.get("globalState"), dict):
            raise InvalidEvent("a global state needs `globalState`, an object")
        inner = _members(found["globalState"])
        states = _list(map(_to_protocol, _list_in(inner, "streamStates")))
        whole = _object([*_shared(inner), ("stream_states", states)])
        yield _object([("type", '"GLOBAL"'), ("global", whole)])


def _shared(inner: dict[str, str]) -> list[tuple[str, str]]:
    """The shared state under either spelling; one of the two may be there as null."""
    spelled = [inner[name] for name in _SHARED if name in inner]
    given = [text for text in spelled if text != "null"]
    if len(given) > 1 and orjson.loads(given[0]) != orjson.loads(given[1]):
        raise InvalidEvent("shared_state and sharedState are there, and differ")
    return [("shared_state", text) for text in (given or spelled)[:1]]


def _list_in(found: dict[str, str], key: str) -> Iterable[str]:
    """The elements of the list under a key, none where it is null or not there."""
    text = found.get(key, "null")
    if text != "null" and not text.startswith("["):
        raise InvalidEvent(f"{key} is a list, not {payload.shown(text.encode())}")
    return [] if text == "null" else elements(text)


def _to_api(stream: str) -> str:
    inner = _members(stream)
    return _object(
        [
            ("streamDescriptor", _descriptor(inner["stream_descriptor"])),
            *(("streamState", inner[key]) for key in ("stream_state",) if key in inner),
        ]
    )


def _to_protocol(entry: str) -> str:
    inner = _members(entry) if entry.startswith("{") else {}
    if not inner.get("streamDescriptor", "").startswith("{"):
        raise InvalidEvent("each stream's state needs a `streamDescriptor`, an object")
    return _object(
        [
            ("stream_descriptor", _descriptor(inner["streamDescriptor"])),
            *(("stream_state", inner[key]) for key in ("streamState",) if key in inner),
        ]
    )


def _message(body: str) -> str:
    """One message as PyAirbyte has it: with a type, and nothing but the state."""
    found = _members(body)
    of_type = payload.state_kind(body.encode())
    if of_type == "LEGACY":
        return _object([("type", '"LEGACY"'), ("data", found["data"])])
    if of_type == "STREAM":
        stream = _only(_members(found["stream"]), "stream_descriptor", "stream_state")
        return _object([("type", '"STREAM"'), ("stream", stream)])
    inner = _members(found["global"])
    states = elements(inner["stream_states"])
    kept = [_only(_members(each), "stream_descriptor", "stream_state") for each in states]
    inner["stream_states"] = _list(kept)
    whole = _only(inner, "shared_state", "stream_states")
    return _object([("type", '"GLOBAL"'), ("global", whole)])


def _only(found: dict[str, str], *keys: str) -> str:
    return _object([(key, found[key]) for key in keys if key in found])


def _descriptor(text: str) -> str:
    """Name and namespace; the API leaves out a namespace that is null."""
    found = _members(text)
    return _only({key: value for key, value in found.items() if value != "null"}, *_NAMES)


_NAMES = ("name", "namespace")


def _members(text: str) -> dict[str, str]:
    return {key: text[start:end] for key, (start, end) in spans(text).items()}


def _object(pairs: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{_string(key)}:{value}" for key, value in pairs) + "}"


def _list(values: Iterable[str]) -> str:
    return "[" + ",".join(values) + "]"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
