"""What the reading commands say about a history."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone

import pytest

from projections import connect, latest_state
from tests.command_line.histories import (
    FIRST_DAY,
    MOMENTS,
    SHOP,
    STATES,
    STREAMS,
    tallied,
    writing,
)
from tests.messages import legacy_state, saved, stream_state

A_DAY_WITHOUT_EVENTS = (datetime.now(timezone.utc) - timedelta(days=8)).strftime("%Y-%m-%d")
MOMENTS = {**MOMENTS, A_DAY_WITHOUT_EVENTS: 1}

EVENT_KEYS = {
    *("source", "destination", "table_prefix", "connection", "version", "id", "kind"),
    *("namespace", "stream", "stored_at", "actor", "reason", "run", "hash", "body"),
}


def json_lines(done) -> list[dict]:
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.lines]


# pipelines


def test_pipelines_lists_each_with_its_version_and_time(crowd, eventstore):
    assert json_lines(eventstore("pipelines", "--db", crowd, "--json"))[0] == {
        "source": "source-shop",
        "destination": "destination-lake",
        "table_prefix": "",
        "connection": "",
        "version": 3,
        "stored_at": "2026-01-03T00:00:00.000000Z",
    }


def test_pipelines_says_the_same_to_people(crowd, eventstore):
    lines = eventstore("pipelines", "--db", crowd).lines
    assert len(lines) == 5
    for word in ("@3", "2026-01-03", "00:00:00", "source-shop", "destination-lake"):
        assert word in lines[0]


# log


@pytest.mark.parametrize(
    ("filters", "letters"),
    [
        ([], "abcdefgh"),
        (["--source", "source-bank"], "fg"),
        (["--destination", "destination-lake"], "abch"),
        (["--table-prefix", "p_"], "e"),
        (["--table-prefix", ""], "abcdfgh"),
        (["--connection", "account b"], "fg"),
        (["--connection", ""], "abcde"),
        (["--source", "source-shop", "--destination", "destination-lake"], "abch"),
        (["--stream", "orders"], "acd"),
        (["--namespace", "audit"], "bh"),
        (["--stream", "users", "--namespace", "audit"], "bh"),
        (["--since", "2026-01-05"], "efgh"),
        (["--since", "2026-01-05T00:00:00Z", "--until", "2026-01-06T01:00:00+01:00"], "ef"),
        (["--until", "2026-01-02"], "ab"),
        (["--since", "1d"], ""),
        (["--kind", "StateEmitted"], "c"),
        (["--kind", "StateCleared"], "g"),
        (["--actor", "maria"], "bg"),
        (["--run", "8811"], "bc"),
        (["--run", "8811", "--actor", "maria"], "b"),
        (["-n", "2"], "gh"),
        (["-n", "1", "--actor", "nightly"], "d"),
        (["-n", "100"], "abcdefgh"),
    ],
    ids=lambda given: " ".join(given) or "no filter",
)
def test_log_filters(filters, letters, crowd, eventstore):
    done = eventstore("log", "--db", crowd, "--json", *filters)
    assert [json.loads(line)["reason"] for line in done.lines] == list(letters)
    assert done.code == 0


def test_log_says_so_when_nothing_matches(crowd, eventstore):
    nothing = eventstore("log", "--db", crowd, "--stream", "users", "--actor", "nobody")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err == "no event matches\n"


def test_log_says_where_to_look_for_a_stream_of_a_global_state(crowd, eventstore):
    log = ("log", "--db", crowd, "--table-prefix", "p_", "--stream", "orders")
    nothing = eventstore(*log)
    assert (nothing.code, nothing.out, "part of a GLOBAL one" in nothing.err) == (0, "", True)
    assert "GLOBAL" not in eventstore(*log, "--json", "--stream", "users").err


def test_log_takes_a_stream_as_it_prints_it(crowd, eventstore):
    printed = eventstore("log", "--db", crowd, "--stream", "audit.users")
    assert printed.lines == eventstore("log", "--db", crowd, "--stream", "users").lines != []


def test_log_says_in_json_what_moved(history, eventstore):
    first, *_, emitted, defined, _, last = json_lines(eventstore("log", "--db", history, "--json"))
    moved = {"change": "changed", "namespace": None, "stream": "orders", "path": "cursor"}
    assert last["moved"] == [{**moved, "before": 2, "after": 3}]
    assert emitted["moved"] == [{**moved, "before": 2, "after": 99}]
    assert first["moved"] == [
        {**moved, "change": "added", "path": "", "before": None, "after": {"cursor": 1}}
    ]
    assert (defined["moved"], last["counts"]) == ([], {})


def test_log_says_in_json_how_many_records_there_were(tmp_path, eventstore):
    with writing(f"sqlite:///{tmp_path / 'state.db'}") as (store, _):
        store.append(SHOP, tallied("orders", {"at": 1}, 120, 0))
    [event] = json_lines(eventstore("log", "--db", tmp_path / "state.db", "--json"))
    assert event["counts"] == {"records": 120, "written": 0}


def test_log_says_when_what_and_who_in_one_line_per_event(crowd, eventstore):
    lines = eventstore("log", "--db", crowd).lines
    assert len(lines) == 8
    expected = ("@2", "2026-01-02", "00:00:00", "StateSaved", "audit.users", "maria", '{"page":7}')
    for word in expected:
        assert word in lines[1]


def test_log_says_whose_event_it_is_when_there_are_several_pipelines(crowd, eventstore):
    lines = eventstore("log", "--db", crowd).lines
    assert "source-shop" in lines[0]
    assert "source-bank" in lines[5]


def test_the_runs_that_log_shows_can_be_asked_for(crowd, eventstore):
    line = eventstore("log", "--db", crowd, "-n", "1").lines[0]
    assert "nightly-2026-01-08" in line


def test_log_as_json_has_the_names_that_scripts_rely_on(history, eventstore):
    events = json_lines(eventstore("log", "--db", history, "--json"))
    assert len(events) == 9
    for event in events:
        assert set(event) >= EVENT_KEYS
    body = stream_state("users", {"page": 7}, "audit")
    known = {
        "source": "source-shop",
        "destination": "destination-lake",
        "table_prefix": "",
        "connection": "",
        "version": 5,
        "kind": "StateSaved",
        "namespace": "audit",
        "stream": "users",
        "actor": "maria",
        "reason": "back to yesterday",
        "run": "8812",
        "body": body,
    }
    assert known.items() <= events[4].items()
    assert re.fullmatch(r"[0-9a-f]{64}", events[4]["hash"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", events[4]["id"])
    assert events[4]["id"] == events[3]["id"] != events[0]["id"]


def test_stored_at_has_microseconds_and_z(history, eventstore):
    for event in json_lines(eventstore("log", "--db", history, "--json")):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["stored_at"])


def test_the_time_of_an_event_is_a_moment_in_any_offset_and_includes_the_event(history, eventstore):
    fourth = json_lines(eventstore("log", "--db", history, "--json"))[3]
    utc = datetime.fromisoformat(fourth["stored_at"].replace("Z", "+00:00"))
    elsewhere = utc.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    for moment in (fourth["stored_at"], elsewhere):
        at = eventstore("state", "--db", history, "--at", moment)
        assert at.out == eventstore("state", "--db", history, "--at", "@4").out
        assert '"cursor":2' in at.out


# show


@pytest.mark.parametrize(("version", "cursor"), [("@1", 1), ("@4", 2), ("@-3", 99), ("@-0", 3)])
def test_show_prints_one_event_whole(version, cursor, history, eventstore):
    text = eventstore("show", version, "--db", history).out
    body = json.loads(text[text.index("{") :])
    assert body == json.loads(stream_state("orders", {"cursor": cursor}))


def test_show_prints_everything_that_is_known_of_an_event(history, eventstore):
    [event] = json_lines(eventstore("show", "@5", "--db", history, "--json"))
    text = eventstore("show", "@5", "--db", history).out
    for key in EVENT_KEYS - {"body", "table_prefix", "connection"}:
        assert re.search(rf"^{key} +{re.escape(str(event[key]))}$", text, re.MULTILINE), key


def test_show_and_log_give_the_same_json(history, eventstore):
    events = json_lines(eventstore("log", "--db", history, "--json"))
    assert json_lines(eventstore("show", "@-4", "--db", history, "--json")) == [events[4]]


def test_show_prints_an_event_without_a_body(crowd, eventstore):
    shown = eventstore("show", "@2", "--source", "source-bank", "--db", crowd)
    assert shown.code == 0
    assert "StateCleared" in shown.out


# state and catalog


@pytest.mark.parametrize("moment", MOMENTS)
def test_state_as_of_each_form_of_a_moment(moment, history, eventstore):
    at = eventstore("state", "--db", history, "--at", moment)
    assert json.loads(at.out) == [json.loads(state) for state in STATES[MOMENTS[moment]]]
    assert (at.code, at.err) == (0, "")


@pytest.mark.parametrize("moment", MOMENTS)
def test_catalog_as_of_each_form_of_a_moment(moment, history, eventstore):
    at = eventstore("catalog", "--db", history, "--at", moment)
    streams = [stream["stream"]["name"] for stream in json.loads(at.out)["streams"]]
    assert streams == STREAMS[MOMENTS[moment]]


def test_state_without_a_moment_is_the_latest_with_its_exact_bytes(history, eventstore):
    text = eventstore("state", "--db", history).out
    assert json.loads(text) == [json.loads(state) for state in STATES[9]]
    assert all(state in text for state in STATES[9])


def test_catalog_without_a_moment_is_the_latest(history, eventstore):
    [orders, users] = json.loads(eventstore("catalog", "--db", history).out)["streams"]
    assert (orders["cursor_field"], orders["primary_key"]) == (["id"], [["id"], ["shop"]])
    assert users["stream"]["namespace"] == "audit"


def test_no_state_is_an_empty_list(crowd, eventstore):
    assert eventstore("state", "--source", "source-bank", "--db", crowd).out == "[]\n"


def test_no_catalog_is_one_without_streams(crowd, eventstore):
    shown = eventstore("catalog", "--source", "source-bank", "--db", crowd)
    assert json.loads(shown.out) == {"streams": []}


def test_a_legacy_state_is_its_bare_blob(crowd, eventstore):
    then = eventstore("state", "--source", "source-bank", "--at", "@1", "--db", crowd)
    assert then.out == '{"page":1}\n'


def test_a_global_state_is_a_list_of_one(crowd, eventstore):
    [message] = json.loads(eventstore("state", "--table-prefix", "p_", "--db", crowd).out)
    assert message["type"] == "GLOBAL"


def test_state_as_json_has_a_line_per_state(history, eventstore):
    users, orders = json_lines(eventstore("state", "--db", history, "--json"))
    assert users == {"namespace": "audit", "stream": "users", "type": "STREAM"} | {
        "body": STATES[9][0]
    }
    assert (orders["namespace"], orders["body"]) == (None, STATES[9][1])


def test_state_as_a_table_names_streams_and_states(history, eventstore):
    users, orders = eventstore("state", "--db", history, "--at", "@5", "--table").lines[::-1]
    assert "audit" in users
    assert '"page":7' in users
    assert "orders" in orders


def test_catalog_as_a_table_says_how_streams_are_synced(history, eventstore):
    orders, users = eventstore("catalog", "--db", history, "--table").lines
    for word in ("orders", "incremental", "append", "id, shop"):
        assert word in orders
    assert "audit.users" in users


# diff


def test_diff_says_what_was_added_and_what_changed(history, eventstore):
    [changed, added] = eventstore("diff", "@1", "now", "--db", history).lines
    assert changed.split("\t")[:3] == ["changed", "orders", "cursor"]
    assert "1 -> 3" in changed
    assert added.startswith("added\taudit.users")


def test_diff_backwards_says_what_was_removed(history, eventstore):
    lines = eventstore("diff", "@-1", "1w", "--db", history).lines
    assert [line.split("\t")[0] for line in lines] == ["changed", "removed"]


def test_diff_as_json_has_paths_and_values(history, eventstore):
    changed, added = json_lines(eventstore("diff", "@1", "@9", "--db", history, "--json"))
    assert changed == {
        "change": "changed",
        "namespace": None,
        "stream": "orders",
        "path": "cursor",
        "before": 1,
        "after": 3,
    }
    assert (added["change"], added["namespace"], added["stream"]) == ("added", "audit", "users")
    assert (added["before"], added["after"]) == (None, {"page": 7})


def test_diff_of_the_same_state_says_that_nothing_changed(history, eventstore):
    same = eventstore("diff", "@5", "@8", "--db", history)
    assert (same.code, same.out) == (0, "")
    assert same.err == "nothing changed from @5 to @8\n"


# Numbers of more digits than a float has


@pytest.fixture
def precise(tmp_path):
    """Two states whose cursors differ in the nineteenth digit."""
    path = tmp_path / "state.db"
    with writing(f"sqlite:///{path}") as (store, _):
        for nanosecond in (789, 790):
            state = stream_state("orders", "CURSOR").replace(
                '"CURSOR"', f'{{"at":1700000000.123456{nanosecond}}}'
            )
            store.append(SHOP, type(saved("orders", {}))(state))
    return path


def test_show_prints_a_number_with_all_its_digits(precise, eventstore):
    assert "1700000000.123456789" in eventstore("show", "@1", "--db", precise).out


def test_log_prints_a_number_with_all_its_digits(precise, eventstore):
    assert "1700000000.123456789" in eventstore("log", "--db", precise).out


def test_diff_tells_numbers_apart_by_all_their_digits(precise, eventstore):
    changed = eventstore("diff", "@1", "@2", "--db", precise)
    assert "1700000000.123456789 -> 1700000000.123456790" in changed.out


# rebuild


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_rebuild_puts_back_what_the_tables_lost(kind, tmp_path, eventstore):
    path = tmp_path / "state.db"
    with writing(f"{kind}:///{path}") as (store, clock):
        store.append(SHOP, saved("orders", {"cursor": 1}))
        clock.now = FIRST_DAY + timedelta(days=1)
        store.append(SHOP, saved("users", {"page": 1}))
        with store.database.engine.begin() as db:
            db.exec_driver_sql("DELETE FROM _airbyte_destination_state")

    def in_the_table():
        with connect(path) as store:
            return latest_state(store, SHOP).state_file()

    assert in_the_table() == "[]"
    before = eventstore("state", "--db", path).out  # from the log, whatever the tables hold
    assert len(json.loads(before)) == 2
    rebuilt = eventstore("rebuild", "--db", path)
    assert (rebuilt.code, rebuilt.out) == (0, "the tables of 1 pipeline are as the log says\n")
    assert in_the_table() + "\n" == before == eventstore("state", "--db", path).out


def test_a_state_that_follows_a_legacy_one_is_a_list_again(tmp_path, eventstore):
    path = tmp_path / "state.db"
    with writing(f"sqlite:///{path}") as (store, _):
        store.append(SHOP, type(saved("x", {}))(legacy_state({"a": 1})), saved("orders", {"b": 2}))
    assert eventstore("state", "--db", path).out == f"[{stream_state('orders', {'b': 2})}]\n"


# Which database


def test_the_database_may_come_from_the_environment(history, eventstore, monkeypatch):
    monkeypatch.setenv("EVENTSTORE_DB", str(history))
    assert json.loads(eventstore("state", "--at", "@1").out) == [json.loads(STATES[1][0])]


def test_the_option_wins_over_the_environment(history, crowd, eventstore, monkeypatch):
    monkeypatch.setenv("EVENTSTORE_DB", str(crowd))
    assert len(eventstore("pipelines", "--db", history).lines) == 1


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_the_database_may_be_a_url(kind, tmp_path, eventstore):
    url = f"{kind}:///{tmp_path / 'state.db'}"
    with writing(url) as (store, _):
        store.append(SHOP, saved("orders", {"cursor": 1}))
    assert len(eventstore("log", "--db", url).lines) == 1


def test_the_database_may_be_a_path_from_here(history, eventstore, monkeypatch):
    monkeypatch.chdir(history.parent)
    assert len(eventstore("log", "--db", history.name).lines) == 9


def test_a_state_from_before_the_history_says_when_that_begins(history, eventstore):
    done = eventstore("state", "--at", "2025-12-31", "--db", history)
    assert (done.code, done.out) == (0, "[]\n")
    assert re.fullmatch(
        r"eventstore: 2025-12-31: no state yet; the history of \S+ -> \S+ begins at \S+Z\n",
        done.err,
    )


def test_a_time_that_log_prints_is_a_moment_that_includes_its_event(history, eventstore):
    for line in eventstore("log", "--db", history).lines:
        version, moment = line.split("\t")[:2]
        by_version = eventstore("state", "--at", version, "--db", history)
        assert eventstore("state", "--at", moment, "--db", history).out == by_version.out


def test_a_name_that_several_streams_are_printed_by_is_refused(tmp_path, eventstore):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, saved("c", {}, "a.b"), saved("b.c", {}, "a"), saved("d", {}, "a"))
    log = ("log", "--db", tmp_path / "state.db", "--stream")
    done = eventstore(*log, "a.b.c")
    said = "--stream b.c --namespace a or --stream c --namespace a.b"
    assert (done.code, done.out, said in done.err) == (2, "", True)
    assert len(eventstore(*log, "b.c", "--namespace", "a").lines) == 1
    assert len(eventstore(*log, "a.d").lines) == 1
