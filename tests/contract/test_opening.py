"""Opening a database: what is made, what is not, and what is refused."""

import pytest
from sqlalchemy import create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from eventstore import (
    EventStore,
    HistoryConflict,
    NotAnEventStore,
    Pipeline,
    SchemaTooNew,
    StoreUnavailable,
    UnsupportedDatabase,
)
from projections import connect, latest_state
from tests.messages import saved, stream_state

SHOP = Pipeline("source-shop")


class Cache:
    """What PyAirbyte's caches look like from here: the engine may be another one each time."""

    def __init__(self, url):
        self.url = url
        self.engine = create_engine(url)

    def get_sql_engine(self):
        return self.engine

    def recreate_engine(self):
        self.engine.dispose()
        self.engine = create_engine(self.url)


def test_what_one_store_appends_another_reads(database):
    with connect(database) as store:
        appended = store.append(SHOP, saved("users", {"cursor": 1}))
    with connect(database) as store:
        assert list(store.history(SHOP)) == appended
        assert latest_state(store, SHOP).bodies == [stream_state("users", {"cursor": 1}).encode()]


def test_reading_an_empty_database_makes_nothing_in_it(database, engine):
    with (
        pytest.raises(NotAnEventStore, match="record a state"),
        connect(database, create=False) as store,
    ):
        store.heads()
    assert inspect(engine).get_table_names() == []


def test_an_existing_store_is_read_without_making_anything(database):
    with connect(database) as store:
        appended = store.append(SHOP, saved("users", {}))
    with connect(database, create=False) as store:
        assert list(store.log()) == appended


def test_opening_alone_makes_nothing(engine):
    connect(engine).close()
    assert inspect(engine).get_table_names() == []


def test_an_engine_of_the_users_is_left_open_and_as_it_was(engine):
    disposed = []
    event.listen(engine, "engine_disposed", disposed.append)
    with connect(engine) as store:
        store.append(SHOP, saved("users", {}))
    assert disposed == []


def test_a_cache_that_makes_a_new_engine_is_asked_for_it(database):
    cache = Cache(database)
    store = connect(cache)
    for cursor in range(3):
        store.append(SHOP, saved("users", {"cursor": cursor}))
        cache.recreate_engine()
    assert store.heads() == {SHOP: 3}
    cache.engine.dispose()


def test_a_bare_store_refuses_to_leave_the_tables_behind(engine):
    connect(engine).append(SHOP, saved("users", {"cursor": 1}))
    bare = EventStore(engine)
    with pytest.raises(StoreUnavailable, match=r"projections\.connect"):
        bare.append(SHOP, saved("users", {"cursor": 2}))
    assert bare.heads() == {SHOP: 1}


def test_a_log_gets_its_tables_when_it_is_first_connected_to(engine):
    EventStore(engine).append(SHOP, saved("users", {"cursor": 1}))
    store = connect(engine)
    assert latest_state(store, SHOP).bodies == [stream_state("users", {"cursor": 1}).encode()]


@pytest.mark.parametrize("component", ["log", "tables"])
def test_tables_of_a_later_release_are_left_alone(engine, component):
    connect(engine).append(SHOP, saved("users", {}))
    with engine.begin() as db:
        db.execute(
            text("UPDATE _eventstore_schema SET version = 99 WHERE component = :component"),
            {"component": component},
        )
    with pytest.raises(SchemaTooNew, match=rf"the {component} tables .* 99"):
        connect(engine).append(SHOP, saved("users", {}))


def test_two_schemas_of_one_database_are_two_stores(engine, database):
    names = ("sales", "Data of Marketing: 2026")
    try:
        with engine.begin() as db:
            for name in names:
                db.execute(CreateSchema(name))
    except DBAPIError as problem:
        pytest.skip(f"has no schemas: {problem.orig}")
    for cursor, name in enumerate(names):
        with connect(database, schema=name) as store:
            store.append(SHOP, saved("users", {"cursor": cursor}))
    for cursor, name in enumerate(names):
        with connect(database, schema=name) as store:
            bodies = [stream_state("users", {"cursor": cursor}).encode()]
            assert latest_state(store, SHOP).bodies == bodies
            assert store.heads() == {SHOP: 1}
    with pytest.raises(NotAnEventStore), connect(database, create=False) as store:
        store.heads()


DRIVERS = {
    "postgresql": ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"),
    "mariadb": ("mariadb", "mysql", "mysql+pymysql"),
}


@pytest.mark.needs("NOW")  # a server, which has more than one driver
@pytest.mark.parametrize("which", range(3))
def test_one_server_is_written_and_read_through_any_of_its_drivers(database, which):
    driver = DRIVERS[make_url(database).get_backend_name()][which]
    with connect(database) as store:
        first = store.append(SHOP, saved("users", {"50%": 1, ":a": "%(b)s"}, "100%"))
    with connect(make_url(database).set(drivername=driver)) as store:
        second = store.append(SHOP, saved("users", {"50%": 2}, "100%"), actor="50%", expected=1)
        assert list(store.history(SHOP)) == first + second
        assert latest_state(store, SHOP).bodies == [second[0].body]
        with pytest.raises(HistoryConflict):
            store.append(SHOP, saved("users", {}), expected=1)


@pytest.mark.parametrize(
    "url", ["oracle://localhost/x", "nonsense://x", "mssql+pymssql://x/y", "not a url://"]
)
def test_a_database_without_a_dialect_is_refused(url):
    with pytest.raises(UnsupportedDatabase):
        connect(url)


@pytest.mark.needs("NOW")  # a server, whose drivers can commit each statement
def test_an_engine_that_commits_each_statement_reads_and_is_refused_to_append(database):
    with connect(database) as store:
        store.append(SHOP, saved("users", {}))
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    store = connect(engine)
    assert store.heads() == {SHOP: 1}
    with pytest.raises(StoreUnavailable, match="AUTOCOMMIT"):
        store.append(SHOP, saved("users", {}))
    assert store.heads() == {SHOP: 1}
    engine.dispose()


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb"])
def test_a_database_that_does_not_answer_is_named_without_its_password(driver):
    store = connect(f"{driver}://me:secret@127.0.0.1:1/nothing")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1") as refused:
        store.heads()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("schema", ['we"ird', "a b%:x", "Upper", "select"])
def test_a_schema_of_any_name_is_opened_again(tmp_path, schema):
    engine = create_engine(f"duckdb:///{tmp_path / 'state.db'}")
    with engine.begin() as db:
        db.execute(CreateSchema(schema))
    for version in (1, 2):
        with connect(engine, schema=schema) as store:
            store.append(SHOP, saved("users", {"cursor": version}))
            assert store.heads() == {SHOP: version}
    engine.dispose()
