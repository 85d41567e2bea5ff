"""Galera, three nodes that all take writes: one order, while nodes are killed and hang."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import create_engine

from eventstore import HistoryConflict, StoreUnavailable
from projections import connect, latest_state
from tests.faults.oracle import SHOP, check_exactly, reader, writer
from tests.messages import saved, stream_state
from tests.tcp_proxy import proxy

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def nodes(galera):
    """The URLs of one empty database, by way of each node; all of them are there."""
    galera.mend()
    return galera.new_database()


def test_a_reader_on_another_node_sees_what_was_acknowledged(nodes):
    one, another, _ = nodes
    with connect(one) as here, connect(another) as there:
        for cursor in range(1, 101):
            here.append(SHOP, saved("users", {"cursor": cursor}))
            assert latest_state(there, SHOP).bodies == [
                stream_state("users", {"cursor": cursor}).encode()
            ]


def test_an_engine_that_reads_what_is_no_more_is_refused(nodes):
    engine = create_engine(nodes[0])
    with pytest.raises(StoreUnavailable, match="wsrep_sync_wait = 1"):
        connect(engine).heads()
    engine.dispose()


def test_tables_are_made_from_all_nodes_at_once(nodes):
    start = Barrier(len(nodes))

    def append(url):
        with connect(url) as store:
            start.wait()
            return store.append(SHOP, saved("users", {"by": url}))[0].version

    with ThreadPoolExecutor() as threads:
        assert sorted(threads.map(append, nodes)) == [1, 2, 3]


def test_of_several_who_saw_the_same_version_one_appends(nodes):
    start = Barrier(len(nodes))
    with connect(nodes[0]) as store:
        store.append(SHOP, saved("users", {}))

    def append(url):
        with connect(url) as store:
            outcomes = []
            for version in range(1, 31):
                while store.head(SHOP).version < version:
                    time.sleep(0.001)
                start.wait()
                try:
                    store.append(SHOP, saved("users", {"by": url}), expected=version)
                    outcomes.append("appended")
                except HistoryConflict as conflict:
                    outcomes.append((conflict.expected, conflict.actual))
                start.wait()
            return outcomes

    with ThreadPoolExecutor() as threads:
        by_node = list(threads.map(append, nodes))
    for version, outcomes in enumerate(zip(*by_node, strict=True), start=1):
        assert sorted(map(str, outcomes)) == [f"({version}, {version + 1})"] * 2 + ["appended"]


def test_writers_and_readers_agree_while_a_node_is_killed(galera, nodes):
    """One writer's connections go to another node when its own is gone."""
    first, _, last = galera.nodes
    with proxy(last.port, first.port) as balancer:
        balanced = nodes[2].replace(f":{last.port}/", f":{balancer.port}/")
        writers = [writer(url) for url in (*nodes[:2], balanced)]
        readers = [reader(url) for url in nodes[:2]]
        last.kill()
        for it in writers:
            it.goes_on()
        with connect(nodes[0]) as store:
            check_exactly(store, writers, readers)
