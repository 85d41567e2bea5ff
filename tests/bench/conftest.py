"""Where the figures go, and databases that sync what they commit.

All numbers go to $BENCH_JSON, or to ./bench-results.json.
"""

import json
import os
import platform
import time
from importlib.metadata import version
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.mariadb_server import MariaDB
from tests.postgresql_server import Postgres

PACKAGES = ("airbyte", "airbyte-eventstore", "duckdb", "duckdb-engine", "psycopg", "sqlalchemy")

_BESIDES = {"unit", "ratio", "target", "rounds"}

_found = {}


def pytest_terminal_summary(terminalreporter):
    """One table of what was measured, as it stands in the README."""
    if not _found:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| work | measured | ratio | to be reached |")
    terminalreporter.write_line("|---|---|---|---|")
    for work, result in _found.items():
        figures = ", ".join(f"{name} {result[name]}" for name in result if name not in _BESIDES)
        measured = f"{figures} {result['unit']}"
        cells = (work, measured, result.get("ratio") or "", result.get("target") or "")
        terminalreporter.write_line(f"| {' | '.join(map(str, cells))} |")


@pytest.fixture(scope="session")
def results():
    yield _found
    document = {
        "results": _found,
        "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    path = Path(os.environ.get("BENCH_JSON", "bench-results.json"))
    path.write_text(json.dumps(document, indent=2) + "\n")


@pytest.fixture(scope="session")
def durable_server():
    """PostgreSQL that does not acknowledge what is not on disk."""
    with Postgres(durable=True) as server:
        admin = create_engine(server.url())
        with admin.connect() as db:
            assert db.scalar(text("SHOW fsync")) == "on"
        admin.dispose()
        yield server


@pytest.fixture(scope="session")
def durable_mariadb():
    """The same of MariaDB."""
    with MariaDB(durable=True) as server:
        yield server


@pytest.fixture
def fresh_url(request, tmp_path):
    """What gives the URL of another empty database of a kind, each time it is called."""
    numbers = count()

    def fresh(kind):
        if kind in {"sqlite", "duckdb"}:
            return f"{kind}:///{tmp_path / f'{next(numbers)}.db'}"
        durable = {"postgresql": "durable_server", "mariadb": "durable_mariadb"}
        server = request.getfixturevalue(durable[kind])
        name = f"bench_{time.time_ns()}"
        server.execute(None, f"CREATE DATABASE {name}")
        return server.url(name)

    return fresh
