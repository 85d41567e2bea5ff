"""PostgreSQL, a primary and two synchronous standbys: one is promoted while others write."""

import pytest

from eventstore import Pipeline
from projections import connect
from tests.faults.oracle import all_go_on, check_exactly, reader, writer

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    ("driver", "pipelines", "promotions"),
    [
        ("psycopg", 1, 1),
        pytest.param("psycopg", 1, 5, marks=pytest.mark.slow),
        pytest.param("psycopg", 8, 5, marks=pytest.mark.slow),
        pytest.param("psycopg2", 8, 5, marks=pytest.mark.slow),
    ],
)
def test_writers_and_readers_agree_while_a_standby_is_promoted(
    replicas, driver, pipelines, promotions
):
    url = replicas.new_database(driver)
    count, pause_s = (2, 0.05) if promotions == 1 else (8, 0)
    writers = [
        writer(url, Pipeline(f"source-{n % pipelines}"), pause_s=pause_s) for n in range(count)
    ]
    readers = [reader(url), reader(url)]
    for _ in range(promotions):
        replicas.mend()
        replicas.fail_over()
        all_go_on(writers)
    with connect(url) as store:
        check_exactly(store, writers, readers)
        assert len(store.pipelines()) == pipelines
