"""The roles on PostgreSQL that the README grants: each can do its work, and nothing else."""

import io
import re
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from eventstore import Pipeline, StateSaved, StoreUnavailable
from projections import connect, latest_state, rebuild, register_catalog
from projections.exchange import export_histories, import_histories
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
    "DROP TRIGGER _eventstore_no_change ON _eventstore_events",
    "ALTER TABLE _eventstore_events DISABLE TRIGGER ALL",
    "DROP TABLE _eventstore_events",
    "SET session_replication_role = replica",
    "CREATE OR REPLACE FUNCTION _eventstore_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RETURN NULL; END $$",
]


@pytest.fixture
def url(postgresql):
    """The database of an owner who granted what the README says."""
    with postgresql.empty_database() as url:
        with connect(url) as store:
            store.append(SHOP, saved("users", {"cursor": 1}))
            register_catalog(store, SHOP, catalog(configured_stream("users")))
        _run(url, *GRANTS)
        yield make_url(url)
        roles = "eventstore_reader, eventstore_writer"
        _run(url, f"DROP OWNED BY {roles}; DROP ROLE {roles}")


def _run(url, *statements):
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        for statement in statements:
            db.execute(text(statement))
    engine.dispose()


@pytest.fixture
def reader(url):
    return url.set(username="eventstore_reader").render_as_string(hide_password=False)


@pytest.fixture
def writer(url):
    return url.set(username="eventstore_writer").render_as_string(hide_password=False)


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
        with pytest.raises(StoreUnavailable, match="permission denied"):
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


@pytest.mark.parametrize("statement", FORBIDDEN)
@pytest.mark.parametrize("role", ["reader", "writer"])
def test_neither_changes_the_log_or_its_guards(role, statement, request):
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
        _run(request.getfixturevalue(role), statement)


def test_there_is_a_block_of_grants_for_each():
    assert [re.findall(r"CREATE ROLE (\w+)", block) for block in GRANTS] == [
        ["eventstore_reader"],
        ["eventstore_writer"],
    ]
