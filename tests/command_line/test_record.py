"""`record`: every line goes on as it came, and each STATE is stored before its line leaves."""

from __future__ import annotations

import getpass
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventstore import Pipeline, StreamDescriptor
from projections import connect, latest_state
from tests.command_line.histories import events_in
from tests.command_line.shell import Done, finish, run, run_in_bash, start
from tests.messages import envelope, global_state, inner_state, legacy_state, stream_state

DATA = Path(__file__).parent / "data"
FAKER = (DATA / "faker.jsonl").read_bytes()
DECLARATIVE = (DATA / "declarative.jsonl").read_bytes()
CATALOG = DATA / "catalog.json"

OPENING, CLOSING = b'{"type":"STATE","state":', b"}\n"

_A_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Recorded:
    """What was given to `record`, what it left, and where."""

    lines: bytes
    done: Done
    database: Path

    @property
    def bodies(self) -> list[bytes]:
        return [stored.body for stored in events_in(self.database)]


def record(folder: Path, lines: bytes, *options: object, name: str = "state.db") -> Recorded:
    database = folder / name
    options = options if "--source" in options else ("--source", "source-shop", *options)
    return Recorded(lines, run("record", "--db", database, *options, stdin=lines), database)


def states_in(lines: bytes) -> list[bytes]:
    """Cut out the states, as these two connectors write them."""
    return [
        line.removeprefix(OPENING).removesuffix(CLOSING)
        for line in lines.splitlines(keepends=True)
        if line.startswith(OPENING)
    ]


# What a connector put out


@pytest.fixture(scope="module", params=[FAKER, DECLARATIVE], ids=["faker", "declarative"])
def captured(request, tmp_path_factory):
    return record(tmp_path_factory.mktemp("captured"), request.param)


def test_a_connectors_output_is_passed_on_byte_for_byte(captured):
    assert captured.done.raw == captured.lines
    assert captured.done.code == 0


def test_each_state_of_a_connector_is_stored_with_the_bytes_of_its_line(captured):
    assert len(captured.bodies) == 7
    assert captured.bodies == states_in(captured.lines)


def test_states_are_saved_unless_they_are_said_to_be_emitted(captured):
    assert {stored.kind for stored in events_in(captured.database)} == {"StateSaved"}


def test_the_state_is_then_the_newest_of_each_stream(captured, eventstore):
    newest = {}
    for state in map(json.loads, states_in(captured.lines)):
        newest[state["stream"]["stream_descriptor"]["name"]] = state
    shown = json.loads(eventstore("state", "--db", captured.database).out)
    assert {state["stream"]["stream_descriptor"]["name"]: state for state in shown} == newest


def test_the_report_on_stderr_counts_states_and_lines(captured):
    [report] = captured.done.complaints
    assert report.startswith("eventstore: ")
    assert "7 states" in report
    assert f"{len(captured.lines.splitlines())} lines" in report


def test_it_is_the_end_of_a_real_pipe(tmp_path):
    script = f"cat {DATA / 'faker.jsonl'} | eventstore record --db state.db --source s | cat"
    piped = run_in_bash(script, tmp_path)
    assert piped.raw == FAKER
    assert [stored.body for stored in events_in(tmp_path / "state.db")] == states_in(FAKER)


# Ways to write a state


def _stream_state(name: str) -> str:
    return stream_state(name, {"cursor": 1})


WRITTEN = {
    "its type stands last": '{"state":%s,"type":"STATE"}',
    "its type is written with an escape": '{"type":"ST\\u0041TE","state":%s}',
    "the word type is written with an escape": '{"t\\u0079pe":"STATE","state":%s}',
    "the word state is written with an escape": '{"type":"STATE","st\\u0061te":%s}',
    "every letter is an escape": '{"\\u0074\\u0079\\u0070\\u0065":"\\u0053TATE","state":%s}',
    "there is space wherever it may be": ' \t{ "type" :\t"STATE" , "state" : %s } ',
    "there are more keys in its envelope": '{"id":{"state":{}},"type":"STATE","state":%s,"at":1}',
    "its line ends like on Windows": '{"type":"STATE","state":%s}\r',
}

