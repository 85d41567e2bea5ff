"""`rewind`, `clear`, `set`, `copy` and `move`: shown first, asked for, and told why."""

import json
import os
import pty
import subprocess

import pytest

from eventstore import Pipeline
from projections import connect, latest_state
from projections.tables import STATE_TABLES
from tests.command_line.histories import OTHER, SHOP, STATES, events_in, write_history
from tests.command_line.shell import SCRIPT, environment, finish, run, run_on_terminal, start
from tests.messages import stream_state

WHY = ("--reason", "lost orders", "--yes")
CHANGING = [
    ("rewind", "@1"),
    ("clear",),
    ("set", "state.json"),
    ("copy", "--to-connection", "b"),
    ("move", "--to-connection", "b"),
]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A database with `write_history`, and a state in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTSTORE_DB", "state.db")
    write_history(f"sqlite:///{tmp_path / 'state.db'}")
    (tmp_path / "state.json").write_text('[{"type":"LEGACY","data":{"a":1}}]')
    return tmp_path / "state.db"


def state_in(database, pipeline=SHOP):
    with connect(database, create=False) as store:
        return [body.decode() for body in latest_state(store, pipeline).bodies]


def test_a_rewind_is_shown_and_done(eventstore, shop):
    shown = eventstore("rewind", "@5", "--dry-run")
    assert shown.lines == [f"changed\torders\tcursor\t3 -> 2\t{SHOP}"]
    assert state_in(shop) == STATES[9]
    done = eventstore("rewind", "@5", *WHY, "--actor", "maria")
    assert (done.code, done.err) == (0, "")
    assert done.lines == [*shown.lines, f"1 event appended to {SHOP}: @10"]
    restored = events_in(shop)[-1]
    assert (restored.origin, restored.of, restored.actor) == ("restored", 4, "maria")
    assert restored.reason == "lost orders"
    assert json.loads(eventstore("state").out) == [*map(json.loads, reversed(STATES[5]))]


@pytest.mark.parametrize(
    ("command", "appended"),
    [
        (CHANGING[0], [f"2 events appended to {SHOP}: @10 to @11"]),
        (CHANGING[1], [f"1 event appended to {SHOP}: @10"]),
        (CHANGING[2], [f"1 event appended to {SHOP}: @10"]),
        (CHANGING[3], [f"2 events appended to {OTHER}: @1 to @2"]),
        (
            CHANGING[4],
            [f"2 events appended to {OTHER}: @1 to @2", f"1 event appended to {SHOP}: @10"],
        ),
    ],
    ids=lambda given: given[0].partition(" ")[0],
)
def test_a_change_unasked_is_shown_and_then_what_was_done(eventstore, shop, command, appended):
    shown = eventstore(*command, "--dry-run", "--db", shop).lines
    done = eventstore(*command, *WHY, "--db", shop)
    assert (done.lines, done.err) == ([*shown, *appended], "")
    assert shown != []


def test_what_is_moved_is_shown_of_both_pipelines(shop):
    shown = run_on_terminal("move", "--to-connection", "b", "--dry-run", "--db", shop)
    assert shown.lines == [
        "change   stream       from -> to",
        f"-- {OTHER}",
        'added    audit.users  -> {"page":7}',
        'added    orders       -> {"cursor":3}',
        f"-- {SHOP}",
        'removed  audit.users  {"page":7} ->',
        'removed  orders       {"cursor":3} ->',
    ]


