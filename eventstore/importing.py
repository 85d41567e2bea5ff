"""Whole histories taken in: the log's second way in; `transfer` tells what an export is."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from eventstore.dialects import dialect_of
from eventstore.errors import HistoryDiffers
from eventstore.inserts import Batches, insert_rows
from eventstore.inspection import Inspection
from eventstore.rows import find_pipeline_id, next_pipeline_id, pipeline_row, stream_row
from eventstore.spool import Spool
from eventstore.tables import bodies, body_id, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from eventstore.events import Pipeline
    from eventstore.inspection import History
    from eventstore.store import EventStore


@dataclass(frozen=True)
class Imported:
    """What an import did: the heads of the histories it wrote, and of those it found unchanged."""

    written: Mapping[Pipeline, int]
    unchanged: Mapping[Pipeline, int]


def import_histories(store: EventStore, lines: Iterable[bytes]) -> Imported:
    """Write the histories of an export into a database that has none of these pipelines yet.

    The whole export is checked before the first row is written: versions without gaps, every
    hash, every commitment, and that the end is there. Versions, times, actors and hashes stay as
    they are; all is written in one transaction, with the tables derived from it. Histories that
    are there already, to the same head or further on, stay unchanged. Raises InvalidHistory,
    HistoryDiffers or StoreUnavailable; then nothing was stored.
    """
    with TemporaryFile() as rows, TemporaryFile() as scratch:
        spool = Spool(rows)
        histories = Inspection(spool, scratch).read(lines)
        return store.database.transact(lambda db: _import(db, store, histories, spool))


_insert_events = Batches(events)
_insert_bodies = Batches(bodies)


def _import(
    db: Connection, store: EventStore, histories: Sequence[History], spool: Spool
) -> Imported:
    store.require_inline()
    spool.rewind()
    written: dict[Pipeline, int] = {}
    unchanged: dict[Pipeline, int] = {}
    first = next_pipeline_id(db)
    with dialect_of(db).filling(db, events) if first == 1 else nullcontext():
        for history in histories:
            if _is_there(db, history):
                unchanged[history.pipeline] = history.version
                for _ in range(history.batches):
                    spool.skip()
                continue
            _write(db, first + len(written), history, spool)
            written[history.pipeline] = history.version
    store.apply_newest(db, written)
    return Imported(written, unchanged)


def _write(db: Connection, its_id: int, history: History, spool: Spool) -> None:
    """Write a history; as in an append its events go first, since their key decides a race."""
    for _ in range(history.batches):
        new_events, new_bodies, longest = spool.take()
        dialect_of(db).check_size(db, longest)
        _insert_events.run(db, [(its_id, *row) for row in new_events])
        _insert_bodies.run(db, [(body_id(its_id, version), *kept) for version, *kept in new_bodies])
    db.execute(pipelines.insert(), pipeline_row(its_id, history.pipeline))
    insert_rows(db, streams, _stream_rows(its_id, history))


def _is_there(db: Connection, history: History) -> bool:
    """Whether the database has this very history; raises HistoryDiffers if it has another."""
    its_id = find_pipeline_id(db, history.pipeline)
    if its_id is None:
        return False
    mine = events.c.pipeline_id == its_id
    found = db.scalar(select(events.c.hash).where(mine, events.c.version == history.version))
    if found is not None and bytes(found) == history.hash:
        return True
    head = db.scalar(select(func.max(events.c.version)).where(mine))
    raise HistoryDiffers(history.pipeline, here=head, there=history.version)


def _stream_rows(its_id: int, history: History) -> list[dict[str, Any]]:
    return [
        stream_row(its_id, stream.number, stream.descriptor) for stream in history.streams.values()
    ]
