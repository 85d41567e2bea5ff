"""The log read back: histories in pages, what matches, and heads."""

from __future__ import annotations

import heapq
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, bindparam, literal, select, tuple_
from sqlalchemy.sql.util import find_tables

from eventstore.dialects import dialect_of
from eventstore.head import BEFORE_THE_FIRST, Head, find_from, last_event
from eventstore.newest import (
    END,
    count_of_events,
    ends_of_pipelines,
    newest_at,
    newest_of_pipelines,
)
from eventstore.rows import (
    OF_PIPELINE,
    STORED_BY_NAME,
    Names,
    belongs_to,
    find_pipeline_id,
    pipeline_of,
    stored_events,
    stored_of,
    stored_where,
)
from eventstore.statements import Statement, limit_of
from eventstore.tables import WHOLE_PIPELINE, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, Select

    from eventstore.database import Database
    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor

    _Row = Sequence[Any]
    _Page = tuple[list[StoredEvent], Sequence[_Row]]

PAGE = 1000
"""Events read at a time, at most; no transaction is open between two pages."""

FIRST_PAGE = 32
_FIRST_PAGE_BACKWARDS = 8

_SMALL_PAGE = 1 << 20
_LARGE_PAGE = 16 << 20
"""Bytes of bodies below which the next page may be larger, and above which it has to be smaller."""

_newest_event = Statement(
    lambda dialect: last_event(
        dialect, (events.c.version, events.c.hash, events.c.stored_at), OF_PIPELINE
    )
)
_count = Statement(count_of_events)
_newest_at = Statement(newest_at)
_time_of = Statement(
    lambda _: select(events.c.stored_at).where(
        OF_PIPELINE, events.c.version == bindparam("version")
    )
)

_BY_VERSION = (events.c.version,)


@lru_cache(maxsize=64)
def _history_page(size: int) -> Statement:
    above: ColumnElement[bool] = events.c.version > bindparam("after")
    where = (OF_PIPELINE, above, events.c.version <= bindparam("up_to"))
    return Statement(lambda dialect: stored_where(dialect, where, _BY_VERSION, limit_of(size)))


_BY_TIME = (events.c.stored_at, events.c.pipeline_id, events.c.version)

_PLACES = {"pipeline_id": 0, "version": 2, "stored_at": 4}
"""Where these are in a row of STORED."""


def history(
    database: Database, pipeline: Pipeline, after: int, up_to: int | None
) -> Iterator[StoredEvent]:
    """A history oldest first, from the version after `after` to `up_to`."""
    size, read = FIRST_PAGE, partial(next_page, pipeline=pipeline, up_to=up_to, names=Names())
    while page := database.read(partial(read, after=after, size=size)):
        yield from page
        if len(page) < size:
            return
        after = page[-1].version
        size = next_size(size, bytes_in(page))


def next_page(
    db: Connection,
    pipeline: Pipeline,
    after: int,
    *,
    size: int,
    up_to: int | None = None,
    names: Names | None = None,
) -> list[StoredEvent]:
    """The first so many events of a history from the version after `after` to `up_to`."""
    place = {
        "pipeline_key": pipeline.key,
        "after": after,
        "up_to": END if up_to is None else up_to,
    }
    return stored_events(db, _history_page(size).fetch(db, place), names)


def matching(database: Database, where: Sequence[ColumnElement[bool]]) -> Iterator[StoredEvent]:
    """Events of all pipelines, by time, pipeline and version."""
    return _pages(database, where, _BY_TIME) if where else _whole_log(database)


@cache
def _log_page(*, is_first: bool) -> Statement:
    """The first events of the log, or the first after one: compiled, as this reads all there is."""
    last = [bindparam(column.name, type_=column.type) for column in _BY_TIME]
    beyond = [] if is_first else _beyond(_BY_TIME, last)
    size = bindparam("size", type_=Integer)
    return Statement(lambda dialect: _first(dialect, size, beyond, _BY_TIME))


def _whole_log(database: Database) -> Iterator[StoredEvent]:
    names = Names()

    def read(size: int, last: _Row | None, db: Connection) -> _Page:
        place = {} if last is None else {name: last[at] for name, at in _PLACES.items()}
        rows = _log_page(is_first=last is None).fetch(db, {**place, "size": size})
        return stored_events(db, rows, names), rows

    return _in_pages(database, read)


