"""Exclusive writers: once another has started, the one before it can append no more."""

import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from eventstore import Pipeline, StaleWriter, StateSaved, WriterStarted
from projections import SqlStateBackend, connect, latest_state
from tests.interruptions import everywhere
from tests.messages import saved, stream_state

SHOP = Pipeline("source-shop")
WRITERS = (0, 1)

_fresh = (f"source {number}" for number in count())


def start(store, pipeline=SHOP, **said):
    [started] = store.append(pipeline, WriterStarted(), **said)
    return started.version


def test_in_every_interleaving_only_the_last_that_started_appends(shared_store):
    class Interleaving(RuleBasedStateMachine):
        """Two writers of one pipeline, and somebody who does not ask to be exclusive."""

        def __init__(self):
            super().__init__()
            self.pipeline = Pipeline(next(_fresh))
            self.started = {}
            self.last = None
            self.states = []

        @rule(writer=st.sampled_from(WRITERS))
        def start(self, writer):
            self.started[writer] = start(shared_store, self.pipeline, run=str(writer))
            self.last = writer

        @rule(writer=st.sampled_from(WRITERS), size=st.integers(1, 3))
        def append(self, writer, size):
            if writer not in self.started:
                return
            batch = [saved("users", {"cursor": number}) for number in range(size)]
            append = partial(
                shared_store.append, self.pipeline, *batch, writer=self.started[writer]
            )
            if writer == self.last:
                self.states += append()
                return
            with pytest.raises(StaleWriter) as stale:
                append()
            assert stale.value.took_over.run == str(self.last)
            assert stale.value.took_over.version == self.started[self.last]

        @rule()
        def append_without_asking(self):
            self.states += shared_store.append(self.pipeline, saved("users", {"cursor": "x"}))

        def teardown(self):
            kept = [each for each in shared_store.history(self.pipeline) if each.body]
            assert kept == self.states

    run_state_machine_as_test(
        Interleaving, settings=settings(max_examples=15, stateful_step_count=12)
    )


def test_wherever_a_writer_takes_over_the_older_append_comes_before_it_or_not_at_all(database):
    with connect(database) as old, connect(database) as new:
        for interruption in everywhere():
            pipeline = Pipeline(f"source-{interruption.at}")
            mine = start(old, pipeline)
            takes_over = partial(start, new, pipeline)
            with interruption.of(old.database.engine, takes_over):
                try:
                    old.append(pipeline, saved("users", {"cursor": 1}), writer=mine)
                except StaleWriter:
                    stored = False
                else:
                    stored = True
            kinds = [each.kind for each in old.history(pipeline)][1:]
            assert kinds == (["StateSaved"] if stored else []) + ["WriterStarted"]


@pytest.mark.needs("MANY_PROCESSES")
def test_processes_take_over_from_each_other(database, request):
    program = """
import sys
from eventstore import StaleWriter
from projections import SqlStateBackend
from airbyte_protocol.models import AirbyteStateMessage
writer = SqlStateBackend(sys.argv[1], exclusive=True, actor="nightly").get_state_writer("shop")
print("started", flush=True)
for line in sys.stdin:
    try:
        writer.write_state(AirbyteStateMessage.model_validate_json(line))
        print("stored", flush=True)
    except StaleWriter as stale:
        print("stale:", stale, flush=True)
"""
    processes = []

    def begin():
        process = subprocess.Popen(
            [sys.executable, "-c", program, database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        request.addfinalizer(partial(process.wait, 10))
        request.addfinalizer(process.stdout.close)
        request.addfinalizer(process.stdin.close)
        assert process.stdout.readline() == "started\n"
        processes.append(process)
        return process

    def write(process, cursor):
        process.stdin.write(stream_state("users", {"cursor": cursor}) + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    first = begin()
    assert write(first, 1) == "stored\n"
    second = begin()
    said = write(first, 2)
    assert said.startswith("stale: shop -> cache: nightly (run ")
    assert "took over at 20" in said
    assert write(second, 3) == "stored\n"
    assert write(first, 4).startswith("stale:")
    with connect(database) as store:
        [body] = latest_state(store, Pipeline("shop")).bodies
        assert body.decode() == stream_state("users", {"cursor": 3})


def test_writers_are_not_exclusive_unless_asked(database):
    backend = SqlStateBackend(database)
    one, other = backend.get_state_writer("shop"), backend.get_state_writer("shop")
    with connect(database) as store:
        store.append(Pipeline("shop"), saved("users", {"cursor": 1}))
        [state] = latest_state(store, Pipeline("shop")).messages
        for writer in (one, other, one):
            writer.write_state(state)
        assert {each.kind for each in store.history(Pipeline("shop"))} == {"StateSaved"}
    backend._store.close()


def test_writers_of_different_pipelines_do_not_take_over_from_each_other(store):
    mine, theirs = start(store), start(store, Pipeline("source-bank"))
    store.append(SHOP, saved("users", {}), writer=mine)
    store.append(Pipeline("source-bank"), saved("users", {}), writer=theirs)


def test_a_writer_that_the_log_does_not_know_is_stale(store):
    store.append(SHOP, saved("users", {}))
    with pytest.raises(StaleWriter, match="was a backup restored") as stale:
        store.append(SHOP, StateSaved(stream_state("users", {})), writer=1)
    assert stale.value.took_over is None
