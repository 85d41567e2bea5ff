"""PyAirbyte's caches, and connectors to sync with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airbyte.caches import DuckDBCache, PostgresCache
from sqlalchemy import make_url

from tests.syncs.connectors import ScriptedDestination, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airbyte.caches.base import CacheBase


@pytest.fixture(params=["duckdb", "postgresql"])
def plain_cache(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., CacheBase]]:
    """What opens a cache of unmodified PyAirbyte, in a schema with a prefix, again and again."""
    where = {"schema_name": "raw", "table_prefix": "dev_", "cache_dir": tmp_path / "files"}
    if request.param == "duckdb":
        path = tmp_path / "cache.duckdb"
        yield lambda **other: DuckDBCache(db_path=path, **{**where, **other})
        return
    with request.getfixturevalue("postgresql").empty_database() as text:
        url = make_url(text)
        at = {"host": url.host, "port": url.port, "username": url.username, "password": ""}
        yield lambda **other: PostgresCache(database=url.database, **at, **{**where, **other})


@pytest.fixture
def shop(tmp_path: Path) -> ScriptedSource:
    """A source that says what a test wants."""
    return ScriptedSource(tmp_path)


@pytest.fixture
def lake(tmp_path: Path) -> ScriptedDestination:
    """A destination that confirms what a test wants."""
    return ScriptedDestination(tmp_path)
