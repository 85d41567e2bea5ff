"""Events and differences in a few words, for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eventstore import payload
from eventstore.erasure import erasure_of
from projections.json_text import Number, compact, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eventstore.events import StoredEvent, StreamDescriptor
    from eventstore.store import EventStore
    from projections.differences import Change
    from projections.views import CatalogView

_TOLD = 3
"""Moves that are told one by one."""

_PLAIN = re.compile(r"(?!(?:true|false|null|[-+]?[\d.]+(?:[eE][-+]?\d+)?)$)[\w.:+/-]+")


def summary(stored: StoredEvent) -> str:
    """What an event says by itself."""
    match "erased" if stored.erased else stored.kind:
        case "erased":
            said = "erased: `eventstore show` tells by whom"
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
            versions = [f"@{version}" for version in payload.erased_versions(stored.body)]
            said = f"erased the bodies of {', '.join(shortened(versions))}"
        case _:
            said = ""
    return said


def erasure(store: EventStore, stored: StoredEvent) -> str:
    """When, by whom and why a body was erased."""
    by = erasure_of(store, stored.pipeline, stored.body_version or 0)
    if by is None:
        return "the body is missing, and no event says that it was erased (see: verify)"
    return f"erased at @{by.version} by {by.actor}: {by.reason}"


def erased_from(store: EventStore, catalog: CatalogView) -> Iterator[tuple[Any, str]]:
    """What a catalog is without, by stream, None for its registration; and who erased it."""
    for stream, version in catalog.erased.items():
        what = f"the definition of {stream}" if stream else "the newest registration"
        yield stream, f"{what} was {erasure(store, store.event(catalog.pipeline, version))}"


def blob(body: bytes) -> str:
    """What the source says in a state: all but the envelope."""
    state = parse(body)
    match state.get("type"):
        case "STREAM":
            return compact(state["stream"].get("stream_state"))
        case "GLOBAL":
            return f"GLOBAL {compact(state.get('global'))}"
    return f"LEGACY {compact(state.get('data'))}"


def plain(value: Any) -> str:
    """A value; text without quotes where nobody could take it for something else."""
    if isinstance(value, str) and not isinstance(value, Number) and _PLAIN.fullmatch(value):
        return value
    return compact(value)


def moved(change: Change) -> str:
    """What a value was and what it became."""
    if change.change == "added":
        return f"-> {compact(change.after)}"
    if change.change == "removed":
        return f"{compact(change.before)} ->"
    return f"{compact(change.before)} -> {compact(change.after)}"


def shortened(said: Sequence[str]) -> list[str]:
    """The first few, and how many more there are."""
    more = len(said) - _TOLD
    return [*said] if more <= 1 else [*said[:_TOLD], f"and {more} more"]


def some_streams(streams: Iterable[StreamDescriptor | None], like: str) -> str:
    """A few of the streams, first those whose names are most like this one, and how many more."""
    from difflib import get_close_matches  # noqa: PLC0415 - few need it

    names = sorted({str(stream) for stream in streams if stream})
    few = get_close_matches(like, names, n=_TOLD, cutoff=0)
    more = f" and {len(names) - len(few)} more" if len(names) > len(few) else ""
    return f"{', '.join(few)}{more}" if few else "none"


def moves_in_words(moves: Iterable[Change], *, name_streams: bool) -> list[str]:
    """The differences, those in items of one list together: `+3 partitions`."""
    groups: dict[Any, list[Change]] = {}
    for place, move in enumerate(moves):
        own = move.item and move.path == move.item.path
        kind = move.change if own else "changed"
        key = (move.stream, move.item.list, kind) if move.item else place
        groups.setdefault(key, []).append(move)
    words = []
    for group in groups.values():
        of = f"{group[0].stream}: " if name_streams and group[0].stream and group[0].path else ""
        words += [of + each for each in _group_in_words(group)]
    return words


def _group_in_words(group: Sequence[Change]) -> list[str]:
    items = {move.item.path: move.item for move in group if move.item}
    first = group[0]
    own = first.item and first.path == first.item.path
    if not items or (len(items) == 1 and not own):
        return [_in_words(move) for move in group]
    noun = next(iter(items.values())).noun
    counted = f"{len(items)} {noun}" if len(items) == 1 else f"{len(items)} {noun}s"
    where = "" if noun == "partition" else f" of {next(iter(items.values())).list}"
    if own and first.change != "changed":
        return [f"{'+' if first.change == 'added' else '-'}{counted}{where}"]
    return [f"{counted}{where} moved"]


def _in_words(move: Change) -> str:
    if not move.path:
        sign = "+" if move.change == "added" else "-"
        return f"{sign}stream {move.stream}" if move.stream else f"{sign}state"
    if move.change == "added":
        return f"+{move.path} {plain(move.after)}"
    if move.change == "removed":
        return f"-{move.path}"
    where = "" if move.path == "." else f"{move.path} "
    return f"{where}{plain(move.before)} -> {plain(move.after)}"
