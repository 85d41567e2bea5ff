"""Carries the log to the projections, in the append's transaction or from the beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from eventstore.dialects import dialect_of
from eventstore.schema import schema_name
from projections import catalogs, states

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Table

    from eventstore.events import Pipeline, StoredEvent
    from eventstore.store import EventStore
    from projections.projection import Projection

PROJECTIONS: tuple[Projection, ...] = (states, catalogs)

KINDS = tuple(kind for projection in PROJECTIONS for kind in projection.KINDS)
"""The kinds of events that the tables depend on; of each, the newest per stream is enough."""


class View(Protocol):
    """What a history adds up to."""

    def after(self, stored: StoredEvent) -> Any:
        """The view after one more event."""


V = TypeVar("V", bound=View)


def apply_inline(db: Connection, appended: Sequence[StoredEvent]) -> None:
    """Apply what was appended to a history, in the same transaction."""
    kinds = {stored.kind for stored in appended}
    for projection in PROJECTIONS:
        if "BodyErased" in kinds or not kinds.isdisjoint(projection.KINDS):
            projection.apply(db, appended)


def expected_rows(newest: Sequence[StoredEvent]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """The rows that the newest events of a history say are there, each with its table."""
    for projection in PROJECTIONS:
        yield from projection.expected_rows(newest)


def replay(store: EventStore, pipeline: Pipeline, view: V, up_to: int | None = None) -> V:
    """Fold a history, event by event, into a view; the oracle for tables and as-of reads."""
    for stored in store.history(pipeline, up_to=up_to):
        view = view.after(stored)
    return view


def refill(db: Connection, store: EventStore) -> int:
    """Fill the tables anew from the log; returns how many pipelines it read."""
    for projection in PROJECTIONS:
        for table in projection.TABLES:
            dialect_of(db).lock_table(db, table, schema_name(db))
            db.execute(table.delete().where(table.c.pipeline_key.is_not(None)))
    pipelines = store.pipelines_within(db)
    for _, newest in store.newest_by_pipeline(db, pipelines, KINDS):
        if newest:
            apply_inline(db, newest)
    return len(pipelines)
