"""The oldest PostgreSQL there is a wheel of, through psycopg2: the same tests once more."""

import pytest

from tests.conftest import started
from tests.contract.test_idempotence import *  # noqa: F403
from tests.postgresql_server import OlderPostgres


@pytest.fixture(scope="module")
def older():
    yield from started(OlderPostgres)


@pytest.fixture
def database(older):
    with older.empty_database() as url:
        yield url


def test_it_is_older(engine):
    with engine.connect() as db:
        assert db.dialect.server_version_info < (17,)
        assert db.dialect.driver == "psycopg2"
