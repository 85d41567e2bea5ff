"""What each event moved, beside the event that stood there before, and what looks wrong in it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from eventstore.errors import ErasedBody
from projections.as_of import parse_instant, state_as_of
from projections.catalog_diff import CatalogChange, definition_changes
from projections.differences import Change, cut_view, differences, touches
from projections.json_text import Number, compact
from projections.parts import Cut, cut
from projections.views import STATE_KINDS
from projections.wording import moves_in_words, plain, shortened, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor
    from eventstore.store import EventStore
    from projections.parts import Part

PAGE = 500
"""Events whose predecessors are looked up together."""

_KINDS_BEFORE = {
    "StateSaved": STATE_KINDS,
    "StateCleared": STATE_KINDS,
    "StateEmitted": ("StateEmitted", *STATE_KINDS),
    "StreamDefined": ("StreamDefined",),
}

_ON_PURPOSE = {"restored", "copied", "edited", "imported"}
"""Origins of states that a person has put there."""

_UNWRITTEN = "records not written"

_NO_CURSORS = ("lookback_window",)
"""Numbers that the CDK writes beside a cursor, and that may fall."""


class Note(NamedTuple):
    """Something that looks wrong, and the moves it tells of."""

    what: str
    detail: str
    moves: Sequence[Change] = ()


@dataclass(frozen=True)
class EventChange:
    """An event, the one that stood there before, and what is different.

    `before` is None after a clear or a change of type, and where its body was erased. `moves` are
    the differences of two states, `redefined` those of two definitions of a stream; `records` are
    the counts of `sourceStats` and `destinationStats`; `notes` say what looks wrong.
    """

    stored: StoredEvent
    before: StoredEvent | None
    moves: Sequence[Change] = ()
    redefined: Sequence[CatalogChange] = ()
    records: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[Note] = ()

    @property
    def words(self) -> str:
        """All of it in one line; what looks wrong comes first, since terminals cut the rest."""
        said = [f"! {note.detail}" for note in self.notes]
        told = [move for note in self.notes for move in note.moves]
        if not told or len(told) < len(self.moves):
            said.append(self._moves_in_words([move for move in self.moves if move not in told]))
        words = "; ".join(said)
        if not self.records or any(note.what == _UNWRITTEN for note in self.notes):
            return words
        counts = ", ".join(f"{count} {name}" for name, count in self.records.items())
        return f"{words} ({counts})"

    def _moves_in_words(self, moves: Sequence[Change]) -> str:
        if self.before is None or self.stored.kind in {"StateCleared", "CatalogRegistered"}:
            return summary(self.stored)
        if self.stored.kind == "StreamDefined":
            said = [each.words for each in self.redefined]
            if not said and self.before.body != self.stored.body:
                return "another definition, with the same fields: see `eventstore show`"
        else:
            said = moves_in_words(moves, name_streams=self.stored.stream is None)
        return ", ".join(shortened(said)) or "unchanged"


def changes(
    store: EventStore,
    pipeline: Pipeline | None = None,
    *,
    changed: str | None = None,
    last: int | None = None,
    **filters: Any,
) -> Iterator[EventChange]:
    """What each event moved, oldest first.

    The filters are those of `EventStore.log`. `changed` is a path as in `diff`: only events that
    changed that field of a state, or something in it.
    """
    if pipeline is not None:
        filters["among"] = [pipeline]
    if changed is None:
        return explained(store, store.log(last=last, **filters))
    found = (
        each
        for each in explained(store, store.log(**filters))
        if any(touches(move, changed) for move in each.moves)
    )
    return found if last is None else iter(deque(found, maxlen=last))


def explained(store: EventStore, events: Iterable[StoredEvent]) -> Iterator[EventChange]:
    """What each of these events moved."""
    events = iter(events)
    cuts = _Cuts()
    while page := list(islice(events, PAGE)):
        before: dict[tuple[Pipeline, int], StoredEvent] = {}
        for kinds in set(_KINDS_BEFORE.values()):
            of_kinds = [stored for stored in page if _KINDS_BEFORE.get(stored.kind) == kinds]
            if of_kinds:
                before |= store.before(of_kinds, kinds)
        for stored in page:
            yield _explain(store, stored, before.get((stored.pipeline, stored.version)), cuts)


class _Cuts:
    """The newest state of each pipeline that is one message, cut: the next is mostly like it."""

    def __init__(self) -> None:
        self._known: dict[Pipeline, tuple[int, Cut]] = {}

    def of(self, stored: StoredEvent) -> Cut:
        """The parts of the state of an event."""
        version, known = self._known.get(stored.pipeline, (0, None))
        if stored.stream is not None:
            return cut(stored.body)
        if version != stored.version or known is None:
            known = cut(stored.body, known)
            self._known[stored.pipeline] = stored.version, known
        return known


def _explain(
    store: EventStore, stored: StoredEvent, earlier: StoredEvent | None, cuts: _Cuts
) -> EventChange:
    if stored.erased:
        return EventChange(stored, None)
    earlier = _standing(store, earlier)
    if stored.kind == "StreamDefined":
        redefined = definition_changes(stored.stream, earlier.body, stored.body) if earlier else []
        return EventChange(stored, earlier, redefined=redefined)
    if stored.kind not in _KINDS_BEFORE:
        return EventChange(stored, None)
    standing = earlier if earlier and earlier.kind != "StateCleared" else None
    then = cuts.of(standing) if standing else None
    if stored.kind == "StateCleared":
        if standing is None or then is None or (stored.stream and standing.stream is None):
            return EventChange(stored, None)  # a state of all streams is one message, and stays
        gone = _all_before(store, stored) if stored.stream is None else then.parts
        return EventChange(stored, standing, list(differences(gone, {})))
    now = cuts.of(stored)
    records = _records(now)
    unwritten = list(_unwritten(stored, standing, records))
    if then is not None and then.type == now.type:
        moves = list(differences(then.parts, now.parts))
        notes = [] if stored.origin in _ON_PURPOSE else [*unwritten, *_notes(moves)]
        return EventChange(stored, standing, moves, (), records, notes)
    replaced: Mapping[StreamDescriptor | None, Part] = {}
    if then is not None and stored.kind == "StateSaved":
        replaced = _all_before(store, stored)
        if stored.stream is not None and None not in replaced:
            then, replaced = None, {}  # another stream's state has put an end to it already
    moves = list(differences(replaced, now.parts))
    notes = _type_change(then, now) if stored.kind == "StateSaved" else []
    return EventChange(stored, None, moves, (), records, [*unwritten, *notes])


def _standing(store: EventStore, earlier: StoredEvent | None) -> StoredEvent | None:
    """The event that stood there, or the clear that ended it; None where nobody can tell.

    To clear a stream leaves a state of all streams as it is: that may have stood there.
    """
    before = earlier
    while before is not None and before.kind == "StateCleared" and before.stream is not None:
        found = store.before([before], STATE_KINDS)
        before = found.get((before.pipeline, before.version))
    if before is not None and before.stream is None and before.kind == "StateSaved":
        earlier = before
    return None if earlier is None or earlier.erased else earlier


def _all_before(store: EventStore, stored: StoredEvent) -> Mapping[StreamDescriptor | None, Part]:
    """All that stood before an event that leaves none of it; there are few of those."""
    try:
        return cut_view(state_as_of(store, stored.pipeline, stored.version - 1)).parts
    except ErasedBody:
        return {}


def _type_change(then: Cut | None, now: Cut) -> list[Note]:
    # Airbyte's platform changes from LEGACY to the other types, and refuses all else.
    if then is None or then.type in {"LEGACY", now.type}:
        return []
    return [Note("state type changed", f"state type changed from {then.type} to {now.type}")]


def _unwritten(
    stored: StoredEvent, standing: StoredEvent | None, records: Mapping[str, str]
) -> Iterator[Note]:
    """Say so if the destination counts fewer records than the source, once for a state."""
    is_same = standing is not None and standing.body_version == stored.body_version
    if stored.kind != "StateSaved" or stored.origin in _ON_PURPOSE or is_same:
        return
    numbers = {name: _comparable(Number(count)) for name, count in records.items()}
    read, written = numbers.get("records"), numbers.get("written")
    if read is not None and written is not None and written + numbers.get("rejected", 0) < read:
        rejected = f", {records['rejected']} rejected" if "rejected" in records else ""
        detail = f"{records['written']} of {records['records']} records written{rejected}"
        yield Note(_UNWRITTEN, detail)


def _notes(moves: Iterable[Change]) -> Iterator[Note]:
    back: dict[Any, list[Change]] = {}
    for place, move in enumerate(moves):
        if move.change == "removed" and not move.path and move.stream is not None:
            yield Note("stream vanished", f"{move.stream} vanished", [move])
        elif move.change == "changed" and went_backwards(move):
            group = (move.stream, move.item.list) if move.item else place
            back.setdefault(group, []).append(move)
    for lower in back.values():
        first = lower[0]
        detail = f"{first.path} went backwards: {plain(first.before)} -> {plain(first.after)}"
        if first.item and len(lower) > 1:
            detail += f" (and {len(lower) - 1} more in {first.item.list})"
        yield Note("cursor went backwards", detail, lower)


def went_backwards(change: Change) -> bool:
    """Whether a value is lower than before; only numbers and RFC 3339 times are compared."""
    if change.path.endswith(_NO_CURSORS):
        return False
    before, after = _comparable(change.before), _comparable(change.after)
    return before is not None and type(before) is type(after) and bool(after < before)


def _comparable(value: Any) -> Any:
    if not isinstance(value, str):
        return None
    try:
        if isinstance(value, Number):
            return Decimal(value)
        if _DATE.fullmatch(value):
            return date.fromisoformat(value)
        return parse_instant(value)
    except (ValueError, ArithmeticError):
        return None


_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _records(state: Cut) -> dict[str, str]:
    said = {
        "records": state.stats.get("sourceStats", {}).get("recordCount"),
        "written": state.stats.get("destinationStats", {}).get("recordCount"),
        "rejected": state.stats.get("destinationStats", {}).get("rejectedRecordCount"),
    }
    counts = {name: compact(count).removesuffix(".0") for name, count in said.items() if count}
    if counts.get("rejected") == "0":
        del counts["rejected"]
    return counts
