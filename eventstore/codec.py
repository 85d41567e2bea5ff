"""Events to stored bytes and back, validated on the way in.

The only place that takes or writes a payload; `payload` reads what is stored. Text and bytes are
stored as they came, cut from their envelope; objects are dumped once. Numbers, key order and nulls
inside a blob survive.
Airbyte's models are imported where they are used: that takes as long as to import SQLAlchemy.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson

from eventstore import events
from eventstore.errors import InvalidEvent
from eventstore.events import Event, StoredEvent, StreamDescriptor, name_problem
from eventstore.json_reader import spans
from eventstore.payload import erased_versions, registered_streams, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airbyte_protocol.models import (
        AirbyteStateMessage,
        ConfiguredAirbyteCatalog,
        ConfiguredAirbyteStream,
    )
    from pydantic import TypeAdapter, ValidationError

FORMAT = 1
"""The shape of a stored payload; a later shape gets the next number and a reader here."""

VOLATILE = ("generation_id", "minimum_generation_id", "sync_id")
"""Fields of a configured stream that change with each sync and so are no part of its definition."""


@dataclass(frozen=True)
class Draft:
    """An event ready to be stored, before it has a place."""

    kind: str
    stream: StreamDescriptor | None
    body: bytes
    origin: str | None = None
    of: int | None = None


def encode(event: Event, body_limit: int | None = None) -> Draft:
    """Turn an event into what is stored; raises InvalidEvent, saying what is wrong and where."""
    try:
        draft = _encode(event)
    except RecursionError as error:
        raise InvalidEvent(f"{type(event).__name__}: nested too deeply, or in itself") from error
    if body_limit is not None and len(draft.body) > body_limit:
        raise InvalidEvent(f"the body has {len(draft.body)} bytes, at most {body_limit} are stored")
    return draft


def _encode(event: Event) -> Draft:
    kind = type(event).__name__
    match event:
        case events.StateSaved():
            _check_origin(event.origin)
            check_version(event.of)
            body, stream = _encode_state(event.message)
            return Draft(kind, stream, body, event.origin, event.of)
        case events.StateEmitted():
            body, stream = _encode_state(event.message)
            return Draft(kind, stream, body)
        case events.StateCleared():
            return Draft(kind, None if event.stream is None else descriptor(event.stream), b"")
        case events.StreamDefined():
            _check_origin(event.origin)
            body, stream = _encode_definition(event.stream)
            return Draft(kind, stream, body, event.origin)
        case events.CatalogRegistered():
            _check_origin(event.origin)
            return Draft(kind, None, _encode_registration(event.streams), event.origin)
        case events.WriterStarted():
            return Draft(kind, None, b"")
        case events.BodyErased():
            raise InvalidEvent("a BodyErased is appended by eventstore.erasure.erase alone")
    raise InvalidEvent(f"{type(event).__name__} is no event that can be appended")


def erasure(versions: Sequence[int]) -> Draft:
    """A BodyErased, ready to be stored; it has to go with the bodies it names."""
    return Draft(events.BodyErased.__name__, None, _dump({"versions": list(versions)}))


def decode(stored: StoredEvent) -> Event:
    """Turn a stored event back into the event, with Airbyte's models in it."""
    origin: Any = stored.origin
    match stored.kind:
        case "StateSaved":
            return events.StateSaved(state_message(stored.body), origin, stored.of)
        case "StateEmitted":
            return events.StateEmitted(state_message(stored.body))
        case "StateCleared":
            return events.StateCleared(stored.stream)
        case "StreamDefined":
            return events.StreamDefined(configured_stream(stored.body), origin)
        case "CatalogRegistered":
            return events.CatalogRegistered(registered_streams(stored.body), origin)
        case "WriterStarted":
            return events.WriterStarted()
        case "BodyErased":
            return events.BodyErased(erased_versions(stored.body))
    raise InvalidEvent(f"{stored.kind} was stored by a later release; this one cannot read it")


