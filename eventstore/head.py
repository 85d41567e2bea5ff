"""Where a history ends."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select

from eventstore.chain import GENESIS
from eventstore.statements import Statement, limit_of
from eventstore.tables import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from eventstore.dialects import Dialect


class Head(NamedTuple):
    """Where a history ends: version 0 is before its first event."""

    version: int
    hash: bytes
    stored_at: int


BEFORE_THE_FIRST = Head(0, GENESIS, 0)


class Found(NamedTuple):
    """A head; the hash of the event from which on it was looked for; the time in the database.

    The last is when all that was asked for, by a stopwatch.
    """

    head: Head
    hash_of_known: bytes | None
    time_us: int | None
    asked_at_us: int


def _newest_from(dialect: Dialect) -> Select[Any]:
    """The newest event from the one we know on, and the hash of that one; the database's time."""
    time = [] if dialect.NOW is None else [dialect.NOW]
    known, mine = events.alias(), bindparam("pipeline_id", type_=events.c.pipeline_id.type)
    its_hash = select(known.c.hash).where(
        known.c.pipeline_id == mine, known.c.version == bindparam("known")
    )
    columns = (events.c.version, events.c.hash, events.c.stored_at)
    from_known = (events.c.pipeline_id == mine, events.c.version >= bindparam("known"))
    return last_event(dialect, [*columns, its_hash.scalar_subquery(), *time], *from_known)


def last_event(
    dialect: Dialect, columns: Sequence[ColumnElement[Any]], *where: ColumnElement[bool]
) -> Select[Any]:
    """These columns of the newest of the events of a history that match."""
    query = select(*columns).where(*where)
    if dialect.KEEPS_COLUMNS:  # to sort, it reads all that these columns have
        last = select(func.max(events.c.version)).where(*where).correlate(None)
        return query.where(events.c.version == last.scalar_subquery())
    return query.order_by(events.c.version.desc()).limit(limit_of(1))


_read = Statement(_newest_from)


def find_from(db: Connection, its_id: int, known: int) -> Found | None:
    """Find the newest event, by the id of its pipeline, from a known version on."""
    place, asked_at_us = {"pipeline_id": its_id, "known": known}, stopwatch_us()
    for version, its_hash, stored_at, hash_of_known, *time in _read.fetch(db, place):
        head = Head(version, bytes(its_hash), stored_at)
        known_hash = None if hash_of_known is None else bytes(hash_of_known)
        return Found(head, known_hash, int(time[0]) if time else None, asked_at_us)
    return None


def stopwatch_us() -> int:
    """A clock of this process that nobody sets."""
    return monotonic_ns() // 1000
