"""Many writers and tailing readers at once: what is acknowledged, stored and seen is the same."""

import pytest
from sqlalchemy import make_url

from eventstore import Pipeline
from eventstore.dialects import dialect_of
from projections import connect
from tests.faults.oracle import (
    SHOP,
    SIZES,
    Part,
    Program,
    all_go_on,
    check_exactly,
    reader,
    writer,
)

SHARING, ALONE, READERS = 8, 8, 3

LEAST, PATIENCE = 200, 4


@pytest.mark.parametrize(
    ("rounds", "pause_s"),  # without a pause the first write thousands while the last begin
    [(1, 0.02), pytest.param(100, 0, marks=pytest.mark.slow)],
)
@pytest.mark.timeout(1800)
def test_what_is_acknowledged_is_stored_and_seen_without_gaps(database, rounds, pause_s):
    """Eight on one pipeline beside eight on as many; on DuckDB they are threads of one process."""
    kind = Program if dialect_of(make_url(database)).MANY_PROCESSES else Part
    pipelines = [SHOP] * SHARING + [Pipeline(f"source-{number}") for number in range(ALONE)]
    with connect(database) as store:
        store.pipelines()
        writers = [writer(database, each, kind, pause_s=pause_s) for each in pipelines]
        readers = [reader(database, kind) for _ in range(READERS)]
        all_go_on(writers, rounds * len(SIZES))
        check_exactly(store, writers, readers)


@pytest.mark.slow
def test_none_of_several_on_one_pipeline_is_always_last(database):
    kind = Program if dialect_of(make_url(database)).MANY_PROCESSES else Part
    with connect(database) as store:
        store.pipelines()
    writers = [writer(database, SHOP, kind) for _ in range(SHARING)]
    all_go_on(writers)
    before = [len(each.reports) for each in writers]
    all_go_on(writers, LEAST)
    after = [len(each.finish()) for each in writers]
    stored = [count - count_before for count, count_before in zip(after, before, strict=True)]
    assert max(stored) < PATIENCE * min(stored)