def state_message(body: bytes) -> AirbyteStateMessage:
    """Read a stored state as Airbyte's model."""
    from airbyte_protocol.models import AirbyteStateMessage  # noqa: PLC0415

    return AirbyteStateMessage.model_validate_json(body)


def configured_stream(
    definition: bytes, volatile: Mapping[str, Any] | None = None
) -> ConfiguredAirbyteStream:
    """Read a stored definition, with the fields of a registration merged back."""
    from airbyte_protocol.models import ConfiguredAirbyteStream  # noqa: PLC0415

    stream = ConfiguredAirbyteStream.model_validate_json(definition)
    for field in VOLATILE if volatile else ():
        if volatile and field in volatile:
            setattr(stream, field, volatile[field])
    return stream


def configured_catalog(catalog: object) -> ConfiguredAirbyteCatalog:
    """Validate a configured catalog given as Airbyte's model, a dict, text or bytes.

    Raises InvalidEvent, saying what is wrong and where.
    """
    from airbyte_protocol.models import ConfiguredAirbyteCatalog  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    if isinstance(catalog, ConfiguredAirbyteCatalog):
        return catalog
    try:
        return ConfiguredAirbyteCatalog.model_validate_json(
            _json_bytes(_plain(catalog), "the catalog")
        )
    except ValidationError as error:
        raise InvalidEvent(f"no configured catalog: {_first_problem(error)}") from error


def same_definition(stream: ConfiguredAirbyteStream, definition: bytes | None) -> bool:
    """Whether a stream is defined by what is stored already; raises InvalidEvent."""
    if definition is None:
        return False
    body, _ = _encode_definition(stream)
    return body == definition or _in_order(body) == _in_order(definition)


def _in_order(body: bytes) -> str:
    """An object as text that another has only if it says the same; Python takes 1 for true."""
    return json.dumps(json.loads(body), sort_keys=True)


def streams_as_json(streams: Iterable[ConfiguredAirbyteStream]) -> bytes | None:
    """All that configured streams say, to be compared; None where JSON cannot say it.

    One call for all of them; NaN stays NaN there, and is not taken for null.
    """
    from pydantic_core import PydanticSerializationError  # noqa: PLC0415

    try:
        return _streams().dump_json(
            list(streams), by_alias=True, exclude_unset=True, warnings=False
        )
    except PydanticSerializationError:
        return None


@cache
def _streams() -> TypeAdapter[list[ConfiguredAirbyteStream]]:
    from airbyte_protocol.models import ConfiguredAirbyteStream  # noqa: PLC0415
    from pydantic import ConfigDict, TypeAdapter  # noqa: PLC0415

    return TypeAdapter(
        list[ConfiguredAirbyteStream], config=ConfigDict(ser_json_inf_nan="constants")
    )


