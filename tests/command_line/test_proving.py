"""The commands that prove and that erase: what they say, and with which exit code."""

import json
import os
import pty
import stat
import subprocess

import pytest

from eventstore import Pipeline, StateSaved, StreamDescriptor
from eventstore.tables import events
from projections import CacheStreamStateModel, connect, latest_state, register_catalog
from tests.command_line import shell
from tests.command_line.histories import write_crowd, write_history
from tests.messages import catalog, configured_stream, global_state, inner_state, saved
from tests.tampering import tampering

SHOP = Pipeline("source-shop")
NASTY = "us\x1b[31mers\r\n'; DROP TABLE x; --"


@pytest.fixture(params=["sqlite"])
def database(request, tmp_path):
    """The path of a database of one pipeline, three versions of two streams."""
    path = tmp_path / "state.db"
    with connect(f"{request.param}:///{path}") as store:
        store.append(SHOP, saved("users", {"cursor": 1}), actor="ann")
        store.append(SHOP, saved("users", {"cursor": 2}), saved(NASTY, {NASTY: NASTY}))
    return path


@pytest.fixture
def keys(tmp_path, eventstore):
    assert eventstore("keygen", tmp_path / "key").code == 0
    return tmp_path / "key", tmp_path / "key.pub"


def _tamper(path):
    with connect(path) as store, tampering(store.database.engine) as db:
        db.execute(events.update().where(events.c.version == 2).values(actor="mallory"))


def test_a_whole_log_is_exit_0(database, eventstore):
    done = eventstore("verify", "--db", database)
    assert (done.code, done.lines) == (
        0,
        ["whole\t@3\t\tnone\tsource-shop -> cache\t"],
    )


def test_an_altered_log_is_exit_1_and_says_where(database, eventstore):
    _tamper(database)
    done = eventstore("verify", "--db", database)
    assert done.code == 1
    assert done.lines[0].startswith("altered\t@1\t@2\tnone\tsource-shop -> cache\t@2 ")
    [found] = map(json.loads, eventstore("verify", "--db", database, "--json").lines)
    assert (found["whole"], found["last_good"], found["first_bad"]) == (False, 1, 2)


def test_several_processes_are_used_where_they_can_be(database):
    done = shell.run("verify", "--db", database, "--processes", 2)
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].startswith("whole\t@3")


def test_altered_tables_are_exit_1(database, eventstore):
    table = CacheStreamStateModel.__table__
    with connect(database) as store, store.database.engine.begin() as db:
        db.execute(table.update().values(state_json="{}"))
    done = eventstore("verify", "--db", database)
    assert done.code == 1
    assert "_airbyte_state" in done.err
    assert "\x1b" not in done.err + done.out


def test_a_checkpoint_says_how_far_it_covers(database, eventstore, keys, tmp_path):
    private, public = keys
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert eventstore("checkpoint", first, "--db", database, "--key", private).code == 0
    with connect(database) as store:
        store.append(SHOP, saved("users", {"cursor": 3}))
    more = ("--db", database, "--key", private, "--previous", first)
    assert eventstore("checkpoint", second, *more).code == 0
    check = ("verify", "--db", database, "--key", public, "--checkpoint")
    assert eventstore(*check, first).lines[0].split("\t")[3] == "covers @3"
    assert eventstore(*check, first, "--checkpoint", second).lines[0].split("\t")[3] == "covers @4"
    again = eventstore("checkpoint", first, "--db", database, "--key", private)
    assert (again.code, "already" in again.err) == (2, True)


def test_without_checkpoint_or_key_nobody_can_tell(database, eventstore, keys, tmp_path):
    private, public = keys
    file = tmp_path / "checkpoint.json"
    eventstore("checkpoint", file, "--db", database, "--key", private)
    other = tmp_path / "other"
    eventstore("keygen", other)
    for more in (
        ("--checkpoint", file),
        ("--checkpoint", tmp_path / "none", "--key", public),
        ("--checkpoint", file, "--key", tmp_path / "none"),
        ("--checkpoint", file, "--key", f"{other}.pub"),
        ("--checkpoint", database, "--key", public),
    ):
        done = eventstore("verify", "--db", database, *more)
        assert (done.code, len(done.complaints)) == (3, 1), more
    nowhere = eventstore("verify", "--db", tmp_path / "nowhere.db")
    assert nowhere.code == 3


def test_an_altered_checkpoint_is_exit_1(database, eventstore, keys, tmp_path):
    private, public = keys
    file = tmp_path / "checkpoint.json"
    eventstore("checkpoint", file, "--db", database, "--key", private)
    file.write_text(file.read_text().replace('"version": 3', '"version": 2'))
    done = eventstore("verify", "--db", database, "--checkpoint", file, "--key", public)
    assert (done.code, "altered" in done.err) == (1, True)


