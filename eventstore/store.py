"""The log: events appended to histories, and read back."""

from __future__ import annotations

import getpass
import heapq
import logging
import os
import secrets
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, func, select, tuple_

from eventstore.chain import GENESIS, commitment, event_hash
from eventstore.database import Database
from eventstore.dialects import dialect_of
from eventstore.errors import (
    AppendIdReused,
    HistoryConflict,
    InvalidEvent,
    StoreUnavailable,
    UnknownVersion,
)
from eventstore.events import (
    Pipeline,
    StoredEvent,
    StreamDescriptor,
    name_problem,
    to_datetime,
    to_microseconds,
)
from eventstore.schema import LOG
from eventstore.tables import WHOLE_PIPELINE, bodies, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine, Row, Select
    from typing_extensions import Self

    from eventstore.codec import Draft
    from eventstore.events import Event
    from eventstore.schema import Schema

_log = logging.getLogger(__name__)

PAGE = 1000
"""Events read at a time; no transaction is open between two pages."""

REASON_LIMIT = 4000
"""Characters in a reason."""

_STORED = (
    select(
        pipelines.c.id,
        pipelines.c.source,
        pipelines.c.destination,
        pipelines.c.table_prefix,
        pipelines.c.connection,
        streams.c.namespace,
        streams.c.name,
        events,
        bodies.c.data,
    )
    .join_from(events, pipelines, pipelines.c.id == events.c.pipeline_id)
    .join(
        streams,
        and_(
            streams.c.pipeline_id == events.c.pipeline_id,
            streams.c.number == events.c.stream_number,
        ),
    )
    .outerjoin(
        bodies,
        and_(
            bodies.c.pipeline_id == events.c.pipeline_id,
            bodies.c.version == events.c.body_version,
        ),
    )
)

_BY_VERSION = (events.c.version,)
_BY_TIME = (events.c.stored_at, events.c.pipeline_id, events.c.version)


class Head(NamedTuple):
    """Where a history ends: version 0 is before its first event."""

    version: int
    hash: bytes
    stored_at: int


_BEFORE_THE_FIRST = Head(0, GENESIS, 0)


class _KnownBody(NamedTuple):
    digest: bytes
    version: int
    commitment: bytes


@dataclass
class _Memory:
    """What this process knows of a pipeline; only a hint, since other processes append too."""

    id: int
    version: int
    numbers: dict[StreamDescriptor | None, int] = field(default_factory=dict)
    bodies: dict[tuple[bool, StreamDescriptor | None], _KnownBody] = field(default_factory=dict)


