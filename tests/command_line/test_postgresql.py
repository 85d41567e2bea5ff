"""The command on PostgreSQL: a URL, and a schema of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from tests.command_line.shell import run

FAKER = (Path(__file__).parent / "data" / "faker.jsonl").read_bytes()


@pytest.fixture(scope="module")
def recorded(postgresql):
    """A database whose log is in the schema `My History`, recorded by a process."""
    admin = create_engine(postgresql.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as db:
        db.exec_driver_sql("CREATE DATABASE command_line STRATEGY FILE_COPY")
    admin.dispose()
    url = postgresql.url("command_line")
    engine = create_engine(url)
    with engine.begin() as db:
        db.exec_driver_sql('CREATE SCHEMA "My History"')
    engine.dispose()
    done = run(
        *("record", "--db", url, "--schema", "My History", "--source", "source-faker"), stdin=FAKER
    )
    assert (done.code, done.raw) == (0, FAKER)
    return url


def test_the_tables_are_in_the_schema_alone(recorded):
    engine = create_engine(recorded)
    tables = inspect(engine)
    assert "_eventstore_events" in tables.get_table_names("My History")
    assert tables.get_table_names("public") == []
    engine.dispose()


@pytest.mark.parametrize(
    "command",
    [
        "pipelines",
        "log",
        "show @1",
        "state",
        "state --at @-1",
        "catalog",
        "diff @1 now",
        "blame",
        "rebuild",
    ],
)
def test_every_command_finds_the_schema(command, recorded, eventstore):
    done = eventstore(*command.split(), "--db", recorded, "--schema", "My History")
    nothing = "eventstore: no catalog of source-faker -> cache yet\n"
    assert (done.code, done.err) == (0, nothing if command == "catalog" else "")
    assert done.out


def test_the_url_may_come_from_the_environment(recorded, eventstore, monkeypatch):
    monkeypatch.setenv("EVENTSTORE_DB", recorded)
    states = json.loads(eventstore("state", "--schema", "My History").out)
    assert {state["stream"]["stream_descriptor"]["name"] for state in states} == {
        "products",
        "users",
        "purchases",
    }


def test_a_server_that_does_not_answer_is_an_error_in_one_line(eventstore):
    refused = eventstore("log", "--db", "postgresql://user:secret@127.0.0.1:1/db")
    assert (refused.code, refused.out) == (1, "")
    [error] = refused.complaints
    assert error.startswith("eventstore: ")
    assert "secret" not in error