def newest_matching(
    database: Database, where: Sequence[ColumnElement[bool]], last: int
) -> Iterator[StoredEvent]:
    """The newest so many of them, in the same order."""
    descending = [column.desc() for column in _BY_TIME]
    query = _first(dialect_of(database.engine), last, where, descending)
    found = database.read(partial(_all, query=query))
    return reversed(found)


def matching_since(
    database: Database, where: Sequence[ColumnElement[bool]], after: Mapping[Pipeline, int]
) -> Iterator[StoredEvent]:
    """Those that came after these heads."""
    ahead = {
        pipeline: head
        for pipeline, head in database.read(heads).items()
        if head > after.get(pipeline, 0)
    }
    histories = [
        _pages(
            database,
            [
                *where,
                belongs_to(pipeline),
                events.c.version > after.get(pipeline, 0),
                events.c.version <= head,
            ],
            _BY_VERSION,
        )
        for pipeline, head in ahead.items()
    ]
    return heapq.merge(*histories, key=lambda stored: stored.stored_at)


def backwards(
    database: Database,
    pipeline: Pipeline,
    kind: str,
    stream: StreamDescriptor | None,
    *,
    up_to: int,
    after: int,
) -> Iterator[StoredEvent]:
    """The events of one kind and stream newest first, from `up_to` to after `after`."""
    size, names = _FIRST_PAGE_BACKWARDS, Names()
    where = [
        belongs_to(pipeline),
        events.c.kind == kind,
        events.c.stream_number == _number_of(pipeline, stream),
        events.c.version > after,
    ]
    dialect, order = dialect_of(database.engine), [events.c.version.desc()]
    while True:
        page = stored_where(dialect, [*where, events.c.version <= up_to], order, limit_of(size))
        found, _ = database.read(partial(_with_rows, query=page, names=names))
        yield from found
        if len(found) < size:
            return
        up_to = found[-1].version - 1
        size = next_size(size, bytes_in(found))


def all_pipelines(db: Connection) -> list[Pipeline]:
    """All pipelines, in the order of their first event."""
    return [pipeline_of(row) for row in db.execute(select(pipelines).order_by("id"))]


def heads(db: Connection) -> dict[Pipeline, int]:
    """The version each history has reached."""
    rows = db.execute(newest_of_pipelines(dialect_of(db))).all()
    return {pipeline_of(row): row.version for row in rows}


def ends(db: Connection) -> dict[Pipeline, Head]:
    """Where each history ends."""
    rows = db.execute(ends_of_pipelines(dialect_of(db))).all()
    return {pipeline_of(row): Head(row.version, bytes(row.hash), row.stored_at) for row in rows}


class Counted(NamedTuple):
    """How many events the log has, and what stays the same as long as nobody commits."""

    events: int
    snapshot: object


def count(db: Connection, last: Counted | None) -> Counted:
    """How many events the log has; as it was `last` where nobody has committed since."""
    snapshot = dialect_of(db).snapshot(db)
    if last and snapshot is not None and snapshot == last.snapshot:
        return last
    return Counted(int(_count.fetch(db, {})[0][0]), snapshot)


def head(db: Connection, pipeline: Pipeline) -> Head:
    """Where a history ends; version 0 if it has not begun."""
    if dialect_of(db).KEEPS_COLUMNS:  # of an id that it is told it reads the last blocks alone
        its_id = find_pipeline_id(db, pipeline)
        found = None if its_id is None else find_from(db, its_id, 0)
        return found.head if found else BEFORE_THE_FIRST
    for version, its_hash, stored_at in _newest_event.fetch(db, {"pipeline_key": pipeline.key}):
        return Head(version, bytes(its_hash), stored_at)
    return BEFORE_THE_FIRST


def version_at(db: Connection, pipeline: Pipeline, moment: int) -> int:
    """The version that a history had reached at a moment, in microseconds."""
    return _newest_at.fetch(db, {"pipeline_key": pipeline.key, "moment": moment})[0][0] or 0


def stored_at(db: Connection, pipeline: Pipeline, version: int) -> int | None:
    """When a version was stored, in microseconds; None where it is not there."""
    found = _time_of.fetch(db, {"pipeline_key": pipeline.key, "version": version})
    return found[0][0] if found else None