def test_a_key_is_its_owners_and_its_public_half_is_printed(eventstore, tmp_path):
    done = eventstore("keygen", tmp_path / "key")
    assert done.out == (tmp_path / "key.pub").read_text()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert eventstore("keygen", tmp_path / "key").code == 2


def test_a_dry_run_erases_nothing(database, eventstore):
    done = eventstore("erase", "@1", "--db", database, "--reason", "asked to", "--dry-run")
    assert done.code == 0
    assert done.lines[0].startswith("@1\t")
    assert "to be erased: 1 body of 1 event" in done.err
    with connect(database) as store:
        assert store.heads() == {SHOP: 3}


@pytest.mark.parametrize(
    ("what", "taken"),
    [
        (["@1"], None),
        (["--before", "2020-01-01"], None),
        (["@2"], "users"),
        (["--stream", "users"], "users"),
        (["--before", "2100-01-01"], "users, us"),
    ],
)
def test_it_says_when_what_goes_is_the_current_state(database, eventstore, what, taken):
    arguments = ("erase", *what, "--db", database)
    warning = f"this takes the current state of {taken}"
    for rest in ["--dry-run"], ["--reason", "asked to"]:
        done = eventstore(*arguments, *rest)
        assert (warning in done.err, "from the beginning" in done.err) == (bool(taken),) * 2
    current = [json.loads(line) for line in eventstore(*arguments, "--dry-run", "--json").lines]
    assert any(event["current"] for event in current) == bool(taken)


def test_it_says_when_the_current_state_of_all_streams_goes(tmp_path, eventstore):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, StateSaved(global_state({"lsn": 1}, inner_state("users", {}))))
    done = eventstore("erase", "@1", "--db", tmp_path / "state.db", "--dry-run")
    assert "the current state of all streams in source-shop -> cache: the next sync" in done.err


def test_it_says_when_the_current_definition_of_a_stream_goes_and_who_took_it(tmp_path, eventstore):
    database = ("--db", tmp_path / "state.db")
    with connect(tmp_path / "state.db") as store:
        for columns in ["id"], ["id", "email"]:
            users = configured_stream("users", columns=columns)
            register_catalog(store, SHOP, catalog(configured_stream("orders"), users))
    warning = "this takes the current definition of users in source-shop -> cache: the catalog is"
    shown = eventstore("erase", "--stream", "users", "--dry-run", *database)
    assert ("current definition" in shown.out, warning in shown.err) == (True, True)
    assert warning not in eventstore("erase", "@2", "--dry-run", *database).err
    eventstore("erase", "@4", "--reason", "asked to", "--actor", "maria", "--yes", *database)
    printed = eventstore("catalog", *database)
    assert [each["stream"]["name"] for each in json.loads(printed.out)["streams"]] == ["orders"]
    taken = "the definition of users was erased at @6 by maria: asked to"
    assert printed.complaints == [f"eventstore: not there: {taken}"]
    [found] = eventstore("doctor", "--json", *database).lines
    assert json.loads(found)["detail"] == taken
    eventstore("erase", "--stream", "orders", "--reason", "asked to", "--yes", *database)
    assert all(" not there: " in each for each in eventstore("catalog", *database).complaints)


def test_what_was_erased_is_said_after_what_was_shown(database, eventstore):
    arguments = ("--db", database, "--reason", "asked to")
    shown = eventstore("erase", "@1", *arguments, "--dry-run")
    done = eventstore("erase", "@1", *arguments, "--yes")
    assert done.lines == [*shown.lines, f"1 body of {SHOP} erased: see @4"]
    last = json.loads(eventstore("erase", "@2", *arguments, "--yes", "--json").lines[-1])
    assert (last["source"], last["version"], last["erased"]) == ("source-shop", 5, [2])


@pytest.mark.parametrize("write", [write_crowd, write_history])
def test_retention_never_takes_a_current_state(write, tmp_path, eventstore):
    database = ("--db", tmp_path / "state.db")
    write(f"sqlite:///{tmp_path / 'state.db'}")
    with connect(tmp_path / "state.db") as store:
        before = {each: latest_state(store, each).bodies for each in store.pipelines()}
    done = eventstore("retention", "--keep", "0h", *database, "--yes")
    assert (done.code, "current state" in done.err + done.out) == (0, False)
    assert bool(done.lines) == (write is write_history)
    with connect(tmp_path / "state.db") as store:
        assert {each: latest_state(store, each).bodies for each in store.pipelines()} == before
        assert before != {}
    assert eventstore("verify", *database).code == 0


def test_nothing_is_erased_unasked(database):
    done = shell.run("erase", "@1", "--db", database, "--reason", "asked to")
    assert (done.code, "--yes" in done.err) == (2, True)
    with connect(database) as store:
        assert store.heads() == {SHOP: 3}


