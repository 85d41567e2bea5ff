"""Events of an append placed behind the head, each with its version, time, body and hash."""

from __future__ import annotations

from os import urandom
from typing import TYPE_CHECKING, Any, NamedTuple

from eventstore import parts
from eventstore.chain import commitment, encoded_names, row_hash
from eventstore.codec import FORMAT
from eventstore.compression import packed
from eventstore.events import MICROSECOND, StoredEvent, to_datetime
from eventstore.head import Head
from eventstore.memory import (
    KnownBody,
    KnownStream,
    Learned,
    fingerprint,
    recall_bodies,
    recall_parts,
    recall_streams,
    slot,
)
from eventstore.rows import pipeline_row, stream_row
from eventstore.tables import KIND, ORIGIN, WHOLE_PIPELINE, body_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from eventstore.codec import Draft
    from eventstore.events import Pipeline, StreamDescriptor
    from eventstore.memory import Memory, Slot

_SALT_BYTES = 16


class Append(NamedTuple):
    """What is to be appended, by whom and why, and what the history must be like."""

    pipeline: Pipeline
    drafts: Sequence[Draft]
    id: UUID
    actor: str
    reason: str | None
    run: str
    expected: int | None = None
    writer: int | None = None


class Placed(NamedTuple):
    """An append behind the head: its events as they will be stored, and all of its rows."""

    stored: list[StoredEvent]
    events: list[tuple[Any, ...]]
    bodies: list[tuple[Any, ...]]
    streams: list[dict[str, Any]]
    pipeline: dict[str, Any] | None
    learned: Learned

    @property
    def is_event_with_body(self) -> bool:
        """Whether it is one event and its body, and nothing more."""
        more = self.streams or self.pipeline
        return len(self.events) == len(self.bodies) == 1 and not more


def place(db: Connection, append: Append, memory: Memory, now: int) -> Placed:
    """Place an append behind the head that is remembered; writes nothing."""
    pipeline, drafts, id_bytes = append.pipeline, append.drafts, append.id.bytes
    new_streams = _numbered(db, memory, drafts)
    recall_bodies(db, memory, drafts)
    kinds, origins = KIND.numbers, ORIGIN.numbers
    rows: list[tuple[Any, ...]] = []
    stored: list[StoredEvent] = []
    new_bodies = _NewBodies(db, memory, len(drafts))
    actor, reason, run = append.actor, append.reason, append.run
    version, its_hash, stored_at = memory.head
    # The first is stored now, and each a microsecond after the one before, whatever the clock says.
    stored_at = max(now - 1, stored_at)
    moment = to_datetime(stored_at)
    for draft in drafts:
        kind, descriptor, body, origin, of = draft
        number, names = memory.streams.get(descriptor) or new_streams[descriptor]
        version, stored_at, moment = version + 1, stored_at + 1, moment + MICROSECOND
        keeper, committed = new_bodies.keep(draft, number, version) if body else (None, None)
        its_hash = row_hash(
            its_hash,
            memory.hashed_names,
            version,
            stored_at,
            id_bytes,
            kind,
            FORMAT,
            names,
            origin,
            of,
            actor,
            reason,
            run,
            keeper,
            committed,
        )
        rows.append(
            (
                memory.id,
                version,
                stored_at,
                id_bytes,
                kinds[kind],
                FORMAT,
                number,
                origins[origin],
                of,
                actor,
                reason,
                run,
                None if keeper == version else keeper,
                committed,
                its_hash,
            )
        )
        stored.append(
            StoredEvent.made_of(
                {
                    "pipeline": pipeline,
                    "version": version,
                    "id": append.id,
                    "stored_at": moment,
                    "kind": kind,
                    "format": FORMAT,
                    "stream": descriptor,
                    "origin": origin,
                    "of": of,
                    "body": body,
                    "actor": actor,
                    "reason": reason,
                    "run": run,
                    "hash": its_hash,
                    "body_version": keeper,
                    "erased": False,
                }
            )
        )
    new = pipeline_row(memory.id, pipeline) if memory.head.version == 0 else None
    learned = Learned(
        Head(version, its_hash, stored_at), new_streams, new_bodies.known, new_bodies.parts
    )
    rows_of_streams = [
        stream_row(memory.id, number, stream) for stream, (number, _) in new_streams.items()
    ]
    return Placed(stored, rows, new_bodies.rows, rows_of_streams, new, learned)


def _numbered(
    db: Connection, memory: Memory, drafts: Sequence[Draft]
) -> dict[StreamDescriptor | None, KnownStream]:
    """The streams that are new, with the next numbers. Number 0 is the whole pipeline."""
    new: dict[StreamDescriptor | None, KnownStream] = {}
    wanted = [None, *[draft.stream for draft in drafts]]
    if memory.streams.keys() >= set(wanted):
        return new
    recall_streams(db, memory)
    known = memory.streams
    for stream in wanted:
        if stream not in known and stream not in new:
            number = len(known) + len(new) if stream else WHOLE_PIPELINE
            names = (stream.namespace, stream.name) if stream else (None, None)
            new[stream] = KnownStream(number, encoded_names(names))
    return new


class _NewBodies:
    """The bodies that an append brings, and those that it finds there."""

    def __init__(self, db: Connection, memory: Memory, count: int) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.known: dict[Slot, KnownBody] = {}
        self.parts = memory.parts
        self._db = db
        self._memory = memory
        self._salts = urandom(_SALT_BYTES * count)

    def keep(self, draft: Draft, number: int, version: int) -> tuple[int, bytes]:
        """Add the body unless it is there; the version that keeps it, and the commitment to it."""
        body, its_slot = draft.body, slot(draft, number)
        known_by = fingerprint(body)
        known = self.known.get(its_slot) or self._memory.bodies.get(its_slot)
        if known is None or known.fingerprint != known_by:
            start = _SALT_BYTES * len(self.rows)
            salt = self._salts[start : start + _SALT_BYTES]
            codec, data = self._packed(draft, version)
            known = KnownBody(known_by, version, commitment(salt, body))
            self.known[its_slot] = known
            self.rows.append((body_id(self._memory.id, version), salt, codec, data))
        return known.version, known.commitment

    def _packed(self, draft: Draft, version: int) -> tuple[int, bytes]:
        if draft.stream or not draft.kind.startswith("State") or not parts.has_parts(draft.body):
            return packed(draft.body)
        if self.parts is self._memory.parts:
            recall_parts(self._db, self._memory)
            self.parts = self._memory.parts
        codec, data, self.parts = parts.packed(draft.body, version, self.parts)
        return codec, data
