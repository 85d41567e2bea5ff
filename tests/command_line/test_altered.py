"""Commands on what somebody has changed: they say so, and end with no traceback."""

import shutil

import pytest
from sqlalchemy import text

from eventstore import Pipeline, StateCleared, StateEmitted, StateSaved
from eventstore.erasure import erase
from projections import connect, register_catalog
from projections.options import opened
from projections.rewind import rewind
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    saved,
    stream_state,
)
from tests.tampering import tampering

SHOP = Pipeline("source-shop")

EVENTS = "UPDATE _eventstore_events SET "
BODIES = "UPDATE _eventstore_bodies SET "

ALTERATIONS = [
    *(f"{EVENTS}kind = {number}" for number in range(7)),
    f"{EVENTS}commitment = NULL",
    f"{EVENTS}commitment = zeroblob(32)",
    f"{EVENTS}stream_number = 1",
    f"{EVENTS}stored_at = {2**63 - 1}",
    f"{EVENTS}stored_at = 'x'",
    f"{EVENTS}append_id = x'00'",
    f"{EVENTS}hash = 'x'",
    *(f"{BODIES}codec = {number}" for number in range(5)),
    *(f"{BODIES}data = {data}" for data in ("x''", "x'7b7d'", "x'ff'", "x'5b5d'", "'text'")),
]

COMMANDS = [
    ["pipelines"],
    ["log"],
    ["log", "--json"],
    ["show", "@1"],
    ["show", "@8"],
    ["state"],
    ["state", "--at", "@1"],
    ["state", "--at", "@8"],
    ["catalog"],
    ["diff", "@1", "@8"],
    ["diff", "--catalog", "@1", "@13"],
    ["blame"],
    ["doctor"],
    ["export"],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with events of all kinds, and bodies kept in all ways."""
    path = tmp_path_factory.mktemp("whole") / "state.db"
    inner = [inner_state(f"stream-{number}", {"cursor": number}) for number in range(6)]
    with connect(path) as store:
        store.append(SHOP, saved("users", {"cursor": 1}), saved("orders", {"cursor": "1" * 200}))
        register_catalog(store, SHOP, catalog(*map(configured_stream, ("users", "orders"))))
        store.append(SHOP, StateEmitted(stream_state("users", {"cursor": 2})))
        for lsn in range(2):
            store.append(SHOP, StateSaved(global_state({"lsn": lsn}, *inner)))
        store.append(SHOP, StateSaved(legacy_state({"users": 1})))
        rewind(store, SHOP, 1, reason="as it was")
        store.append(SHOP, StateCleared())
        store.append(SHOP, saved("users", {"cursor": 3}))
        erase(store, SHOP, version=2, reason="a wish")
    return path


def altered(whole, folder, alteration):
    """A copy of the file in which somebody has changed something."""
    path = shutil.copy(whole, folder / "altered.db")
    with connect(path) as store, tampering(store.database.engine) as db:
        db.execute(text(alteration))
    return path


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_each_command_tells_what_it_can_or_that_something_was_altered(
    whole, tmp_path, eventstore, alteration
):
    path = altered(whole, tmp_path, alteration)
    for command in COMMANDS:  # a traceback would be an exception here
        done = eventstore(*command, "--db", path)
        assert done.code == 0 or done.err, command
    assert eventstore("verify", "--db", path).code == 1


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_what_cannot_be_read_is_told_with_its_place(whole, tmp_path, eventstore, command):
    path = altered(whole, tmp_path, f"{EVENTS}hash = 'x', append_id = x'00', stored_at = 'x'")
    done = eventstore(*command, "--db", path)
    assert done.code == 1
    assert done.err.startswith(
        "eventstore: this failed, and the log was altered: source-shop -> cache: @1 "
    )
    assert done.err.endswith(" (see: eventstore verify)\n")


@pytest.mark.parametrize("command", ["log", "state", "doctor", "export", "rebuild"])
def test_a_body_that_cannot_be_read_is_told_with_its_place(whole, tmp_path, eventstore, command):
    done = eventstore(command, "--db", altered(whole, tmp_path, f"{BODIES}codec = 99"))
    assert done.code == 1
    assert "the log was altered: source-shop -> cache: @1 " in done.err


def test_what_fails_in_a_whole_log_is_a_bug(whole):
    with pytest.raises(ZeroDivisionError), opened(str(whole), None):
        _ = 1 / 0
