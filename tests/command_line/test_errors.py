"""Errors: one line that says what to do; exit code 2 for wrong usage, 1 for a failed job."""

from __future__ import annotations

import os
import shlex
import sqlite3

import pytest

from eventstore import Pipeline
from tests.command_line.histories import SHOP, write_history, writing
from tests.command_line.shell import run
from tests.messages import saved


def assert_refused(done, code: int, *fragments: str) -> None:
    assert (done.code, done.out) == (code, "")
    [error] = done.complaints
    assert error.startswith("eventstore: ")
    for fragment in fragments:
        assert fragment in error


# Wrong usage


@pytest.mark.parametrize(
    ("command", "fragment"),
    [
        ("log --sauce x", "--sauce"),
        ("lgo", "lgo"),
        ("show", "@VERSION"),
        ("diff @1", "B"),
        ("diff @1 @2 @3", "@3"),
        ("diff @1 @2 --stat --json-patch", "--json-patch"),
        ("diff @1 @2 --other-source nope", "no such pipeline"),
        ("blame --at soon", "soon"),
        ("state --at 2026-11-20T09:00Z", "no seconds"),
        ("state --form api --table", "--table"),
        ("log --since 1h --until 2h", "nothing is in between"),
        ("rewind @1 --reason why --expect 9", "a version such as @41"),
        ("rewind @1 --reason why --expect 2h", "a version such as @41"),
        ("checkpoint new.json --key nowhere", "cannot read nowhere"),
        ("erase --reapply --stream users", "names of pipelines alone"),
        ("erase --reapply --source nope", "no such pipeline"),
        ("record --source shop --catalog pyproject.toml", "pyproject.toml: "),
        ("log --stream", "--stream"),
        ("log -n 0", "-n"),
        ("log -n few", "-n"),
        ("log --kind Nope", "there is no kind of event 'Nope'"),
        ("log --since @1", "--since"),
        ("log --until @-1", "--until"),
        ("state --at tomorrow", "tomorrow"),
        ("state --at 2026-13-01", "2026-13-01"),
        ("state --at 2026-11-20T09:00:00", "offset"),
        ("state --at 2y", "2y"),
        ("state --at @", "'@'"),
        ("state --at -3", "-3"),
        ("state --at ''", "''"),
        ("catalog --at ''", "''"),
        ("catalog --at yesterday", "yesterday"),
        ("show 41st", "41st"),
        ("diff then now", "then"),
        ("log --since last-week", "last-week"),
    ],
)
def test_wrong_usage_names_what_is_wrong(command, fragment, history, eventstore):
    name, *rest = shlex.split(command)
    assert_refused(eventstore(name, "--db", history, *rest), 2, fragment)


@pytest.mark.parametrize("command", ["log", "state", "record --source s", "show @1", "rebuild"])
def test_without_a_database_it_says_how_to_name_one(command, eventstore):
    assert_refused(eventstore(*command.split()), 2, "--db", "EVENTSTORE_DB")


def test_a_moment_that_is_none_is_answered_with_the_ones_that_are(history, eventstore):
    done = eventstore("state", "--at", "soon", "--db", history)
    assert_refused(done, 2, "2026-11-20T09:00:00Z", "2026-11-20,", "now", "2h", "@41", "@-1")


@pytest.mark.parametrize(
    ("number", "meant"), [("3", "version of that number is @3"), ("-3", "before the newest is @-3")]
)
def test_a_number_is_no_moment(number, meant, history, eventstore):
    assert_refused(eventstore("state", "--at", number, "--db", history), 2, meant)


@pytest.mark.parametrize("command", ["state", "catalog", "show @1", "diff @1 @1"])
def test_several_pipelines_are_listed(command, crowd, eventstore):
    done = eventstore(*command.split(), "--db", crowd)
    assert_refused(done, 2, "source-shop", "destination-lake", "p_", "source-bank", "account b")


def test_of_several_pipelines_only_those_that_match_are_listed(crowd, eventstore):
    done = eventstore("state", "--source", "source-shop", "--db", crowd)
    assert_refused(done, 2, "destination-lake", "p_")
    assert "source-bank" not in done.err


