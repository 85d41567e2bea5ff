"""The rows of streams, checked: events name streams by their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from eventstore.statements import limit_of
from eventstore.tables import WHOLE_PIPELINE, events, streams

if TYPE_CHECKING:
    from sqlalchemy import Connection


def stream_problem(db: Connection, pipeline_id: int, used: frozenset[int]) -> str | None:
    """What is wrong with the rows of streams, which events name by numbers."""
    query = select(streams.c.number, streams.c.namespace, streams.c.name)
    rows = db.execute(query.where(streams.c.pipeline_id == pipeline_id)).all()
    numbers = {row.number for row in rows}
    if len(numbers) < len(rows):
        return "two rows of streams have one number"
    for number, namespace, name in rows:
        if (number == WHOLE_PIPELINE) != (name is None) or (name is None and namespace is not None):
            return f"the row of stream number {number} was changed"
        if number not in used and number != WHOLE_PIPELINE:
            # A stream that was appended since has an event.
            place = (events.c.pipeline_id == pipeline_id, events.c.stream_number == number)
            its_own = select(events.c.version).where(*place).limit(limit_of(1))
            if db.execute(its_own).first() is None:
                return f"a row of streams was added: no event speaks of number {number}"
    if WHOLE_PIPELINE not in numbers:
        return f"the row of stream number {WHOLE_PIPELINE} is missing"
    return None
