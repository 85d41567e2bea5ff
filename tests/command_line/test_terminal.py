"""On a terminal tables that fit, in a pipe plain lines, and nowhere what could steer a terminal."""

from __future__ import annotations

import re
import sqlite3
from datetime import timedelta
from shutil import copy

import pytest
from rich.cells import cell_len

from eventstore import Pipeline, StateSaved
from eventstore.tables import events
from projections import connect, register_catalog
from tests.command_line.histories import tallied, write_crowd, write_history, writing
from tests.command_line.shell import run, run_in_bash, run_on_terminal
from tests.messages import catalog, configured_stream, envelope, saved, stream_state
from tests.tampering import tampering

LONG = Pipeline("source-postgres-production-eu-west-1", "destination-snowflake-analytics")
LONG_STREAM = "order_line_items_with_a_name_as_long_as_they_are_in_erp_systems"


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """A log of several pipelines, one of a single pipeline, and one whose names are all long."""
    folder = tmp_path_factory.mktemp("terminal")
    write_crowd(f"sqlite:///{folder / 'crowd'}")
    write_history(f"sqlite:///{folder / 'history'}")
    with writing(f"sqlite:///{folder / 'long'}") as (store, _):
        for cursor in range(12):
            store.append(
                LONG,
                saved(LONG_STREAM, {"cursor": cursor, "text": "日本語 " * 50}, "public_production"),
                actor="airflow-scheduler@worker-17.eu-west-1.compute.internal",
                run=f"scheduled__2026-11-20T00:00:{cursor:02}+00:00",
                reason="the nightly run, started by hand since the scheduler was down",
            )
        register_catalog(store, LONG, catalog(configured_stream(LONG_STREAM, "public_production")))
    return folder


def rows_shown(done, columns: int) -> list[str]:
    assert done.code == 0
    for line in done.lines:
        assert cell_len(line) <= columns, line
        assert line.isprintable()
    return done.lines[1:]


@pytest.fixture(scope="module")
def incident(tmp_path_factory):
    """Three runs, the last started by hand."""
    path = tmp_path_factory.mktemp("incident") / "state.db"
    pipeline = Pipeline("source-postgres", "destination-snowflake")
    with writing(f"sqlite:///{path}") as (store, clock):
        for day, (run_id, reason) in enumerate([("a1", None), ("a2", None), ("a3", "by hand")], 1):
            clock.now += timedelta(hours=19)
            state = tallied("orders", {"updated_at": f"2026-11-{20 + day}T02:00:00Z"}, 120, 120)
            said = {"actor": "airflow", "run": f"scheduled-{run_id}", "reason": reason}
            store.append(pipeline, saved("users", {"page": day}), state, **said)
    return path


def test_at_80_columns_nothing_of_an_event_is_cut(incident):
    assert run_on_terminal("log", "--db", incident).lines == [
        "source-postgres -> destination-snowflake  by airflow",
        "version  stored at  event       stream  what",
        "-- 2026-01-01  run scheduled-a1",
        '@1       19:00:00Z  StateSaved  users   {"page":1}',
        '@2       19:00:00Z  StateSaved  orders  {"updated_at":"2026-11-21T02:00:00Z"}',
        "                                        (120 records, 120 written)",
        "-- 2026-01-02  run scheduled-a2",
        "@3       14:00:00Z  StateSaved  users   page 1 -> 2",
        "@4       14:00:00Z  StateSaved  orders  updated_at 2026-11-21T02:00:00Z ->",
        "                                        2026-11-22T02:00:00Z (120 records, 120",
        "                                        written)",
        "-- 2026-01-03  run scheduled-a3  reason: by hand",
        "@5       09:00:00Z  StateSaved  users   page 2 -> 3",
        "@6       09:00:00Z  StateSaved  orders  updated_at 2026-11-22T02:00:00Z ->",
        "                                        2026-11-23T02:00:00Z (120 records, 120",
        "                                        written)",
    ]


def test_at_60_columns_what_moved_stands_beneath_its_event(incident):
    assert run_on_terminal("log", "--db", incident, "-n", "1", columns=60).lines == [
        "2026-01-03  source-postgres -> destination-snowflake  by",
        "    airflow  run scheduled-a3  reason: by hand",
        "version  stored at  event       stream",
        "@6       09:00:00Z  StateSaved  orders",
        "    updated_at 2026-11-22T02:00:00Z -> 2026-11-23T02:00:00Z",
        "    (120 records, 120 written)",
    ]


def test_blame_fits_and_says_once_what_values_have_in_common(incident):
    assert run_on_terminal("blame", "--db", incident).lines == [
        "2026-01-03  by airflow  run scheduled-a3  reason: by hand",
        "version  stored at  stream  path        value",
        "@5       09:00:00Z  users   page        3",
        '@6       09:00:00Z  orders  updated_at  "2026-11-23T02:00:00Z"',
    ]


