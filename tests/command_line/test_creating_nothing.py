"""Reading commands create nothing, and get in nobody's way."""

from __future__ import annotations

import os
import sqlite3
from hashlib import sha256

import duckdb
import pytest
from sqlalchemy import create_engine, inspect

from tests.command_line.histories import SHOP, writing
from tests.command_line.shell import done, finish, run, start
from tests.messages import envelope, saved, stream_state

COMMANDS = [
    ["pipelines"],
    ["log"],
    ["log", "--json", "-n", "3"],
    ["show", "@1"],
    ["state"],
    ["state", "--at", "2h"],
    ["catalog"],
    ["catalog", "--at", "@3"],
    ["diff", "@1", "now"],
    ["export"],
    ["diff", "@1", "now", "--catalog"],
    ["blame"],
    ["doctor"],
]

every_command = pytest.mark.parametrize("command", [*COMMANDS, ["rebuild"]], ids=" ".join)


def contents(folder) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_reading_changes_no_file_and_leaves_none_behind(command, history, eventstore):
    before = contents(history.parent)
    looks_wrong = command == ["doctor"]  # two appends in one instant: the clock stood still
    assert eventstore(*command, "--db", history).code == int(looks_wrong)
    assert contents(history.parent) == before


@every_command
@pytest.mark.parametrize("name", ["state.db", "state.duckdb", "no folder/state.db"])
def test_a_database_that_is_not_there_is_not_made(name, command, tmp_path, eventstore):
    refused = eventstore(*command, "--db", tmp_path / name)
    assert (refused.code, refused.out) == (1, "")
    [error] = refused.complaints
    assert error.startswith("eventstore: there is no database at ")
    assert list(tmp_path.iterdir()) == []


@every_command
@pytest.mark.parametrize("url", ["sqlite", "duckdb"])
def test_a_database_without_a_log_gets_no_tables(url, command, tmp_path, eventstore):
    engine = create_engine(f"{url}:///{tmp_path / 'other.db'}")
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE mine (x integer)")
    engine.dispose()
    before = contents(tmp_path)
    refused = eventstore(*command, "--db", tmp_path / "other.db")
    assert (refused.code, refused.out) == (1, "")
    assert [error[:12] for error in refused.complaints] == ["eventstore: "]
    assert contents(tmp_path) == before


@every_command
def test_a_file_that_is_empty_stays_empty(command, tmp_path, eventstore):
    (tmp_path / "state.db").touch()
    assert eventstore(*command, "--db", tmp_path / "state.db").code == 1
    assert (tmp_path / "state.db").stat().st_size == 0


@every_command
def test_a_schema_without_a_log_gets_no_tables(command, empty_schema, eventstore):
    refused = eventstore(*command, "--db", empty_schema, "--schema", "history")
    assert (refused.code, refused.out) == (1, "")
    engine = create_engine(empty_schema)
    tables = inspect(engine).get_table_names("history") + inspect(engine).get_table_names()
    engine.dispose()
    assert tables == []


@pytest.fixture(scope="module")
def empty_schema(postgresql):
    """A PostgreSQL database with an empty schema called history."""
    admin = create_engine(postgresql.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as db:
        db.exec_driver_sql("CREATE DATABASE empty_schema STRATEGY FILE_COPY")
    admin.dispose()
    engine = create_engine(postgresql.url("empty_schema"))
    with engine.begin() as db:
        db.exec_driver_sql("CREATE SCHEMA history")
    engine.dispose()
    return postgresql.url("empty_schema")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_database_in_a_folder_that_is_read_only_can_be_read(history, tmp_path, eventstore):
    folder = tmp_path / "read only"
    folder.mkdir()
    (folder / "state.db").write_bytes(history.read_bytes())
    (folder / "state.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert len(eventstore("log", "--db", folder / "state.db").lines) == 9
    finally:
        folder.chmod(0o755)


# Beside others


@pytest.fixture
def two_events(tmp_path):
    path = tmp_path / "state.duckdb"
    with writing(f"duckdb:///{path}") as (store, _):
        store.append(SHOP, saved("orders", {"cursor": 1}), saved("orders", {"cursor": 2}))
    return path


def test_two_readers_can_have_a_duckdb_file_open_at_once(two_events):
    with duckdb.connect(two_events, read_only=True) as other:
        assert other.sql("SELECT count(*) FROM _eventstore_events").fetchone() == (2,)
        assert len(run("log", "--db", two_events).lines) == 2


def test_a_duckdb_file_that_is_being_written_is_refused_at_once_in_one_line(two_events):
    with duckdb.connect(two_events):
        process = start("log", "--db", two_events)
        try:
            process.wait(10)
        finally:
            process.kill()
        refused = done(process.returncode, process.stdout.read(), process.stderr.read())
    assert (refused.code, refused.out) == (1, "")
    [error] = refused.complaints
    assert error.startswith("eventstore: ")
    assert "lock" in error


def test_a_sqlite_file_can_be_read_while_states_are_recorded(tmp_path, eventstore):
    path = tmp_path / "state.db"
    process = start("record", "--db", path, "--source", "source-shop")
    process.stdin.write(envelope(stream_state("orders", {"cursor": 1})).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()
    for command in COMMANDS:
        if "@3" not in command:
            assert eventstore(*command, "--db", path).code == 0
    assert finish(process, envelope(stream_state("orders", {"cursor": 2})).encode()).code == 0
    assert len(eventstore("log", "--db", path).lines) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


def test_a_sqlite_file_that_a_process_left_behind_can_be_read(tmp_path, eventstore):
    """A killed writer leaves a write-ahead log; what is in it belongs to the history."""
    path = tmp_path / "state.db"
    process = start("record", "--db", path, "--source", "source-shop")
    process.stdin.write(envelope(stream_state("orders", {"cursor": 1})).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()
    process.kill()
    finish(process)
    assert len(eventstore("log", "--db", path).lines) == 1
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_tables_that_pyairbyte_made_are_not_taken_over_by_reading(tmp_path, eventstore):
    path = tmp_path / "cache.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE _airbyte_state (source_name, stream_name, table_name, state_json)")
    before = contents(tmp_path)
    refused = eventstore("state", "--db", path)
    assert refused.code == 1
    assert "no event store" in refused.err
    assert contents(tmp_path) == before
