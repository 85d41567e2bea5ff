"""One append: the head found, the events placed after it, their rows written."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, literal, select

from eventstore import parts, sharing
from eventstore.chain import GENESIS, commitment, encoded_names, row_hash
from eventstore.codec import FORMAT
from eventstore.compression import packed
from eventstore.dialects import dialect_of
from eventstore.events import StoredEvent, StreamDescriptor, to_datetime
from eventstore.newest import END, newest_of_one
from eventstore.rows import KEEPS_ITS_BODY, pipeline_row
from eventstore.statements import Statement
from eventstore.tables import WHOLE_PIPELINE, bodies, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Select

    from eventstore.codec import Draft
    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline


class Head(NamedTuple):
    """Where a history ends: version 0 is before its first event."""

    version: int
    hash: bytes
    stored_at: int


BEFORE_THE_FIRST = Head(0, GENESIS, 0)


class _KnownBody(NamedTuple):
    said: bytes
    version: int
    commitment: bytes


class _KnownStream(NamedTuple):
    number: int
    encoded: bytes


@dataclass
class Memory:
    """What this process knows of a pipeline; only a hint, since other processes append too."""

    id: int
    head: Head = BEFORE_THE_FIRST
    streams: dict[StreamDescriptor | None, _KnownStream] = field(default_factory=dict)
    bodies: dict[tuple[bool, StreamDescriptor | None], _KnownBody] = field(default_factory=dict)
    lacks_streams: bool = False
    """Whether there can be more streams than these."""
    parts: dict[bytes, parts.Place] = field(default_factory=dict)
    """Where the parts of the newest GLOBAL state are, by their digests."""
    read_at_us: int | None = None
    """When the head was last read and found where it was remembered, by this process's clock."""
    time_us: int = 0
    """What time it was in the database then."""

    def time_if_fresh(self, now_us: int) -> int | None:
        """What time it is in the database; None unless the head was found a moment ago.

        A clock of this process that was set meanwhile by less than that moment is not noticed.
        """
        passed = None if self.read_at_us is None else now_us - self.read_at_us
        return None if passed is None or not 0 <= passed < _A_MOMENT_US else self.time_us + passed

    def has_only_a_new_body(self, draft: Draft) -> bool:
        """Whether the event takes a row and its body, and nothing more."""
        known = self.bodies.get(_slot(draft))
        is_new = known is None or known.said != _known_by(draft.body)
        return draft.stream in self.streams and bool(draft.body) and is_new

    def copy(self) -> Memory:
        """Another that can be changed."""
        return replace(self, streams=dict(self.streams), bodies=dict(self.bodies))


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
    """The newest event from the one we know on, and the hash of that one; the database's time."""
    time = [] if dialect.NOW is None else [dialect.NOW]
    known, mine = events.alias(), bindparam("pipeline_id", type_=events.c.pipeline_id.type)
    its_hash = select(known.c.hash).where(
        known.c.pipeline_id == mine, known.c.version == bindparam("known")
    )
    return (
        select(
            *(events.c.version, events.c.hash, events.c.stored_at),
            *(its_hash.scalar_subquery(), *time),
        )
        .where(events.c.pipeline_id == mine)
        .where(events.c.version >= bindparam("known"))
        .order_by(events.c.version.desc())
        .limit(1)
    )


_SHORT = 256
"""Bytes of a body that is compared as fast as its digest is made."""

_CHUNK = 500
"""Versions in one statement."""

_read_head = Statement(_head)
_find_id = Statement(
    lambda _: select(pipelines.c.id).where(pipelines.c.key == bindparam("pipeline_key"))
)

_A_MOMENT_US = 1_000_000
"""How long a head that nobody else had moved is taken to be there, to be found out on writing."""


