"""One append: the head found, the events placed after it, their rows written."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select

from eventstore.chain import GENESIS, commitment, event_hash
from eventstore.codec import FORMAT
from eventstore.dialects import dialect_of
from eventstore.events import StreamDescriptor
from eventstore.rows import KEEPS_ITS_BODY, hashed_columns, pipeline_row, stored_event
from eventstore.statements import Statement
from eventstore.tables import WHOLE_PIPELINE, bodies, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Insert, Select, Table

    from eventstore.codec import Draft
    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline, StoredEvent


class Head(NamedTuple):
    """Where a history ends: version 0 is before its first event."""

    version: int
    hash: bytes
    stored_at: int


BEFORE_THE_FIRST = Head(0, GENESIS, 0)


class _KnownBody(NamedTuple):
    digest: bytes
    version: int
    commitment: bytes


@dataclass
class Memory:
    """What this process knows of a pipeline; only a hint, since other processes append too."""

    id: int
    head: Head = BEFORE_THE_FIRST
    numbers: dict[StreamDescriptor | None, int] = field(default_factory=dict)
    bodies: dict[tuple[bool, StreamDescriptor | None], _KnownBody] = field(default_factory=dict)


@dataclass(frozen=True)
class Append:
    """What is to be appended, by whom and why, and what the history must be like."""

    pipeline: Pipeline
    drafts: Sequence[Draft]
    id: UUID
    actor: str
    reason: str | None
    run: str
    expected: int | None = None
    writer: int | None = None


def _head(dialect: Dialect) -> Select[Any]:
    """The newest event from the one we know on, with the database's time if it keeps one."""
    time = [] if dialect.NOW is None else [dialect.NOW]
    return (
        select(events.c.version, events.c.hash, events.c.stored_at, *time)
        .where(events.c.pipeline_id == bindparam("pipeline_id"))
        .where(events.c.version >= bindparam("known"))
        .order_by(events.c.version.desc())
        .limit(1)
    )


_CHUNK = 500
"""Versions in one statement."""

_read_head = Statement(_head)
_find_id = Statement(
    lambda _: select(pipelines.c.id).where(pipelines.c.key == bindparam("pipeline_key"))
)
_insert_events = Statement(lambda _: events.insert())
_insert_bodies = Statement(lambda _: bodies.insert())


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _event_with_body(_: Dialect) -> Insert:
    """One event and its body, in one round trip."""
    body = bodies.insert().values({name: bindparam(f"new_{name}") for name in _names(bodies)})
    event = events.insert().values({name: bindparam(name) for name in _names(events)})
    return event.add_cte(body.returning(bodies.c.version).cte("body"))


_insert_event_with_body = Statement(_event_with_body)


def find_head(
    db: Connection,
    pipeline: Pipeline,
    memory: Memory | None,
    clock: Callable[[], int],
    *,
    read: bool,
) -> tuple[Memory, int]:
    """Find where a history ends, and what time it is there; returns an up-to-date memory.

    Without `read` a memory may be trusted where nobody else can have appended.
    """
    dialect = dialect_of(db)
    if memory and not read and not dialect.MANY_PROCESSES:
        # Nobody but a thread of ours can have appended since, and then the key will say so.
        return memory, clock()
    if memory is None:
        its_id = pipeline_id(db, pipeline)
        if its_id is None:
            # Whoever begins a pipeline under this id at the same time takes its version 1.
            return Memory(next_id(db)), _time(db, dialect, clock)
        memory = Memory(its_id)
    known = memory.head.version
    row = _read_head.on_driver(db, {"pipeline_id": memory.id, "known": known}).fetchone()
    if row is None and known:
        # The database is older than what we remember: somebody restored a backup.
        return find_head(db, pipeline, None, clock, read=True)
    head = Head(row[0], bytes(row[1]), row[2]) if row else BEFORE_THE_FIRST
    if head != memory.head:
        memory = Memory(memory.id, head, _stream_numbers(db, memory.id))
    return memory, int(row[3]) if row and dialect.NOW is not None else _time(db, dialect, clock)


