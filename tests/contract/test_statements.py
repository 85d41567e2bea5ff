"""How many statements the hot paths need; BEGIN, COMMIT and PRAGMA are not counted."""

import json
from functools import partial

from airbyte_protocol.models import AirbyteStateMessage

from eventstore import Pipeline
from projections import SqlStateBackend, connect, latest_state
from tests.interruptions import Interruption, counted
from tests.messages import emitted, saved, stream_state


def test_writing_a_state_through_the_backend_takes_at_most_five_statements(engine):
    writer = SqlStateBackend(engine).get_state_writer("source-shop")
    for cursor in range(3):
        writer.write_state(_message(cursor))
    with counted(engine) as statements:
        writer.write_state(_message(4))
    assert len(statements) <= 5, statements


def test_appending_a_hundred_events_takes_one_statement_per_table_of_the_log(engine):
    store = connect(engine)
    pipeline = Pipeline("source-shop")
    store.append(pipeline, *(saved(f"stream {number}", {"cursor": 0}) for number in range(100)))
    with counted(engine) as statements:
        store.append(pipeline, *(saved(f"stream {number}", {"cursor": 1}) for number in range(100)))
    of_the_log = [statement for statement in statements if "_eventstore_" in statement]
    assert len(of_the_log) <= 3, of_the_log


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
        with Interruption(6).of(engine, append), counted(engine) as statements:
            assert next(following).version == 3
        assert store.count() == 21
    first, idle = statements[0], statements[3:6]  # what comes between is the first look
    assert idle == [first] * 3, statements


def _message(cursor):
    return AirbyteStateMessage.model_validate(json.loads(stream_state("users", {"cursor": cursor})))
