"""Logs as earlier releases made them: opened once, they are what they were, and kept as of now."""

from contextlib import suppress
from functools import partial
from itertools import count

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import DropSchema

from eventstore import SchemaTooOld, StateSaved, StoreUnavailable, WriterStarted
from eventstore.compression import PLAIN, ZSTD
from eventstore.dialects import dialect_of
from eventstore.erasure import erase
from eventstore.events import NAME_LIMIT
from eventstore.integrity import verify
from eventstore.parts import CODECS
from eventstore.schema import refuse_changes, schema_name
from eventstore.tables import (
    KIND,
    ORIGIN,
    VERSIONS,
    bodies,
    events,
    keeper_of,
    schema_versions,
)
from projections import connect, latest_state, rebuild
from projections.exchange import export_histories
from projections.tables_check import check_tables
from tests.command_line.shell import run
from tests.contract.test_export_import import SHOP, write
from tests.messages import global_state, inner_state, saved, stream_state
from tests.read_side import breakdowns

OF_VERSION_2 = MetaData()
OLD_EVENTS = Table(
    events.name,
    OF_VERSION_2,
    Column("pipeline_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("append_id", LargeBinary(16), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("format", Integer, nullable=False),
    Column("stream_number", Integer, nullable=False),
    Column("origin", String(16)),
    Column("of_version", BigInteger),
    Column("actor", String(NAME_LIMIT), nullable=False),
    Column("reason", Text),
    Column("run", String(NAME_LIMIT), nullable=False),
    Column("body_version", BigInteger),
    Column("commitment", LargeBinary(32)),
    Column("hash", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("pipeline_id", "version"),
    Index("_eventstore_events_append", "append_id"),
    Index("_eventstore_events_time", "stored_at", "pipeline_id", "version"),
    Index("_eventstore_events_newest", "pipeline_id", "kind", "stream_number", "version"),
    sqlite_with_rowid=False,
)
OLD_BODIES = Table(
    bodies.name,
    OF_VERSION_2,
    Column("pipeline_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("salt", LargeBinary(16), nullable=False),
    Column("codec", String(8), nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("pipeline_id", "version"),
)
IMPATIENT = {
    "sqlite": {"timeout": 0},
    "mariadb": {"init_command": "SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"},
}

OLD_CODECS = {PLAIN: "plain", ZSTD: "zstd-1", CODECS[PLAIN]: "parts-1", CODECS[ZSTD]: "parts-z1"}


def fill(engine):
    """A history with all there is: every kind and origin, shared and erased bodies, all codecs."""
    with connect(engine) as store:
        write(store)
        for cursor in (1, 2):
            streams = (inner_state(f"s{n}", {"text": f"{n:05}" * 400}) for n in range(40))
            store.append(SHOP, StateSaved(global_state({"lsn": cursor}, *streams)))
        store.append(SHOP, *(StateSaved(stream_state("a", {"o": o}), o) for o in ORIGIN.listed))
        store.append(SHOP, WriterStarted())
        erase(store, SHOP, version=2, reason="asked to")
        there = list(store.log())
        assert {stored.kind for stored in there} == set(KIND.listed)
        assert {stored.origin for stored in there} == {None, *ORIGIN.listed}
        return told(store)


def told(store):
    states = [latest_state(store, pipeline).bodies for pipeline in store.pipelines()]
    return b"".join(export_histories(store)), list(store.log()), states


def make_old(engine, *changes):
    """Put the tables of the log back to what version 2 had, with all rows, or some changed."""
    dialect = dialect_of(engine)
    with engine.begin() as db:
        columns = [column for column in events.columns if column.name != "body_at"]
        keeper = keeper_of(events).label("body_version")
        rows = [dict(row) for row in db.execute(select(*columns, keeper)).mappings()]
        kept = [
            {
                **row,
                "pipeline_id": row["id"] // VERSIONS,
                "version": row["id"] % VERSIONS,
                "codec": OLD_CODECS[row["codec"]],
            }
            for row in db.execute(select(bodies)).mappings()
        ]
        for row in kept:
            del row["id"]
    with engine.begin() as db:
        bodies.drop(db)
        events.drop(db)
        for table, old in ((OLD_EVENTS, rows), (OLD_BODIES, kept)):
            dialect.create_table(db, table)
            db.execute(table.insert(), old)
        for change in changes:
            db.execute(change)
        refuse_changes(db)
        of_log = schema_versions.c.component == "log"
        db.execute(schema_versions.update().where(of_log).values(version=2))


def shape(engine):
    """The columns, the indexes and the key of each table."""
    found = inspect(engine)
    with engine.connect() as db:
        columns_of = partial(dialect_of(engine).column_names, db, schema=schema_name(db))
        return {
            name: (
                sorted(columns_of(name)),
                sorted(each["name"] for each in found.get_indexes(name)),
                # Of DuckDB, SQLAlchemy 2.1 cannot read any.
                None if dialect_of(engine).KEEPS_COLUMNS else found.get_pk_constraint(name),
            )
            for name in sorted(found.get_table_names())
        }


def check(engine, before):
    with connect(engine) as store:
        assert told(store) == before
        report = verify(store)
        assert (report.is_whole, report.notices) == (True, ())
        assert not check_tables(store).problems
        store.append(SHOP, saved("users", {"cursor": 9}))
        assert verify(store).is_whole


def test_a_log_of_version_2_is_what_it_was(engine, caplog):
    before = fill(engine)
    whole = shape(engine)
    make_old(engine)
    assert shape(engine) != whole
    check(engine, before)
    assert shape(engine) == whole
    begun, done, _, _ = [record.getMessage() for record in caplog.records]
    assert begun.endswith("is of an earlier release, and its _eventstore_events are copied")
    assert done.startswith("_eventstore_events are copied: ")


def test_who_only_reads_is_told_what_to_do(engine):
    before = fill(engine)
    make_old(engine)
    old = shape(engine)
    with connect(engine, create=False) as store, pytest.raises(SchemaTooOld, match="rebuild"):
        store.pipelines()
    assert shape(engine) == old
    check(engine, before)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_rebuild_is_the_command_that_copies_it(tmp_path, kind):
    path = tmp_path / f"log.{kind}"
    engine = create_engine(f"{kind}:///{path}")
    before = fill(engine)
    make_old(engine)
    engine.dispose()
    read = run("log", "--db", path)
    assert (read.code, read.out) == (1, "")
    assert "a backup, end what uses them, and let their owner copy them" in read.err
    assert run("rebuild", "--db", path).code == 0
    check(engine, before)
    engine.dispose()


def test_a_body_of_no_version_there_can_be_is_refused_where_it_is(engine):
    fill(engine)
    far = OLD_BODIES.update().where(OLD_BODIES.c.version == 1).values(version=VERSIONS + 1)
    make_old(engine, far.where(OLD_BODIES.c.pipeline_id == 1))
    old = shape(engine)
    with pytest.raises(StoreUnavailable, match="pipeline number 1 and version 1099511627777"):
        connect(engine).pipelines()
    assert shape(engine) == old


def test_views_on_the_log_stay_or_are_named(engine):
    fill(engine)
    make_old(engine)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE VIEW my_report AS SELECT version FROM _eventstore_events")
    refusal = ""
    try:
        connect(engine).pipelines()
    except StoreUnavailable as error:
        refusal = str(error)
    with engine.begin() as db:
        if not refusal:
            assert db.exec_driver_sql("SELECT count(*) FROM my_report").scalar() > 10
        db.exec_driver_sql("DROP VIEW my_report")
    if refusal:
        assert "view my_report" in refusal
        assert "drop views of yours" in refusal
    assert verify(connect(engine)).is_whole


def test_what_is_erased_later_is_not_left_where_the_old_tables_were(tmp_path):
    path = tmp_path / "log.db"
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _leave(connection, _):
        connection.execute("PRAGMA secure_delete = OFF")

    with connect(engine) as store:
        secrets = [f"ann-{number}@example.org" for number in range(50)]
        for secret in secrets:
            store.append(SHOP, saved("users", {"address": secret}))
    make_old(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.exec_driver_sql("VACUUM")  # of what was left by making it old
    with connect(engine) as store:
        for number in range(50):
            erase(store, SHOP, version=number + 1, reason="asked to")
        rebuild(store)
    with engine.connect() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    # A few stay where SQLite has split a page, in a log that was never copied, too.
    left = [secret for secret in secrets if secret.encode() in path.read_bytes()]
    assert len(left) < 10


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_a_log_in_a_schema_of_its_own_stays_there(request, server):
    with request.getfixturevalue(server).empty_database() as url:
        engine = create_engine(url)
        its_own = engine.execution_options(schema_translate_map={None: "My: 100% tenant"})
        before = fill(its_own)
        make_old(its_own)
        check(its_own, before)
        assert inspect(engine).get_table_names() == []
        with engine.begin() as db:
            db.execute(DropSchema("My: 100% tenant", cascade=server == "postgresql"))
        engine.dispose()


def test_an_upgrade_that_was_broken_off_is_finished_by_the_next_opening(engine):
    before = fill(engine)
    whole = shape(engine)
    for breakdown in breakdowns.everywhere():
        make_old(engine)
        with breakdown.of(engine):
            connect(engine).pipelines()
        with connect(engine) as store:
            assert told(store) == before
            assert verify(store).is_whole
        assert shape(engine) == whole
    assert breakdown.at > 10


def test_numbers_in_the_log_mean_what_they_meant():
    kinds = ("StateSaved", "StateEmitted", "StateCleared", "StreamDefined", "CatalogRegistered")
    assert KIND.listed[:7] == (*kinds, "WriterStarted", "BodyErased")
    origins = ("source", "adopted", "foreign", "restored", "copied", "edited", "imported")
    assert ORIGIN.listed[:7] == origins
    assert OLD_CODECS == {0: "plain", 1: "zstd-1", 2: "parts-1", 3: "parts-z1"}


@pytest.mark.parametrize(
    ("table", "column"), [(OLD_BODIES, "codec"), (OLD_EVENTS, "kind"), (OLD_EVENTS, "origin")]
)
def test_what_was_altered_in_a_log_of_version_2_shows_after_it(engine, table, column):
    fill(engine)
    make_old(engine, table.update().where(table.c.version == 1).values({column: "other"}))
    with connect(engine) as store:
        assert [found.first_bad for found in verify(store).pipelines] == [1, 1, 1]


@pytest.mark.needs("MANY_PROCESSES")
def test_what_an_earlier_release_writes_during_an_upgrade_is_refused_or_copied(engine, database):
    fill(engine)
    make_old(engine)
    impatient = create_engine(database, connect_args=IMPATIENT.get(engine.name, {}))
    with impatient.connect() as db:
        row = dict(db.execute(select(OLD_EVENTS).limit(1)).mappings().one())
    accepted, versions = [], count(1000)

    def write_too(*_):
        version = next(versions)
        with suppress(DBAPIError), impatient.begin() as db:
            if engine.name == "postgresql":
                db.exec_driver_sql("SET lock_timeout = 50")
            db.execute(OLD_EVENTS.insert(), {**row, "version": version})
            accepted.append(version)

    event.listen(engine, "before_cursor_execute", write_too)
    connect(engine).pipelines()
    event.remove(engine, "before_cursor_execute", write_too)
    impatient.dispose()
    with engine.connect() as db:
        there = db.scalars(select(events.c.version).where(events.c.version >= 1000)).all()
    assert sorted(there) == accepted
    assert accepted
    assert len(accepted) < next(versions) - 1000