def write(db: Connection, append: Append, memory: Memory, now: int) -> list[StoredEvent]:
    """Write the rows of an append behind the head, and remember them.

    The rows of events go first: their key decides the race, and so no two writers deadlock.
    """
    is_new = memory.head.version == 0
    _recall_bodies(db, memory, append.drafts)
    new_streams = _number_streams(memory, append.drafts)
    rows, new_bodies, stored = _place(append, memory, now)
    dialect = dialect_of(db)
    for body in new_bodies:
        dialect.check_size(db, len(body["data"]))
    if len(rows) == len(new_bodies) == 1 and dialect.INSERTS_TOGETHER:
        its_body = {f"new_{name}": value for name, value in new_bodies[0].items()}
        _insert_event_with_body.on_driver(db, {**rows[0], **its_body})
    else:
        _insert_events.run_each(db, rows)
        if new_bodies:
            _insert_bodies.run_each(db, new_bodies)
    if is_new:
        db.execute(pipelines.insert(), pipeline_row(memory.id, append.pipeline))
    if new_streams:
        db.execute(streams.insert(), new_streams)
    return stored


def pipeline_id(db: Connection, pipeline: Pipeline) -> int | None:
    """The database's id of a pipeline, None if nothing was ever appended to it."""
    found: int | None = _find_id.run(db, {"pipeline_key": pipeline.key}).scalar()
    return found


def _recall_bodies(db: Connection, memory: Memory, drafts: Iterable[Draft]) -> None:
    """Remember the bodies of the versions that are restored: they are not stored again."""
    restored = {draft.of: draft for draft in drafts if draft.of is not None}
    wanted = list(restored)
    for start in range(0, len(wanted), _CHUNK):
        query = (
            select(events.c.version, events.c.body_version, events.c.commitment, bodies.c.data)
            .join_from(events, bodies, KEEPS_ITS_BODY)
            .where(events.c.pipeline_id == memory.id)
            .where(events.c.version.in_(wanted[start : start + _CHUNK]))
        )
        for version, body_version, its_commitment, data in db.execute(query):
            draft = restored[version]
            if bytes(data) == draft.body:  # `of` may be a version of another pipeline
                digest = sha256(draft.body).digest()
                known = _KnownBody(digest, body_version, bytes(its_commitment))
                memory.bodies[_slot(draft)] = known


def _slot(draft: Draft) -> tuple[bool, StreamDescriptor | None]:
    return draft.kind.startswith("State"), draft.stream


def next_id(db: Connection) -> int:
    """The id of a pipeline that begins now, unless somebody else takes it first."""
    return (db.scalar(select(func.max(pipelines.c.id))) or 0) + 1


def _time(db: Connection, dialect: Dialect, clock: Callable[[], int]) -> int:
    return clock() if dialect.NOW is None else int(db.scalar(select(dialect.NOW)) or 0)


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


def _number_streams(memory: Memory, drafts: Iterable[Draft]) -> list[dict[str, Any]]:
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
    append: Append, memory: Memory, now: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[StoredEvent]]:
    """Give each draft its version, time, body and hash; returns rows of events and of bodies."""
    rows: list[dict[str, Any]] = []
    new_bodies: list[dict[str, Any]] = []
    stored: list[StoredEvent] = []
    for draft in append.drafts:
        head = memory.head
        version, stored_at = head.version + 1, max(now, head.stored_at + 1)
        body = _find_or_add_body(memory, draft, version, new_bodies) if draft.body else None
        row: dict[str, Any] = {
            "pipeline_id": memory.id,
            "version": version,
            "stored_at": stored_at,
            "append_id": append.id.bytes,
            "kind": draft.kind,
            "format": FORMAT,
            "stream_number": memory.numbers[draft.stream],
            "origin": draft.origin,
            "of_version": draft.of,
            "actor": append.actor,
            "reason": append.reason,
            "run": append.run,
            "body_version": body and body.version,
            "commitment": body and body.commitment,
        }
        row["hash"] = event_hash(head.hash, hashed_columns(row, append.pipeline, draft.stream))
        rows.append(row)
        stored.append(stored_event(row, append.pipeline, draft.stream, draft.body))
        memory.head = Head(version, row["hash"], stored_at)
    return rows, new_bodies, stored


def _find_or_add_body(
    memory: Memory, draft: Draft, version: int, new_bodies: list[dict[str, Any]]
) -> _KnownBody:
    slot = _slot(draft)
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
