"""Galera, three nodes that all take writes: one order, while nodes are killed and hang."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Timer

import pytest
from sqlalchemy import create_engine

from eventstore import HistoryConflict, Pipeline, StoreUnavailable
from eventstore.integrity import verify
from projections import connect, latest_state, rebuild
from tests.contract.test_upgrades import make_old
from tests.faults.oracle import SHOP, all_go_on, check_exactly, reader, writer
from tests.messages import saved, stream_state
from tests.servers import wait_until
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
        for cursor in range(1, 51):
            here.append(SHOP, saved("users", {"cursor": cursor}))
            assert latest_state(there, SHOP).bodies == [
                stream_state("users", {"cursor": cursor}).encode()
            ]


def test_an_engine_that_reads_what_is_no_more_is_refused_with_what_to_do(nodes):
    engine = create_engine(nodes[0])
    with pytest.raises(StoreUnavailable, match="wsrep_sync_wait = 1") as refusal:
        connect(engine).heads()
    engine.dispose()
    init_command = str(refusal.value).split('"init_command": "')[1].split('"')[0]
    engine = create_engine(nodes[0], connect_args={"init_command": init_command})
    assert connect(engine).heads() == {}
    engine.dispose()


def test_tables_are_made_from_all_nodes_at_once(galera):
    """Often enough to meet the ways in which their statements cross."""

    def append(url, start):
        with connect(url) as store:
            start.wait()
            return store.append(SHOP, saved("users", {"by": url}))[0].version

    galera.mend()
    with ThreadPoolExecutor() as threads:
        for _ in range(4):
            nodes = galera.new_database()
            starts = [Barrier(len(nodes), timeout=60)] * len(nodes)
            assert sorted(threads.map(append, nodes, starts)) == [1, 2, 3]


def test_an_old_log_that_all_nodes_open_at_once_is_copied_by_one(galera):
    def history(url, start):
        with connect(url) as store:
            start.wait()
            return list(store.history(SHOP))

    galera.mend()
    with ThreadPoolExecutor() as threads:
        for _ in range(4):
            nodes = galera.new_database()
            with connect(nodes[0]) as store:
                for first in range(0, 5000, 1000):
                    store.append(SHOP, *(saved("users", {"n": first + n}) for n in range(1000)))
                before = list(store.history(SHOP))
                make_old(store.database.engine)
            starts = [Barrier(len(nodes), timeout=60)] * len(nodes)
            assert list(threads.map(history, nodes, starts)) == [before] * len(nodes)
            with connect(nodes[1]) as store:
                assert verify(store).is_whole


def test_a_node_that_refuses_even_to_roll_back_is_waited_for(galera, nodes):
    """As one does that has lost its cluster."""
    first = galera.nodes[0]
    with connect(nodes[0]) as store:
        store.append(SHOP, saved("users", {}))
        first.ask("SET GLOBAL wsrep_reject_queries = 'ALL'")
        Timer(2, first.ask, ["SET GLOBAL wsrep_reject_queries = 'NONE'"]).start()
        store.append(SHOP, saved("users", {}))
        assert store.heads() == {SHOP: 2}
        assert store.database.engine.pool.checkedout() == 0


def test_of_several_who_saw_the_same_version_one_appends(nodes):
    start = Barrier(len(nodes), timeout=60)
    with connect(nodes[0]) as store:
        store.append(SHOP, saved("users", {}))

    def append(url):
        with connect(url) as store:
            outcomes = []
            for version in range(1, 11):
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
        writers = [writer(url, pause_s=0.05) for url in (*nodes[:2], balanced)]
        readers = [reader(url) for url in nodes[:2]]
        last.kill()
        all_go_on(writers)
        with connect(nodes[0]) as store:
            check_exactly(store, writers, readers)


def lose_one(galera):
    galera.nodes[2].kill()
    wait_for(galera, cluster_size="2")


def let_one_hang(galera):
    galera.nodes[2].pause()
    wait_for(galera, cluster_size="2")
    galera.nodes[2].resume()


def let_two_hang(galera):
    """Nobody has a quorum until they go on."""
    for node in galera.nodes[1:]:
        node.pause()
    wait_for(galera, cluster_status="non-Primary")
    for node in galera.nodes[1:]:
        node.resume()


def lose_two(galera):
    """Nobody has a quorum until an administrator says that those who are left are enough."""
    for node in galera.nodes[1:]:
        node.kill()
    wait_for(galera, cluster_status="non-Primary")
    galera.nodes[0].ask("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")


def wait_for(galera, **status):
    """Wait until the first node says so."""
    [(name, value)] = status.items()
    wait_until(lambda: galera.nodes[0].status(name) == value, 60)


@pytest.mark.slow
@pytest.mark.parametrize("pipelines", [1, 8])
def test_writers_and_readers_agree_while_nodes_are_lost_and_hang_and_the_quorum_is_lost(
    galera, nodes, pipelines
):
    writers = [writer(nodes[n % 3], Pipeline(f"source-{n % pipelines}")) for n in range(8)]
    readers = [reader(url) for url in nodes]
    for fault in (lose_one, let_one_hang, let_two_hang, lose_two):
        fault(galera)
        galera.mend()
        all_go_on(writers)
    with connect(nodes[0]) as store:
        check_exactly(store, writers, readers)
        assert len(store.pipelines()) == pipelines


@pytest.mark.slow
def test_tables_are_rebuilt_on_one_node_while_others_write(nodes):
    writers = [writer(url) for url in nodes]
    with connect(nodes[0]) as store:
        for _ in range(20):
            rebuild(store)
        check_exactly(store, writers, [])