def test_verify_folds_the_names_of_a_pipeline(incident):
    assert run_on_terminal("verify", "--db", incident, columns=60).lines == [
        "found  last good  checkpoint  pipeline",
        "whole  @6         none        source-postgres ->",
        "                              destination-snowflake",
    ]


def test_what_verify_found_stands_beneath_where_names_would_be_broken(incident, tmp_path):
    copy(incident, tmp_path / "state.db")
    with connect(tmp_path / "state.db") as store, tampering(store.database.engine) as db:
        db.execute(events.update().where(events.c.version == 2).values(actor="mallory"))
    verify = ("verify", "--db", tmp_path / "state.db")
    assert run_on_terminal(*verify, columns=72).lines[:5] == [
        "found    last good  first bad  checkpoint  pipeline",
        "altered  @1         @2         none        source-postgres ->",
        "                                           destination-snowflake",
        "    what: @2 has a hash that does not follow from its columns and the",
        "    event before",
    ]


def test_a_value_of_many_lines_is_cut_and_stays_reachable(tmp_path, eventstore):
    database = ("--db", tmp_path / "state.db")
    with writing(f"sqlite:///{tmp_path / 'state.db'}") as (store, _):
        store.append(Pipeline("s"), saved("orders", {"x": "x" * 10_000, "end": 1}))
    shown = run_on_terminal("log", *database).lines
    assert len(shown) == 6
    assert shown[-1].endswith("x…")
    for command in (["log"], ["log", "--json"], ["show", "@1"]):
        assert "end" in eventstore(*command, *database).out


@pytest.mark.parametrize("columns", [80, 60, 40])
@pytest.mark.parametrize("name", ["crowd", "long"])
@pytest.mark.parametrize("command", ["pipelines", "log"])
def test_a_table_fits_and_versions_and_times_stay_readable(
    command, name, columns, databases, eventstore
):
    shown = run_on_terminal(command, "--db", databases / name, columns=columns)
    plain = eventstore(command, "--db", databases / name)
    rows = [row for row in rows_shown(shown, columns) if row.startswith("@")]
    assert len(rows) == len(plain.lines)
    for row, line in zip(rows, plain.lines, strict=True):
        version, time = re.match(r"(@\d+)\t\S+[ T](\d\d:\d\d:\d\d)", line).groups()
        assert version in row.split()
        assert time in row


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("state --table", ["pub", "order"]),
        ("catalog --table", ["pub"]),
        ("diff @1 @-1", ["changed", "pub"]),
        ("blame", ["@12"]),
    ],
)
def test_other_tables_fit_on_a_narrow_terminal(command, words, databases):
    shown = run_on_terminal(*command.split(), "--db", databases / "long", columns=40)
    rows = rows_shown(shown, 40)
    assert rows
    for word in words:
        assert any(word in row for row in rows)


@pytest.mark.parametrize("columns", [0, 1, 12])
def test_a_terminal_of_a_strange_width_is_no_reason_to_fail(columns, databases):
    assert run_on_terminal("log", "--db", databases / "long", columns=columns).code == 0


def test_on_a_terminal_the_state_is_still_what_a_connector_takes(databases, eventstore):
    shown = run_on_terminal("state", "--db", databases / "history", columns=40)
    assert shown.out == eventstore("state", "--db", databases / "history").out


COMMANDS = [
    "pipelines",
    "log",
    "show @2",
    "state",
    "state --table",
    "catalog",
    "catalog --table",
    "diff @1 @2",
    "diff @1 @2 --stat",
    "diff @1 @2 --json-patch",
    "diff @1 @-1 --catalog",
    "blame",
]
JSON_COMMANDS = [
    "pipelines --json",
    "log --json",
    "show @2 --json",
    "diff @1 @2 --json",
    "diff @1 @-1 --catalog --json",
    "blame --json",
]


@pytest.mark.parametrize("colour", [{}, {"FORCE_COLOR": "1"}], ids=["", "FORCE_COLOR"])
@pytest.mark.parametrize("command", COMMANDS)
def test_in_a_pipe_lines_are_plain(command, colour, databases, eventstore, monkeypatch):
    plain = eventstore(*command.split(), "--db", databases / "long")
    for name, value in colour.items():
        monkeypatch.setenv(name, value)
    done = eventstore(*command.split(), "--db", databases / "long")
    assert "\x1b" not in done.out
    assert done.out == plain.out


# What could steer a terminal

