"""Every database the project promises to work on, fresh for each test or each module."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings
from sqlalchemy import create_engine, make_url

from eventstore.dialects import dialect_of
from projections import connect
from tests.galera_cluster import Galera
from tests.mariadb_server import MariaDB
from tests.postgresql_replicas import Replicas
from tests.postgresql_server import Postgres
from tests.servers import NoBinaries, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine

    from eventstore import EventStore

S = TypeVar("S", Postgres, MariaDB, Galera, Replicas)

# PyAirbyte asks for these when it is imported. Its default for logs is one folder for all users,
# where only the first may write.
_LOGS = Path(tempfile.gettempdir()) / f"airbyte-logs-{os.getuid()}"
os.environ.setdefault("AIRBYTE_LOGGING_ROOT", str(_LOGS))
os.environ.update({"DO_NOT_TRACK": "1", "AIRBYTE_OFFLINE_MODE": "1"})

# Millions of objects that live to the end are made now: see pytest_collection_finish.
gc.disable()

DATABASES = ("sqlite", "duckdb", "postgresql", "mariadb")

settings.register_profile("quick", database=None, deadline=None, max_examples=10, print_blob=True)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGTERM, _end_servers)
    config.addinivalue_line(
        "markers", "needs(capability): skipped where the database's dialect has no such capability"
    )
    config.addinivalue_line(
        "markers", "slow_on(database): slow there, where it is opened hundreds of times"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")
    for item in items:
        for mark in item.iter_markers("slow_on"):
            if set(mark.args) & set(item.callspec.params.values()):
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported: it lives until the end."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A server for the whole run; skips without its binaries, and fails where CI is set."""
    yield from started(Postgres)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The same of MariaDB."""
    yield from started(MariaDB)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database; each test that asks for it runs once per database."""
    for mark in request.node.iter_markers("needs"):
        _skip_without(request.param, *mark.args)
    with _fresh(request, tmp_path) as url:
        yield url


@pytest.fixture(params=DATABASES)
def other_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a second one: a test that asks for both runs for each pair of kinds."""
    (tmp_path / "other").mkdir()
    with _fresh(request, tmp_path / "other") as url:
        yield url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """An engine of the user's own on the database."""
    engine = create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def store(database: str, empty_log: Callable[[str], Path]) -> Iterator[EventStore]:
    """A store on the database, with its tables: to make them is most of what a test takes."""
    url = make_url(database)
    if _is_file(url):
        shutil.copy(empty_log(database), str(url.database))
    with connect(database) as store:
        yield store


@pytest.fixture(scope="session")
def empty_log(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What makes, once for each kind of file, a database with an empty log."""
    folder = tmp_path_factory.mktemp("empty")

    def of_same_kind(url: str) -> Path:
        kind = make_url(url).set(database=str(folder / make_url(url).get_backend_name()))
        if not Path(str(kind.database)).exists():
            with connect(kind) as store:
                store.pipelines()
        return Path(str(kind.database))

    return of_same_kind


@pytest.fixture(scope="module", params=DATABASES)
def shared_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EventStore]:
    """One store for all tests of a module: they append to pipelines of their own, or nothing."""
    with _fresh(request, tmp_path_factory.mktemp("shared")) as url, connect(url) as store:
        yield store


def _end_servers(*_: object) -> None:
    """Leave by way of the fixtures: a run that is terminated leaves no server behind."""
    pytest.exit("terminated", returncode=128 + signal.SIGTERM)


def _skip_without(name: str, *capabilities: str) -> None:
    dialect = dialect_of(make_url(f"{name}://"))
    for capability in capabilities:
        if getattr(dialect, capability) is None or getattr(dialect, capability) is False:
            pytest.skip(f"{name} lacks {capability}: the reason is in its dialect")


@pytest.fixture(scope="module")
def galera() -> Iterator[Galera]:
    """A cluster of three for the tests of a module."""
    yield from started(Galera)


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    """A PostgreSQL with two synchronous standbys for the tests of a module."""
    yield from started(Replicas)


def started(kind: type[S]) -> Iterator[S]:
    try:
        server = kind()
    except NoBinaries as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with server:
        yield server


def _is_file(url: URL) -> bool:
    return dialect_of(url).NOW is None


@contextmanager
def _fresh(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if _is_file(make_url(f"{request.param}://")):
        query = "?threads=1" if request.param == "duckdb" else ""
        yield f"{request.param}:///{folder / 'state.db'}{query}"
        return
    server: Server = request.getfixturevalue(request.param)
    with server.empty_database() as url:
        yield url
