"""Carries the log to a projection of one's own, whenever and in whatever process it is asked to."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from operator import attrgetter
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
from eventstore.rows import pipeline_of, stored_events, stored_of
from eventstore.statements import Statement, limit_of
from eventstore.tables import events, pipelines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine, Subquery

    from eventstore.events import Pipeline, StoredEvent
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

    Of each history in order. A page of events is one transaction, together with the progress, so
    that whatever happens each event is applied once, also where several processes catch up at the
    same time. With `anew` the tables are emptied and filled from the beginning. Raises Invalid
    or StoreUnavailable.
    """
    if not 0 < len(projection.name) <= _NAME_LIMIT:
        raise Invalid(f"a projection's name has 1 to {_NAME_LIMIT} characters: {projection.name!r}")
    store.database.make_tables([progress, *projection.TABLES])
    if anew:
        store.database.transact(partial(_forget, projection=projection))
    applied = 0
    while behind := store.database.read(partial(_behind, name=projection.name)):
        for some in _that_share_pages(store, behind):
            apply_page = partial(_apply_page, behind=some, projection=projection)
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


_BY_PIPELINE = (events.c.pipeline_id, events.c.version)

_unseen = Statement(lambda dialect: stored_of(_unseen_keys(), dialect, _BY_PIPELINE))
"""The first events of all histories that a projection has not seen."""


def _unseen_keys() -> Subquery:
    its_own = progress.c.projection == bindparam("its_name")
    mine = and_(its_own, progress.c.pipeline_id == events.c.pipeline_id)
    return (
        select(*_BY_PIPELINE)
        .outerjoin_from(events, progress, mine)
        .where(events.c.version > func.coalesce(progress.c.version, 0))
        .order_by(*_BY_PIPELINE)
        .limit(limit_of(PAGE))
        .subquery()
    )


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


def _that_share_pages(
    store: EventStore, behind: dict[int, Pipeline]
) -> Iterable[dict[int, Pipeline]]:
    """The pipelines of which one page is read: where each read is a scan, all of them."""
    if dialect_of(store.database.engine).KEEPS_COLUMNS:
        return [behind]
    return ({its_id: pipeline} for its_id, pipeline in behind.items())


def _apply_page(db: Connection, behind: Mapping[int, Pipeline], projection: OwnProjection) -> int:
    """Apply the next events of some histories, and say how many.

    None of a history of which somebody else just does.
    """
    applied = 0
    for its_id, seen, page in _next_pages(db, behind, projection.name):
        # First, so that it decides who applies these events.
        if _moves_on(db, projection.name, its_id, seen, page[-1].version):
            for stored in page:
                projection.apply(db, stored)
            applied += len(page)
    return applied


def _next_pages(
    db: Connection, behind: Mapping[int, Pipeline], name: str
) -> Iterator[tuple[int, int | None, list[StoredEvent]]]:
    """The next events by the ids of their pipelines, and up to where each was seen before."""
    if len(behind) == 1:
        [(its_id, pipeline)] = behind.items()
        seen = _seen(db, name, [its_id]).get(its_id)
        page = next_page(db, pipeline, seen or 0, size=PAGE)
        if page:
            yield its_id, seen, page
        return
    found = stored_events(db, _unseen.fetch(db, {"its_name": name}))
    pages = {pipeline: list(page) for pipeline, page in groupby(found, attrgetter("pipeline"))}
    ids = {pipeline: its_id for its_id, pipeline in behind.items() if pipeline in pages}
    known = _seen(db, name, list(ids.values()))
    for pipeline, its_id in ids.items():
        yield its_id, known.get(its_id), pages[pipeline]


def _seen(db: Connection, name: str, ids: Sequence[int]) -> dict[int, int]:
    mine = (progress.c.projection == name, progress.c.pipeline_id.in_(ids))
    query = select(progress.c.pipeline_id, progress.c.version).where(*mine)
    return {row.pipeline_id: row.version for row in db.execute(query)}


def _moves_on(db: Connection, name: str, its_id: int, seen: int | None, reached: int) -> bool:
    """Whether nobody else has come so far meanwhile."""
    if seen is None:
        row = {"projection": name, "pipeline_id": its_id, "version": reached}
        db.execute(progress.insert(), row)
        return True
    where: dict[str, Any] = {"its_name": name, "its_id": its_id}
    moved = _move_on.execute(db, {**where, "seen": seen, "reached": reached})
    return dialect_of(db).changed_rows(moved) > 0
