"""Carries the log to a projection of one's own, whenever and in whatever process it is asked to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Column,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
)

from eventstore.dialects import dialect_of
from eventstore.errors import Invalid
from eventstore.reading import PAGE, next_page
from eventstore.rows import pipeline_of
from eventstore.statements import Statement
from eventstore.tables import events, pipelines

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from eventstore.events import Pipeline
    from eventstore.store import EventStore
    from projections.projection import OwnProjection

_NAME_LIMIT = 64

progress = Table(
    "_eventstore_progress",
    MetaData(),
    Column("projection", String(_NAME_LIMIT), primary_key=True),
    Column("pipeline_id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)


def catch_up(store: EventStore, projection: OwnProjection, *, anew: bool = False) -> int:
    """Apply to a projection all that it has not seen yet; returns how many events that was.

    Of each history in order. A page of a history is one transaction, together with the progress,
    so that whatever happens each event is applied once, also where several processes catch up at
    the same time. With `anew` the tables are emptied and filled from the beginning. Raises Invalid
    or StoreUnavailable.
    """
    if not 0 < len(projection.name) <= _NAME_LIMIT:
        raise Invalid(f"a projection's name has 1 to {_NAME_LIMIT} characters: {projection.name!r}")
    store.database.make_tables([progress, *projection.TABLES])
    if anew:
        store.database.transact(partial(_forget, projection=projection))
    applied = 0
    while behind := store.database.read(partial(_behind, name=projection.name)):
        for its_id, pipeline in behind.items():
            apply_page = partial(
                _apply_page, its_id=its_id, pipeline=pipeline, projection=projection
            )
            page = PAGE
            while page == PAGE:
                page = store.database.transact(apply_page)
                applied += page
    return applied


def _forget(db: Connection, projection: OwnProjection) -> None:
    db.execute(delete(progress).where(progress.c.projection == projection.name))
    for table in projection.TABLES:
        db.execute(delete(table))


_up_to_date: WeakKeyDictionary[Engine, dict[str, object]] = WeakKeyDictionary()
"""The dialect's snapshot at which a projection had last seen all, by its name.

Of an engine, and not of a store: whoever catches up may open a store each time.
"""


def _behind(db: Connection, name: str) -> dict[int, Pipeline]:
    """The pipelines with events that a projection has not seen, by their ids."""
    snapshot, up_to_date = dialect_of(db).snapshot(db), _up_to_date.setdefault(db.engine, {})
    if snapshot is not None and snapshot == up_to_date.get(name):
        return {}
    found = _find_behind(db, name)
    if not found:
        up_to_date[name] = snapshot
    return found


def _find_behind(db: Connection, name: str) -> dict[int, Pipeline]:
    mine = and_(progress.c.pipeline_id == pipelines.c.id, progress.c.projection == name)
    # The one event that is next: for a range MariaDB reads all that is there of a history.
    newer = exists().where(
        events.c.pipeline_id == pipelines.c.id,
        events.c.version == func.coalesce(progress.c.version, 0) + 1,
    )
    query = select(pipelines).outerjoin_from(pipelines, progress, mine).where(newer)
    return {row.id: pipeline_of(row) for row in db.execute(query.order_by(pipelines.c.id))}


_move_on = Statement(
    lambda _: (
        progress.update()
        .where(
            progress.c.projection == bindparam("its_name"),
            progress.c.pipeline_id == bindparam("its_id"),
            progress.c.version == bindparam("seen"),
        )
        .values(version=bindparam("reached"))
    )
)


def _apply_page(db: Connection, its_id: int, pipeline: Pipeline, projection: OwnProjection) -> int:
    """Apply the next events of a history; returns how many, none where somebody else just does."""
    mine = (progress.c.projection == projection.name, progress.c.pipeline_id == its_id)
    seen = db.scalar(select(progress.c.version).where(*mine))
    page = next_page(db, pipeline, seen or 0, size=PAGE)
    if not page:
        return 0
    # First, so that it decides who applies these events.
    reached: dict[str, Any] = {"its_name": projection.name, "its_id": its_id}
    if seen is None:
        row = {"projection": projection.name, "pipeline_id": its_id, "version": page[-1].version}
        db.execute(progress.insert(), row)
    elif not dialect_of(db).changed_rows(
        _move_on.execute(db, {**reached, "seen": seen, "reached": page[-1].version})
    ):
        return 0
    for stored in page:
        projection.apply(db, stored)
    return len(page)
