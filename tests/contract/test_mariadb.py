"""What only MariaDB can be set to: modes, character sets, isolation, and the size of a packet."""

import io
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from sqlalchemy import create_engine, make_url, text

from eventstore import Pipeline, StoreUnavailable
from eventstore.dialects import dialect_of
from eventstore.integrity import verify
from projections import connect, latest_state, rebuild, register_catalog
from projections.exchange import export_histories, import_histories
from projections.tables import STATE_TABLES
from tests.messages import catalog, configured_stream, saved

SHOP = Pipeline("source-shop")
MIB = 1 << 20


@pytest.fixture
def url(mariadb):
    with mariadb.empty_database() as url:
        yield url


@pytest.fixture
def globally(mariadb):
    """Sets what the sessions that begin from now on find."""
    before = {}

    def set_globally(name, value):
        with create_engine(mariadb.url()).connect() as db:
            before[name] = db.scalar(text(f"SELECT @@global.{name}"))
            db.execute(text(f"SET GLOBAL {name} = :value"), {"value": value})

    yield set_globally
    with create_engine(mariadb.url()).connect() as db:
        for name, value in before.items():
            db.execute(text(f"SET GLOBAL {name} = :value"), {"value": value})


def with_session(url, command):
    return create_engine(url, connect_args={"init_command": command})


def works(store):
    store.append(SHOP, saved('it\'s 100% \\ "größer" 😀', {"cursor": "\\'"}))
    register_catalog(store, SHOP, catalog(configured_stream("users ")))
    rebuild(store)
    assert verify(store).is_whole
    assert latest_state(store, SHOP).version == 3


@pytest.mark.parametrize(
    "mode", ["ANSI", "NO_BACKSLASH_ESCAPES", "PAD_CHAR_TO_FULL_LENGTH", "PIPES_AS_CONCAT", "ORACLE"]
)
def test_strict_sessions_of_any_mode_work(url, mode):
    engine = with_session(url, f"SET sql_mode = '{mode},STRICT_TRANS_TABLES'")
    works(connect(engine))
    engine.dispose()


@pytest.mark.parametrize("mode", ["", "ANSI", "STRICT_ALL_TABLES,EMPTY_STRING_IS_NULL"])
def test_sessions_that_change_values_are_refused_with_what_to_do(url, mode):
    engine = with_session(url, f"SET sql_mode = '{mode}'")
    with pytest.raises(StoreUnavailable, match="connect_args="):
        connect(engine).heads()
    engine.dispose()


def test_a_url_works_whatever_the_servers_mode_is(url, globally):
    globally("sql_mode", "ANSI,EMPTY_STRING_IS_NULL")
    with connect(url) as store:
        works(store)
        assert verify(store, processes=2).is_whole


def test_sessions_that_cannot_write_every_name_are_refused(url):
    with pytest.raises(StoreUnavailable, match=r"is latin1.*\?charset=utf8mb4"):
        connect(url.replace("utf8mb4", "latin1")).heads()


@pytest.mark.parametrize(
    "level", ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
)
def test_an_engine_of_any_isolation_works(url, level):
    engine = create_engine(url, isolation_level=level)
    works(connect(engine))
    engine.dispose()


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("rows", [0, 3])
def test_a_table_that_is_locked_can_be_read_and_not_written(url, level, rows):
    table, *_ = STATE_TABLES
    row = {"source_name": "s", "stream_name": "n", "table_name": "n", "row_key": "k"}
    engine = create_engine(url, isolation_level=level)
    store = connect(engine)
    store.pipelines()
    for number in range(rows):
        store.append(SHOP, saved(f"stream {number}", {}))

    def write():
        with engine.begin() as db:
            db.execute(table.insert(), row)

    with ThreadPoolExecutor() as threads:
        with engine.connect() as db:
            dialect_of(db).begin_write(db)
            dialect_of(db).lock_table(db, table, None)
            assert len(latest_state(store, SHOP).streams) == rows
            writing = threads.submit(write)
            assert not wait([writing], 0.3).done
            db.rollback()
        writing.result()
    engine.dispose()


def test_a_body_for_which_the_servers_packets_are_too_small_is_refused(url, globally):
    with connect(url) as store:
        export = exported(4 * MIB)
        globally("max_allowed_packet", 4 * MIB)
        store.append(SHOP, saved("users", {"text": '"' * 400_000}))
        with pytest.raises(StoreUnavailable, match="needs a max_allowed_packet of 1"):
            store.append(SHOP, saved("users", {"text": "x" * 4 * MIB}))
        with pytest.raises(StoreUnavailable, match="needs a max_allowed_packet of 1"):
            import_histories(store, export)
        assert store.heads() == {SHOP: 1}


def test_any_number_of_bodies_is_imported_in_packets_of_the_servers_size(url, globally):
    globally("max_allowed_packet", MIB)
    with connect(url) as store:
        assert import_histories(store, exported(*[30_000] * 1100)).written
        assert verify(store).is_whole


def test_a_dump_that_was_restored_is_whole_and_guarded(mariadb, url):
    client = ("--no-defaults", "--user=tests", "--host=127.0.0.1", f"--port={mariadb.port}")
    with connect(url) as store:
        works(store)
        heads = store.heads()
    options = ("--single-transaction", "--hex-blob")
    dump = ["mariadb-dump", *client, *options, make_url(url).database]
    text_of_all = subprocess.run(dump, check=True, capture_output=True).stdout
    with mariadb.empty_database() as other:
        restore = ["mariadb", *client, make_url(other).database]
        subprocess.run(restore, check=True, input=text_of_all)
        with connect(other) as store:
            assert store.heads() == heads
            report = verify(store)
            assert (report.is_whole, report.notices) == (True, ())


def exported(*sizes):
    with connect("sqlite://") as store:
        bodies = (saved("users", {"text": f"{n} " + "x" * size}) for n, size in enumerate(sizes))
        store.append(Pipeline("source-laptop"), *bodies)
        return io.BytesIO(b"".join(export_histories(store)))
