"""Strict JSON: texts checked as they come, objects dumped once, nothing lost or made up."""

from __future__ import annotations

import dataclasses
import json
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson

from eventstore.errors import InvalidEvent
from eventstore.payload import shown

if TYPE_CHECKING:
    from pydantic import ValidationError

TEXTS = (str, bytes, bytearray, memoryview)
"""Types of text; as a union, `isinstance` would make them one anew each time."""

_SCALARS = frozenset({str, int, float, bool, type(None)})


def read_object(
    text: str | bytes | bytearray | memoryview, what: str
) -> tuple[bytes, dict[str, Any]]:
    """Parse a text that is a JSON object, and keep its bytes; raises InvalidEvent."""
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"{what} holds a lone surrogate: {error}") from error
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"{what} is not strict JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidEvent(f"{what} is no JSON object but {shown(raw)}")
    return raw, parsed


def object_bytes(value: object, what: str) -> bytes:
    """A text that is a JSON object, or an object dumped to one; raises InvalidEvent."""
    exact = dump_if_exact(value) if isinstance(value, dict) else None
    return exact or read_object(value if isinstance(value, TEXTS) else dump(plain(value)), what)[0]


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object; raises InvalidEvent."""
    return read_object(text, what)[1]


def plain(value: Any) -> Any:
    """Models and dataclasses as dicts, leaving out fields that were never set."""
    if type(value) in _SCALARS:  # most of a state, and the checks below take their time
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if callable(getattr(value, "model_dump", None)):  # one of pydantic's
        return plain(value.model_dump(by_alias=True, exclude_unset=True))
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # The CDK's AirbyteStateBlob is a dataclass without fields: all it holds is in __dict__.
        return plain(vars(value))
    return value


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dump(value: Any) -> bytes:
    """Write an object as JSON; raises InvalidEvent."""
    # Not orjson: it refuses integers beyond 64 bits and writes NaN as null.
    try:
        return _JSON.encode(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"a text holds a lone surrogate: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not to be written as JSON: {error}") from error


def dump_if_exact(value: dict[str, Any]) -> bytes | None:
    """The bytes that `dump` makes, ten times as fast; None where they may be others."""
    try:
        raw = orjson.dumps(value)
    except TypeError:  # also of what `dump` can write
        return None
    return raw if orjson.loads(raw) == value and not _WRITTEN_OTHERWISE.search(raw) else None


_WRITTEN_OTHERWISE = re.compile(rb"[0-9](?:e|[0-9]{15}\.|\.0000)")
"""Numbers that are large or small; what looks like one in a text does no harm.

What all of them begin with stands first: a branch there is tried at every byte.
"""


def first_problem(error: ValidationError) -> str:
    """Say what a model refuses first, and where."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
