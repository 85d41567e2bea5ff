"""What the commands say that tell what happened."""

from __future__ import annotations

import json
import os
import pty
import signal
import time

import jsonpatch
import pytest

from eventstore import Pipeline
from projections import connect, register_catalog
from projections.rewind import rewind
from tests.command_line.histories import SHOP, STATES, tallied
from tests.command_line.shell import finish, start
from tests.messages import catalog, configured_stream, saved


def rows(done) -> list[list[str]]:
    assert (done.code, done.err) == (0, "")
    return [line.split("\t") for line in done.lines]


def json_lines(done) -> list[dict]:
    return [json.loads(line) for line in done.lines]


@pytest.fixture(params=["sqlite", "duckdb"])
def wrong(request, tmp_path):
    """A history in which a cursor goes backwards."""
    path = tmp_path / "state.db"
    with connect(f"{request.param}:///{path}") as store:
        for number in (1, 3, 2):
            state = saved("orders", {"at": f"2026-11-2{number}", "seed": 7})
            store.append(SHOP, state, actor="maria", run=str(number), reason="why")
        defined = configured_stream("orders", columns=["id", "name"])
        register_catalog(store, SHOP, catalog(defined))
        register_catalog(store, SHOP, catalog(configured_stream("orders")))
    return path


# log


def test_log_says_what_moved_and_marks_what_looks_wrong(wrong, eventstore):
    what = [row[5] for row in rows(eventstore("log", "--db", wrong, "--kind", "StateSaved"))]
    assert what == [
        '{"at":"2026-11-21","seed":7}',
        "at 2026-11-21 -> 2026-11-23",
        "! at went backwards: 2026-11-23 -> 2026-11-22",
    ]


def test_log_says_how_a_definition_changed(wrong, eventstore):
    what = [row[5] for row in rows(eventstore("log", "--db", wrong, "--kind", "StreamDefined"))]
    assert what == ["incremental, 2 fields", "-name (breaking)"]


@pytest.mark.parametrize(
    ("options", "versions"),
    [
        (["--changed", "at"], ["@1", "@2", "@3"]),
        (["--changed", "seed"], ["@1"]),
        (["--changed", "at", "-n", "1"], ["@3"]),
        (["--changed", "at", "--run", "3"], ["@2"]),
        (["--changed", "a"], []),
    ],
    ids=" ".join,
)
def test_log_finds_the_events_that_changed_a_field(options, versions, wrong, eventstore):
    done = eventstore("log", "--db", wrong, *options)
    assert [line.split("\t")[0] for line in done.lines] == versions
    in_json = json_lines(eventstore("log", "--db", wrong, *options, "--json"))
    assert [f"@{event['version']}" for event in in_json] == versions


# log --follow


def read_lines(process, number):
    return [process.stdout.readline().decode() for _ in range(number)]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["people", "json"])
def test_follow_prints_what_is_there_and_then_what_is_new(form, kind, tmp_path):
    path = tmp_path / "state.db"
    with connect(f"{kind}:///{path}") as store:
        store.append(SHOP, saved("orders", {"a": 1}), saved("users", {"b": 1}))
    process = start("log", "--db", path, "--follow", "--stream", "orders", *form)
    [there] = read_lines(process, 1)
    append_patiently(path, saved("users", {"b": 2}), saved("orders", {"a": 2}))
    [new] = read_lines(process, 1)
    append_patiently(path, saved("orders", {"a": 3}))
    [newer] = read_lines(process, 1)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.code, done.out, done.err) == (0, "", "")
    if form:
        assert [json.loads(line)["version"] for line in (there, new, newer)] == [1, 4, 5]
    else:
        assert [line.split("\t")[0] for line in (there, new, newer)] == ["@1", "@4", "@5"]
        assert "a 1 -> 2" in new
        assert "a 2 -> 3" in newer


def append_patiently(path, *events):
    """DuckDB's file is open in one process at a time."""
    for attempt in range(100):
        try:
            with connect(path) as store:
                store.append(SHOP, *events)
        except Exception:
            if attempt == 99:
                raise
            time.sleep(0.1)
        else:
            return


def test_follow_on_a_terminal_makes_room_for_what_comes(tmp_path):
    def shown_up_to(end: bytes) -> list[str]:
        shown = b""
        while end not in shown:
            shown += os.read(ours, 1 << 16)
        return shown.decode().splitlines()

    ours, theirs = pty.openpty()
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, saved("a", {"n": 1}), run="1")
        process = start("log", "--db", tmp_path / "state.db", "--follow", stdout=theirs)
        os.close(theirs)
        told, headings, _ = shown_up_to(b'{"n":1}\r\n')
        store.append(SHOP, saved("a_longer_name", {"n": 1}), run="2")
        wider, *group, row = shown_up_to(b'{"n":1}\r\n')
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 0
    os.close(ours)
    assert str(SHOP) in told
    assert (headings.split(), headings.index("what")) == (wider.split(), wider.index("what") - 7)
    assert "run 2" in group[0]
    assert "  a_longer_name  " in row


def test_follow_ends_when_nobody_reads_any_more(history):
    process = start("log", "--db", history, "--follow")
    read_lines(process, 1)
    process.stdout.close()
    assert process.wait(timeout=30) == 1
    assert process.stderr.read() == b""


# diff