BODIES = {
    "its numbers and escapes are unusual": (
        '{"type":"STREAM","stream":{"stream_descriptor":{"name":"exact"},"stream_state":{'
        '"int":123456789012345678901234567890,"decimal":0.1234567890123456789012,"e":1E5,'
        '"none":null,"z":1,"a":2,"text":"\\u00e9\\/","braces":"}{"}}}'
    ),
    "its own type is written with an escape": (
        '{"type":"STR\\u0045AM","stream":{"stream_descriptor":{"name":"e"},"stream_state":{}}}'
    ),
    "it is longer than what is read at once": stream_state("long", {"x": "y" * _A_MEGABYTE}),
    "it has statistics and an id": (
        '{"type":"STREAM","stream":{"stream_descriptor":{"name":"s"},"stream_state":{"c":1}},'
        '"sourceStats":{"recordCount":12.0},"destinationStats":{"recordCount":11.0},"id":3899}'
    ),
    "it asks to reset its stream": stream_state("reset", None),
    "it is global": global_state({"lsn": 1}, inner_state("users", {"x": 1}, "public")),
    "it is legacy": legacy_state({"users": {"cursor": "3"}}),
    "it has no type": '{"data":{"users":{"cursor":"4"}}}',
}

NO_STATES = {
    "a record that speaks of STATE": '{"type":"RECORD","record":{"data":{"x":"STATE"}}}',
    "a record that holds a state": (
        '{"type":"RECORD","record":{"stream":"s","data":' + envelope(_stream_state("s")) + "}}"
    ),
    "a state whose type is not STATE": envelope(_stream_state("s")).replace("STATE", "TRACE", 1),
    "a log message that quotes a state": json.dumps(
        {"type": "LOG", "log": {"level": "INFO", "message": envelope(_stream_state("s"))}}
    ),
    "a record longer than what is read at once": json.dumps(
        {"type": "RECORD", "record": {"data": {"STATE": '"STATE"' * 400_000}}}
    ),
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Every form of a state and of what is none, in one go; the last line has no newline."""
    lines = [form % _stream_state(name) for name, form in WRITTEN.items()]
    lines += [envelope(body) for body in BODIES.values()]
    lines += NO_STATES.values()
    lines.append(envelope(_stream_state("the last line has no newline")))
    return record(tmp_path_factory.mktemp("forms"), "\n".join(lines).encode())


def test_no_form_of_a_line_is_changed_on_its_way(forms):
    assert forms.done.raw == forms.lines
    assert forms.done.code == 0


@pytest.mark.parametrize("name", [*WRITTEN, "the last line has no newline"])
def test_a_state_is_found_and_cut_out_although(name, forms):
    assert _stream_state(name).encode() in forms.bodies


@pytest.mark.parametrize("name", BODIES)
def test_a_state_is_stored_byte_for_byte_although(name, forms):
    assert BODIES[name].encode() in forms.bodies


def test_nothing_else_is_taken_for_a_state(forms):
    assert len(forms.bodies) == len(WRITTEN) + len(BODIES) + 1


# Lines that are not as they should be


BLANK = ["", "   ", "\r"]
NO_JSON = ["Traceback (most recent call last):", "{'python': 'repr'}", "{oops}", '{"type":"RECORD"']
INVALID = [
    '{"type":"STATE"}',
    '{"type":"STATE","state":null}',
    '{"type":"STATE","state":{}}',
    envelope('{"type":"STREAM","stream":{"stream_state":{}}}'),
    envelope('{"type":"STREAM","stream":{"stream_descriptor":{"name":"s"},"stream_state":"1"}}'),
    envelope('{"type":"GLOBAL"}'),
    envelope(stream_state("s", {"x": 1}).replace("1", "NaN")),
    envelope(stream_state("n" * 256, {})),
    envelope(stream_state("s", {"cursor": 1}))[:-2],
]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """Lines of every kind of trouble, each followed by a good state."""
    good = envelope(_stream_state("good"))
    lines = [line for trouble in [*BLANK, *NO_JSON, *INVALID] for line in (trouble, good)]
    return record(tmp_path_factory.mktemp("spoiled"), ("\n".join(lines) + "\n").encode())


def test_lines_in_trouble_are_passed_on_all_the_same(spoiled):
    assert spoiled.done.raw == spoiled.lines


def test_states_around_lines_in_trouble_are_recorded(spoiled):
    good = [_stream_state("good").encode()]
    assert spoiled.bodies == good * len([*BLANK, *NO_JSON, *INVALID])


def test_an_invalid_state_makes_the_exit_code_one(spoiled):
    assert spoiled.done.code == 1


def test_invalid_states_are_counted_and_each_is_named_with_its_line(spoiled):
    assert f"invalid and not recorded: {len(INVALID)} states" in spoiled.done.err
    first = 2 * len([*BLANK, *NO_JSON]) + 1
    for place in range(len(INVALID)):
        assert f"eventstore: line {first + 2 * place}: " in spoiled.done.err


def test_lines_that_are_no_json_are_counted_and_blank_ones_are_not(spoiled):
    assert f"no JSON: {len(NO_JSON)} lines" in spoiled.done.err


def test_lines_that_are_no_json_are_no_failure(tmp_path):
    recorded = record(tmp_path, b"Killed\n")
    assert (recorded.done.raw, recorded.done.code) == (b"Killed\n", 0)
    assert "no JSON" in recorded.done.err


def test_lines_from_brace_to_brace_that_are_no_states_are_not_judged(tmp_path):
    lines = DECLARATIVE + b'{"type":"RECORD","record":{"data":{"x":NaN}}}\n'
    recorded = record(tmp_path, lines)
    assert (recorded.done.raw, recorded.done.code) == (lines, 0)
    assert "no JSON" not in recorded.done.err


# What is said about the states


@pytest.fixture(scope="module")
def attributed(tmp_path_factory):
    options = ["--destination", "destination-lake", "--connection", "account b"]
    options += ["--actor", "maria", "--run", "8812", "--reason", "by hand", "--catalog", CATALOG]
    return record(tmp_path_factory.mktemp("attributed"), FAKER, *options)


def test_states_are_recorded_for_the_pipeline_that_was_named(attributed):
    named = Pipeline("source-shop", "destination-lake", connection="account b")
    assert {stored.pipeline for stored in events_in(attributed.database)} == {named}


def test_every_event_says_who_why_and_in_which_run(attributed):
    said = {(stored.actor, stored.reason, stored.run) for stored in events_in(attributed.database)}
    assert said == {("maria", "by hand", "8812")}


def test_a_catalog_is_registered_before_the_first_state(attributed):
    kinds = [stored.kind for stored in events_in(attributed.database)]
    streams = json.loads(CATALOG.read_text())["streams"]
    registered = ["StreamDefined"] * len(streams) + ["CatalogRegistered"]
    assert kinds == registered + ["StateSaved"] * 7


def test_a_registered_catalog_is_given_back_as_it_was(attributed, eventstore):
    shown = eventstore("catalog", "--db", attributed.database)
    assert json.loads(shown.out) == json.loads(CATALOG.read_text())


def test_by_default_the_actor_is_the_user_and_each_process_is_a_run(tmp_path):
    for _ in range(2):
        recorded = record(tmp_path, FAKER, "--table-prefix", "p_")
    events = events_in(recorded.database)
    assert {stored.pipeline for stored in events} == {Pipeline("source-shop", table_prefix="p_")}
    assert {stored.actor for stored in events} == {getpass.getuser()}
    assert {stored.reason for stored in events} == {None}
    assert len({stored.run for stored in events[:7]}) == 1
    assert len({stored.run for stored in events}) == 2


def test_emitted_states_are_in_the_log_alone(tmp_path, eventstore):
    recorded = record(tmp_path, FAKER, "--emitted")
    assert recorded.done.raw == FAKER
    assert {stored.kind for stored in events_in(recorded.database)} == {"StateEmitted"}
    assert eventstore("state", "--db", recorded.database).out == "[]\n"
    with sqlite3.connect(recorded.database) as db:
        assert db.execute("SELECT count(*) FROM _airbyte_state").fetchone() == (0,)


@pytest.mark.parametrize(
    ("option", "text"),
    [("--actor", "a" * 256), ("--run", "r" * 256), ("--reason", "x" * 4001)],
)
def test_what_cannot_be_stored_is_refused_before_the_first_line_is_taken(option, text, tmp_path):
    recorded = record(tmp_path, FAKER, option, text)
    assert recorded.done.code == 2
    assert recorded.done.raw == b""
    assert option.strip("-") in recorded.done.err


def test_a_catalog_that_is_none_is_refused_before_the_first_line_is_taken(tmp_path):
    (tmp_path / "catalog.json").write_text('{"streams":[{"stream":{}}]}')
    recorded = record(tmp_path, FAKER, "--catalog", tmp_path / "catalog.json")
    assert (recorded.done.code, recorded.done.raw) == (2, b"")
    assert "streams.0" in recorded.done.err


@pytest.mark.parametrize("name", ["new.db", "new.duckdb", "a b?#%20é.db"])
def test_the_database_is_made_where_it_was_said(name, tmp_path):
    recorded = record(tmp_path, DECLARATIVE, name=name)
    assert recorded.bodies == states_in(DECLARATIVE)
    assert [path.name for path in tmp_path.iterdir()] == [name]


# Before its line leaves


def test_a_state_can_be_read_by_the_time_its_line_comes_out(tmp_path):
    database = tmp_path / "state.db"
    process = start("record", "--db", database, "--source", "source-shop")
    for cursor in range(3):
        state = stream_state("orders", {"cursor": cursor})
        process.stdin.write(envelope(state).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == envelope(state).encode() + b"\n"
        with connect(database, create=False) as store:
            now = latest_state(store, Pipeline("source-shop"))
        assert now.streams == {StreamDescriptor("orders"): state.encode()}
    assert finish(process).code == 0


def test_a_line_comes_out_as_soon_as_it_went_in(tmp_path):
    process = start("record", "--db", tmp_path / "state.db", "--source", "source-shop")
    for line in FAKER.splitlines(keepends=True):
        process.stdin.write(line[:-1])
        process.stdin.flush()
        process.stdin.write(line[-1:] + line[:9])
        process.stdin.flush()
        assert process.stdout.readline() == line
        process.stdin.write(line[9:])
        process.stdin.flush()
        assert process.stdout.readline() == line
    assert finish(process).code == 0


@pytest.mark.parametrize("name", ["state.db", "state.duckdb"])
def test_what_came_out_before_the_process_was_killed_is_stored(name, tmp_path):
    states = [stream_state("orders", {"c": c, "x": "x" * 1000}) for c in range(1000)]
    lines = [envelope(state).encode() + b"\n" for state in states]
    (tmp_path / "lines.jsonl").write_bytes(b"".join(lines))
    with (tmp_path / "lines.jsonl").open("rb") as source:
        process = start("record", "--db", tmp_path / name, "--source", "s", stdin=source)
    came_out = [process.stdout.readline() for _ in range(100)]
    process.kill()
    finish(process)
    assert came_out == lines[:100]
    stored = [event.body.decode() for event in events_in(tmp_path / name)]
    assert stored[:100] == states[:100]


@pytest.mark.parametrize("url", ["sqlite://", "duckdb:///:memory:"])
def test_a_database_that_ends_with_the_command_is_refused(url, eventstore):
    done = eventstore("record", "--source", "source-shop", "--db", url)
    assert done.code == 2
    assert "is in memory" in done.err
