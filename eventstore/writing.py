"""The rows of an append, written: one statement for a single event where the database can."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, exists, select

from eventstore.dialects import dialect_of
from eventstore.inserts import Batches, insert_rows
from eventstore.statements import Statement
from eventstore.tables import bodies, events, pipelines, streams
from eventstore.words import kept_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import (
        CTE,
        BindParameter,
        ColumnElement,
        Connection,
        Exists,
        Insert,
        Select,
        Table,
    )

    from eventstore.dialects import Dialect
    from eventstore.head import Head
    from eventstore.placing import Placed

_EVENT = [column.name for column in events.columns]
_ITS_BODY = [f"new_{column.name}" for column in bodies.columns]

_LATE_US = 50_000
"""How long a statement may be on its way when its time is estimated; clocks stop in their sleep."""

_insert_events = Batches(events)
_insert_bodies = Batches(bodies)


class Beside(NamedTuple):
    """What shows an event in the inline tables, as part of the statement that inserts it.

    `clause` makes of the event, as a CTE, an INSERT that selects from it, and changes nothing where
    that is empty; it is called once or twice.
    """

    clause: Callable[[CTE], Insert]
    parameters: Mapping[str, Any]


def write(db: Connection, placed: Placed) -> None:
    """Write the rows of an append.

    The rows of events go first: their key decides the race, and so no two writers deadlock.
    """
    if placed.is_event_with_body and dialect_of(db).INSERTS_TOGETHER:
        _insert_both.execute(db, _of_one_event(placed))
    else:
        _insert_events.run(db, placed.events)
        _insert_bodies.run(db, placed.bodies)
    if placed.pipeline:
        db.execute(pipelines.insert(), placed.pipeline)
    insert_rows(db, streams, placed.streams)


def write_at_once(db: Connection, placed: Placed, beside: Beside) -> None:
    """Write the rows of one event, and what shows it, in one statement."""
    values = {**_of_one_event(placed), **beside.parameters}
    _insert_all(beside.clause).execute(db, values)


def write_if_last(db: Connection, placed: Placed, beside: Beside, head: Head) -> int | None:
    """Write them if the head behind which it was placed is still the last, and its time is now.

    Returns what time it was in the database then; None, and nothing is written, if it is not so.
    """
    values = {**_of_one_event(placed), **beside.parameters, "previous": head.hash}
    for (now_us,) in _insert_all_if_last(beside.clause).fetch(db, values):
        return int(now_us)
    return None


def _of_one_event(placed: Placed) -> dict[str, Any]:
    both = (*placed.events[0], *placed.bodies[0])
    return dict(zip((*_EVENT, *_ITS_BODY), both, strict=True))


@cache
def _insert_all(clause: Callable[[CTE], Insert]) -> Statement:
    """An event, its body and what shows it: event first, as everywhere, or races deadlock."""
    event = _new_event()
    return Statement(lambda _: clause(event).add_cte(_its_body(event).cte("body")))


@cache
def _insert_all_if_last(clause: Callable[[CTE], Insert]) -> Statement:
    def of_dialect(dialect: Dialect) -> Select[Any]:
        previous = _is_there(-1, events.c.hash == bindparam("previous"))
        assert dialect.NOW is not None  # wherever a statement can do all of it
        its_time = bindparam("stored_at", type_=events.c.stored_at.type)
        event = _new_event(previous, ~_is_there(0), its_time >= dialect.NOW - _LATE_US)
        shown, body = clause(event).cte("shown"), _its_body(event).cte("body")
        return select(dialect.NOW).select_from(event).add_cte(shown, body)

    return Statement(of_dialect)


def _new_event(*where: ColumnElement[bool]) -> CTE:
    row = select(*_bound(_EVENT, events)).where(*where)
    return events.insert().from_select(_EVENT, row).returning(events.c.version).cte("event")


def _is_there(beyond: int, *more: ColumnElement[bool]) -> Exists:
    """Whether the event so many versions beyond the new one is."""
    version = bindparam("version", type_=events.c.version.type) + beyond
    mine = events.c.pipeline_id == bindparam("pipeline_id")
    return exists(select(events.c.version).where(mine, events.c.version == version, *more))


def _its_body(event: CTE) -> Any:
    row = select(*_bound(_ITS_BODY, bodies)).select_from(event)
    return bodies.insert().from_select(bodies.columns.keys(), row).returning(bodies.c.id)


_insert_both = Statement(lambda _: _its_body(_new_event()))


def _bound(names: Iterable[str], table: Table) -> list[BindParameter[Any]]:
    types = (kept_type(column.type) for column in table.columns)
    return [bindparam(name, type_=its_type) for name, its_type in zip(names, types, strict=True)]
