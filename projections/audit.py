"""What changed, for people: an event in one line, two views side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from eventstore import codec
from eventstore.erasure import erasure_of
from eventstore.events import StreamDescriptor
from projections.json_text import compact, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventstore.events import StoredEvent
    from eventstore.store import EventStore
    from projections.views import StateView


_SHOWN = 5
"""How many versions stand in a summary."""


@dataclass(frozen=True)
class Change:
    """One difference between two states; `path` is empty where a whole state came or went.

    `stream` is None for a GLOBAL or LEGACY state.
    """

    change: Literal["added", "removed", "changed"]
    stream: StreamDescriptor | None
    path: str
    before: Any
    after: Any


def diff(before: StateView, after: StateView) -> list[Change]:
    """The differences between two states: by stream, then by path into its JSON.

    Streams inside a GLOBAL state are compared like those that have a state of their own.
    """
    then, now = _blobs(before), _blobs(after)
    changes: list[Change] = []
    for stream in [*then, *(stream for stream in now if stream not in then)]:
        if stream not in now:
            changes.append(Change("removed", stream, "", then[stream], None))
        elif stream not in then:
            changes.append(Change("added", stream, "", None, now[stream]))
        else:
            changes += [
                Change(kind, stream, path, old, new)
                for kind, path, old, new in _differences("", then[stream], now[stream])
            ]
    return changes


def summary(stored: StoredEvent) -> str:
    """What an event says, in a few words."""
    match "erased" if stored.erased else stored.kind:
        case "erased":
            said = "erased"
        case "StateSaved" | "StateEmitted":
            said = blob(stored.body)
        case "StateCleared":
            said = "state forgotten"
        case "WriterStarted":
            said = "an exclusive writer"
        case "StreamDefined":
            defined = parse(stored.body)
            fields = len(defined["stream"]["json_schema"].get("properties", {}))
            said = f"{defined['sync_mode']}, {fields} field{'s' if fields != 1 else ''}"
        case "CatalogRegistered":
            streams = parse(stored.body)["streams"]
            named = sum("registered_at" not in stream for stream in streams)
            said = f"{named} stream{'s' if named != 1 else ''} registered"
        case "BodyErased":
            said = f"erased the bodies of {_spelled(codec.erased_versions(stored.body))}"
        case _:
            said = ""
    return said


def _spelled(versions: list[int]) -> str:
    shown = ", ".join(f"@{version}" for version in versions[:_SHOWN])
    more = len(versions) - _SHOWN
    return shown if more <= 0 else f"{shown} and {more} more"


def erasure(store: EventStore, stored: StoredEvent) -> str:
    """When, by whom and why a body was erased."""
    by = erasure_of(store, stored.pipeline, stored.body_version or 0)
    if by is None:
        return "the body is missing, and no event says that it was erased (see: verify)"
    return f"erased at @{by.version} by {by.actor}: {by.reason}"


def blob(body: bytes) -> str:
    """What the source says in a state: all but the envelope."""
    state = parse(body)
    match state.get("type"):
        case "STREAM":
            return compact(state["stream"].get("stream_state"))
        case "GLOBAL":
            return f"GLOBAL {compact(state.get('global'))}"
    return f"LEGACY {compact(state.get('data'))}"


def _blobs(view: StateView) -> dict[StreamDescriptor | None, Any]:
    if view.whole is None:
        return {
            stream: parse(body)["stream"].get("stream_state")
            for stream, body in view.streams.items()
        }
    state = parse(view.whole)
    if state.get("type") != "GLOBAL":
        return {None: state.get("data")}
    shared = state["global"]
    return {
        None: shared.get("shared_state"),
        **{_stream(inner): inner.get("stream_state") for inner in shared["stream_states"]},
    }


def _stream(stream_state: dict[str, Any]) -> StreamDescriptor:
    descriptor = stream_state["stream_descriptor"]
    return StreamDescriptor(descriptor["name"], descriptor.get("namespace"))


def _differences(
    path: str, old: Any, new: Any
) -> Iterator[tuple[Literal["added", "removed", "changed"], str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _at(_step(path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list):
        for place in range(max(len(old), len(new))):
            here = f"{path}[{place}]"
            yield from _at(here, *(_item(items, place) for items in (old, new)))
    elif type(old) is not type(new) or old != new:
        yield "changed", path or ".", old, new


_ABSENT = object()


def _at(
    path: str, old: Any, new: Any
) -> Iterator[tuple[Literal["added", "removed", "changed"], str, Any, Any]]:
    if old is _ABSENT:
        yield "added", path, None, new
    elif new is _ABSENT:
        yield "removed", path, old, None
    else:
        yield from _differences(path, old, new)


def _item(items: list[Any], place: int) -> Any:
    return items[place] if place < len(items) else _ABSENT


def _step(path: str, key: str) -> str:
    plain = key.isidentifier()
    if not path:
        return key if plain else f"[{compact(key)}]"
    return f"{path}.{key}" if plain else f"{path}[{compact(key)}]"


def moved(change: Change) -> str:
    """What a value was and what it became."""
    if change.change == "added":
        return f"-> {compact(change.after)}"
    if change.change == "removed":
        return f"{compact(change.before)} ->"
    return f"{compact(change.before)} -> {compact(change.after)}"
