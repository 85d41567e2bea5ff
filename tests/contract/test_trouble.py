"""A database that cannot be written to: the append fails as a whole, and the next one works."""

import logging
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    make_url,
    text,
)

import eventstore.database
from eventstore import Pipeline, StoreUnavailable
from eventstore.integrity import verify
from projections import catch_up, connect, latest_state, register_catalog
from tests.interruptions import everywhere
from tests.mariadb_server import MariaDB
from tests.messages import catalog, configured_stream, saved, stream_state
from tests.postgresql_server import Postgres

SHOP = Pipeline("source-shop")


def state_is(database, cursor):
    """The history, the table and its head all say the same."""
    with connect(database) as store:
        view = latest_state(store, SHOP)
        assert view.bodies == [stream_state("users", {"cursor": cursor}).encode()]
        assert [stored.version for stored in store.history(SHOP)] == list(
            range(1, view.version + 1)
        )


def append(store, cursor):
    return store.append(SHOP, saved("users", {"cursor": cursor}))


def read_only(database):
    url = make_url(database)
    kind = url.get_backend_name()
    if kind == "sqlite":
        return create_engine(f"sqlite:///file:{url.database}?mode=ro&uri=true")
    options = {
        "duckdb": {"read_only": True},
        "postgresql": {"options": "-c default_transaction_read_only=on"},
        "mariadb": {"init_command": "SET SESSION TRANSACTION READ ONLY"},
    }
    return create_engine(url, connect_args=options[kind])


def test_a_database_that_may_only_be_read_is_read(database):
    with connect(database) as store:
        appended = append(store, 1)
    engine = read_only(database)
    with connect(engine) as store:
        assert list(store.log()) == appended
        assert latest_state(store, SHOP).version == 1
        with pytest.raises(StoreUnavailable, match=r"(?i)read.?only"):
            append(store, 2)
        assert store.heads() == {SHOP: 1}
    engine.dispose()
    with connect(database) as store:
        append(store, 2)
    state_is(database, 2)


def hold(url, ready, done):
    """Another program that keeps the database to itself for a while."""
    kind = make_url(url).get_backend_name()
    engine = create_engine(url)
    with engine.connect() as db:
        if kind == "sqlite":
            db.exec_driver_sql("BEGIN EXCLUSIVE")
        if kind == "postgresql":
            db.execute(text("LOCK TABLE _eventstore_events IN ACCESS EXCLUSIVE MODE"))
        if kind == "mariadb":
            db.execute(text("LOCK TABLES _eventstore_events WRITE"))
        if kind == "duckdb":
            db.execute(text("CREATE TABLE theirs (a INTEGER)"))
        ready.set()
        done.wait(60)


@contextmanager
def held_by_another_program(database):
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    url = make_url(database).render_as_string(hide_password=False)
    program = spawn.Process(target=hold, args=(url, ready, done))
    program.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        done.set()
        program.join(60)


def impatient(database):
    url = make_url(database)
    options = {
        "sqlite": {"timeout": 0},
        "postgresql": {"options": "-c lock_timeout=100ms"},
        "mariadb": {"init_command": "SET lock_wait_timeout = 0, innodb_lock_wait_timeout = 0"},
        "duckdb": {},
    }
    return create_engine(url, connect_args=options[url.get_backend_name()])


def test_a_database_that_another_program_has_locked(database, monkeypatch):
    monkeypatch.setattr(eventstore.database, "PATIENCE_S", 0.5)
    with connect(database) as store:
        append(store, 1)
    engine = impatient(database)
    with (
        held_by_another_program(database),
        connect(engine) as store,
        pytest.raises(StoreUnavailable, match=r"(?i)lock"),
    ):
        append(store, 2)
    with connect(engine) as store:
        append(store, 3)
        assert store.heads() == {SHOP: 2}
    engine.dispose()
    state_is(database, 3)


REFUSAL = "events of orders are locked until the audit is over"

TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER theirs BEFORE INSERT ON _eventstore_events "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        "CREATE TRIGGER theirs BEFORE INSERT ON _eventstore_events "
        "FOR EACH ROW EXECUTE FUNCTION theirs()",
    ),
    "mariadb": (
        "CREATE TRIGGER theirs BEFORE INSERT ON _eventstore_events FOR EACH ROW "
        f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{REFUSAL}'",
    ),
}


@pytest.mark.needs("REFUSES_CHANGES")  # by triggers
def test_what_a_trigger_of_the_users_refuses_is_refused_at_once(store, engine, caplog):
    append(store, 1)
    with engine.begin() as db:
        for statement in TRIGGERS[engine.name]:
            db.exec_driver_sql(statement)
    with pytest.raises(StoreUnavailable, match=REFUSAL):
        append(store, 2)
    assert not caplog.records
    with engine.begin() as db:
        db.exec_driver_sql("DROP TRIGGER theirs" + " ON _eventstore_events" * on_table(engine))
    append(store, 3)
    assert store.heads() == {SHOP: 2}


def on_table(engine):
    """Whether a trigger's name is one of its table."""
    return engine.name == "postgresql"


class Strict:
    """A projection whose table takes nothing."""

    name = "strict"
    table = Table(
        "strict",
        MetaData(),
        Column("version", Integer, CheckConstraint("version < 0", name="none_at_all")),
        Column("kind", String(32), nullable=False),
    )
    TABLES = (table,)

    def __init__(self, row):
        self.row = row

    def apply(self, db, _stored):
        db.execute(self.table.insert(), self.row)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"version": 1, "kind": ""}, "(?i)check|none_at_all"),
        ({"version": -1, "kind": None}, "(?i)null"),
    ],
    ids=["check", "null"],
)
def test_what_a_table_of_the_users_refuses_is_refused_at_once(store, caplog, row, says):
    append(store, 1)
    with pytest.raises(StoreUnavailable, match=says):
        catch_up(store, Strict(row))
    assert not caplog.records


