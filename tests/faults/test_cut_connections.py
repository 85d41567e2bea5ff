"""The connection is cut in the middle of COMMIT, and it is found out what became of it; or slow."""

import threading
from datetime import datetime, timezone
from random import Random

import pytest
from sqlalchemy import make_url

from eventstore import Pipeline
from projections import connect
from tests.faults.oracle import check
from tests.messages import saved
from tests.tcp_proxy import CUTS, proxy

SHOP = Pipeline("source-shop")
TIMES = 5


@pytest.fixture(params=["postgresql+psycopg", "postgresql+psycopg2", "mariadb+pymysql"])
def direct(request):
    """The URL of a database with an empty log, past the proxy."""
    server = request.getfixturevalue(request.param.split("+")[0])
    with server.empty_database() as text:
        url = make_url(text).set(drivername=request.param)
        with connect(url) as store:
            store.pipelines()
        yield url


@pytest.fixture
def between(direct):
    """The proxy in front of it."""
    with proxy(direct.port) as it:
        yield it


def batch(number, size=5):
    return [saved("users", {"batch": number, "place": place}) for place in range(size)]


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("cut", CUTS)
def test_an_append_whose_commit_is_cut_is_stored_once(direct, between, cut, size):
    with connect(direct.set(port=between.port)) as store:
        appended = store.append(SHOP, *batch(0, size))
        for number in range(1, TIMES):
            between.cuts.append(cut)
            appended += store.append(SHOP, *batch(number, size), expected=len(appended))
            assert not between.cuts
    with connect(direct) as reader:
        assert list(reader.history(SHOP)) == appended
        check(reader, [(stored.id, size) for stored in appended[::size]])


def test_an_append_waits_for_a_server_that_has_gone_away_with_its_outcome(direct, between):
    with connect(direct.set(port=between.port)) as store:
        appended = store.append(SHOP, *batch(0))
        between.cuts.append("unanswered")
        ports, between.ports = between.ports, ()  # and nobody who comes anew is let in
        threading.Timer(0.5, setattr, (between, "ports", ports)).start()
        appended += store.append(SHOP, *batch(1))
    with connect(direct) as reader:
        assert list(reader.history(SHOP)) == appended


def test_on_a_slow_network_too_an_event_is_stored_at_the_time_of_its_append(direct, between):
    random = Random(1)
    with connect(direct.set(port=between.port)) as store:
        store.append(SHOP, saved("users", {}))
        between.delay_s = lambda: random.random() / 50
        for number in range(20):
            before = datetime.now(timezone.utc)
            [stored] = store.append(SHOP, saved("users", {"page": number}))
            assert before <= stored.stored_at <= datetime.now(timezone.utc)