def test_a_pipeline_that_is_not_there_is_answered_with_those_that_are(crowd, eventstore):
    done = eventstore("state", "--source", "source-shp", "--db", crowd)
    assert_refused(done, 2, "no such pipeline", "source-shop", "destination-lake", "source-bank")


def test_each_pipeline_that_is_listed_can_be_named_by_what_is_listed(crowd, eventstore):
    [error] = eventstore("state", "--db", crowd).complaints
    listed = error.partition(": several pipelines match, name one: ")[2].split("; ")
    assert len(listed) == 5
    for options in listed:
        named = eventstore("show", "@1", *shlex.split(options), "--db", crowd)
        assert named.code == 0, options


def test_of_many_pipelines_a_few_are_listed(tmp_path, eventstore):
    with writing(f"sqlite:///{tmp_path / 'state.db'}") as (store, _):
        for number in range(20):
            store.append(Pipeline(f"source-{number}"), saved("orders", {}))
    for more in ([], ["--source", "nope"]):
        done = eventstore("state", "--db", tmp_path / "state.db", *more)
        assert_refused(done, 2, "--source source-7", "and 12 more: see eventstore pipelines")


def test_one_pipeline_is_meant_when_others_do_not_match(crowd, eventstore):
    assert eventstore("state", "--table-prefix", "p_", "--db", crowd).code == 0


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--destination", "d", "--table-prefix", "p"], ["destination", "prefix"]),
        (["--source", ""], ["source"]),
        (["--source", "s" * 256], ["255"]),
        (["--catalog", "/nowhere.json"], ["/nowhere.json"]),
        (["--catalog", "/"], ["directory"]),
    ],
    ids=lambda given: " ".join(given)[:40],
)
def test_record_refuses_what_names_no_pipeline_and_no_catalog(
    options, fragments, tmp_path, eventstore
):
    source = [] if "--source" in options else ["--source", "s"]
    done = eventstore("record", "--db", tmp_path / "state.db", *source, *options)
    assert_refused(done, 2, *fragments)


@pytest.mark.parametrize(
    "command",
    [
        "log --stream order",
        "log --stream order --json",
        "log --namespace eu",
        "log --stream users --namespace ''",
        "blame --stream order",
        "blame --stream audit.orders",
        "rewind @1 --stream order --dry-run",
        "clear --stream order --dry-run",
        "erase --stream order --reason why --dry-run",
    ],
)
def test_a_stream_that_is_not_there_is_answered_with_those_that_are(command, history, eventstore):
    name, *rest = shlex.split(command)
    done = eventstore(name, "--db", history, *rest)
    assert_refused(done, 2, "no ", " stream", "there are: ", "orders", "audit.users")


def test_of_many_streams_those_of_a_like_name_are_told(tmp_path, eventstore):
    with writing(f"sqlite:///{tmp_path / 'state.db'}") as (store, _):
        store.append(SHOP, *(saved(f"table_{number}", {"a": 1}) for number in range(1000)))
    for command in ("log", "blame", "clear --dry-run"):
        done = eventstore(*command.split(), "--stream", "tabel_17", "--db", tmp_path / "state.db")
        assert_refused(done, 2, "table_17", "and 997 more")


# Failed jobs


def test_a_version_that_is_not_there_is_answered_with_those_that_are(history, eventstore):
    for command in (["show", "@10"], ["state", "--at", "@10"], ["diff", "@1", "@-10"]):
        assert_refused(eventstore(*command, "--db", history), 2, "1 to 9")


@pytest.mark.parametrize("name", ["notes.txt", "notes.duckdb"])
@pytest.mark.parametrize("beginning", [b"Dear diary, ", b"????????DUCK"])
def test_a_file_that_is_no_database_is_named(name, beginning, tmp_path, eventstore):
    path = tmp_path / name
    path.write_bytes(beginning + b"this is no database of any kind that we know. " * 200)
    assert_refused(eventstore("log", "--db", path), 1, name)
    assert path.read_bytes().startswith(beginning)