def catalog_of(streams: Iterable[ConfiguredAirbyteStream]) -> ConfiguredAirbyteCatalog:
    """The catalog that has these streams."""
    from airbyte_protocol.models import ConfiguredAirbyteCatalog  # noqa: PLC0415

    return ConfiguredAirbyteCatalog(streams=list(streams))


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object; raises InvalidEvent."""
    parsed: dict[str, Any] = orjson.loads(_json_bytes(text, what))
    return parsed


def check_version(version: object) -> None:
    """Refuse what is no version; raises InvalidEvent."""
    if version is not None and (not isinstance(version, int) or version < 1):
        raise InvalidEvent(f"a state restores or copies a version, 1 or later, not {version!r}")


def descriptor(stream: Any) -> StreamDescriptor:
    """The names of a stream; raises InvalidEvent if they cannot be stored."""
    name, namespace = getattr(stream, "name", None), getattr(stream, "namespace", None)
    if not isinstance(name, str):
        raise InvalidEvent(f"the stream's name {name_problem(name)}")
    if namespace is not None and not isinstance(namespace, str):
        raise InvalidEvent(f"the namespace of stream {name} {name_problem(namespace)}")
    return _descriptor(name, namespace)


@lru_cache(maxsize=4096)  # as one object it is found in a dict without being compared
def _descriptor(name: str, namespace: str | None) -> StreamDescriptor:
    if problem := name_problem(name):
        raise InvalidEvent(f"the stream's name {problem}")
    if namespace is not None and (problem := name_problem(namespace)):
        raise InvalidEvent(f"the namespace of stream {name} {problem}")
    return StreamDescriptor(name, namespace)


@cache
def _state_models() -> Any:
    """Looked up once: to import what is there already takes as long as to validate a state."""
    from airbyte_protocol.models import AirbyteStateMessage, AirbyteStateType  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    return AirbyteStateMessage.model_validate_json, AirbyteStateType, ValidationError


def _encode_state(message: object) -> tuple[bytes, StreamDescriptor | None]:
    validate_json, types, invalid = _state_models()
    body = _state_bytes(message)
    try:
        state = validate_json(body)
    except invalid as error:
        raise InvalidEvent(f"no Airbyte state: {_first_problem(error)}") from error
    if state.type is types.STREAM:
        if state.stream is None:
            raise InvalidEvent("a STREAM state needs `stream`, with a `stream_descriptor`")
        return body, descriptor(state.stream.stream_descriptor)
    if state.type is types.GLOBAL:
        if state.global_ is None:
            raise InvalidEvent("a GLOBAL state needs `global`, with `stream_states`")
        for inner in state.global_.stream_states:
            descriptor(inner.stream_descriptor)
    elif "data" not in state.model_fields_set:
        raise InvalidEvent(
            "there is no state in it: neither a `type` nor `data`"
            if state.type is None
            else "a LEGACY state needs `data`"
        )
    return body, None


def _state_bytes(message: object) -> bytes:
    if isinstance(message, str | bytes | bytearray | memoryview):
        return _cut_state(_json_bytes(message, "the state"))
    plain = _plain(message)
    if not isinstance(plain, dict):
        raise InvalidEvent(f"a state is an object, not {type(message).__name__}")
    if isinstance(plain.get("state"), dict) and plain.get("type") in ("STATE", None):
        plain = plain["state"]
    return _json_bytes(_without_envelope_nulls(plain), "the state")


_WHITESPACE = b" \t\r\n"
"""What JSON may have around a value."""


def _cut_state(raw: bytes) -> bytes:
    """Cut the inner state from its envelope, byte for byte, and give `global_` its real name."""
    if not (b'"state"' in raw or b'"STATE"' in raw or b'"global_"' in raw or b"\\" in raw):
        return raw.strip(_WHITESPACE)  # none of these, not even escaped: there is nothing to cut
    text = raw.decode()
    try:
        places = spans(text)
        if text[slice(*places.get("type", (0, 0)))] == '"STATE"' and "state" not in places:
            raise InvalidEvent("a STATE message needs `state`")
        if "state" in places and "stream" not in places and "global" not in places:
            start, end = places["state"]
            text = text[start:end]
            if not text.startswith("{"):
                raise InvalidEvent("`state` is no JSON object")
            places = spans(text)
    except RecursionError as error:
        raise InvalidEvent("no Airbyte state: nested too deeply") from error
    if "global_" not in places:
        return text.strip().encode()
    # PyAirbyte writes `global` under its Python name (defect 03): keep the values' text.
    values = {key: text[start:end] for key, (start, end) in places.items()}
    mislabelled = values.pop("global_")
    if mislabelled != "null":
        values.setdefault("global", mislabelled)
    pairs = (f"{json.dumps(key)}:{value}" for key, value in values.items())
    return ("{" + ",".join(pairs) + "}").encode()


def _without_envelope_nulls(state: dict[str, Any]) -> dict[str, Any]:
    """Drop the nulls a model writes for what was never there; blobs are left alone."""
    kept = dict(state)
    mislabelled = kept.pop("global_", None)
    if kept.get("global") is None:
        kept["global"] = mislabelled
    legacy = kept.get("type") in (None, "LEGACY")
    kept = {
        key: value for key, value in kept.items() if value is not None or (key == "data" and legacy)
    }
    for stats in ("sourceStats", "destinationStats"):
        if isinstance(kept.get(stats), dict):
            kept[stats] = {key: value for key, value in kept[stats].items() if value is not None}
    if isinstance(kept.get("stream"), dict):
        kept["stream"] = _without_null_namespace(kept["stream"])
    if isinstance(kept.get("global"), dict):
        shared = dict(kept["global"])
        if shared.get("shared_state", ...) is None:
            del shared["shared_state"]
        if isinstance(shared.get("stream_states"), list):
            shared["stream_states"] = [_without_null_namespace(s) for s in shared["stream_states"]]
        kept["global"] = shared
    return kept


def _without_null_namespace(stream: Any) -> Any:
    named = stream.get("stream_descriptor") if isinstance(stream, dict) else None
    if not isinstance(named, dict) or named.get("namespace", ...) is not None:
        return stream
    kept = {key: value for key, value in named.items() if key != "namespace"}
    return {**stream, "stream_descriptor": kept}


def _encode_definition(stream: object) -> tuple[bytes, StreamDescriptor]:
    from airbyte_protocol.models import ConfiguredAirbyteStream  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        model = (
            stream
            if isinstance(stream, ConfiguredAirbyteStream)
            else ConfiguredAirbyteStream.model_validate_json(
                _json_bytes(_plain(stream), "the stream")
            )
        )
    except ValidationError as error:
        raise InvalidEvent(f"no configured stream: {_first_problem(error)}") from error
    named = StreamDescriptor(model.stream.name, model.stream.namespace)
    return _json_bytes(_definition(model), f"stream {named}"), descriptor(named)


def _definition(stream: ConfiguredAirbyteStream) -> dict[str, Any]:
    return {key: value for key, value in _plain(stream).items() if key not in VOLATILE}


def _encode_registration(streams: object) -> bytes:
    if not isinstance(streams, list | tuple):
        raise InvalidEvent(f"registered streams are a list, not {type(streams).__name__}")
    for entry in streams:
        if not isinstance(entry, dict):
            raise InvalidEvent(f"a registered stream is a dict, not {type(entry).__name__}")
        descriptor(SimpleNamespace(**{"name": None, "namespace": None, **entry}))
        for field in (*VOLATILE, "registered_at"):
            if not _is_long(entry.get(field)):
                raise InvalidEvent(f"{field} of stream {entry['name']} is no integer of 64 bits")
    return _dump({"streams": list(streams)})


def _is_long(value: object) -> bool:
    """Whether it is null or an integer that every reader of JSON gives back as it was."""
    return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _check_origin(origin: str) -> None:
    if origin not in events.ORIGINS:
        raise InvalidEvent(f"origin {origin!r} is none of {', '.join(events.ORIGINS)}")


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _plain(value: Any) -> Any:
    """Models and dataclasses as dicts, leaving out fields that were never set."""
    if type(value) in _SCALARS:  # most of a state, and the checks below take their time
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):  # one of pydantic's
        return _plain(value.model_dump(by_alias=True, exclude_unset=True))
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # The CDK's AirbyteStateBlob is a dataclass without fields: all it holds is in __dict__.
        return _plain(vars(value))
    return value


def _json_bytes(value: object, what: str) -> bytes:
    """Check that text is strict JSON, or dump an object to it; an object at the top either way."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        try:
            raw = value.encode() if isinstance(value, str) else bytes(value)
        except UnicodeEncodeError as error:
            raise InvalidEvent(f"{what} holds a lone surrogate: {error}") from error
    else:
        raw = _dump(value)
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"{what} is not strict JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidEvent(f"{what} is no JSON object but {shown(raw)}")
    return raw


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _dump(value: Any) -> bytes:
    # Not orjson: it refuses integers beyond 64 bits and writes NaN as null.
    try:
        return _JSON.encode(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"a text holds a lone surrogate: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not to be written as JSON: {error}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
