"""Histories leave by one command and enter by another; a state is printed in each form."""

from __future__ import annotations

import json

import pytest

from eventstore import Pipeline
from projections import connect
from projections.exchange import export_histories
from tests.command_line.histories import SHOP, events_in
from tests.command_line.shell import run_in_bash, run_on_terminal
from tests.messages import saved


def export_of(database, *pipelines):
    with connect(database, create=False) as store:
        return b"".join(export_histories(store, pipelines or None))


def test_a_history_moves_through_a_file(crowd, tmp_path, eventstore):
    file = tmp_path / "histories.jsonl"
    assert eventstore("export", file, "--db", crowd).code == 0
    assert file.read_bytes() == export_of(crowd)
    done = eventstore("import", file, "--db", tmp_path / "new.duckdb")
    assert (done.code, done.err, len(done.lines)) == (0, "", 5)
    assert done.lines[0] == "source-shop -> destination-lake: imported 3 events"
    assert events_in(tmp_path / "new.duckdb") == events_in(crowd)


def test_a_history_moves_through_a_pipe(history, tmp_path):
    script = f"eventstore export --db {history} | eventstore import - --db new.db"
    done = run_in_bash(script, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert events_in(tmp_path / "new.db") == events_in(history)


def test_a_pipeline_is_exported_by_its_name(crowd, eventstore):
    done = eventstore("export", "--db", crowd, "--source", "source-shop", "--connection", "b")
    heads = json.loads(done.lines[-1])["heads"]
    assert [(head["source"], head["connection"]) for head in heads] == [("source-shop", "b")]
    assert eventstore("export", "--db", crowd, "--source", "nobody").code == 2


def test_importing_again_says_that_nothing_changed(history, tmp_path, eventstore):
    (tmp_path / "x.jsonl").write_bytes(export_of(history))
    for words in ("imported 9 events", "9 events, all here already"):
        done = eventstore("import", tmp_path / "x.jsonl", "--db", tmp_path / "new.db")
        assert (done.code, done.out) == (0, f"{SHOP}: {words}\n")


def test_no_file_is_overwritten(history, tmp_path, eventstore):
    (tmp_path / "x.jsonl").write_text("mine")
    refused = eventstore("export", tmp_path / "x.jsonl", "--db", history)
    assert (refused.code, refused.out) == (2, "")
    assert refused.complaints[0].endswith("x.jsonl is there already; name a new file")
    assert (tmp_path / "x.jsonl").read_text() == "mine"


def test_an_export_that_fails_leaves_no_file(tmp_path, eventstore):
    assert eventstore("export", tmp_path / "x.jsonl", "--db", tmp_path / "none.db").code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [lambda text: text[:-200], lambda text: text.replace(b"9", b"8")]
)
def test_what_was_changed_or_cut_is_refused_and_makes_no_database(
    change, history, tmp_path, eventstore
):
    (tmp_path / "x.jsonl").write_bytes(change(export_of(history)))
    refused = eventstore("import", tmp_path / "x.jsonl", "--db", tmp_path / "new.db")
    assert (refused.code, refused.out, len(refused.complaints)) == (1, "", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_another_history_is_an_error_in_one_line(history, tmp_path, eventstore):
    (tmp_path / "x.jsonl").write_bytes(export_of(history))
    with connect(tmp_path / "new.db") as store:
        store.append(SHOP, saved("orders", {"cursor": 1}))
    refused = eventstore("import", tmp_path / "x.jsonl", "--db", tmp_path / "new.db")
    assert (refused.code, refused.out) == (1, "")
    assert "has a history of its own here" in refused.err
    assert len(events_in(tmp_path / "new.db")) == 1


def test_a_file_that_is_not_there_is_an_error_in_one_line(tmp_path, eventstore):
    refused = eventstore("import", tmp_path / "none", "--db", tmp_path / "new.db")
    assert (refused.code, len(refused.complaints)) == (2, 1)


def test_nothing_raw_reaches_the_terminal(tmp_path):
    wild = "w\x1b[2J\x9b31m\x7f\u202e\r\n\tx"
    with connect(tmp_path / "wild.db") as store:
        store.append(Pipeline(wild, None, wild), saved(wild, {wild: wild}, wild), reason=wild)
    (tmp_path / "x.jsonl").write_bytes(export_of(tmp_path / "wild.db"))
    for command in (
        ["export", "--db", tmp_path / "wild.db"],
        ["import", tmp_path / "x.jsonl", "--db", tmp_path / "new.db"],
        ["import", tmp_path / "x.jsonl", "--db", tmp_path / "new.db"],
        ["state", "--form", "api", "--db", tmp_path / "wild.db"],
        ["state", "--form", "pyairbyte", "--db", tmp_path / "wild.db"],
    ):
        shown = run_on_terminal(*command, columns=200)
        assert shown.code == 0
        assert all(line.isprintable() for line in shown.lines), shown.out


def test_the_state_is_printed_in_each_form(history, eventstore):
    state = ["state", "--at", "@1", "--db", history]
    assert eventstore(*state, "--form", "protocol").out == eventstore(*state).out
    assert json.loads(eventstore(*state, "--form", "api").out) == {
        "stateType": "stream",
        "connectionId": "",
        "streamState": [{"streamDescriptor": {"name": "orders"}, "streamState": {"cursor": 1}}],
    }
    assert json.loads(eventstore(*state, "--form", "pyairbyte").out) == json.loads(
        eventstore(*state).out
    )
    refused = eventstore(*state, "--form", "yaml")
    assert (refused.code, refused.out) == (2, "")
