"""Airbyte's state messages: cut from their envelopes byte for byte, or dumped once, and validated.

Airbyte's models are imported where they are used: that takes as long as to import SQLAlchemy.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from eventstore.errors import InvalidEvent
from eventstore.events import descriptor, named
from eventstore.json_reader import spans
from eventstore.strict_json import TEXTS, dump, dump_if_exact, first_problem, plain, read_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airbyte_protocol.models import AirbyteStateMessage

    from eventstore.events import StreamDescriptor


def state_message(body: bytes) -> AirbyteStateMessage:
    """Read a stored state as Airbyte's model."""
    from airbyte_protocol.models import AirbyteStateMessage  # noqa: PLC0415

    return AirbyteStateMessage.model_validate_json(body)


def encode_state(message: object) -> tuple[bytes, StreamDescriptor | None]:
    """The body that is stored of a state, and its stream; raises InvalidEvent."""
    body, said = _body_of(message)
    stream = said and _plainly_of_stream(body, said)
    return (body, stream) if stream else _judged_by_model(body)


_JUDGED_BY_THE_MODEL = frozenset({"global", "global_", "data"})
_STATS = frozenset({"sourceStats", "destinationStats"})

_MOST_BRACKETS = 100
"""In a state that is not too deep for any reader of JSON: Airbyte's model takes 200 levels.

Brackets in texts count, too: to tell them apart takes longer than to ask the model.
"""


def _plainly_of_stream(body: bytes, said: dict[str, Any]) -> StreamDescriptor | None:
    """The stream of a state that Airbyte's model accepts for certain; None leaves it to the model.

    Nearly all states are such, and to look takes a fifth of the model's time.
    """
    stream = said.get("stream")
    if said.get("type") != "STREAM" or type(stream) is not dict:
        return None
    names, blob = stream.get("stream_descriptor"), stream.get("stream_state")
    if type(names) is not dict or not (blob is None or type(blob) is dict):
        return None
    name, namespace = names.get("name"), names.get("namespace")
    if type(name) is not str or not (namespace is None or type(namespace) is str):
        return None
    if not _JUDGED_BY_THE_MODEL.isdisjoint(said):
        return None
    if not (_STATS.isdisjoint(said) or all(_are_plain_stats(said.get(each)) for each in _STATS)):
        return None
    if body.count(b"{") + body.count(b"[") > _MOST_BRACKETS:
        return None
    if len(body) > _LONG_NUMBER and _LONG.search(body):
        return None
    return named(name, namespace)


_LONG_NUMBER = 4000
"""Digits of a number that Airbyte's model may not read: it takes 4,300."""

_LONG = re.compile(rb"[0-9.]{%d}" % _LONG_NUMBER)


def _are_plain_stats(stats: Any) -> bool:
    return stats is None or (
        type(stats) is dict and all(type(number) in {int, float} for number in stats.values())
    )


@cache
def _models() -> Any:
    """Looked up once: to import what is there already takes as long as to validate a state."""
    from airbyte_protocol.models import AirbyteStateMessage, AirbyteStateType  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    return AirbyteStateMessage.model_validate_json, AirbyteStateType, ValidationError


def _judged_by_model(body: bytes) -> tuple[bytes, StreamDescriptor | None]:
    validate_json, types, invalid = _models()
    try:
        state = validate_json(body)
    except invalid as error:
        raise InvalidEvent(f"no Airbyte state: {first_problem(error)}") from error
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


def _body_of(message: object) -> tuple[bytes, dict[str, Any] | None]:
    """The bytes of the inner state, and what they say where that is known."""
    if isinstance(message, TEXTS):
        return _cut(*read_object(message, "the state"))
    if callable(getattr(message, "model_dump", None)) and (dumped := _dumped(message)):
        return dumped
    state = plain(message)
    if not isinstance(state, dict):
        raise InvalidEvent(f"a state is an object, not {type(message).__name__}")
    if _is_envelope(state) and isinstance(state["state"], dict):
        state = state["state"]
    return read_object(dump(_without_envelope_nulls(state)), "the state")


def _dumped(model: Any) -> tuple[bytes, dict[str, Any]] | None:
    """The same of one of Airbyte's models, in a fifth of the time; None where it is not plain."""
    state = model.model_dump(by_alias=True, exclude_unset=True)
    if not isinstance(state, dict) or "state" in state:
        return None
    if isinstance(kind := state.get("type"), Enum):
        state["type"] = kind.value
    state = _without_envelope_nulls(state)
    body = dump_if_exact(state)
    return (body, state) if body else None


def _is_envelope(said: dict[str, Any]) -> bool:
    """Whether it is a message that has a state, and not a state that has more than it needs."""
    kind = said.get("type")
    return "state" in said and (
        kind == "STATE" or (kind is None and not said.keys() & {"stream", "global", "data"})
    )


_WHITESPACE = b" \t\r\n"
"""What JSON may have around a value."""


def _cut(raw: bytes, said: dict[str, Any]) -> tuple[bytes, dict[str, Any] | None]:
    """Cut the inner state from its envelope, byte for byte, and give `global_` its real name."""
    if "state" not in said and "global_" not in said and said.get("type") != "STATE":
        return raw.strip(_WHITESPACE), said
    if "state" not in said and said.get("type") == "STATE":
        raise InvalidEvent("a STATE message needs `state`")
    text = raw.decode()
    if _is_envelope(said):
        text, said = _values(text)["state"], said["state"]
        if not isinstance(said, dict):
            raise InvalidEvent("`state` is no JSON object")
    if "global_" not in said:
        return text.strip().encode(), said
    # PyAirbyte writes `global` under its Python name (defect 03): keep the values' text.
    values = _values(text)
    mislabelled = values.pop("global_")
    if mislabelled != "null":
        values.setdefault("global", mislabelled)
    pairs = (f"{json.dumps(key)}:{value}" for key, value in values.items())
    return ("{" + ",".join(pairs) + "}").encode(), None


def _values(text: str) -> dict[str, str]:
    """The exact texts of the values of an object."""
    try:
        return {key: text[start:end] for key, (start, end) in spans(text).items()}
    except RecursionError as error:
        raise InvalidEvent("no Airbyte state: nested too deeply") from error


_OF_STATS = ("recordCount", "rejectedRecordCount")
_OF_STATES = ("type", "stream", "global", *_STATS)


def _without_envelope_nulls(state: dict[str, Any]) -> dict[str, Any]:
    """Drop the nulls a model writes for what was never there; blobs are left alone."""
    kept = dict(state)
    mislabelled = kept.pop("global_", None)
    if mislabelled is not None and kept.get("global") is None:
        kept["global"] = mislabelled
    if None in kept.values():
        legacy = kept.get("type") in (None, "LEGACY")
        kept = _without_nulls(kept, _OF_STATES if legacy else (*_OF_STATES, "data"))
    for stats in _STATS:
        if isinstance(kept.get(stats), dict):
            kept[stats] = _without_nulls(kept[stats], _OF_STATS)
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
    names = stream.get("stream_descriptor") if isinstance(stream, dict) else None
    if not isinstance(names, dict) or names.get("namespace", ...) is not None:
        return stream
    return {**stream, "stream_descriptor": _without_nulls(names, ["namespace"])}


def _without_nulls(values: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None or key not in keys}