def test_an_engine_whose_connections_are_all_taken(database):
    engine = create_engine(database, pool_size=1, max_overflow=0, pool_timeout=0.1)
    store = connect(engine)
    append(store, 1)
    with engine.connect(), pytest.raises(StoreUnavailable, match="QueuePool limit of size 1"):
        append(store, 2)
    append(store, 3)
    assert store.heads() == {SHOP: 2}
    engine.dispose()


@pytest.fixture
def disk():
    """What mounts a disk of so many MiB; skips where it may not."""
    with tempfile.TemporaryDirectory() as parent, ExitStack() as mounted:
        Path(parent).chmod(0o755)  # servers run as another user

        def mount(size):
            folder = Path(parent, "disk")
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=777", "tmpfs", folder]
            if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
                pytest.skip("only root may mount a disk")
            mounted.callback(subprocess.run, ["umount", folder], check=True)
            return folder

        yield mount


@pytest.fixture(params=["sqlite", "duckdb", "postgresql", "mariadb"])
def on_a_small_disk(request, disk):
    """The URL of a database, and the disk that it is on."""
    # PostgreSQL takes its programs along where others cannot reach them.
    servers = {"postgresql": (256, Postgres), "mariadb": (128, MariaDB)}
    if request.param not in servers:
        folder = disk(3)
        yield f"{request.param}:///{folder / 'state.db'}", folder
        return
    request.getfixturevalue(request.param)  # skips where there is none
    size, kind = servers[request.param]
    folder = disk(size)
    with kind(disk=folder) as server, server.empty_database() as url:
        yield url, folder


def fill(folder):
    """Leave no room at all; returns what to remove."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def append_for_ever(store, acknowledged):
    for cursor in count(1):
        incompressible = token_hex(50_000)
        acknowledged += store.append(SHOP, saved("users", {"cursor": cursor, "x": incompressible}))


def append_until_it_fails(store, says):
    """Append states until there is no room for one; returns how many there was room for."""
    acknowledged = []
    with pytest.raises(StoreUnavailable, match=says) as failed:
        append_for_ever(store, acknowledged)
    assert "\n" not in str(failed.value)
    return len(acknowledged)


def test_a_disk_that_is_full(on_a_small_disk):
    database, folder = on_a_small_disk
    with connect(database) as store:
        assert store.heads() == {}
        ballast = fill(folder)
        head = append_until_it_fails(store, "(?i)full|no space")
        assert store.heads() == ({SHOP: head} if head else {})
        ballast.unlink()
        append(store, 1000)
        assert store.heads() == {SHOP: head + 1}
        assert verify(store).is_whole
    state_is(database, 1000)


@pytest.mark.slow
def test_a_disk_that_is_full_where_postgresql_writes_ahead(postgresql, disk, monkeypatch):
    """It cannot go on then: it ends all connections, and is back if there is room soon.

    If not, it has ended, and somebody starts it again.
    """
    monkeypatch.setattr(eventstore.database, "PATIENCE_S", 0.1)
    server, folder = type(postgresql)(durable=True), disk(48)
    wal = server.folder / "data" / "pg_wal"
    server.run("cp", "-r", wal, folder)
    shutil.rmtree(wal)
    wal.symlink_to(folder / "pg_wal")
    with server, server.empty_database() as database, connect(database) as store:
        assert store.heads() == {}
        ballast = fill(folder)
        # Who did not write ahead in vain hears only that the server has ended.
        head = append_until_it_fails(store, "(?i)no space|after the connection was lost")
        ballast.unlink()
        stored = []
        deadline = time.monotonic() + 60
        while not stored and time.monotonic() < deadline:
            if not server.runs:
                server.start()
            with suppress(StoreUnavailable):
                stored = append(store, 1000)
        assert [event.version for event in stored] == [head + 1]
        assert verify(store).is_whole


# What is told through `logging`


def test_each_append_is_one_line_for_those_who_debug(store, caplog):
    caplog.set_level(logging.DEBUG, logger="eventstore")
    store.append(SHOP, saved("users", {"n": 1}), saved("users", {"n": 2}))
    append(store, 3)
    assert [found.getMessage() for found in caplog.records] == [
        "source-shop -> cache: appended versions 1 to 2",
        "source-shop -> cache: appended version 3",
    ]
    assert {(found.name, found.levelname) for found in caplog.records} == {
        ("eventstore.store", "DEBUG")
    }


@pytest.mark.needs("MANY_PROCESSES")  # or all take turns, and nobody loses one
def test_a_race_that_was_lost_is_a_warning(database, caplog):
    url = make_url(database)
    # Whoever finds a file of SQLite locked waits in there, and loses nothing.
    at_once = {"sqlite": {"timeout": 0}}.get(url.get_backend_name(), {})
    engine = create_engine(url, connect_args=at_once)
    with connect(database) as one, connect(engine) as other:
        append(one, 0)
        for interruption in everywhere():
            with interruption.of(one.database.engine, partial(append, other, 1)):
                append(one, 2)
        assert one.heads() == {SHOP: 1 + 2 * (interruption.at + 1)}
    engine.dispose()
    warnings = {found.getMessage() for found in caplog.records if found.levelname == "WARNING"}
    assert warnings
    assert all(told.startswith("trying again after a lost race") for told in warnings)


def test_nothing_is_printed(store, capfd):
    append(store, 1)
    register_catalog(store, SHOP, catalog(configured_stream("users")))
    list(store.log())
    assert capfd.readouterr() == ("", "")
