"""The hash chain, computed a second time from the columns, by the documented encoding alone."""

from hashlib import sha256

import pytest
from sqlalchemy import and_, func, select

from eventstore import Pipeline, StateCleared, StateEmitted, StateSaved, StreamDescriptor
from eventstore.compression import unpacked
from eventstore.tables import bodies, events, pipelines, streams
from projections import connect, register_catalog
from tests.messages import catalog, configured_stream, global_state, saved, stream_state

PIPELINES = [
    Pipeline("source-shop"),
    Pipeline("source-shop", "destination-lake", connection="eu"),
    Pipeline("source-é😀", table_prefix="a_"),
]


@pytest.fixture
def history(store):
    """Every kind of event, by two writers, in several pipelines."""
    for pipeline in PIPELINES:
        store.append(pipeline, saved("users", {"cursor": 1}), actor="ann", reason="é", run="1")
        store.append(
            pipeline,
            saved("users", {"cursor": 1}),
            StateEmitted(stream_state("users", {"cursor": 2}, "")),
            StateSaved(global_state({"lsn": 1}), origin="restored", of=1),
            StateCleared(StreamDescriptor("users", "audit")),
            StateCleared(),
        )
        register_catalog(store, pipeline, catalog(configured_stream("users", sync_id=1)))
    return store


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_each_hash_follows_from_the_one_before_and_the_columns(history, pipeline):
    previous = bytes(32)
    for row in _rows(history, pipeline):
        previous = _hash(previous, row)
        assert bytes(row.hash) == previous
    assert previous == list(history.history(pipeline))[-1].hash


def test_a_chain_goes_on_across_writers(database, history):
    with connect(database) as other:
        other.append(PIPELINES[0], saved("orders", {"cursor": 1}))
    history.append(PIPELINES[0], saved("orders", {"cursor": 1}))
    previous = bytes(32)
    for row in _rows(history, PIPELINES[0]):
        previous = _hash(previous, row)
    assert bytes(row.hash) == previous


def test_equal_bodies_are_salted_apart(history):
    with history.database.engine.connect() as db:
        salts = list(db.scalars(select(bodies.c.salt)))
    assert len(set(salts)) == len(salts)


def _rows(store, pipeline):
    of_the_stream = and_(
        streams.c.pipeline_id == events.c.pipeline_id, streams.c.number == events.c.stream_number
    )
    keeper = func.coalesce(events.c.body_at, events.c.version)
    of_the_body = bodies.c.id == events.c.pipeline_id * 2**40 + keeper
    query = (
        select(
            pipelines.c.source,
            pipelines.c.destination,
            pipelines.c.table_prefix,
            pipelines.c.connection,
            streams.c.namespace,
            streams.c.name,
            events,
            bodies.c.salt,
            bodies.c.codec,
            bodies.c.data,
        )
        .join_from(events, pipelines, pipelines.c.id == events.c.pipeline_id)
        .join(streams, of_the_stream)
        .outerjoin(bodies, of_the_body)
        .where(pipelines.c.source == pipeline.source)
        .where(pipelines.c.connection == pipeline.connection)
        .order_by(events.c.version)
    )
    with store.database.engine.connect() as db:
        return db.execute(query).all()


def _hash(previous, row):
    commitment = body_version = None
    if row.commitment is not None:
        body_version = row.version if row.body_at is None else row.body_at
        body = unpacked(row.codec, row.data, row.version)
        commitment = sha256(bytes(row.salt) + body).digest()
    fields = [
        *(row.source, row.destination, row.table_prefix, row.connection),
        *(row.version, row.stored_at, bytes(row.append_id), row.kind, row.format),
        *(row.namespace, row.name),
        *(row.origin, row.of_version, row.actor, row.reason, row.run),
        *(body_version, commitment),
    ]
    encoded = b"".join(_encode(field) for field in fields)
    return sha256(b"airbyte-eventstore event 1\n" + previous + encoded).digest()


def _encode(field):
    match field:
        case None:
            return b"n"
        case int():
            return f"i{field};".encode()
        case bytes():
            return f"b{len(field)}:".encode() + field
        case str():
            return f"s{len(field.encode())}:".encode() + field.encode()
