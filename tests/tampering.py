"""The log changed by somebody who owns the database: guards dropped, keys too, rows rewritten."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text

from eventstore.chain import GENESIS, commitment, encoded_names, row_hash
from eventstore.compression import unpacked
from eventstore.events import Pipeline, StreamDescriptor
from eventstore.tables import VERSIONS, bodies, bodies_of, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

_TRIGGERS = {
    "sqlite": [f"DROP TRIGGER _eventstore_no_{what}" for what in ("update", "delete", "replace")],
    "duckdb": [],
    "mariadb": [f"DROP TRIGGER _eventstore_no_{what}" for what in ("update", "delete")],
    "postgresql": [
        f"DROP TRIGGER _eventstore_no_{what} ON _eventstore_events"
        for what in ("change", "truncate")
    ],
}


@contextmanager
def tampering(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nothing is refused, not even a row that is there already.

    The tables of the log are made anew without keys; their rows stay.
    """
    with engine.begin() as db:
        for statement in _TRIGGERS[engine.name]:
            db.execute(text(statement))
        for table in (pipelines, streams, events, bodies):
            name = table.name
            db.execute(text(f"CREATE TABLE copy{name} AS SELECT * FROM {name}"))
        for table in (pipelines, streams, events, bodies):
            name = table.name
            db.execute(text(f"DROP TABLE {name}"))
            db.execute(text(f"ALTER TABLE copy{name} RENAME TO {name}"))
    with engine.begin() as db:
        yield db


def event_hash(previous: bytes, columns: Sequence[Any]) -> bytes:
    """The hash of an event by its columns, in the order in which they are exported."""
    pipeline, stream = encoded_names(columns[:4]), encoded_names(columns[9:11])
    return row_hash(previous, pipeline, *columns[4:9], stream, *columns[11:])


def rehash(db: Connection, pipeline: Pipeline) -> None:
    """Compute the chain of a history anew, as a forger who knows how would."""
    its_id = db.scalar(select(pipelines.c.id).where(pipelines.c.key == pipeline.key))
    names = {
        row.number: None if row.name is None else StreamDescriptor(row.name, row.namespace)
        for row in db.execute(select(streams).where(streams.c.pipeline_id == its_id))
    }
    kept = {
        version: commitment(bytes(row.salt), unpacked(row.codec, row.data, version))
        for row in db.execute(select(bodies).where(bodies_of(its_id)))
        for version in [row.id % VERSIONS]
    }
    previous = GENESIS
    mine = events.c.pipeline_id == its_id
    for row in db.execute(select(events).where(mine).order_by(events.c.version)).mappings().all():
        values: dict[str, Any] = dict(row)
        values["append_id"] = bytes(values["append_id"])
        has_one = values["commitment"] is not None
        keeper = (values["body_at"] or values["version"]) if has_one else None
        if keeper in kept:
            values["commitment"] = kept[keeper]
        stream = names[values["stream_number"]]
        columns = [
            *(pipeline.source, pipeline.destination, pipeline.table_prefix, pipeline.connection),
            *(values[name] for name in ("version", "stored_at", "append_id", "kind", "format")),
            *((stream.namespace, stream.name) if stream else (None, None)),
            *(values[name] for name in ("origin", "of_version", "actor", "reason", "run")),
            *(keeper, values["commitment"]),
        ]
        previous = event_hash(previous, columns)
        here = (mine, events.c.version == values["version"])
        changed = {"hash": previous, "commitment": values["commitment"]}
        db.execute(events.update().where(*here).values(changed))
