"""PostgreSQL through psycopg2, as PyAirbyte's own cache opens it: the same tests once more."""

import pytest
from sqlalchemy import make_url

from tests.contract.test_idempotence import *  # noqa: F403


@pytest.fixture
def database(postgresql):
    with postgresql.empty_database() as text:
        url = make_url(text).set(drivername="postgresql+psycopg2")
        yield url.render_as_string(hide_password=False)