def test_a_rewind_of_one_stream(eventstore, shop):
    eventstore("rewind", "@1", "--stream", "orders", *WHY)
    assert sorted(state_in(shop)) == sorted([STATES[1][0], STATES[9][0]])
    there = eventstore("clear", "--stream", "users", "--namespace", "audit", *WHY)
    assert (there.code, state_in(shop)) == (0, STATES[1])


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_a_dry_run_changes_nothing(eventstore, shop, command):
    before = events_in(shop)
    done = eventstore(*command, "--dry-run")
    assert (done.code, bool(done.lines)) == (0, True)
    lines = [json.loads(line) for line in eventstore(*command, "--dry-run", "--json").lines]
    assert {line["change"] for line in lines} <= {"added", "removed", "changed"}
    assert len(lines) == len(done.lines)
    assert events_in(shop) == before


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_a_dry_run_takes_nothing_in_that_pyairbyte_has_written(eventstore, shop, command):
    theirs = {"destination_name": "destination-lake", "source_name": "s", "stream_name": "n"}
    with connect(shop) as store, store.database.engine.begin() as db:
        db.execute(STATE_TABLES[1].insert(), {**theirs, "state_json": stream_state("n", 1)})
    before = events_in(shop)
    named = ("--source", "source-shop")
    assert eventstore(*command, "--dry-run", *named).code == 0
    assert events_in(shop) == before


def test_an_object_of_a_strange_type_is_a_legacy_state(eventstore, shop):
    (shop.parent / "odd.json").write_text('{"type":["x"]}\n')
    assert eventstore("set", "odd.json", "--form", "legacy", *WHY).code == 0
    assert state_in(shop) == ['{"type":"LEGACY","data":{"type":["x"]}}']
    (shop.parent / "same.json").write_bytes(eventstore("state").out.encode())
    assert eventstore("set", "same.json", "--form", "legacy", *WHY).lines == []


@pytest.mark.parametrize("blob", ['{"type":"LEGACY","data":{"a":1}}', '{"stateType":"x"}'])
def test_what_is_said_to_be_a_blob_is_taken_as_it_is(eventstore, shop, blob):
    (shop.parent / "blob.json").write_text(blob)
    for _ in range(2):
        assert eventstore("set", "blob.json", "--form", "legacy", *WHY).code == 0
        assert state_in(shop) == [f'{{"type":"LEGACY","data":{blob}}}']


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ('{"host":"db.example.com","password":"x"}', [], "--form legacy"),
        ("{}", ["--dry-run"], "--form legacy"),
        ("[]", ["--form", "legacy"], "no LEGACY state"),
        (STATES[1][0], ["--form", "legacy"], "no LEGACY state"),
        (STATES[1][0], ["--form", "api"], "--form takes legacy"),
    ],
)
def test_what_looks_like_no_state_is_not_set_unless_that_is_said(
    eventstore, shop, text, options, said
):
    (shop.parent / "config.json").write_text(text)
    done = eventstore("set", "config.json", *options, *WHY)
    assert (done.code, len(done.complaints), said in done.err) == (2, 1, True)
    assert state_in(shop) == STATES[9]


def test_a_moment_before_the_history_is_warned_of(eventstore, shop):
    done = eventstore("rewind", "2020-01-01", "--dry-run", "--db", shop)
    assert "2020-01-01: no state yet" in done.err


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_without_a_reason_nothing_is_changed(eventstore, shop, command):
    before = events_in(shop)
    done = eventstore(*command, "--yes")
    assert (done.code, "a reason is needed" in done.err) == (2, True)
    assert events_in(shop) == before


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_where_nobody_can_be_asked_nothing_is_changed(eventstore, shop, command):
    before = events_in(shop)
    done = eventstore(*command, "--reason", "lost orders")
    assert (done.code, "add --yes" in done.err) == (2, True)
    assert events_in(shop) == before


