"""For every value of a state, the event that set it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from projections.as_of import BeforeHead, Moment, locate
from projections.differences import leaves, same
from projections.parts import cut
from projections.views import STATE_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor
    from eventstore.store import EventStore


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

    A value that was cleared and came back was set when it came back. Raises UnknownVersion or
    InvalidMoment.
    """
    version = locate(store, pipeline, moment).version
    return [
        each
        for stored, begin in _standing(store.newest(pipeline, STATE_KINDS, version))
        for each in _explain(
            stored,
            store.backwards(
                pipeline, stored.kind, stored.stream, up_to=stored.version - 1, after=begin
            ),
        )
    ]


def _standing(newest: Iterable[StoredEvent]) -> Iterable[tuple[StoredEvent, int]]:
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
    set_by: dict[tuple[StreamDescriptor | None, str], StoredEvent] = {}
    for stored in older:
        then = parts if stored.body == newer.body else cut(stored.body, parts)
        if then.type != parts.type:
            break
        for stream, paths in unknown.items():
            part = then.parts.get(stream)
            if part is None or part.text != parts.parts[stream].text:
                there = dict(leaves("", part.blob)) if part else {}
                value = values[stream]
                found = [
                    path
                    for path in paths
                    if path not in there or not same(value[path], there[path])
                ]
                set_by.update(((stream, path), newer) for path in found)
                paths.difference_update(found)
        unknown = {stream: paths for stream, paths in unknown.items() if paths}
        newer, parts = stored, then
        if not unknown:
            break
    return [
        Blame(stream, path, value, set_by.get((stream, path), newer))
        for stream, found in values.items()
        for path, value in found.items()
    ]
