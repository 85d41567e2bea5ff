"""Bodies removed for good, for legal reasons or by age; the events that had them stay.

What is erased is a body, and with it what every event that points at it said: these are shown
first. The `BodyErased` that says who did it and why is appended in the same transaction, so that
the chain can be verified, and a body that is missing without one shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import exists, func, or_, select

from eventstore import codec, payload
from eventstore.dialects import dialect_of
from eventstore.errors import HistoryConflict, InvalidEvent, StreamNotFound
from eventstore.events import (
    BodyErased,
    StoredEvent,
    StreamDescriptor,
    descriptor,
    to_microseconds,
)
from eventstore.identity import check_attribution
from eventstore.rows import find_pipeline_id, stored_events, stored_where, stream_of
from eventstore.sharing import hand_on
from eventstore.tables import BODY_VERSION, bodies, bodies_at, body_id, events, keeper_of, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from eventstore.events import Pipeline
    from eventstore.store import EventStore

ERASURE = BodyErased.__name__

STATES = ("StateSaved", "StateEmitted")
"""The kinds whose bodies retention erases; catalogs are kept."""

_KEEPER = keeper_of(events)

_VERSIONS_PER_EVENT = 10_000
"""Bodies that one BodyErased names, so that no event gets too large."""

_CHUNK = 500
_ATTEMPTS = 100


class Pointer(NamedTuple):
    """An event, and the version of the one that keeps its body."""

    version: int
    kind: str
    stream: StreamDescriptor | None
    stored_at: int
    body_version: int


@dataclass(frozen=True)
class Erasure:
    """What was erased from a history, or would be: the bodies, and all events that point at them.

    `version` is that of the BodyErased, the last one if there are several; None if nothing was
    erased.
    """

    pipeline: Pipeline
    bodies: tuple[int, ...]
    events: tuple[Pointer, ...]
    reason: str
    version: int | None = None


def erase(
    store: EventStore,
    pipeline: Pipeline,
    *,
    version: int | None = None,
    stream: StreamDescriptor | None = None,
    before: datetime | None = None,
    reason: str,
    actor: str | None = None,
    dry_run: bool = False,
) -> Erasure:
    """Erase the body of one event, or those of a stream, of all before a moment, or of both.

    An event of the same bytes with a body of its own keeps it; a GLOBAL or LEGACY state, which may
    speak of many streams, is of none. The tables lose the rows that held an erased body: the stream
    has no state then. Raises UnknownVersion, StreamNotFound or InvalidEvent.
    """
    _check_reason(reason)
    if stream is not None:
        stream = descriptor(stream)
    if (version is None) == (stream is None and before is None):
        raise InvalidEvent(
            "say what to erase: a version; or a stream, all before a moment, or a stream's before "
            "a moment"
        )

    def chosen(db: Connection, pipeline_id: int) -> list[ColumnElement[bool]]:
        where: list[ColumnElement[bool]] = []
        if version is not None:
            where.append(events.c.version == version)
        if stream is not None:
            where.append(events.c.stream_number == _number(db, pipeline, pipeline_id, stream))
        if before is not None:
            where.append(events.c.stored_at < to_microseconds(before))
        return where

    if version is not None and not 1 <= version <= store.head(pipeline).version:
        raise store.unknown_version(pipeline, version)
    return _erase(store, pipeline, chosen, reason, actor, dry_run=dry_run)


def retention(
    store: EventStore,
    keep: timedelta,
    *,
    pipelines: Iterable[Pipeline] | None = None,
    reason: str | None = None,
    actor: str | None = None,
    dry_run: bool = False,
) -> list[Erasure]:
    """Erase the states that are older than `keep`, of all pipelines or of these.

    What stays: the newest confirmed state of every stream, every catalog, and each body that a
    younger event points at.
    """
    if keep < timedelta(0):
        raise InvalidEvent("what is to come cannot be erased: keep is negative")
    cutoff = to_microseconds(datetime.now(timezone.utc) - keep)
    why = reason or f"retention: older than {keep}"
    _check_reason(why)

    def chosen(_: Connection, pipeline_id: int) -> list[ColumnElement[bool]]:
        other = events.alias("other")
        newest = (
            select(func.max(other.c.version))
            .where(other.c.pipeline_id == pipeline_id, other.c.kind == "StateSaved")
            .group_by(other.c.stream_number)
        )
        kept = events.alias("kept")
        stays = or_(
            kept.c.stored_at >= cutoff, kept.c.kind.not_in(STATES), kept.c.version.in_(newest)
        )
        still_needed = select(keeper_of(kept)).where(
            kept.c.pipeline_id == pipeline_id, kept.c.commitment.is_not(None), stays
        )
        return [
            events.c.kind.in_(STATES),
            events.c.stored_at < cutoff,
            _KEEPER.not_in(still_needed),
        ]

    among = store.pipelines() if pipelines is None else pipelines
    erased = [_erase(store, each, chosen, why, actor, dry_run=dry_run) for each in among]
    return [each for each in erased if each.bodies]


def reapply(
    store: EventStore, pipelines: Iterable[Pipeline] | None = None, *, dry_run: bool = False
) -> list[Erasure]:
    """Erase again what the history says was erased: a backup that was restored brings it back.

    Of all pipelines, or of these.
    Appends nothing. What was erased after the backup was made is in no history any more.
    """

    def work(db: Connection) -> list[Erasure]:
        with dialect_of(db).overwriting(db):
            among = store.pipelines_within(db) if pipelines is None else pipelines
            return [erasure for each in among for erasure in again(db, each)]

    def again(db: Connection, pipeline: Pipeline) -> Iterator[Erasure]:
        pipeline_id = find_pipeline_id(db, pipeline) or 0
        for said in erasures_within(db, pipeline_id):
            named = named_by(said)
            there = [
                version for chunk in _chunks(named) for version in _there(db, pipeline_id, chunk)
            ]
            if there:
                pointing = tuple(
                    pointer
                    for chunk in _chunks(there)
                    for pointer in _pointers(db, pipeline_id, [_KEEPER.in_(chunk)])
                )
                if not dry_run:
                    store.apply_within(db, [said])
                    _delete(db, pipeline_id, there)
                yield Erasure(pipeline, tuple(there), pointing, said.reason or "", said.version)

    if dry_run:
        return store.database.read(work)
    erased = store.database.transact(work)
    store.forget()  # which bodies are there: no event tells of it
    return erased


def erasure_of(store: EventStore, pipeline: Pipeline, version: int) -> StoredEvent | None:
    """The event that says that the body kept by this version was erased, if there is one."""
    for said in store.log(among=[pipeline], kind=ERASURE):
        if not said.erased and version in named_by(said):
            return said
    return None


def erasures_within(db: Connection, pipeline_id: int) -> list[StoredEvent]:
    """All BodyErased of a history, oldest first."""
    where = [events.c.pipeline_id == pipeline_id, events.c.kind == ERASURE]
    query = stored_where(dialect_of(db), where, [events.c.version])
    found = stored_events(db, db.execute(query).all())
    return [said for said in found if not said.erased]


def _erase(
    store: EventStore,
    pipeline: Pipeline,
    chosen: Any,
    reason: str,
    actor: str | None,
    *,
    dry_run: bool,
) -> Erasure:
    who, _, _ = check_attribution(actor or store.actor, reason, store.run)

    def plan(db: Connection) -> Erasure:
        pipeline_id = find_pipeline_id(db, pipeline)
        if pipeline_id is None:
            return Erasure(pipeline, (), (), reason)
        where = [events.c.pipeline_id == pipeline_id, events.c.kind != ERASURE]
        has_one = events.c.commitment.is_not(None)
        wanted = select(_KEEPER).where(*where, has_one, *chosen(db, pipeline_id))
        kept = exists().where(bodies.c.id == body_id(pipeline_id, _KEEPER))
        pointing = tuple(_pointers(db, pipeline_id, [_KEEPER.in_(wanted), kept]))
        found = sorted({pointer.body_version for pointer in pointing})
        return Erasure(pipeline, tuple(found), pointing, reason)

    def work(db: Connection) -> Erasure:
        # The head first: an event that points at a body is appended before that, or loses.
        head = store.head_within(db, pipeline).version
        planned = plan(db)
        if not planned.bodies:
            return planned
        drafts = [codec.erasure(chunk) for chunk in _chunks(planned.bodies, _VERSIONS_PER_EVENT)]
        with dialect_of(db).overwriting(db):
            stored = store.append_drafts(
                db, pipeline, drafts, expected=head, actor=who, reason=reason
            )
            _delete(db, find_pipeline_id(db, pipeline) or 0, planned.bodies)
        return replace(planned, version=stored[-1].version)

    if dry_run:
        return store.database.read(plan)
    for _ in range(_ATTEMPTS):
        try:
            return store.database.transact(work)
        except HistoryConflict as conflict:
            lost = conflict
    raise lost


def named_by(said: StoredEvent) -> list[int]:
    """Which bodies a BodyErased names."""
    return payload.erased_versions(said.body)


def _check_reason(reason: str) -> None:
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidEvent("say why: an erasure needs a reason")


def _number(db: Connection, pipeline: Pipeline, pipeline_id: int, stream: StreamDescriptor) -> int:
    query = select(streams.c.number).where(
        streams.c.pipeline_id == pipeline_id,
        streams.c.name == stream.name,
        streams.c.namespace.is_not_distinct_from(stream.namespace),
    )
    number = db.scalar(query)
    if number is None:
        raise StreamNotFound(
            f"{pipeline} has no event of stream {stream} alone; a GLOBAL or LEGACY state that "
            "speaks of it is erased by its version, or by all before a moment"
        )
    return int(number)


def _pointers(
    db: Connection, pipeline_id: int, where: Sequence[ColumnElement[bool]]
) -> Iterator[Pointer]:
    query = (
        select(
            events.c.version,
            events.c.kind,
            streams.c.name,
            streams.c.namespace,
            events.c.stored_at,
            _KEEPER,
        )
        .join_from(
            events,
            streams,
            (streams.c.pipeline_id == events.c.pipeline_id)
            & (streams.c.number == events.c.stream_number),
        )
        .where(events.c.pipeline_id == pipeline_id, *where)
        .order_by(events.c.version)
    )
    for version, kind, name, namespace, stored_at, body_version in db.execute(query):
        stream = stream_of(name, namespace)
        yield Pointer(version, kind, stream, stored_at, body_version)


def _there(db: Connection, pipeline_id: int, versions: Sequence[int]) -> list[int]:
    return sorted(db.scalars(select(BODY_VERSION).where(bodies_at(pipeline_id, versions))))


def _delete(db: Connection, pipeline_id: int, versions: Sequence[int]) -> None:
    hand_on(db, pipeline_id, versions)
    for chunk in _chunks(versions):
        db.execute(bodies.delete().where(bodies_at(pipeline_id, chunk)))


def _chunks(versions: Sequence[int], size: int = _CHUNK) -> Iterator[Sequence[int]]:
    for start in range(0, len(versions), size):
        yield versions[start : start + size]
