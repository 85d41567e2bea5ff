"""Events to stored bytes and back, validated on the way in: each kind by the module that knows it.

`state_messages` and `configured_streams` take payloads, `payload` reads what is stored. Text and
bytes are stored as they came, cut from their envelope; objects are dumped once. Numbers, key order
and nulls inside a blob survive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eventstore import events
from eventstore.configured_streams import (
    configured_stream,
    encode_definition,
    encode_registration,
)
from eventstore.errors import InvalidEvent
from eventstore.events import descriptor
from eventstore.payload import erased_versions, registered_streams
from eventstore.state_messages import encode_state, state_message
from eventstore.strict_json import dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventstore.events import Event, StoredEvent, StreamDescriptor

FORMAT = 1
"""The shape of a stored payload; a later shape gets the next number and a reader here."""


class Draft(NamedTuple):
    """An event ready to be stored, before it has a place."""

    kind: str
    stream: StreamDescriptor | None
    body: bytes
    origin: str | None = None
    of: int | None = None

    @property
    def erased(self) -> bool:
        """Never: what is not stored yet has its body."""
        return False

    @property
    def body_version(self) -> None:
        """None: it has no place yet."""


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
            body, stream = encode_state(event.message)
            return Draft(kind, stream, body, event.origin, event.of)
        case events.StateEmitted():
            body, stream = encode_state(event.message)
            return Draft(kind, stream, body)
        case events.StateCleared():
            return Draft(kind, None if event.stream is None else descriptor(event.stream), b"")
        case events.StreamDefined():
            _check_origin(event.origin)
            body, stream = encode_definition(event.stream)
            return Draft(kind, stream, body, event.origin)
        case events.CatalogRegistered():
            _check_origin(event.origin)
            return Draft(kind, None, encode_registration(event.streams), event.origin)
        case events.WriterStarted():
            return Draft(kind, None, b"")
        case events.BodyErased():
            raise InvalidEvent("a BodyErased is appended by eventstore.erasure.erase alone")
    raise InvalidEvent(f"{type(event).__name__} is no event that can be appended")


def erasure(versions: Sequence[int]) -> Draft:
    """A BodyErased, ready to be stored; it has to go with the bodies it names."""
    return Draft(events.BodyErased.__name__, None, dump({"versions": list(versions)}))


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


def check_version(version: object) -> None:
    """Refuse what is no version; raises InvalidEvent."""
    if version is not None and (not isinstance(version, int) or version < 1):
        raise InvalidEvent(f"a state restores or copies a version, 1 or later, not {version!r}")


def _check_origin(origin: str) -> None:
    if origin not in events.ORIGINS:
        raise InvalidEvent(f"origin {origin!r} is none of {', '.join(events.ORIGINS)}")
