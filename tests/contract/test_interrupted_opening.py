"""Making the tables, broken off anywhere: nothing is left, or the next opening goes on from it."""

from sqlalchemy import inspect

from eventstore import Pipeline
from eventstore.dialects import dialect_of
from eventstore.integrity import verify
from eventstore.tables import metadata
from projections import connect, latest_state
from projections.models import SqlAlchemyModel
from tests.messages import saved
from tests.read_side import breakdowns

SHOP = Pipeline("source-shop")


def test_an_opening_that_was_broken_off_is_finished_by_the_next(engine):
    open_whole(engine)
    whole = indexes(engine)
    for breakdown in breakdowns.everywhere():
        drop_all(engine)
        with breakdown.of(engine):
            connect(engine).pipelines()
        if dialect_of(engine).TRANSACTIONAL_DDL:
            assert indexes(engine) in ({}, whole)
        else:
            open_whole(engine)
            assert indexes(engine) == whole
    assert breakdown.at > 20


def open_whole(engine):
    with connect(engine) as store:
        store.append(SHOP, saved("users", {"cursor": 1}))
        assert latest_state(store, SHOP).version == 1
        report = verify(store)
        assert (report.is_whole, report.notices) == (True, ())


def drop_all(engine):
    metadata.drop_all(engine)
    SqlAlchemyModel.metadata.drop_all(engine)


def indexes(engine):
    found = inspect(engine)
    return {
        table: sorted(index["name"] for index in found.get_indexes(table))
        for table in found.get_table_names()
    }