WILD = "w\x1b[2J\x9b31m\x7f\u202e\r\n\tx"
TAME = "\x9b31m\x7f\u202e"  # what stands raw in valid JSON


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """A history whose every name could steer a terminal."""
    path = tmp_path_factory.mktemp("wild") / "wild.db"
    pipeline = Pipeline(WILD, None, WILD, WILD)
    blob = f'{{"stream_descriptor":{{"name":"raw"}},"stream_state":{{"{TAME}":"{TAME}"}}}}'
    with writing(f"sqlite:///{path}") as (store, _):
        said = {"actor": WILD, "run": WILD, "reason": WILD}
        store.append(pipeline, saved(WILD, {WILD: WILD}, WILD), **said)
        store.append(pipeline, StateSaved(f'{{"type":"STREAM","stream":{blob}}}'), **said)
        defined = configured_stream(TAME, WILD, columns=[TAME], cursor_field=[WILD])
        register_catalog(store, pipeline, catalog(defined), **said)
    return path


@pytest.mark.parametrize("command", [*COMMANDS, *JSON_COMMANDS, "state --json"])
def test_nothing_raw_reaches_the_terminal(command, wild):
    shown = run_on_terminal(*command.split(), "--db", wild, columns=200)
    assert shown.code == 0
    assert all(line.isprintable() for line in shown.lines), shown.out


@pytest.mark.parametrize(
    "command", ["state --source x", f"state --at {TAME}", TAME, f"log --{TAME}"]
)
def test_nothing_raw_reaches_the_terminal_in_an_error(command, wild, eventstore):
    done = eventstore(*command.split(" "), "--db", wild)
    assert done.code == 2
    [error] = done.complaints
    assert error.isprintable()


def test_nothing_raw_reaches_the_terminal_in_a_report(tmp_path):
    line = envelope(stream_state(TAME + "n" * 256, {"a": 1})).encode() + b"\n"
    done = run("record", "--db", tmp_path / "state.db", "--source", TAME, stdin=line)
    assert all(text.isprintable() for text in done.complaints)
    assert done.raw == line


def test_nothing_raw_reaches_the_terminal_where_something_looks_wrong(wild):
    with writing(f"sqlite:///{wild.parent / 'wrong.db'}") as (store, _):
        for number in (2, 1):
            store.append(Pipeline(WILD), saved(WILD, {WILD: number}, WILD), run=WILD)
    for command in ("log", "log --json", "doctor", "doctor --json"):
        shown = run_on_terminal(*command.split(), "--db", wild.parent / "wrong.db", columns=200)
        assert all(line.isprintable() for line in shown.lines), shown.out
        assert ("backwards" in shown.out) == (command != "log --json")


@pytest.mark.parametrize("command", ["log", "state --table", "diff @0 @2", "pipelines"])
def test_a_row_is_a_line_whatever_is_in_it(command, wild, eventstore):
    lines = eventstore(*command.split(), "--db", wild).out.split("\n")
    assert lines.pop() == ""
    assert len(lines) == {"log": 4, "pipelines": 1}.get(command, 2)
    assert len({line.count("\t") for line in lines}) == 1
    assert all(line.replace("\t", "").isprintable() for line in lines)


def test_names_that_the_terminal_cannot_show_are_no_reason_to_fail(tmp_path):
    with writing(f"sqlite:///{tmp_path / 'state.db'}") as (store, _):
        store.append(Pipeline("source-☃"), saved("☃", {"☃": "☃"}))
    for command in ("log", "state"):
        done = run(command, "--db", tmp_path / "state.db", env={"PYTHONIOENCODING": "latin-1"})
        assert done.code == 0
        assert done.out


# A pipe that breaks, a disk that is full


@pytest.fixture
def large(tmp_path):
    with writing(f"sqlite:///{tmp_path / 'state.db'}") as (store, _):
        store.append(
            Pipeline("s"), *(saved("orders", {"x": "x" * 10_000, "n": n}) for n in range(90))
        )
    return tmp_path


def test_a_reader_that_leaves_is_no_reason_to_complain(large):
    script = "eventstore log --db state.db --json | head -c 10; exit ${PIPESTATUS[0]}"
    cut = run_in_bash(script, large)
    assert cut.out == '{"source":'
    assert cut.err == ""


@pytest.mark.parametrize("output", ["> /dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_an_error_in_one_line(output, large):
    done = run_in_bash(f"eventstore log --db state.db {output}", large)
    assert done.code == 1
    assert [text[:12] for text in done.complaints] == ["eventstore: "]


def test_states_are_the_same_bytes_on_the_way_to_a_file(large):
    run_in_bash("eventstore state --db state.db > state.json", large)
    with sqlite3.connect(large / "state.db") as db:
        [(state,)] = db.execute("SELECT state_json FROM _airbyte_state")
    assert (large / "state.json").read_text() == f"[{state}]\n"
