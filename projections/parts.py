"""A state cut into the parts that change by themselves: each stream's, and what streams share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eventstore.events import StreamDescriptor
from eventstore.json_reader import JsonReader
from projections import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Part:
    """The exact text of a part, parsed when it is needed: most parts of a GLOBAL state never are.

    `text` is the blob, or where the part belongs to a stream, what has it as `stream_state`.
    """

    text: str
    of_stream: bool = False

    @cached_property
    def blob(self) -> Any:
        """What the source says, numbers with all their digits."""
        parsed = json_text.parse(self.text)
        return parsed.get("stream_state") if self.of_stream else parsed


@dataclass(frozen=True)
class Cut:
    """The parts of a state by stream; None is what a GLOBAL state shares, or a LEGACY state."""

    type: str
    parts: Mapping[StreamDescriptor | None, Part]
    stats: Mapping[str, Any]


def cut(body: bytes, like: Cut | None = None) -> Cut:
    """Cut a state without parsing those parts that stand in another, `like` it, byte for byte."""
    reader = JsonReader(body.decode())
    texts: dict[str, str] = {}
    inner: dict[StreamDescriptor | None, Part] = {}
    for key in reader.members():
        if key == "global" and reader.is_at("{"):
            inner = dict(_inner_parts(reader, like))
        else:
            texts[key] = reader.value()[1]
    stats: dict[str, Any] = {
        side: json_text.parse(texts[side]) or {}
        for side in ("sourceStats", "destinationStats")
        if side in texts
    }
    of_type = json.loads(texts.get("type", "null")) or "LEGACY"
    if of_type == "STREAM":
        stream = json.loads(texts["stream"], parse_int=str, parse_float=str)
        return Cut(of_type, {_descriptor(stream): Part(texts["stream"], of_stream=True)}, stats)
    if of_type == "GLOBAL":
        return Cut(of_type, inner, stats)
    return Cut(of_type, {None: Part(texts.get("data", "null"))}, stats)


def _inner_parts(
    reader: JsonReader, like: Cut | None
) -> Iterator[tuple[StreamDescriptor | None, Part]]:
    yield None, Part("null")
    for key in reader.members():
        if key == "stream_states" and reader.is_at("["):
            yield from _stream_parts(reader, like)
        else:
            text = reader.value()[1]
            if key == "shared_state":
                yield None, Part(text)


def _stream_parts(reader: JsonReader, like: Cut | None) -> Iterator[tuple[StreamDescriptor, Part]]:
    """The streams' parts; those of `like` are recognised in their order, and taken as they are."""
    known = [(stream, part) for stream, part in like.parts.items() if stream] if like else []
    places: dict[StreamDescriptor, int] = {}
    place = 0
    for _ in reader.items():
        if place < len(known) and reader.passes(known[place][1].text):
            yield known[place]
            place += 1
        else:
            value, text = reader.value()
            stream = _descriptor(value)
            yield stream, Part(text, of_stream=True)
            if place < len(known) and known[place][0] == stream:
                place += 1
            else:
                places = places or {each: here for here, (each, _) in enumerate(known)}
                place = places.get(stream, place - 1) + 1


def _descriptor(stream: dict[str, Any]) -> StreamDescriptor:
    descriptor = stream["stream_descriptor"]
    return StreamDescriptor(descriptor["name"], descriptor.get("namespace"))
