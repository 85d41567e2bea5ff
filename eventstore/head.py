"""Where a history ends, and the number under which the database knows its pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select

from eventstore.chain import GENESIS
from eventstore.dialects import dialect_of
from eventstore.statements import Statement
from eventstore.tables import events, pipelines

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline


class Head(NamedTuple):
    """Where a history ends: version 0 is before its first event."""

    version: int
    hash: bytes
    stored_at: int


BEFORE_THE_FIRST = Head(0, GENESIS, 0)


class Found(NamedTuple):
    """A head; the hash of the event behind which it was looked for; the database's time, if any."""

    head: Head
    hash_of_known: bytes | None
    time: int | None


def _from_known_on(dialect: Dialect) -> Select[Any]:
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


_read = Statement(_from_known_on)
_find_id = Statement(
    lambda _: select(pipelines.c.id).where(pipelines.c.key == bindparam("pipeline_key"))
)


def find_from(db: Connection, its_id: int, known: int) -> Found | None:
    """Find the newest event, by the number of its pipeline, from a known version on."""
    row = _read.on_driver(db, {"pipeline_id": its_id, "known": known}).fetchone()
    if row is None:
        return None
    time = None if dialect_of(db).NOW is None else int(row[4])
    return Found(Head(row[0], bytes(row[1]), row[2]), row[3] and bytes(row[3]), time)


def pipeline_id(db: Connection, pipeline: Pipeline) -> int | None:
    """The database's id of a pipeline, None if nothing was ever appended to it."""
    found = _find_id.fetch(db, {"pipeline_key": pipeline.key})
    return found[0][0] if found else None


def next_id(db: Connection) -> int:
    """The id of a pipeline that begins now, unless somebody else takes it first."""
    return (db.scalar(select(func.max(pipelines.c.id))) or 0) + 1
