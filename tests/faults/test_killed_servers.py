"""`kill -9` of a database server under load: what it has acknowledged is there when it is back."""

import os
import signal
import time
from threading import Timer

import pytest
from sqlalchemy import make_url

from eventstore import Pipeline
from eventstore.integrity import verify
from projections import connect
from tests.faults.oracle import SHOP, all_go_on, check, writer
from tests.interruptions import Interruption
from tests.messages import saved

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request):
    """A server of its own, which syncs what it commits."""
    kind = type(request.getfixturevalue(request.param))
    with kind(durable=True) as server:
        yield server


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_what_was_acknowledged_before_a_kill_is_there_once(server, kills):
    with server.empty_database() as url:
        with connect(url) as store:
            store.pipelines()
        writers = [writer(url, Pipeline(f"source-{number}")) for number in range(2)]
        for _ in range(kills):
            time.sleep(0.3)
            server.kill()
            server.start()
            all_go_on(writers)
        acknowledged = [each for it in writers for each in it.kill()]
        with connect(url) as store:
            check(store, acknowledged)
        assert len(acknowledged) > len(writers) * kills


def test_an_append_outlives_that_postgresql_ends_all_connections(postgresql):
    """As it does when a process that answers one of them is killed: it is back in a second."""
    server = type(postgresql)(durable=True)
    with server, server.empty_database() as url, connect(url) as store:
        store.append(SHOP, saved("users", {"cursor": 1}))
        with store.database.engine.connect() as db:
            number = db.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        os.kill(number, signal.SIGKILL)
        store.append(SHOP, saved("users", {"cursor": 2}))
        assert store.heads() == {SHOP: 2}


@pytest.mark.parametrize("at", [1, 3])
def test_a_mariadb_that_hangs_is_left_when_the_driver_has_waited_long_enough(mariadb, caplog, at):
    server, resume = type(mariadb)(durable=True), None

    def hang():
        nonlocal resume
        server.pause()
        resume = Timer(3, server.resume)
        resume.start()

    with server, server.empty_database() as url:
        impatient = make_url(url).update_query_dict({"read_timeout": "1"})
        with connect(impatient) as store:
            store.append(SHOP, saved("users", {"cursor": 1}))
            with Interruption(at).of(store.database.engine, hang):
                store.append(SHOP, saved("users", {"cursor": 2}))
            assert "trying again" in caplog.text
            resume.join()
            assert store.heads() == {SHOP: 2}
            assert verify(store).is_whole
