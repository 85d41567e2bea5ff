"""A database that is a file may be put back from a backup, or another be put in its place."""

import shutil
import sqlite3

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from eventstore import Pipeline
from eventstore.integrity import verify
from projections import catch_up, connect
from tests.contract.catcher import Seen
from tests.messages import saved

SHOP, BANK = Pipeline("source-shop"), Pipeline("source-bank")
IN_FILES = ["sqlite", "duckdb"]


def append(store, *cursors, pipeline=SHOP):
    return [store.append(pipeline, saved("users", {"c": cursor}))[0].version for cursor in cursors]


@pytest.mark.parametrize("kind", IN_FILES)
@pytest.mark.parametrize("pool", [NullPool, QueuePool])
def test_a_file_that_was_put_back_is_gone_on_with(tmp_path, kind, pool):
    engine = create_engine(f"{kind}:///{tmp_path / 'log.db'}", poolclass=pool)
    store = connect(engine)
    append(store, 1)
    engine.dispose()
    shutil.copy(tmp_path / "log.db", tmp_path / "backup.db")
    append(store, 2, 3)
    engine.dispose()
    shutil.copy(tmp_path / "backup.db", tmp_path / "log.db")
    assert append(store, 4) == [2]
    assert verify(store).is_whole


@pytest.mark.parametrize("kind", IN_FILES)
def test_nothing_goes_into_the_history_of_another_pipeline(tmp_path, kind):
    """Which has the number, in the file that was put there, that ours had."""
    engine = create_engine(f"{kind}:///{tmp_path / 'log.db'}", poolclass=NullPool)
    with connect(f"{kind}:///{tmp_path / 'other.db'}") as other:
        append(other, 1, 2, 3, pipeline=BANK)
    store = connect(engine)
    append(store, 1)
    shutil.copy(tmp_path / "other.db", tmp_path / "log.db")
    assert append(store, 2) == [1]
    assert store.heads() == {BANK: 3, SHOP: 1}
    assert verify(store).is_whole


@pytest.mark.parametrize("pool", [QueuePool, StaticPool])
def test_a_backup_that_is_put_back_through_our_own_connection_is_gone_on_with(tmp_path, pool):
    """None of SQLite's counters moves then."""
    engine = create_engine(f"sqlite:///{tmp_path / 'log.db'}", poolclass=pool)
    store, backup = connect(engine), sqlite3.connect(":memory:")
    append(store, 1)
    with engine.connect() as db:
        db.connection.driver_connection.backup(backup)
    append(store, 2, 3)
    with engine.connect() as db:
        backup.backup(db.connection.driver_connection)
    backup.close()
    assert append(store, 4) == [2]
    assert verify(store).is_whole


def test_what_is_not_committed_is_not_counted_for_good():
    store = connect(create_engine("sqlite://", poolclass=StaticPool))
    append(store, 1)

    def give_up(db):
        store.append_within(db, SHOP, saved("users", {}))
        assert store.count() >= 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.database.transact(give_up)
    assert store.count() == 1


def test_a_log_in_an_attached_file_is_caught_up_with(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    with connect(url) as writer:
        append(writer, 1)
        engine = create_engine("sqlite://", poolclass=StaticPool)
        with engine.connect() as db:
            db.exec_driver_sql(f"ATTACH '{make_url(url).database}' AS aux")
        reader = connect(engine, create=False)
        assert catch_up(reader, Seen()) == 1
        assert catch_up(reader, Seen()) == 0
        append(writer, 2)
        assert catch_up(reader, Seen()) == 1
