"""`kill -9` of a database server under load: what it has acknowledged is there when it is back."""

import time

import pytest

from eventstore import Pipeline
from projections import connect
from tests.faults.oracle import Writer, check

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
        writers = [Writer(url, Pipeline(f"source-{number}")) for number in range(2)]
        for _ in range(kills):
            time.sleep(0.3)
            server.kill()
            server.start()
        time.sleep(0.3)
        acknowledged = [each for writer in writers for each in writer.kill()]
        with connect(url) as store:
            check(store, acknowledged)
        assert len(acknowledged) > len(writers) * kills
