"""What this process remembers of a pipeline; only a hint, since other processes append too."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import literal, select

from eventstore import sharing
from eventstore.chain import encoded_names
from eventstore.dialects import dialect_of
from eventstore.head import BEFORE_THE_FIRST, Head, find_from, stopwatch_us
from eventstore.newest import END, newest_of_one
from eventstore.rows import find_pipeline_id, next_pipeline_id, stream_of
from eventstore.tables import (
    KEEPS_ITS_BODY,
    WHOLE_PIPELINE,
    bodies,
    events,
    keeper_of,
    streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from eventstore.codec import Draft
    from eventstore.events import Pipeline, StreamDescriptor
    from eventstore.parts import Place

_A_MOMENT_US = 1_000_000
"""How long a head that nobody else had moved is taken to be there, to be found out on writing."""

_SHORT = 256
"""Bytes of a body that is compared as fast as its digest is made."""

_CHUNK = 500
"""Versions in one statement."""


class KnownStream(NamedTuple):
    """The number of a stream, and its names as they are hashed."""

    number: int
    hashed_names: bytes


class KnownBody(NamedTuple):
    """What a body is known by, and the version that keeps it."""

    fingerprint: bytes
    version: int
    commitment: bytes


Slot = tuple[int, bool]
"""Of whose bodies the newest is known: a stream's number, and whether it is of states."""


@dataclass(slots=True)
class Memory:
    """Where a history ended when it was last seen, and what it said there."""

    id: int
    hashed_names: bytes
    head: Head = BEFORE_THE_FIRST
    mark: object = None
    """What the dialect gave for the last write, where it can tell that nobody has written since."""
    streams: dict[StreamDescriptor | None, KnownStream] = field(default_factory=dict)
    bodies: dict[Slot, KnownBody] = field(default_factory=dict)
    lacks_streams: bool = False
    """Whether there can be more streams than these."""
    parts: dict[bytes, Place] = field(default_factory=dict)
    """Where the parts of the newest GLOBAL state are, by their digests."""
    asked_at_us: int | None = None
    """When the head was last asked for and found where it was remembered, by a stopwatch."""
    time_us: int = 0
    """What time it was in the database when that was answered."""

    def time_if_fresh(self) -> int | None:
        """What time it is in the database, or soon will be: later by as long as the question took.

        None unless the head was found a moment ago.
        """
        passed = None if self.asked_at_us is None else stopwatch_us() - self.asked_at_us
        return None if passed is None or passed >= _A_MOMENT_US else self.time_us + passed

    def hear_time(self, asked_at_us: int, time_us: int) -> None:
        """Take what time it was in the database if that was answered faster than before."""
        if self.asked_at_us is not None:
            self.time_us = min(self.time_us, self.asked_at_us + time_us - asked_at_us)

    def learn(self, learned: Learned) -> None:
        """Remember an append that has been written."""
        self.head, self.parts = learned.head, learned.parts
        self.streams |= learned.streams
        self.bodies |= learned.bodies

    def knows_another_body(self, draft: Draft) -> bool:
        """Whether the stream of an event is known, and no body there is that of the event."""
        stream = self.streams.get(draft.stream)
        if stream is None:
            return False
        known = self.bodies.get(slot(draft, stream.number))
        return known is None or known.fingerprint != fingerprint(draft.body)


class Learned(NamedTuple):
    """What there is to remember when an append has been written."""

    head: Head
    streams: dict[StreamDescriptor | None, KnownStream]
    bodies: dict[Slot, KnownBody]
    parts: dict[bytes, Place]


def fingerprint(body: bytes) -> bytes:
    """What a body is known by: itself, unless it is long."""
    return body if len(body) <= _SHORT else sha256(body).digest()


def slot(draft: Draft, number: int) -> Slot:
    """Where the newest body of such an event is remembered."""
    return number, draft.kind.startswith("State")


