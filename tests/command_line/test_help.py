"""Every command and option is explained."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from tests.command_line.shell import run, run_on_terminal

ONE_PIPELINE = {"--source", "--destination", "--table-prefix", "--connection"}
DATABASE = {"--db", "EVENTSTORE_DB", "--schema"}

CHANGE = {"--reason", "--actor", "--expect", "--dry-run", "--yes", "--json"}
OTHER = {"--to-source", "--to-destination", "--to-table-prefix", "--to-connection"}
OPTIONS = {
    "record": DATABASE
    | ONE_PIPELINE
    | {"--catalog", "--actor", "--run", "--reason", "--emitted", "--exclusive"},
    "pipelines": DATABASE | {"--json"},
    "log": DATABASE
    | ONE_PIPELINE
    | {"--stream", "--namespace", "--since", "--until", "--kind", "--actor", "--run"}
    | {"--changed", "-n", "--follow", "--json"},
    "show": DATABASE | ONE_PIPELINE | {"@VERSION", "--json"},
    "state": DATABASE | ONE_PIPELINE | {"--at", "--form", "--table", "--json"},
    "catalog": DATABASE | ONE_PIPELINE | {"--at", "--table"},
    "diff": DATABASE
    | ONE_PIPELINE
    | {"--other-source", "--other-destination", "--other-table-prefix", "--other-connection"}
    | {"A", "B", "--catalog", "--stat", "--json", "--json-patch"},
    "blame": DATABASE | ONE_PIPELINE | {"--at", "--stream", "--namespace", "--json"},
    "doctor": DATABASE | ONE_PIPELINE | {"--json"},
    "rewind": DATABASE | ONE_PIPELINE | CHANGE | {"WHEN", "--stream", "--namespace"},
    "clear": DATABASE | ONE_PIPELINE | CHANGE | {"--stream", "--namespace"},
    "set": DATABASE | ONE_PIPELINE | CHANGE | {"FILE"},
    "copy": DATABASE | ONE_PIPELINE | CHANGE | OTHER | {"--at"},
    "move": DATABASE | ONE_PIPELINE | CHANGE | OTHER,
    "rebuild": DATABASE,
    "verify": DATABASE | ONE_PIPELINE | {"--checkpoint", "--key", "--processes", "--json"},
    "checkpoint": DATABASE | {"FILE", "--key", "--previous", "--public"},
    "keygen": {"FILE"},
    "erase": DATABASE
    | ONE_PIPELINE
    | {"@VERSION", "--stream", "--namespace", "--before", "--reapply", "--reason", "--actor"}
    | {"--dry-run", "--yes", "--json"},
    "retention": DATABASE
    | ONE_PIPELINE
    | {"--keep", "--reason", "--actor", "--dry-run", "--yes", "--json"},
    "export": DATABASE | ONE_PIPELINE | {"FILE"},
    "import": DATABASE | {"FILE"},
    "demo": set(),
}


def test_the_command_alone_prints_help():
    alone = run()
    assert (alone.code, alone.err) == (0, "")
    assert all(command in alone.out for command in OPTIONS)


@pytest.mark.parametrize("columns", [80, 60])
def test_help_lists_every_command(columns):
    listed = run_on_terminal("--help", columns=columns)
    assert listed.code == 0
    for command in OPTIONS:
        assert f"\n  {command} " in listed.out.replace("\r", "")
    assert "..." not in listed.out.partition("Commands:")[2]  # each is told in a whole sentence


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_names_every_option(command, eventstore):
    done = eventstore(command, "--help")
    assert (done.code, done.err) == (0, "")
    listed = re.search(rf"\n  {command} +(.*)\n", eventstore("--help").out)
    assert f"\n  {listed[1]}\n" in done.out
    words = done.out.replace("[", " ").replace("]", " ").replace(";", " ").split()
    assert OPTIONS[command] <= set(words)


@pytest.mark.parametrize("command", [command for command in OPTIONS if "--db" in OPTIONS[command]])
def test_help_says_how_to_name_a_database(command, eventstore):
    text = eventstore(command, "--help").out
    assert "SQLite" in text
    assert "DuckDB" in text
    assert "URL" in text


def test_h_is_help_and_the_version_is_told(eventstore):
    assert eventstore("log", "-h").out == eventstore("log", "--help").out
    assert eventstore("--version").out == f"eventstore {version('airbyte-eventstore')}\n"
