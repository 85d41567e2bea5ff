"""The door of the log: events are appended to histories, and read back."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from eventstore import lookup, reading
from eventstore.appender import Appender
from eventstore.codec import encode
from eventstore.database import Database
from eventstore.errors import InvalidPipeline, UnknownVersion
from eventstore.events import BODY_LIMIT, KINDS, Pipeline, to_datetime, to_microseconds
from eventstore.identity import append_id, check_attribution, fresh_run, os_user, uuid7
from eventstore.placing import Append
from eventstore.predecessors import before
from eventstore.schema import LOG
from eventstore.tables import KIND, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement, Connection, Engine
    from typing_extensions import Self

    from eventstore.codec import Draft
    from eventstore.events import Event, Said, StoredEvent, StreamDescriptor
    from eventstore.head import Head
    from eventstore.schema import Schema
    from eventstore.writing import Beside

_log = logging.getLogger(__name__)


class EventStore:
    """The log of all pipelines in one database.

    `inline` is called in the transaction of each append with what was appended, and keeps tables
    up to date; a store without it refuses to append to a log that has such tables. `beside` says
    how they show a single event by the statement that inserts it, where it can. `clock` counts
    microseconds since 1970 and is used where the database has no clock of its own.
    """

    def __init__(
        self,
        engine: Engine | Callable[[], Engine],
        *,
        inline: Callable[[Connection, Sequence[StoredEvent]], None] | None = None,
        beside: Callable[[StoredEvent], Beside | None] = lambda _: None,
        schemas: Sequence[Schema] = (),
        create: bool = True,
        dispose: bool = False,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        """Open nothing yet.

        `create` says whether missing tables are made at the first use, `dispose` whether `close`
        disposes the engine; `body_limit` is in bytes.
        """
        ask = engine if callable(engine) else lambda: engine
        self.database = Database(ask, [LOG, *schemas], create=create)
        self._ask = ask
        self._inline = inline
        self._appender = Appender(self.database, clock, inline, beside)
        self.owns_engine = dispose
        self._body_limit = body_limit
        self._counted: tuple[Engine | None, reading.Counted | None] = None, None
        self.actor = os_user()
        self.run = fresh_run()

    def append(
        self,
        pipeline: Pipeline,
        *events: Event,
        expected: int | None = None,
        id: UUID | str | None = None,  # noqa: A002 - the name of the thing
        actor: str | None = None,
        reason: str | None = None,
        run: str | None = None,
        writer: int | None = None,
    ) -> list[StoredEvent]:
        """Append events to a history, all or none, and return them as stored.

        `expected` is the version the caller has seen (0: the history must be new; None: any).
        `id` names the append: the same id again returns the original events. `writer` is the
        version of the WriterStarted by which the caller became the exclusive writer. Raises
        InvalidEvent, HistoryConflict, StaleWriter, AppendIdReused or StoreUnavailable; then
        nothing was stored. Only where the server is gone for long after it was sent a COMMIT does
        StoreUnavailable leave that open: the same id again finds out.
        """
        if not isinstance(pipeline, Pipeline):
            raise InvalidPipeline(f"events belong to a Pipeline, not to {pipeline!r}")
        drafts = [self.encode(event) for event in events]
        if not drafts:
            return []
        who, why, which = check_attribution(actor or self.actor, reason, run or self.run)
        its_id = uuid7() if id is None else append_id(id)
        append = Append(pipeline, drafts, its_id, who, why, which, expected, writer)
        return self._append(append, named=id is not None)

    def append_encoded(
        self,
        pipeline: Pipeline,
        drafts: Sequence[Draft],
        *,
        expected: int,
        actor: str | None = None,
        run: str | None = None,
    ) -> list[StoredEvent]:
        """Append what was encoded before, at least one; raises what `append` raises."""
        who, why, which = check_attribution(actor or self.actor, None, run or self.run)
        append = Append(pipeline, drafts, uuid7(), who, why, which, expected)
        return self._append(append, named=False)

    def _append(self, append: Append, *, named: bool) -> list[StoredEvent]:
        stored = self._appender.append(append, named=named)
        if _log.isEnabledFor(logging.DEBUG):
            first, last = stored[0].version, stored[-1].version
            versions = f"version {first}" if first == last else f"versions {first} to {last}"
            _log.debug("%s: appended %s", append.pipeline, versions)
        return stored

    def encode(self, event: Event) -> Draft:
        """Turn an event into what would be stored; raises InvalidEvent."""
        return encode(event, self._body_limit)

    def append_within(
        self, db: Connection, pipeline: Pipeline, *events: Event, reason: str | None = None
    ) -> list[StoredEvent]:
        """Append in a transaction of the caller's, who tries it again as a whole.

        What is in the database already is taken whatever its size.
        """
        return self.append_drafts(db, pipeline, [encode(event) for event in events], reason=reason)

    def append_drafts(
        self,
        db: Connection,
        pipeline: Pipeline,
        drafts: Sequence[Draft],
        *,
        id: UUID | None = None,  # noqa: A002 - the name of the thing
        expected: int | None = None,
        actor: str | None = None,
        reason: str | None = None,
        run: str | None = None,
    ) -> list[StoredEvent]:
        """Append what is encoded already in a transaction of the caller's; once under one `id`."""
        who, which = actor or self.actor, run or self.run
        append = Append(pipeline, drafts, id or uuid7(), who, reason, which, expected)
        return self._appender.append_within(db, append, named=id is not None)

    def apply_within(self, db: Connection, stored: Sequence[StoredEvent]) -> None:
        """Show events that are in the log already to the inline tables once more."""
        if self._inline:
            self._inline(db, stored)

    def history(
        self, pipeline: Pipeline, *, after: int = 0, up_to: int | None = None
    ) -> Iterator[StoredEvent]:
        """Read a history oldest first, from the version after `after` to `up_to`, in pages."""
        return reading.history(self.database, pipeline, after, up_to)

    def log(
        self,
        *,
        after: Mapping[Pipeline, int] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        among: Iterable[Pipeline] | None = None,
        stream: str | None = None,
        namespace: str | None = None,
        kind: str | None = None,
        actor: str | None = None,
        run: str | None = None,
        last: int | None = None,
    ) -> Iterator[StoredEvent]:
        """Read events of all pipelines, or those `among` them, by time, pipeline and version.

        `after` yields what came since those heads, whatever the clocks say: the way to tail.
        `since` and `until` are inclusive. `last` reads only the newest that match. Raises
        Invalid for a `kind` that there is not.
        """
        KIND.check(kind)
        where: list[ColumnElement[bool]] = []
        if among is not None:
            where.append(pipelines.c.key.in_([pipeline.key for pipeline in among]))
        if since is not None:
            where.append(events.c.stored_at >= to_microseconds(since))
        if until is not None:
            where.append(events.c.stored_at <= to_microseconds(until))
        wanted = {
            streams.c.name: stream,
            streams.c.namespace: namespace,
            events.c.kind: kind,
            events.c.actor: actor,
            events.c.run: run,
        }
        where += [column == value for column, value in wanted.items() if value is not None]
        if after is not None:
            tail = reading.matching_since(self.database, where, after)
            return tail if last is None else iter(deque(tail, maxlen=last))
        if last is not None:
            return reading.newest_matching(self.database, where, last)
        return reading.matching(self.database, where)

    def follow(
        self, progress: Mapping[Pipeline, int] | None = None, *, every_s: float = 1.0
    ) -> Iterator[StoredEvent]:
        """Yield what comes after a progress, and wait for more: it does not end by itself.

        `progress` has the version up to which each history was seen. Each history comes in its
        order, without gaps; `every_s` seconds pass between two looks. Raises StoreUnavailable.
        """
        seen = dict(progress or {})
        known = None
        while True:
            count = self.count()  # before the look: what comes during it is found by the next
            if count != known:
                for stored in self.log(after=dict(seen)):
                    seen[stored.pipeline] = stored.version
                    yield stored
            known = count
            time.sleep(every_s)

    def event(self, pipeline: Pipeline, version: int) -> StoredEvent:
        """Read one event; raises UnknownVersion."""
        for stored in self.history(pipeline, after=version - 1, up_to=version):
            return stored
        raise self.unknown_version(pipeline, version)

    def unknown_version(self, pipeline: Pipeline, version: int | str) -> UnknownVersion:
        """The error for a version outside the history, with what there is instead."""
        head = self.head(pipeline)
        there = f"the versions 1 to {head.version}" if head.version else "no events"
        return UnknownVersion(f"{pipeline} has no version {version}: there are {there}")

    def pipelines(self) -> list[Pipeline]:
        """All pipelines, in the order of their first event."""
        return self.database.read(self.pipelines_within)

    def pipelines_within(self, db: Connection) -> list[Pipeline]:
        """`pipelines`, read in a transaction of the caller's."""
        return reading.all_pipelines(db)

    def heads(self) -> dict[Pipeline, int]:
        """The version each history has reached."""
        return self.database.read(self.heads_within)

    def heads_within(self, db: Connection) -> dict[Pipeline, int]:
        """`heads`, read in a transaction of the caller's."""
        return reading.heads(db)

    def ends(self) -> dict[Pipeline, Head]:
        """Where each history ends: its version, hash and time there."""
        return self.database.read(reading.ends)

    def count(self) -> int:
        """How many events the log has; as long as it stays the same, there is nothing new.

        Some milliseconds for 10,000 pipelines, however long their histories are; on PostgreSQL
        and SQLite less than one while nobody commits.
        """
        engine, (counted_there, last) = self.database.engine, self._counted
        known = last if counted_there is engine else None
        counted = self.database.read(lambda db: reading.count(db, known))
        self._counted = engine, counted
        return counted.events

    def head(self, pipeline: Pipeline) -> Head:
        """Where a history ends; version 0 if it has not begun."""
        return self.database.read(lambda db: self.head_within(db, pipeline))

    def head_within(self, db: Connection, pipeline: Pipeline) -> Head:
        """`head`, read in a transaction of the caller's."""
        return reading.head(db, pipeline)

    def version_at(self, pipeline: Pipeline, moment: datetime) -> int:
        """The version a history had reached at a moment, what was stored right then included."""
        wanted = to_microseconds(moment)
        return self.database.read(lambda db: reading.version_at(db, pipeline, wanted))

    def stored_at(self, pipeline: Pipeline, version: int) -> datetime:
        """When a version was stored; raises UnknownVersion."""
        found = self.database.read(lambda db: reading.stored_at(db, pipeline, version))
        if found is None:
            raise self.unknown_version(pipeline, version)
        return to_datetime(found)

    def newest(
        self, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None = None
    ) -> list[StoredEvent]:
        """The newest event of each kind and stream up to a version, in the order of versions.

        One index seek per kind and stream, however long the history is. Raises Invalid for a kind
        that there is not.
        """
        return self.database.read(lambda db: self.newest_within(db, pipeline, kinds, up_to))

    def newest_within(
        self, db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None = None
    ) -> list[StoredEvent]:
        """`newest`, read in a transaction of the caller's."""
        KIND.check(*kinds)
        return lookup.newest(db, pipeline, kinds, up_to)

    def newest_said(
        self, pipeline: Pipeline, kinds: Sequence[str], up_to: int, *, length: int
    ) -> list[Said]:
        """What the `newest` say, which takes half the time where nobody asks who and when.

        `length` is how many events the history has: it decides how they are looked for.
        """
        KIND.check(*kinds)
        return self.database.read(lambda db: lookup.newest_said(db, pipeline, kinds, up_to, length))

    def require_inline(self) -> None:
        """Raise StoreUnavailable if this log has inline tables that this store does not know."""
        self._appender.require_inline()

    def newest_by_pipeline(
        self, db: Connection, those: Iterable[Pipeline], kinds: Sequence[str]
    ) -> Iterator[tuple[Pipeline, list[StoredEvent]]]:
        """`newest_within` of each of these pipelines, many together where that is faster."""
        KIND.check(*kinds)
        return lookup.newest_by_pipeline(db, those, kinds)

    def apply_newest(self, db: Connection, those: Iterable[Pipeline]) -> None:
        """Bring the inline tables to where histories leave them that were written as a whole.

        Of each kind the newest event per stream is enough.
        """
        if self._inline:
            for _, newest in self.newest_by_pipeline(db, those, KINDS):
                if newest:
                    self._inline(db, newest)

    def before(
        self, read: Sequence[StoredEvent], kinds: Sequence[str]
    ) -> dict[tuple[Pipeline, int], StoredEvent]:
        """For each event, by pipeline and version, the newest one of these kinds before it.

        Of its stream or of the whole pipeline; for an event of the whole pipeline, of any stream.
        Index seeks, however long the histories are. Raises Invalid for a kind that there is not.
        """
        KIND.check(*kinds)
        return self.database.read(lambda db: before(db, read, kinds))

    def backwards(
        self,
        pipeline: Pipeline,
        kind: str,
        stream: StreamDescriptor | None,
        *,
        up_to: int,
        after: int = 0,
    ) -> Iterator[StoredEvent]:
        """Read the events of one kind and stream newest first, from `up_to` to after `after`.

        Raises Invalid for a kind that there is not.
        """
        KIND.check(kind)
        return reading.backwards(self.database, pipeline, kind, stream, up_to=up_to, after=after)

    def forget(self) -> None:
        """Remember nothing of any history: what was there is not any more."""
        self._appender.forget()

    def close(self) -> None:
        """Release the database; an engine that somebody gave us stays open."""
        self.forget()
        if self.owns_engine:
            self._ask().dispose()

    def __enter__(self) -> Self:
        """Use the store as a context manager, closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()
