"""The roles on a server that the README grants: each can do its work, and nothing else."""

import io
import re
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from eventstore import Pipeline, StateSaved, StoreUnavailable
from eventstore.integrity import verify
from projections import connect, latest_state, rebuild, register_catalog
from projections.exchange import export_histories, import_histories
from tests.interruptions import counted, lost_race
from tests.messages import catalog, configured_stream, global_state, saved

README = Path(__file__).parents[2] / "README.md"
GRANTS = re.findall(r"^```sql\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)

SHOP = Pipeline("source-shop")

FORBIDDEN = [
    "UPDATE _eventstore_events SET actor = 'nobody'",
    "DELETE FROM _eventstore_events",
    "TRUNCATE _eventstore_events",
    "DELETE FROM _eventstore_bodies",
    "UPDATE _eventstore_bodies SET data = ''",
    "DROP TABLE _eventstore_events",
]
FORBIDDEN_THERE = {
    "postgresql": [
        "DROP TRIGGER _eventstore_no_change ON _eventstore_events",
        "ALTER TABLE _eventstore_events DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION _eventstore_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN NULL; END $$",
    ],
    "mariadb": [
        "DROP TRIGGER _eventstore_no_delete",
        "CREATE OR REPLACE TRIGGER _eventstore_no_delete BEFORE DELETE ON _eventstore_events "
        "FOR EACH ROW SET @nothing = 1",
        "ALTER TABLE _eventstore_events ADD COLUMN more INTEGER",
        "RENAME TABLE _eventstore_events TO others",
    ],
}
LEAVE = {
    "postgresql": "DROP OWNED BY {roles}; DROP ROLE {roles}",
    "mariadb": "DROP USER {roles}",
}


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request):
    """The database of an owner who granted what the README says."""
    creates = {"postgresql": "CREATE ROLE", "mariadb": "CREATE USER"}[request.param]
    with request.getfixturevalue(request.param).empty_database() as url:
        with connect(url) as store:
            store.append(SHOP, saved("users", {"cursor": 1}))
            register_catalog(store, SHOP, catalog(configured_stream("users")))
        for block in GRANTS:
            if block.startswith(creates):
                _run(url, *block.strip().rstrip(";").split(";\n"))
        yield make_url(url)
        _run(url, LEAVE[request.param].format(roles="eventstore_reader, eventstore_writer"))


def _run(url, *statements):
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        for statement in statements:
            db.execute(text(statement))
    engine.dispose()


@pytest.fixture
def reader(url):
    return _as(url, "eventstore_reader")


@pytest.fixture
def writer(url):
    return _as(url, "eventstore_writer")


def _as(url, role):
    return url.set(username=role, password="of your choice").render_as_string(hide_password=False)


@pytest.mark.parametrize(
    "command",
    ["pipelines", "log", "show @1", "state", "catalog", "diff @0 now", "export"],
)
def test_a_reader_reads(command, reader):
    from tests.command_line.shell import run  # noqa: PLC0415 - needs the command line

    done = run(*command.split(), "--db", reader)
    assert (done.code, done.err) == (0, "")
    assert done.out


def test_a_reader_appends_nothing(reader):
    with connect(reader) as store:
        with pytest.raises(StoreUnavailable, match="denied"):
            store.append(SHOP, saved("users", {"cursor": 2}))
        assert store.heads() == {SHOP: 3}


def test_a_writer_appends_registers_rebuilds_and_imports(writer, tmp_path):
    with connect(tmp_path / "laptop.db") as laptop:
        laptop.append(Pipeline("source-laptop"), saved("users", {"cursor": 1}))
        export = b"".join(export_histories(laptop))
    with connect(writer) as store:
        store.append(SHOP, saved("users", {"cursor": 2}), StateSaved(global_state({"lsn": 1})))
        store.append(Pipeline("source-new"), saved("users", {"cursor": 1}))
        register_catalog(store, SHOP, catalog(configured_stream("orders")))
        assert latest_state(store, SHOP).version == 7
        assert import_histories(store, io.BytesIO(export)).written
        assert rebuild(store) == 3


def test_a_writer_that_has_lost_a_race_waits_in_line(writer):
    engine = create_engine(writer)
    with connect(engine) as store, counted(engine) as statements:
        with lost_race(engine, "SELECT _eventstore_events.version"):
            store.append(SHOP, saved("users", {"cursor": 2}))
        store.append(SHOP, saved("users", {"cursor": 3}))
        assert store.heads() == {SHOP: 5}
    assert [each for each in statements if "FOR UPDATE" in each or "advisory" in each]
    engine.dispose()


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_neither_changes_the_log_or_its_guards(role, url, request):
    for statement in [*FORBIDDEN, *FORBIDDEN_THERE[url.get_backend_name()]]:
        with pytest.raises(DBAPIError, match=r"denied|must be owner"):
            _run(request.getfixturevalue(role), statement)


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_both_see_that_the_guards_are_there_and_that_one_is_gone(role, url, request):
    with connect(request.getfixturevalue(role), create=False) as store:
        assert verify(store).notices == ()
        _run(url, FORBIDDEN_THERE[url.get_backend_name()][0])
        assert len(verify(store).notices) == 1


def test_there_is_a_block_of_grants_for_each():
    assert [re.findall(r"^CREATE (\w+ \w+)", block) for block in GRANTS] == [
        ["ROLE eventstore_reader"],
        ["ROLE eventstore_writer"],
        ["USER eventstore_reader"],
        ["USER eventstore_writer"],
    ]