class EventStore:
    """The log of all pipelines in one database.

    `inline` is called in the transaction of each append with what was appended, and keeps tables
    up to date; a store without it refuses to append to a log that has such tables. `clock` counts
    microseconds since 1970 and is used where the database has no clock of its own.
    """

    def __init__(
        self,
        engine: Engine | Callable[[], Engine],
        *,
        inline: Callable[[Connection, Sequence[StoredEvent]], None] | None = None,
        schemas: Sequence[Schema] = (),
        create: bool = True,
        dispose: bool = False,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Open nothing yet.

        `create` says whether missing tables are made at the first use, `dispose` whether `close`
        disposes the engine.
        """
        ask = engine if callable(engine) else lambda: engine
        self.database = Database(ask, [LOG, *schemas], create=create)
        self._ask = ask
        self._inline = inline
        self._dispose = dispose
        self._clock = clock
        self._memories: dict[Pipeline, _Memory] = {}
        self._remembered: Engine | None = None
        self.actor = _os_user()
        self.run = uuid7().hex

    def append(
        self,
        pipeline: Pipeline,
        *events: Event,
        expected: int | None = None,
        id: UUID | str | None = None,  # noqa: A002 - the name of the thing
        actor: str | None = None,
        reason: str | None = None,
        run: str | None = None,
    ) -> list[StoredEvent]:
        """Append events to a history, all or none, and return them as stored.

        `expected` is the version the caller has seen (0: the history must be new; None: any).
        `id` names the append: the same id again returns the original events. Raises InvalidEvent,
        HistoryConflict, AppendIdReused or StoreUnavailable; then nothing was stored.
        """
        from eventstore.codec import encode  # noqa: PLC0415 - imports the protocol models

        drafts = [encode(event) for event in events]
        if not drafts:
            return []
        attribution = _attribution(actor or self.actor, reason, run or self.run)
        append_id = uuid7() if id is None else _append_id(id)
        maybe_stored = id is not None

        def work(db: Connection) -> tuple[list[StoredEvent], _Memory | None]:
            nonlocal maybe_stored
            if maybe_stored and (stored := self._appended_as(db, append_id)):
                return _same_append(stored, pipeline, drafts, append_id), None
            maybe_stored = True  # from here on: the next attempt may follow a lost acknowledgement
            return self._append(db, pipeline, drafts, append_id, attribution, expected)

        stored, memory = self.database.transact(work)
        if memory:
            self._memories[pipeline] = memory
        _log.debug("%s: appended version %d to %d", pipeline, stored[0].version, stored[-1].version)
        return stored

    def append_within(
        self, db: Connection, pipeline: Pipeline, *events: Event, reason: str | None = None
    ) -> list[StoredEvent]:
        """Append in a transaction of the caller's, who tries it again as a whole."""
        from eventstore.codec import encode  # noqa: PLC0415 - imports the protocol models

        drafts = [encode(event) for event in events]
        attribution = _attribution(self.actor, reason, self.run)
        stored, _ = self._append(db, pipeline, drafts, uuid7(), attribution, None)
        return stored

    def _append(
        self,
        db: Connection,
        pipeline: Pipeline,
        drafts: Sequence[Draft],
        append_id: UUID,
        attribution: Attribution,
        expected: int | None,
    ) -> tuple[list[StoredEvent], _Memory]:
        memory, head, now = self._find_head(db, pipeline)
        if expected is not None and expected != head.version:
            raise HistoryConflict(pipeline, expected=expected, actual=head.version)
        if self._inline is None and self.database.components() != {LOG.component}:
            raise StoreUnavailable(
                "this log has tables that every append must keep up to date, and this store does "
                "not know them: open it with projections.connect"
            )
        new_streams = _number_streams(memory, drafts)
        rows, new_bodies, stored = _place(
            memory, head, now, pipeline, drafts, append_id, attribution
        )
        # The event row goes first: its key decides the race, and so no two writers deadlock.
        db.execute(events.insert(), rows)
        if new_bodies:
            db.execute(bodies.insert(), new_bodies)
        if head.version == 0:
            db.execute(pipelines.insert(), _pipeline_row(memory.id, pipeline))
        if new_streams:
            db.execute(streams.insert(), new_streams)
        if self._inline:
            self._inline(db, stored)
        memory.version = stored[-1].version
        return stored, memory

    def history(
        self, pipeline: Pipeline, *, after: int = 0, up_to: int | None = None
    ) -> Iterator[StoredEvent]:
        """Read a history oldest first, from the version after `after` to `up_to`, in pages."""
        where = [pipelines.c.key == pipeline.key, events.c.version > after]
        if up_to is not None:
            where.append(events.c.version <= up_to)
        return self._pages(where, _BY_VERSION)

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
        `since` and `until` are inclusive. `last` reads only the newest that match.
        """
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
            return self._since(after, where)
        if last is not None:
            return self._newest_matching(where, last)
        return self._pages(where, _BY_TIME)

    def event(self, pipeline: Pipeline, version: int) -> StoredEvent:
        """Read one event; raises UnknownVersion."""
        for stored in self.history(pipeline, after=version - 1, up_to=version):
            return stored
        raise self.unknown_version(pipeline, version)

    def unknown_version(self, pipeline: Pipeline, version: int) -> UnknownVersion:
        """The error for a version outside the history, with what there is instead."""
        head = self.head(pipeline)
        there = f"the versions 1 to {head.version}" if head.version else "no events"
        return UnknownVersion(f"{pipeline} has no version {version}: there are {there}")

    def pipelines(self) -> list[Pipeline]:
        """All pipelines, in the order of their first event."""
        with self.database.read() as db:
            return [_pipeline(row) for row in db.execute(select(pipelines).order_by("id"))]

    def heads(self) -> dict[Pipeline, int]:
        """The version each history has reached."""
        version = select(func.max(events.c.version)).where(events.c.pipeline_id == pipelines.c.id)
        query = select(pipelines, version.scalar_subquery().label("version")).order_by("id")
        with self.database.read() as db:
            return {_pipeline(row): row.version for row in db.execute(query)}

    def head(self, pipeline: Pipeline) -> Head:
        """Where a history ends; version 0 if it has not begun."""
        query = (
            select(events.c.version, events.c.hash, events.c.stored_at)
            .join(pipelines, pipelines.c.id == events.c.pipeline_id)
            .where(pipelines.c.key == pipeline.key)
            .order_by(events.c.version.desc())
            .limit(1)
        )
        with self.database.read() as db:
            row = db.execute(query).first()
        return Head(*row) if row else _BEFORE_THE_FIRST

    def version_at(self, pipeline: Pipeline, moment: datetime) -> int:
        """The version a history had reached at a moment, what was stored right then included.

        Bisects the key: within a history time never runs backwards.
        """
        wanted = to_microseconds(moment)
        low, high = 0, self.head(pipeline).version
        with self.database.read() as db:
            pipeline_id = _pipeline_id(db, pipeline)
            while low < high:
                middle = (low + high + 1) // 2
                stored_at = db.scalar(
                    select(events.c.stored_at).where(
                        events.c.pipeline_id == pipeline_id, events.c.version == middle
                    )
                )
                low, high = (middle, high) if stored_at <= wanted else (low, middle - 1)
        return low

    def newest(
        self, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None = None
    ) -> list[StoredEvent]:
        """The newest event of each kind and stream up to a version, in the order of versions.

        One index seek per kind and stream, however long the history is.
        """
        with self.database.read() as db:
            return self.newest_within(db, pipeline, kinds, up_to)

    def newest_within(
        self, db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None = None
    ) -> list[StoredEvent]:
        """`newest`, read in a transaction of the caller's."""
        pipeline_id = _pipeline_id(db, pipeline)
        if pipeline_id is None:
            return []
        bounds = [events.c.version <= up_to] if up_to is not None else []
        of_each_kind = [
            select(func.max(events.c.version))
            .where(
                events.c.pipeline_id == pipeline_id,
                events.c.kind == kind,
                events.c.stream_number == streams.c.number,
                *bounds,
            )
            .scalar_subquery()
            for kind in kinds
        ]
        found = db.execute(select(*of_each_kind).where(streams.c.pipeline_id == pipeline_id))
        versions = sorted(version for row in found for version in row if version is not None)
        stored: list[StoredEvent] = []
        for start in range(0, len(versions), PAGE):
            chosen = events.c.version.in_(versions[start : start + PAGE])
            query = _STORED.where(events.c.pipeline_id == pipeline_id, chosen)
            stored += _read(db, query.order_by(events.c.version))
        return stored

    def close(self) -> None:
        """Release the database; an engine that somebody gave us stays open."""
        self._memories.clear()
        if self._dispose:
            self._ask().dispose()

    def __enter__(self) -> Self:
        """Use the store as a context manager, closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def _find_head(self, db: Connection, pipeline: Pipeline) -> tuple[_Memory, Head, int]:
        if self._remembered is not db.engine:
            self._memories.clear()
            self._remembered = db.engine
        now = dialect_of(db).NOW
        # Taken away until the transaction is committed: what a failed one learned is wrong.
        memory = self._memories.pop(pipeline, None) or _recall(db, pipeline)
        query = (
            select(events.c.version, events.c.hash, events.c.stored_at)
            .where(events.c.pipeline_id == memory.id, events.c.version >= memory.version)
            .order_by(events.c.version.desc())
            .limit(1)
        )
        row = db.execute(query if now is None else query.add_columns(now)).first()
        if row is None and memory.version:
            # The database is older than what we remember: somebody restored a backup.
            return self._find_head(db, pipeline)
        head = Head(*row[:3]) if row else _BEFORE_THE_FIRST
        if head.version != memory.version:
            memory.bodies.clear()
            memory.numbers = _stream_numbers(db, memory.id)
        clock = self._clock() if now is None else row[3] if row else db.scalar(select(now))
        return memory, head, int(clock or 0)

    def _appended_as(self, db: Connection, append_id: UUID) -> list[StoredEvent]:
        query = _STORED.where(events.c.append_id == append_id.bytes)
        return list(_read(db, query.order_by(*_BY_TIME)))

    def _pages(
        self, where: Sequence[ColumnElement[bool]], order: Sequence[ColumnElement[Any]]
    ) -> Iterator[StoredEvent]:
        query = _STORED.where(*where).order_by(*order).limit(PAGE)
        page = query
        while True:
            with self.database.read() as db:
                rows = db.execute(page).all()
            yield from _stored_events(rows)
            if len(rows) < PAGE:
                return
            last = [rows[-1]._mapping[column] for column in order]  # noqa: SLF001 - its public door
            page = query.where(tuple_(*order) > tuple_(*last))

    def _since(
        self, after: Mapping[Pipeline, int], where: Sequence[ColumnElement[bool]]
    ) -> Iterator[StoredEvent]:
        ahead = {
            pipeline: head
            for pipeline, head in self.heads().items()
            if head > after.get(pipeline, 0)
        }
        histories = [
            self._pages(
                [
                    *where,
                    pipelines.c.key == pipeline.key,
                    events.c.version > after.get(pipeline, 0),
                    events.c.version <= head,
                ],
                _BY_VERSION,
            )
            for pipeline, head in ahead.items()
        ]
        return heapq.merge(*histories, key=lambda stored: stored.stored_at)

    def _newest_matching(
        self, where: Sequence[ColumnElement[bool]], last: int
    ) -> Iterator[StoredEvent]:
        descending = [column.desc() for column in _BY_TIME]
        with self.database.read() as db:
            rows = db.execute(_STORED.where(*where).order_by(*descending).limit(last)).all()
        return _stored_events(reversed(rows))


class Attribution(NamedTuple):
    """Who appends, why, and in which run."""

    actor: str
    reason: str | None
    run: str


def uuid7() -> UUID:
    """A UUID that sorts by time (RFC 9562, version 7): indexes of it grow at their end."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62
    return UUID(int=value | secrets.randbits(62))


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid {os.getuid()}"


def _attribution(actor: str, reason: str | None, run: str) -> Attribution:
    for name, value, limit in (
        ("actor", actor, None),
        ("run", run, None),
        ("reason", reason, REASON_LIMIT),
    ):
        if value is None:
            continue
        if problem := name_problem(value, limit=limit) if limit else name_problem(value):
            raise InvalidEvent(f"the {name} {problem}")
    return Attribution(actor, reason, run)


def _append_id(given: UUID | str) -> UUID:
    try:
        return given if isinstance(given, UUID) else UUID(given)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidEvent(f"an append id is a UUID, not {given!r}") from error


def _same_append(
    stored: list[StoredEvent], pipeline: Pipeline, drafts: Sequence[Draft], append_id: UUID
) -> list[StoredEvent]:
    then = [(s.pipeline, s.kind, s.stream, s.origin, s.of, s.body) for s in stored]
    now = [(pipeline, d.kind, d.stream, d.origin, d.of, d.body) for d in drafts]
    if then != now:
        first = stored[0]
        raise AppendIdReused(
            f"append id {append_id} was used for {len(stored)} other event(s) of {first.pipeline} "
            f"from version {first.version} on: use a new id for new content"
        )
    return stored


def _pipeline_id(db: Connection, pipeline: Pipeline) -> int | None:
    return db.scalar(select(pipelines.c.id).where(pipelines.c.key == pipeline.key))


def _recall(db: Connection, pipeline: Pipeline) -> _Memory:
    known = _pipeline_id(db, pipeline)
    if known is not None:
        return _Memory(known, 0)
    return _Memory((db.scalar(select(func.max(pipelines.c.id))) or 0) + 1, 0)


def _stream_numbers(db: Connection, pipeline_id: int) -> dict[StreamDescriptor | None, int]:
    rows = db.execute(
        select(streams.c.number, streams.c.name, streams.c.namespace).where(
            streams.c.pipeline_id == pipeline_id
        )
    )
    return {
        None if name is None else StreamDescriptor(name, namespace): number
        for number, name, namespace in rows
    }


def _number_streams(memory: _Memory, drafts: Iterable[Draft]) -> list[dict[str, Any]]:
    """Give new streams the next numbers; returns their rows. Number 0 is the whole pipeline."""
    new: list[dict[str, Any]] = []
    for stream in [None, *(draft.stream for draft in drafts)]:
        if stream not in memory.numbers:
            number = len(memory.numbers) if stream else WHOLE_PIPELINE
            memory.numbers[stream] = number
            new.append(
                {
                    "pipeline_id": memory.id,
                    "number": number,
                    "namespace": stream and stream.namespace,
                    "name": stream and stream.name,
                }
            )
    return new


def _place(
    memory: _Memory,
    head: Head,
    now: int,
    pipeline: Pipeline,
    drafts: Sequence[Draft],
    append_id: UUID,
    attribution: Attribution,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[StoredEvent]]:
    """Give each draft its version, time, body and hash; returns rows of events and of bodies."""
    from eventstore.codec import FORMAT  # noqa: PLC0415 - imports the protocol models

    rows: list[dict[str, Any]] = []
    new_bodies: list[dict[str, Any]] = []
    stored: list[StoredEvent] = []
    for draft in drafts:
        version, stored_at = head.version + 1, max(now, head.stored_at + 1)
        body = _find_or_add_body(memory, draft, version, new_bodies) if draft.body else None
        row = {
            "pipeline_id": memory.id,
            "version": version,
            "stored_at": stored_at,
            "append_id": append_id.bytes,
            "kind": draft.kind,
            "format": FORMAT,
            "stream_number": memory.numbers[draft.stream],
            "origin": draft.origin,
            "of_version": draft.of,
            "actor": attribution.actor,
            "reason": attribution.reason,
            "run": attribution.run,
            "body_version": body and body.version,
            "commitment": body and body.commitment,
        }
        row["hash"] = event_hash(head.hash, _hashed(row, pipeline, draft.stream))
        rows.append(row)
        stored.append(_stored_event(row, pipeline, draft.stream, draft.body))
        head = Head(version, row["hash"], stored_at)
    return rows, new_bodies, stored


def _find_or_add_body(
    memory: _Memory, draft: Draft, version: int, new_bodies: list[dict[str, Any]]
) -> _KnownBody:
    slot = (draft.kind.startswith("State"), draft.stream)
    digest = sha256(draft.body).digest()
    known = memory.bodies.get(slot)
    if known is None or known.digest != digest:
        salt = secrets.token_bytes(16)
        known = _KnownBody(digest, version, commitment(salt, draft.body))
        memory.bodies[slot] = known
        new_bodies.append(
            {
                "pipeline_id": memory.id,
                "version": version,
                "salt": salt,
                "codec": "plain",
                "data": draft.body,
            }
        )
    return known


def _hashed(
    row: Mapping[str, Any], pipeline: Pipeline, stream: StreamDescriptor | None
) -> Iterator[str | int | bytes | None]:
    """Every column a user can see, by names and never by database ids; the order is the format."""
    yield from (pipeline.source, pipeline.destination, pipeline.table_prefix, pipeline.connection)
    yield from (row["version"], row["stored_at"], row["append_id"], row["kind"], row["format"])
    yield from (stream and stream.namespace, stream and stream.name)
    yield from (row["origin"], row["of_version"], row["actor"], row["reason"], row["run"])
    yield from (row["body_version"], row["commitment"])


def _pipeline_row(pipeline_id: int, pipeline: Pipeline) -> dict[str, Any]:
    return {
        "id": pipeline_id,
        "key": pipeline.key,
        "source": pipeline.source,
        "destination": pipeline.destination,
        "table_prefix": pipeline.table_prefix,
        "connection": pipeline.connection,
    }


def _pipeline(row: Any) -> Pipeline:
    return Pipeline(row.source, row.destination, row.table_prefix, row.connection)


def _stored_event(
    row: Mapping[str, Any], pipeline: Pipeline, stream: StreamDescriptor | None, body: bytes
) -> StoredEvent:
    return StoredEvent(
        pipeline=pipeline,
        version=row["version"],
        id=UUID(bytes=bytes(row["append_id"])),
        stored_at=to_datetime(row["stored_at"]),
        kind=row["kind"],
        format=row["format"],
        stream=stream,
        origin=row["origin"],
        of=row["of_version"],
        body=body,
        actor=row["actor"],
        reason=row["reason"],
        run=row["run"],
        hash=bytes(row["hash"]),
    )


def _stored_events(rows: Iterable[Row[Any]]) -> Iterator[StoredEvent]:
    seen: dict[int, Pipeline] = {}
    for row in rows:
        if row.id not in seen:
            seen[row.id] = _pipeline(row)
        stream = None if row.name is None else StreamDescriptor(row.name, row.namespace)
        yield _stored_event(row._mapping, seen[row.id], stream, bytes(row.data or b""))  # noqa: SLF001


def _read(db: Connection, query: Select[Any]) -> Iterator[StoredEvent]:
    return _stored_events(db.execute(query).all())