def find_end(
    db: Connection,
    pipeline: Pipeline,
    memory: Memory | None,
    clock: Callable[[], int],
    *,
    read: bool,
) -> tuple[Memory, int]:
    """Find where a history ends, and what time it is there; returns an up-to-date memory.

    Without `read` a memory is trusted where it is known that nobody has written since.
    """
    dialect = dialect_of(db)
    mark = dialect.mark(db, pipeline.key)
    if memory and not read and mark is not None and mark == memory.mark:
        return memory, clock()
    if memory is None:
        names = pipeline.source, pipeline.destination, pipeline.table_prefix, pipeline.connection
        its_id = find_pipeline_id(db, pipeline)
        # Whoever begins a pipeline under the next id at the same time takes its version 1.
        memory = Memory(next_pipeline_id(db) if its_id is None else its_id, encoded_names(names))
        found = None if its_id is None else find_from(db, its_id, 0)
    else:
        found = find_from(db, memory.id, memory.head.version)
        if found is None:
            # The database is older than what we remember: somebody restored a backup.
            return find_end(db, pipeline, None, clock, read=True)
    head, hash_of_known, time_us, asked_at_us = found or (BEFORE_THE_FIRST, None, None, None)
    now = _time(db, clock) if time_us is None else time_us
    if head != memory.head:
        if hash_of_known is not None and hash_of_known != memory.head.hash:
            # It is another history: somebody restored a backup, and others went on with it.
            return find_end(db, pipeline, None, clock, read=True)
        known = memory.streams
        memory = Memory(memory.id, memory.hashed_names, head, streams=known, lacks_streams=True)
    elif time_us is not None:
        memory.asked_at_us, memory.time_us = asked_at_us, now
    memory.mark = mark
    return memory, now


def _time(db: Connection, clock: Callable[[], int]) -> int:
    now = dialect_of(db).NOW
    return clock() if now is None else int(db.scalar(select(now)) or 0)


def recall_streams(db: Connection, memory: Memory) -> None:
    """Remember the streams that there are, if there can be more than are known."""
    if not memory.lacks_streams:
        return
    columns = streams.c.number, streams.c.namespace, streams.c.name
    rows = db.execute(select(*columns).where(streams.c.pipeline_id == memory.id))
    memory.lacks_streams = False
    memory.streams = {
        stream_of(name, namespace): KnownStream(number, encoded_names((namespace, name)))
        for number, namespace, name in rows
    }


def recall_bodies(db: Connection, memory: Memory, drafts: Sequence[Draft]) -> None:
    """Remember the bodies of the versions that are restored: they are not stored again."""
    restored = {draft.of: draft for draft in drafts if draft.of}
    wanted = list(restored)
    for start in range(0, len(wanted), _CHUNK):
        query = (
            select(
                *(events.c.version, keeper_of(events), events.c.commitment),
                *(bodies.c.codec, bodies.c.data),
            )
            .join_from(events, bodies, KEEPS_ITS_BODY)
            .where(events.c.pipeline_id == memory.id)
            .where(events.c.version.in_(wanted[start : start + _CHUNK]))
        )
        read = sharing.reader(db, memory.id)
        for version, body_version, its_commitment, its_codec, data in db.execute(query).all():
            draft = restored[version]
            stream = memory.streams.get(draft.stream)
            # `of` may be a version of another pipeline.
            if stream and read.body(its_codec, data, body_version) == draft.body:
                known = KnownBody(fingerprint(draft.body), body_version, bytes(its_commitment))
                memory.bodies[slot(draft, stream.number)] = known


def recall_parts(db: Connection, memory: Memory) -> None:
    """Remember where the parts of the newest GLOBAL state are, if they are there still."""
    if memory.parts and sharing.are_there(db, memory.id, memory.parts.values()):
        return
    memory.parts = {}
    of_whole = partial(newest_of_one, dialect_of(db), pipeline_id=memory.id, before=END)
    seeks = [of_whole(kind, literal(WHOLE_PIPELINE)) for kind in ("StateSaved", "StateEmitted")]
    newest = max(version or 0 for version in db.execute(select(*seeks)).one())
    this = (events.c.pipeline_id == memory.id, events.c.version == newest)
    kept_at = db.scalar(select(keeper_of(events)).where(*this))
    if kept_at is not None:
        memory.parts = sharing.places_in(db, memory.id, kept_at)