@pytest.mark.parametrize("command", ["state", "catalog", "show @1", "diff @1 now"])
def test_an_empty_log_says_what_to_do(command, tmp_path, eventstore):
    with writing(f"sqlite:///{tmp_path / 'state.db'}"):
        pass
    assert_refused(
        eventstore(*command.split(), "--db", tmp_path / "state.db"), 1, "empty", "record"
    )


@pytest.mark.parametrize("command", ["log", "state", "rebuild", "record --source s"])
@pytest.mark.parametrize(
    "database",
    [
        "/",
        "d" * 300,
        "mysql://localhost/db",
        "postgresql+nosuchdriver://localhost/db",
        "postgresql://localhost:port/db",
        "://",
        "sqlite:///state.db?timeout=soon",
    ],
    ids=lambda database: database[:30],
)
def test_a_database_that_cannot_be_one_is_refused_in_one_line(
    database, command, tmp_path, monkeypatch, eventstore
):
    monkeypatch.chdir(tmp_path)
    done = eventstore(*command.split(), "--db", database)
    assert_refused(done, done.code)
    assert done.code in {1, 2}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_database_that_may_not_be_read_is_refused_in_one_line(closed, tmp_path, eventstore):
    folder = tmp_path / "closed"
    folder.mkdir()
    with writing(f"sqlite:///{folder / 'state.db'}"):
        pass
    (folder / "state.db").chmod(0o000 if closed == "file" else 0o644)
    folder.chmod(0o000 if closed == "folder" else 0o755)
    try:
        assert_refused(eventstore("log", "--db", folder / "state.db"), 1)
    finally:
        folder.chmod(0o755)


def test_a_broken_row_of_someone_elses_table_is_reported_in_one_clean_line(tmp_path):
    path = tmp_path / "cache.db"
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE _airbyte_state (source_name, stream_name, table_name PRIMARY KEY,"
            " state_json, last_updated)"
        )
        row = ("s", "bad\x1b[2Jname\nof two lines", "bad", "{nope", None)
        db.execute("INSERT INTO _airbyte_state VALUES (?, ?, ?, ?, ?)", row)
    done = run("record", "--db", path, "--source", "s")
    assert done.code == 0
    assert [text[:12] for text in done.complaints] == ["eventstore: "] * 2
    assert all(text.isprintable() for text in done.complaints)


# The process


@pytest.mark.parametrize(
    ("command", "code"),
    [("state", 0), ("state --at soon", 2), ("state --at @99", 2)],
)
def test_the_process_ends_with_the_exit_code(command, code, tmp_path):
    write_history(f"sqlite:///{tmp_path / 'state.db'}")
    assert run(*command.split(), "--db", tmp_path / "state.db").code == code


def test_whoever_names_one_pipeline_wrongly_is_told_how_it_is_named(history, eventstore):
    done = eventstore("state", "--destination", "destination-lak", "--db", history)
    assert_refused(done, 2, "--source source-shop --destination destination-lake")


def test_a_database_of_pyairbyte_is_not_said_to_be_empty(tmp_path, eventstore):
    with sqlite3.connect(tmp_path / "cache.db") as db:
        db.execute("CREATE TABLE _airbyte_state (source_name, stream_name, table_name, state_json)")
    done = eventstore("log", "--db", tmp_path / "cache.db")
    assert_refused(done, 1, "what PyAirbyte has stored there is taken over")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    there = tmp_path / "nowhere" / "state.db"
    assert_refused(run("record", "--source", "shop", "--db", there), 1, str(there.parent))


def test_a_private_key_is_told_from_a_public_one(history, eventstore, tmp_path):
    eventstore("keygen", tmp_path / "key")
    public = ("--key", tmp_path / "key.pub")
    done = eventstore("checkpoint", tmp_path / "new", "--db", history, *public)
    assert_refused(done, 2, "this is a public key, and a private key is needed")
    signed = eventstore("checkpoint", tmp_path / "new", "--db", history, "--key", tmp_path / "key")
    assert signed.code == 0
    given = ("--checkpoint", tmp_path / "new", "--key", tmp_path / "key")
    done = eventstore("verify", "--db", history, *given)
    assert_refused(done, 3, "this is a private key, and a public key is needed")
