"""For every value of a state, the event that set it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from projections.as_of import BeforeHead, Moment, locate, state_as_of
from projections.differences import leaves, same
from projections.parts import cut
from projections.views import STATE_KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor
    from eventstore.store import EventStore
    from projections.parts import Part


_HEAD = BeforeHead(0)


class Blame(NamedTuple):
    """A value of a state, and the event that last set it: its version, time, actor, run, reason.

    `stream` is None for a LEGACY state and for what a GLOBAL state shares.
    """

    stream: StreamDescriptor | None
    path: str
    value: Any
    stored: StoredEvent


def blame(store: EventStore, pipeline: Pipeline, moment: Moment = _HEAD) -> list[Blame]:
    """Every value of the state as of a moment, with the event that last set it.

    A value that was cleared and came back was set when it came back; before an erased state nobody
    can tell. Raises UnknownVersion, InvalidMoment or ErasedBody.
    """
    version = locate(store, pipeline, moment).version
    standing = _standing(store.newest(pipeline, STATE_KINDS, version))
    if any(stored.erased for stored, _ in standing):
        state_as_of(store, pipeline, version)  # says so, unless it had been erased by then
    return [
        each
        for stored, begin in standing
        if not stored.erased
        for each in _explain(
            stored,
            store.backwards(
                pipeline, stored.kind, stored.stream, up_to=stored.version - 1, after=begin
            ),
        )
    ]


def _standing(newest: Iterable[StoredEvent]) -> Collection[tuple[StoredEvent, int]]:
    """The events that say what the state is, each with the version before which it had ended."""
    standing: dict[StreamDescriptor | None, tuple[StoredEvent, int]] = {}
    ended: dict[StreamDescriptor | None, int] = {}
    of_a_stream = of_whole = 0
    for stored in newest:
        if stored.stream is None:
            standing.clear()
        if stored.kind == "StateCleared":
            standing.pop(stored.stream, None)
            ended[stored.stream] = stored.version
        elif stored.stream is None:
            standing[None] = stored, max(of_a_stream, ended.get(None, 0))
        else:
            standing.pop(None, None)
            standing[stored.stream] = stored, max(of_whole, ended.get(stored.stream, 0))
            of_a_stream = stored.version
        if stored.stream is None:
            of_whole = stored.version
    return standing.values()


def _explain(standing: StoredEvent, older: Iterable[StoredEvent]) -> list[Blame]:
    """Walk back until every value was different before, or absent."""
    newer, parts = standing, cut(standing.body)
    values = {stream: dict(leaves("", part.blob)) for stream, part in parts.parts.items()}
    unknown = {stream: set(found) for stream, found in values.items()}
    set_by: dict[StreamDescriptor | None, dict[str, StoredEvent]] = {each: {} for each in values}
    for stored in older:
        if stored.erased:
            break
        then = parts if stored.body == newer.body else cut(stored.body, parts)
        if then.type != parts.type:
            break
        for stream in _differing(parts.parts, then.parts):
            paths = unknown.get(stream, set())
            there = dict(leaves("", then.parts[stream].blob)) if stream in then.parts else {}
            for path in list(paths):
                if path not in there or not same(values[stream][path], there[path]):
                    set_by[stream][path] = newer
                    paths.remove(path)
            if not paths:
                unknown.pop(stream, None)
        newer, parts = stored, then
        if not unknown:
            break
    return [
        Blame(stream, path, value, set_by[stream].get(path, newer))
        for stream, found in values.items()
        for path, value in found.items()
    ]


def _differing(
    parts: Mapping[StreamDescriptor | None, Part], older: Mapping[StreamDescriptor | None, Part]
) -> list[StreamDescriptor | None]:
    """The streams whose part was another before, or not there."""
    pairs = list(zip(parts.items(), older.items(), strict=False))
    if len(parts) == len(older) and all(now[0] == then[0] for now, then in pairs):
        # As good as always; a thousand streams are not looked up then.
        return [
            now[0] for now, then in pairs if now[1] is not then[1] and now[1].text != then[1].text
        ]
    return [
        stream
        for stream, part in parts.items()
        if stream not in older or older[stream].text != part.text
    ]