def find_head(
    db: Connection,
    pipeline: Pipeline,
    memory: Memory | None,
    clock: Callable[[], int],
    *,
    read: bool,
) -> tuple[Memory, int]:
    """Find where a history ends, and what time it is there; returns an up-to-date memory.

    Without `read` a memory is trusted where it is known that nobody has appended since.
    """
    dialect = dialect_of(db)
    if memory and not read:
        written = dialect.newest_written(db)
        if written and written.get(pipeline.key) == memory.head.hash:
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
    now = int(row[4]) if row and dialect.NOW is not None else _time(db, dialect, clock)
    if head != memory.head:
        goes_on = row is not None and row[3] is not None and bytes(row[3]) == memory.head.hash
        known_streams = memory.streams if goes_on else {}
        return Memory(memory.id, head, known_streams, lacks_streams=True), now
    if dialect.NOW is not None:
        memory.read_at_us, memory.time_us = clock(), now
    return memory, now


class Placed(NamedTuple):
    """An append behind the head: its events as they will be stored, and all of its rows."""

    stored: list[StoredEvent]
    events: list[tuple[Any, ...]]
    bodies: list[tuple[Any, ...]]
    streams: list[dict[str, Any]]
    pipeline: dict[str, Any] | None

    @property
    def is_one_event(self) -> bool:
        """Whether it is an event and its body, and nothing more."""
        more = self.streams or self.pipeline
        return len(self.events) == len(self.bodies) == 1 and not more


def place(db: Connection, append: Append, memory: Memory, now: int) -> Placed:
    """Place an append behind the head, and remember it; writes nothing."""
    new = pipeline_row(memory.id, append.pipeline) if memory.head.version == 0 else None
    _recall_bodies(db, memory, append.drafts)
    new_streams = _number_streams(db, memory, append.drafts)
    rows, new_bodies, stored = _place(db, append, memory, now)
    if (written := dialect_of(db).newest_written(db)) is not None:
        written[append.pipeline.key] = memory.head.hash
    longest = max((len(draft.body) for draft in append.drafts), default=0)
    dialect_of(db).check_size(db, longest)  # in the tables it is plain
    return Placed(stored, rows, new_bodies, new_streams, new)


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
            select(
                *(events.c.version, events.c.body_version, events.c.commitment),
                *(bodies.c.codec, bodies.c.data),
            )
            .join_from(events, bodies, KEEPS_ITS_BODY)
            .where(events.c.pipeline_id == memory.id)
            .where(events.c.version.in_(wanted[start : start + _CHUNK]))
        )
        read = sharing.reader(db, memory.id)
        for version, body_version, its_commitment, its_codec, data in db.execute(query).all():
            draft = restored[version]
            # `of` may be a version of another pipeline.
            if read.body(its_codec, data, body_version) == draft.body:
                known = _KnownBody(_known_by(draft.body), body_version, bytes(its_commitment))
                memory.bodies[_slot(draft)] = known


def _recall_parts(db: Connection, memory: Memory) -> None:
    """Remember where the parts of the newest GLOBAL state are, if they are there still."""
    if memory.parts and sharing.are_there(db, memory.id, memory.parts.values()):
        return
    memory.parts = {}
    of_whole = partial(newest_of_one, dialect_of(db), pipeline_id=memory.id, before=END)
    seeks = [of_whole(kind, literal(WHOLE_PIPELINE)) for kind in ("StateSaved", "StateEmitted")]
    newest = max(version or 0 for version in db.execute(select(*seeks)).one())
    this = (events.c.pipeline_id == memory.id, events.c.version == newest)
    kept_at = db.scalar(select(events.c.body_version).where(*this))
    if kept_at is not None:
        memory.parts = sharing.places_in(db, memory.id, kept_at)


def _has_parts(draft: Draft) -> bool:
    return draft.stream is None and draft.kind.startswith("State") and parts.has_parts(draft.body)


def _known_by(body: bytes) -> bytes:
    """What a body is remembered by: itself, unless it is long."""
    return body if len(body) <= _SHORT else sha256(body).digest()


def _slot(draft: Draft) -> tuple[bool, StreamDescriptor | None]:
    return draft.kind.startswith("State"), draft.stream


def next_id(db: Connection) -> int:
    """The id of a pipeline that begins now, unless somebody else takes it first."""
    return (db.scalar(select(func.max(pipelines.c.id))) or 0) + 1