_appended = Statement(
    lambda _: (
        select(events.c.version)
        .where(events.c.append_id == bindparam("append_id", type_=events.c.append_id.type))
        .limit(limit_of(1))
    )
)


def appended_as(db: Connection, append_id: UUID) -> list[StoredEvent]:
    """The events of an append."""
    # Most often there are none: where appends are large, PostgreSQL makes itself ready for many.
    if not _appended.fetch(db, {"append_id": append_id.bytes}):
        return []
    where = [events.c.append_id == append_id.bytes]
    return _all(db, stored_where(dialect_of(db), where, _BY_TIME))


def newest_of_kind(db: Connection, its_id: int, kind: str) -> StoredEvent | None:
    """The newest event of a kind, of whatever stream."""
    where = [events.c.pipeline_id == its_id, events.c.kind == kind]
    query = stored_where(dialect_of(db), where, [events.c.version.desc()], limit_of(1))
    return next(iter(_all(db, query)), None)


def _pages(
    database: Database, where: Sequence[ColumnElement[bool]], order: Sequence[ColumnElement[Any]]
) -> Iterator[StoredEvent]:
    names = Names()

    def read(size: int, last: _Row | None, db: Connection) -> _Page:
        beyond: Sequence[ColumnElement[bool]] = []
        if last is not None:
            beyond = _beyond(order, [last[_PLACES[column.name]] for column in order])
        page = _first(dialect_of(db), size, [*where, *beyond], order)
        return _with_rows(db, page, names)

    return _in_pages(database, read)


def _in_pages(
    database: Database, read: Callable[[int, _Row | None, Connection], _Page]
) -> Iterator[StoredEvent]:
    """All events, in pages; each is read from behind the last row of the one before."""
    size, last = FIRST_PAGE, None
    while True:
        found, rows = database.read(partial(read, size, last))
        yield from found
        if len(found) < size:
            return
        size, last = next_size(size, bytes_in(found)), rows[-1]


def _beyond(
    order: Sequence[ColumnElement[Any]], last: Sequence[Any]
) -> Sequence[ColumnElement[bool]]:
    """The condition for what comes after these values of the columns."""
    # The first by itself, too: MariaDB finds no place in an index by a tuple.
    return [order[0] >= last[0], tuple_(*order) > tuple_(*last)]


def _first(
    dialect: Dialect,
    size: Any,
    where: Sequence[ColumnElement[bool]],
    order: Sequence[ColumnElement[Any]],
) -> Select[Any]:
    """The first so many events that match, chosen first where their own columns tell which."""
    tables = {table for each in where for table in find_tables(each, check_columns=True)}
    if tables - {events}:
        return STORED_BY_NAME.where(*where).order_by(*order).limit(size)
    keys = select(events.c.pipeline_id, events.c.version).where(*where)
    # A parameter: PostgreSQL, before its first ANALYZE, takes a thousand for nearly all there is.
    return stored_of(keys.order_by(*order).limit(size).subquery(), dialect, order)


def next_size(size: int, read: int) -> int:
    """How many events to read after so many, whose bodies had so many bytes."""
    if read > _LARGE_PAGE:
        return max(size // 4, 1)
    return min(size * 4, PAGE) if read < _SMALL_PAGE else size


def bytes_in(found: Iterable[StoredEvent]) -> int:
    """How many bytes the bodies of events have."""
    return sum(len(stored.body) for stored in found)


def _all(db: Connection, query: Select[Any]) -> list[StoredEvent]:
    return _with_rows(db, query)[0]


def _with_rows(
    db: Connection, query: Select[Any], names: Names | None = None
) -> tuple[list[StoredEvent], Sequence[Row[Any]]]:
    rows = db.execute(query).all()
    return stored_events(db, rows, names), rows


def _number_of(pipeline: Pipeline, stream: StreamDescriptor | None) -> ScalarSelect[int]:
    """The number of a stream, so that databases find it first."""
    if stream is None:
        return select(literal(WHOLE_PIPELINE)).scalar_subquery()
    its_id = select(pipelines.c.id).where(pipelines.c.key == pipeline.key).scalar_subquery()
    return (
        select(streams.c.number)
        .where(
            streams.c.pipeline_id == its_id,
            streams.c.name == stream.name,
            streams.c.namespace.is_not_distinct_from(stream.namespace),
        )
        .scalar_subquery()
    )