@pytest.mark.parametrize(("answer", "head"), [("y", 4), ("n", 3), ("", 3)])
def test_on_a_terminal_one_is_asked(database, answer, head):
    ours, theirs = pty.openpty()
    arguments = ("erase", "@1", "--db", database, "--reason", "asked to")
    process = shell.start(*arguments, stdin=theirs)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    try:
        process.communicate(timeout=shell.TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    os.close(ours)
    with connect(database) as store:
        assert store.heads() == {SHOP: head}


def test_what_was_erased_is_told_everywhere(database, eventstore):
    arguments = ("--db", database, "--reason", "asked to", "--actor", "ann", "--yes")
    assert eventstore("erase", "@2", *arguments).code == 0
    shown = eventstore("show", "@2", "--db", database)
    assert "erased at @4 by ann: asked to" in shown.out
    assert json.loads(eventstore("show", "@2", "--db", database, "--json").out)["body"] is None
    logged = eventstore("log", "--db", database).lines
    assert "\terased: `eventstore show` tells by whom\t" in logged[1]
    assert "erased the bodies of @2" in logged[3]
    past = eventstore("state", "--at", "@2", "--db", database)
    assert (past.code, past.out) == (1, "")
    assert "erased at @4 by ann: asked to" in past.err
    assert "cursor" not in eventstore("state", "--db", database).out
    assert eventstore("verify", "--db", database).code == 0


def test_a_stream_is_erased_by_name(database, eventstore):
    arguments = ("--db", database, "--reason", "asked to", "--yes")
    assert eventstore("erase", "--stream", "users", *arguments).code == 0
    with connect(database) as store:
        assert [stored.erased for stored in store.history(SHOP)] == [True, True, False, False]
    assert eventstore("erase", "--reapply", "--db", database, "--yes").code == 0


def test_retention_erases_by_age(database, eventstore):
    done = eventstore("retention", "--keep", "0h", "--db", database, "--yes")
    assert done.code == 0
    assert done.lines[0].startswith("@1\t")
    with connect(database) as store:
        assert [stored.erased for stored in store.history(SHOP)] == [True, False, False, False]
    assert "nothing to erase" in eventstore("retention", "--keep", "90d", "--db", database).err


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("@1",), "--reason"),
        (("--reason", "asked to"), "--stream, --before"),
        (("@1", "--stream", "users", "--reason", "asked to"), "--stream, --before"),
    ],
)
def test_it_says_which_option_is_missing(database, eventstore, arguments, option):
    done = eventstore("erase", *arguments, "--yes", "--db", database)
    assert (done.code, len(done.complaints), option in done.err) == (2, 1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase", "--namespace", "a", "--reason", "asked to", "--yes"),
        ("erase", "--before", "@2", "--reason", "asked to", "--yes"),
        ("erase", "2h", "--reason", "asked to", "--yes"),
        ("retention", "--keep", "soon", "--yes"),
        ("retention", "--keep", "-1d", "--yes"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(database, eventstore, arguments):
    done = eventstore(*arguments, "--db", database)
    assert (done.code, len(done.complaints)) == (2, 1)


@pytest.mark.parametrize("nasty", [NASTY, "\x9b31m", "\x07\x1b]0;title\x07"])
def test_nothing_typed_or_named_reaches_a_terminal_as_control_characters(
    tmp_path, nasty, eventstore
):
    path = tmp_path / "state.db"
    pipeline = Pipeline(nasty, table_prefix=nasty, connection=nasty)
    with connect(path) as store:
        store.append(pipeline, saved(nasty, {nasty: nasty}, nasty))
    _, more = eventstore("keygen", tmp_path / "key"), ("--db", path)
    file = tmp_path / "checkpoint.json"
    eventstore("checkpoint", file, *more, "--key", tmp_path / "key")
    for arguments in (
        ("verify", *more, "--checkpoint", file, "--key", tmp_path / "key.pub"),
        ("erase", "@1", *more, "--reason", nasty, "--dry-run"),
        ("erase", "--stream", nasty, *more, "--reason", nasty, "--dry-run"),
        ("erase", "--stream", nasty, "--namespace", nasty, *more, "--reason", nasty, "--yes"),
        ("erase", nasty, *more, "--reason", nasty, "--yes"),
        ("log", *more),
        ("show", "@1", *more),
        ("state", "--at", "@1", *more),
        ("retention", "--keep", nasty, *more, "--yes"),
        ("verify", *more, "--checkpoint", nasty, "--key", nasty),
    ):
        done = shell.run_on_terminal(*arguments)
        for character in "\x1b\x9b\x07\r":
            assert character not in done.raw.decode().replace("\r\n", "\n"), arguments
    with connect(path) as store:
        assert store.event(pipeline, 1).stream == StreamDescriptor(nasty, nasty)
        assert store.event(pipeline, 2).reason == nasty
