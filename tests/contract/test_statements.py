"""How many statements the hot paths need; BEGIN, COMMIT and PRAGMA are not counted."""

import json
from functools import partial

import pytest
from airbyte_protocol.models import AirbyteStateMessage

from eventstore import Pipeline
from projections import SqlStateBackend, connect, latest_state, rebuild, register_catalog
from tests.interruptions import Interruption, counted
from tests.messages import catalog, configured_stream, emitted, saved, stream_state


def test_writing_a_state_through_the_backend_takes_at_most_five_statements(engine):
    writer = SqlStateBackend(engine).get_state_writer("source-shop")
    for cursor in range(3):
        writer.write_state(_message(cursor))
    with counted(engine) as statements:
        writer.write_state(_message(4))
    assert len(statements) <= 5, statements


def test_appending_a_hundred_events_takes_five_statements(engine):
    store = connect(engine)
    pipeline = Pipeline("source-shop")
    store.append(pipeline, *(saved(f"stream {number}", {"cursor": 0}) for number in range(100)))
    with counted(engine) as statements:
        store.append(pipeline, *(saved(f"stream {number}", {"cursor": 1}) for number in range(100)))
    assert len(statements) <= 5, statements  # the head, events, bodies, rows replaced by others


def test_registering_a_hundred_new_streams_takes_two_statements_more_than_two(engine):
    store, taken = connect(engine), []
    for number, streams in enumerate((1, 2, 100)):
        pipeline = Pipeline(f"source-{number}")
        new = catalog(*(configured_stream(f"stream {number}") for number in range(streams)))
        with counted(engine) as statements:
            register_catalog(store, pipeline, new)
        taken.append(statements)
    assert len(taken[2]) <= len(taken[1]) + 2, taken  # 101 events are a hundred and one


def test_the_state_for_a_sync_takes_two_statements_where_no_row_is_missing(engine):
    backend = SqlStateBackend(engine)
    for message in (stream_state("users", {"cursor": 1}), stream_state("orders", {"cursor": 1})):
        backend.get_state_writer("source-shop").write_state(
            AirbyteStateMessage.model_validate_json(message)
        )
    with counted(engine) as statements:
        assert backend.get_state_provider("source-shop").known_stream_names == {"users", "orders"}
    assert len(statements) == 2, statements


def test_the_latest_state_takes_one_statement(engine):
    store = connect(engine)
    pipeline = Pipeline("source-shop")
    store.append(pipeline, *(saved(f"stream {number}", {"cursor": 1}) for number in range(20)))
    with counted(engine) as statements:
        latest_state(store, pipeline)
    assert len(statements) == 1, statements


def test_heads_and_ends_take_one_statement_for_any_number_of_pipelines(engine):
    store = connect(engine)
    for number in range(10):
        store.append(Pipeline(f"source-{number}"), saved("users", {}))
    with counted(engine) as statements:
        store.heads()
        store.ends()
    assert len(statements) == 2, statements


def test_to_find_nothing_new_takes_one_statement_for_any_number_of_pipelines(database, engine):
    with connect(database) as writer:
        for number in range(10):
            writer.append(Pipeline(f"source-{number}"), *emitted(2))
        store = connect(engine)
        following = store.follow(store.heads(), every_s=0)
        append = partial(writer.append, Pipeline("source-3"), *emitted(1))
        with Interruption(8).of(engine, append), counted(engine, all_statements=True) as statements:
            assert next(following).version == 3
        assert store.count() == 21
    first, idle = statements[0], statements[4:8]  # what comes between is the first look
    counters = ["PRAGMA database_list", "PRAGMA data_version"]  # which SQLite keeps itself
    assert idle in ([first] * 4, counters * 2), statements


@pytest.mark.needs("KEEPS_COLUMNS")
def test_a_rebuild_reads_many_pipelines_by_as_many_statements_as_a_few(engine):
    store = connect(engine)
    taken = []
    for first in (0, 4):
        for number in range(first, first + 4):
            store.append(Pipeline(f"source-{number}"), saved("users", {}), saved("orders", {}))
        rebuild(store)  # finds out what it is on
        with counted(engine) as statements:
            rebuild(store)
        taken.append(len(statements))
    assert taken[0] == taken[1]


def _message(cursor):
    return AirbyteStateMessage.model_validate(json.loads(stream_state("users", {"cursor": cursor})))