def _time(db: Connection, dialect: Dialect, clock: Callable[[], int]) -> int:
    return clock() if dialect.NOW is None else int(db.scalar(select(dialect.NOW)) or 0)


def _known_streams(db: Connection, pipeline_id: int) -> dict[StreamDescriptor | None, _KnownStream]:
    rows = db.execute(
        select(streams.c.number, streams.c.namespace, streams.c.name).where(
            streams.c.pipeline_id == pipeline_id
        )
    )
    return {
        None if name is None else StreamDescriptor(name, namespace): _KnownStream(
            number, encoded_names((namespace, name))
        )
        for number, namespace, name in rows
    }


def _number_streams(
    db: Connection, memory: Memory, drafts: Sequence[Draft]
) -> list[dict[str, Any]]:
    """Give new streams the next numbers; returns their rows. Number 0 is the whole pipeline."""
    new: list[dict[str, Any]] = []
    wanted = [None, *(draft.stream for draft in drafts)]
    if memory.lacks_streams and not memory.streams.keys() >= set(wanted):
        memory.streams, memory.lacks_streams = _known_streams(db, memory.id), False
    for stream in wanted:
        if stream not in memory.streams:
            number = len(memory.streams) if stream else WHOLE_PIPELINE
            names = (stream.namespace, stream.name) if stream else (None, None)
            memory.streams[stream] = _KnownStream(number, encoded_names(names))
            row = zip(streams.columns.keys(), (memory.id, number, *names), strict=True)
            new.append(dict(row))
    return new


def _place(
    db: Connection, append: Append, memory: Memory, now: int
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[StoredEvent]]:
    """Give each draft its version, time, body and hash; returns rows of events and of bodies."""
    rows: list[tuple[Any, ...]] = []
    new_bodies: list[tuple[Any, ...]] = []
    stored: list[StoredEvent] = []
    pipeline = append.pipeline
    names = encoded_names(
        (pipeline.source, pipeline.destination, pipeline.table_prefix, pipeline.connection)
    )
    append_id = append.id.bytes
    by = append.actor, append.reason, append.run
    version, its_hash, stored_at = memory.head
    for draft in append.drafts:
        previous, stream = its_hash, memory.streams[draft.stream]
        version, stored_at = version + 1, max(now, stored_at + 1)
        body = _find_or_add_body(db, memory, draft, version, new_bodies) if draft.body else None
        place = version, stored_at, append_id, draft.kind, FORMAT
        kept = (body.version, body.commitment) if body else (None, None)
        said = draft.origin, draft.of, *by, *kept
        its_hash = row_hash(previous, names, *place, stream.encoded, *said)
        rows.append((memory.id, *place, stream.number, *said, its_hash))
        stored.append(
            StoredEvent.made_of(
                {
                    "pipeline": pipeline,
                    "version": version,
                    "id": append.id,
                    "stored_at": to_datetime(stored_at),
                    "kind": draft.kind,
                    "format": FORMAT,
                    "stream": draft.stream,
                    "origin": draft.origin,
                    "of": draft.of,
                    "body": draft.body,
                    "actor": append.actor,
                    "reason": append.reason,
                    "run": append.run,
                    "hash": its_hash,
                    "body_version": kept[0],
                    "erased": False,
                }
            )
        )
    memory.head = Head(version, its_hash, stored_at)
    return rows, new_bodies, stored


def _find_or_add_body(
    db: Connection, memory: Memory, draft: Draft, version: int, new_bodies: list[tuple[Any, ...]]
) -> _KnownBody:
    slot = _slot(draft)
    said = _known_by(draft.body)
    known = memory.bodies.get(slot)
    if known is None or known.said != said:
        salt = secrets.token_bytes(16)
        if _has_parts(draft):
            _recall_parts(db, memory)
            its_codec, data, memory.parts = parts.packed(draft.body, version, memory.parts)
        else:
            its_codec, data = packed(draft.body)
        known = _KnownBody(said, version, commitment(salt, draft.body))
        memory.bodies[slot] = known
        new_bodies.append((memory.id, version, salt, its_codec, data))
    return known
