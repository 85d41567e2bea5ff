"""What stands in a stored body, read and cut out without Airbyte's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from eventstore.errors import InvalidEvent
from eventstore.events import StreamDescriptor
from eventstore.json_reader import JsonReader, elements, spans

if TYPE_CHECKING:
    from collections.abc import Iterable


def registered_streams(body: bytes) -> list[dict[str, Any]]:
    """Read the streams of a stored registration."""
    streams: list[dict[str, Any]] = orjson.loads(body)["streams"]
    return streams


def erased_versions(body: bytes) -> list[int]:
    """Read which bodies a stored erasure names."""
    versions: list[int] = orjson.loads(body)["versions"]
    return versions


def stream_states(body: bytes) -> dict[StreamDescriptor, bytes]:
    """Cut the states of single streams out of a GLOBAL state, each with its descriptor."""
    text = body.decode()
    first, last = _stream_states_span(text)
    found = {}
    for listed in elements(text[first:last]):
        entry = listed.encode()
        names = orjson.loads(entry)["stream_descriptor"]
        stream = StreamDescriptor(names["name"], names.get("namespace"))
        if stream in found:
            raise InvalidEvent(f"the GLOBAL state names stream {stream} twice: set it as a whole")
        found[stream] = entry
    return found


def with_stream_states(body: bytes, states: Iterable[bytes]) -> bytes:
    """Put other states of single streams into a GLOBAL state; the rest keeps its bytes."""
    text = body.decode()
    start, end = _stream_states_span(text)
    return f"{text[:start]}[{','.join(state.decode() for state in states)}]{text[end:]}".encode()


def _stream_states_span(text: str) -> tuple[int, int]:
    """Where the list of stream states stands in the text of a GLOBAL state."""
    first, last = spans(text)["global"]
    start, end = spans(text[first:last])["stream_states"]
    return first + start, first + end


def legacy_blob(body: bytes) -> bytes:
    """Cut the bare blob out of a LEGACY state, as connectors of that age read it."""
    reader = JsonReader(body.decode())
    for key in reader.members():
        text = reader.value()[1]
        if key == "data" and text != "null":
            return text.encode()
    return b"{}"


def state_kind(body: bytes) -> str:
    """STREAM, GLOBAL or LEGACY; a state without a type is LEGACY, as the protocol says."""
    return orjson.loads(body).get("type") or "LEGACY"


def check_body(kind: str, stream: StreamDescriptor | None, body: bytes) -> None:
    """Refuse a body from elsewhere that is none of such an event of this stream."""
    try:
        parsed = orjson.loads(body)
        match kind:
            case "StateSaved" | "StateEmitted":
                of_type = parsed.get("type") or "LEGACY"
                named = parsed["stream"]["stream_descriptor"] if of_type == "STREAM" else None
                right = of_type in {"STREAM", "GLOBAL", "LEGACY"}
            case "StreamDefined":
                named, right = parsed["stream"], True
            case "CatalogRegistered":
                named, right = None, all(entry["name"] for entry in parsed["streams"])
            case _:
                return
        its = named and (named["name"], named.get("namespace"))
    except (AttributeError, KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise InvalidEvent(f"no body of a {kind}: {shown(body)}") from error
    if not right or its != (stream and (stream.name, stream.namespace)):
        raise InvalidEvent(f"no body of a {kind} of {stream or 'the pipeline'}: {shown(body)}")


def shown(raw: bytes) -> str:
    """The beginning of a text, for an error."""
    return repr(raw[:40].decode(errors="replace"))