def test_diff_as_a_json_patch_makes_of_one_state_file_the_other(history, eventstore):
    before, after = (
        json.loads(eventstore("state", "--db", history, "--at", at).out) for at in ("@1", "@9")
    )
    [patch] = json_lines(eventstore("diff", "@1", "@9", "--db", history, "--json-patch"))
    assert jsonpatch.apply_patch(before, patch) == after == list(map(json.loads, STATES[9]))


def test_diff_counts_differences(history, eventstore):
    stat = ["diff", "@1", "@9", "--db", history, "--stat"]
    assert rows(eventstore(*stat)) == [["0", "0", "1", "orders"], ["1", "0", "0", "audit.users"]]
    first = json_lines(eventstore(*stat, "--json"))[0]
    assert first == {"namespace": None, "stream": "orders", "added": 0, "removed": 0, "changed": 1}


def test_diff_compares_catalogs(wrong, eventstore):
    compare = ["diff", "@5", "now", "--db", wrong, "--catalog"]
    assert rows(eventstore(*compare)) == [
        ["removed", "breaking", "orders", "field", "name", "string -> none"]
    ]
    assert json_lines(eventstore(*compare, "--json")) == [
        {
            "change": "removed",
            "namespace": None,
            "stream": "orders",
            "what": "field",
            "path": "name",
            "before": "string",
            "after": None,
            "breaking": True,
        }
    ]


def test_diff_compares_two_pipelines(crowd, eventstore):
    first = ["--source", "source-shop", "--destination", "", "--table-prefix", ""]
    other = ["--other-destination", "destination-lake", "--other-connection", "b"]
    done = eventstore("diff", "now", "@1", "--db", crowd, *first, *other)
    assert [row[:2] for row in rows(done)] == [["removed", "orders"], ["added", "audit.users"]]
    same = eventstore(
        "diff", "@1", "@1", "--db", crowd, *first, *other[:2], "--other-connection", ""
    )
    assert same.err == "nothing differs between @1 and @1 of the other\n"


# blame


def test_blame_says_who_set_each_value(wrong, eventstore):
    at, seed = rows(eventstore("blame", "--db", wrong))
    assert at[0] == "@3"
    assert at[2:] == ["orders", "at", '"2026-11-22"', "maria", "2", "why"]
    assert [seed[0], *seed[2:5]] == ["@1", "orders", "seed", "7"]


def test_blame_as_json_has_stable_names(wrong, eventstore):
    at, _ = json_lines(eventstore("blame", "--db", wrong, "--at", "@2", "--json"))
    assert at.pop("stored_at").endswith("Z")
    assert at == {
        "namespace": None,
        "stream": "orders",
        "path": "at",
        "value": "2026-11-23",
        "version": 2,
        "actor": "maria",
        "run": "3",
        "reason": "why",
    }


def test_blame_of_one_stream_tells_of_no_other(history, eventstore):
    done = eventstore("blame", "--db", history, "--stream", "users", "--namespace", "audit")
    assert [row[2] for row in rows(done)] == ["audit.users"]
    assert eventstore("blame", "--db", history, "--stream", "audit.users").out == done.out


# doctor

HINT = "not looked at: the chain of hashes; see eventstore verify\n"


def test_doctor_says_what_looks_wrong_and_fails(wrong, eventstore):
    done = eventstore("doctor", "--db", wrong)
    assert (done.code, done.err) == (1, HINT)
    assert done.lines == [f"@3\torders\tat went backwards: 2026-11-23 -> 2026-11-22\t{SHOP}"]
    [finding] = json_lines(eventstore("doctor", "--db", wrong, "--json"))
    assert (finding["source"], finding["version"]) == ("source-shop", 3)
    assert (finding["stream"], finding["what"]) == ("orders", "cursor went backwards")


def test_doctor_finds_records_that_were_not_written_and_log_marks_them(tmp_path, eventstore):
    database = ("--db", tmp_path / "state.db")
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, tallied("orders", {"at": 1}, 120, 120))
        store.append(SHOP, tallied("orders", {"at": 2}, 120, 0))
        rewind(store, SHOP, 1, reason="wrote no orders")
    done = eventstore("doctor", *database)
    assert (done.code, done.lines) == (1, [f"@2\torders\t0 of 120 records written\t{SHOP}"])
    assert [row[5] for row in rows(eventstore("log", *database))] == [
        '{"at":1} (120 records, 120 written)',
        "! 0 of 120 records written; at 1 -> 2",
        "at 2 -> 1 (120 records, 120 written)",
    ]


def test_doctor_finds_nothing_in_a_history_like_any_other(tmp_path, eventstore):
    with connect(tmp_path / "state.db") as store:
        store.append(Pipeline("source-shop"), saved("orders", {"a": 1}))
    done = eventstore("doctor", "--db", tmp_path / "state.db")
    assert (done.code, done.out, done.err) == (0, "", f"nothing looks wrong\n{HINT}")
    in_json = eventstore("doctor", "--db", tmp_path / "state.db", "--json")
    assert (in_json.code, in_json.out, in_json.err) == (0, "", "")


def test_what_is_typed_is_no_sql(wrong, eventstore):
    typed = "'; DROP TABLE _eventstore_events; --"
    for command in (["log", "--changed", typed], ["blame", "--stream", typed]):
        assert eventstore(*command, "--db", wrong).out == ""
    assert len(eventstore("log", "--db", wrong).lines) == 7
