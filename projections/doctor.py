"""What looks wrong in a database: in the histories, in the tables, and in what guards the log."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from eventstore.dialects import dialect_of
from eventstore.events import to_datetime, to_microseconds
from eventstore.schema import missing_guards
from projections.as_of import BeforeHead, catalog_as_of, locate, state_as_of
from projections.changes import explained
from projections.differences import cut_view
from projections.tables_check import check_tables
from projections.views import STATE_KINDS
from projections.wording import erased_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor
    from eventstore.store import EventStore

_STATES = {"StateEmitted", *STATE_KINDS}
_TICK = timedelta(microseconds=1)
_LEAP_US = 1_000_000
"""How far two clocks may be apart before it is worth a word."""


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong.

    `pipeline` and `version` are None where it is about no event, `stream` where it is about none
    or about many.
    """

    pipeline: Pipeline | None
    version: int | None
    what: str
    detail: str
    stream: StreamDescriptor | None = None


def doctor(
    store: EventStore,
    pipelines: Iterable[Pipeline] | None = None,
    *,
    since: datetime | None = None,
) -> Iterator[Finding]:
    """What looks wrong: first in the database, then pipeline by pipeline, oldest first.

    Of the histories, what was stored `since` then (an aware time): what was found once stays in
    them, whoever has put it right. Of the database and the present, all. Raises InvalidMoment.
    """
    among = None if pipelines is None else list(pipelines)
    for guard in store.database.read(missing_guards):
        detail = f"the trigger {guard} is gone or off: `eventstore rebuild` puts it back"
        yield Finding(None, None, "guard missing", detail)
    tables = check_tables(store, among)
    for detail in tables.notices:
        yield Finding(None, None, "rows not in the log", detail)
    for detail in tables.problems:
        yield Finding(None, None, "row changed", detail)
    for pipeline in store.pipelines() if among is None else among:
        after = locate(store, pipeline, _just_before(since)).version if since else 0
        yield from _look_at_history(store, pipeline, after)
        yield from _look_at_head(store, pipeline)


def _just_before(moment: datetime) -> datetime:
    """A microsecond earlier; nothing was stored before 1970."""
    return to_datetime(max(to_microseconds(moment), 1) - 1)


def _look_at_history(store: EventStore, pipeline: Pipeline, after: int) -> Iterator[Finding]:
    runs, clock = _Runs(), _Clock()
    for each in explained(store, store.history(pipeline, after=after)):
        version = each.stored.version
        for note in each.notes:
            stream = note.moves[0].stream if note.moves else each.stored.stream
            yield Finding(pipeline, version, note.what, note.detail, stream)
        if detail := runs.overlap(each.stored):
            yield Finding(pipeline, version, "runs interleave", detail)
        if detail := clock.ran_ahead(each.stored):
            yield Finding(pipeline, version, "clock ran ahead", detail)


def _look_at_head(store: EventStore, pipeline: Pipeline) -> Iterator[Finding]:
    head = store.head(pipeline)
    ahead = head.stored_at - store.database.read(_now)
    if ahead > _LEAP_US:
        detail = f"stored {timedelta(microseconds=ahead)} later than now"
        yield Finding(pipeline, head.version, "clock ran ahead", detail)
    catalog = catalog_as_of(store, pipeline, BeforeHead(0))
    for stream, detail in erased_from(store, catalog):
        yield Finding(pipeline, None, "erased from catalog", detail, stream)
    streams = cut_view(state_as_of(store, pipeline, BeforeHead(0))).parts
    known = catalog.definitions.keys() | catalog.erased.keys()
    for stream in streams if known else ():  # without any catalog there is nothing to go by
        if stream is not None and stream not in known:
            detail = f"{stream} has a state, and is in no catalog"
            yield Finding(pipeline, None, "stream in no catalog", detail, stream)


class _Runs:
    """Which runs have stored states, and which two of them in turns."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._current = ""
        self._told: set[frozenset[str]] = set()

    def overlap(self, stored: StoredEvent) -> str:
        """Say so if a run goes on after another has begun, once for every two runs."""
        if stored.kind not in _STATES:
            return ""
        run, other = stored.run, self._current
        both = frozenset({run, other})
        again = run != other and run in self._last and both not in self._told
        since = self._last.get(run, 0)
        self._last[run] = stored.version
        self._current = run
        if not again:
            return ""
        self._told.add(both)
        return f"run {run} goes on after @{since}, in between there is run {other}"


class _Clock:
    """When the event before was stored, and in which append."""

    def __init__(self) -> None:
        self._before: StoredEvent | None = None
        self._told = False

    def ran_ahead(self, stored: StoredEvent) -> str:
        """Say so where time could only be kept from running backwards: once while that lasts."""
        before, self._before = self._before, stored
        if before is None or before.id == stored.id:
            return ""
        held_back = stored.stored_at - before.stored_at == _TICK
        told, self._told = self._told, held_back
        if not held_back or told:
            return ""
        return f"the clock behind @{stored.version} was not past @{before.version} yet"


def _now(db: Connection) -> int:
    now = dialect_of(db).NOW
    return time.time_ns() // 1000 if now is None else int(db.scalar(select(now)) or 0)