@pytest.mark.parametrize(("answer", "events"), [("y", 10), ("n", 9)])
def test_on_a_terminal_it_asks(shop, answer, events):
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        [SCRIPT, "rewind", "@5", "--reason", "lost orders", "--db", shop],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        shown = process.stdout.readline().rstrip()  # before it is answered
        os.write(keyboard, f"{answer}\n".encode())
        out, err = process.communicate(timeout=60)
    done = out.splitlines()
    assert shown == f"changed\torders\tcursor\t3 -> 2\t{SHOP}"
    assert done == [f"1 event appended to {SHOP}: @10"] * (answer == "y")
    assert "Rewind source-shop -> destination-lake from @9 to @5? [y/N] " in err
    assert len(events_in(shop)) == events


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_it_refuses_if_the_history_has_moved_on(eventstore, shop, command):
    before = events_in(shop)
    # A copy goes into a history of its own, which has not begun.
    head = "@0" if command[0] == "copy" else "@9"
    done = eventstore(*command, *WHY, "--expect", "@8")
    assert (done.code, "not at 8" in done.err) == (1, True)
    assert eventstore(*command, *WHY, "--expect", "now").code == 2
    assert events_in(shop) == before
    assert eventstore(*command, *WHY, "--expect", head).code == 0


def test_a_state_is_set_from_a_file_or_from_stdin(shop):
    said = {"env": {"EVENTSTORE_DB": str(shop)}}
    assert run("set", shop.with_name("state.json"), *WHY, **said).code == 0
    assert state_in(shop) == ['{"type":"LEGACY","data":{"a":1}}']
    before = f"[{','.join(STATES[9])}]".encode()
    assert run("set", "-", *WHY, stdin=before, **said).code == 0
    assert state_in(shop) == STATES[9]
    refused = run("set", "-", *WHY, stdin=b'[{"type":"STREAM"}]', **said)
    assert (refused.code, state_in(shop)) == (2, STATES[9])


def test_a_state_is_copied_and_moved(eventstore, shop):
    other = Pipeline("source-shop", "destination-lake", connection="b")
    cache = Pipeline("source-shop")
    eventstore("copy", "--to-connection", "b", "--at", "@1", *WHY)
    assert (state_in(shop, other), state_in(shop)) == (STATES[1], STATES[9])
    eventstore("move", "--connection", "", "--to-destination", "", *WHY)
    assert (state_in(shop, cache), state_in(shop)) == (STATES[9], [])
    done = eventstore("copy", "--connection", "b", *WHY)
    assert (done.code, "use rewind" in done.err) == (2, True)


def test_nothing_to_change_is_said(eventstore, shop):
    done = eventstore("rewind", "now", *WHY, "--db", shop)
    assert (done.code, done.lines) == (0, [])
    assert done.complaints == ["eventstore: nothing to change: the state is like that already"]


def test_what_was_appended_is_printed_for_scripts(eventstore, shop):
    done = eventstore("rewind", "@5", *WHY, "--json", "--db", shop)
    changed, appended = map(json.loads, done.lines)
    assert (changed["source"], changed["stream"], changed["after"]) == ("source-shop", "orders", 2)
    assert (appended["version"], appended["origin"]) == (10, "restored")


def test_a_change_of_nothing_but_the_text_is_told(eventstore, shop):
    (shop.parent / "spaced.json").write_text('[{"type": "LEGACY", "data": {"a": 1}}]')
    assert eventstore("set", "state.json", *WHY).err == ""
    done = eventstore("set", "spaced.json", *WHY)
    assert done.complaints == ["eventstore: no value would change, only the text of the state"]
    assert done.lines == [f"1 event appended to {SHOP}: @11"]


def test_a_pipe_that_was_taken_over_stops(tmp_path):
    db = ("--db", tmp_path / "pipe.db", "--source", "shop", "--exclusive")
    line = b'{"type":"STATE","state":{"type":"LEGACY","data":{"by":"%s"}}}\n'
    zombie = start("record", *db)
    zombie.stdin.write(line % b"zombie")
    zombie.stdin.flush()
    assert zombie.stdout.readline() == line % b"zombie"
    assert run("record", *db, "--run", "8813", stdin=line % b"next").code == 0
    done = finish(zombie, line % b"zombie again")
    assert (done.code, done.out) == (1, "")
    assert "(run 8813) took over at 20" in done.err
    assert json.loads(state_in(db[1], Pipeline("shop"))[0])["data"] == {"by": "next"}
