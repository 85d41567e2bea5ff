"""The floor: rows that a writer of ours has written, written again by the bare driver."""

from __future__ import annotations

import sqlite3
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
from sqlalchemy import create_engine, make_url, select

from eventstore.compression import PLAIN
from eventstore.dialects.sqlite import CACHE_KIB
from eventstore.tables import (
    BODY_VERSION,
    KIND,
    ORIGIN,
    PIPELINES,
    bodies,
    body_id,
    events,
    pipelines,
    raw,
    streams,
)
from projections import connect
from projections.tables import CACHE_STATE_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection, Table

_ALL = (pipelines, streams, events, bodies, CACHE_STATE_TABLE)


class Bare:
    """Writes what was written to another database into tables like those: one cursor, no more.

    A transaction is BEGIN, an event, its body, the row of its stream, COMMIT.
    """

    def __init__(self, url: str, written: str, *, synchronous: str = "FULL") -> None:
        """Make the tables as we do, and put into them what is there so far."""
        self._theirs = create_engine(written)
        with self._theirs.connect() as theirs, connect(url) as ours:
            with ours.database.engine.begin() as db:
                for table in _ALL:
                    for row in theirs.execute(select(table)):
                        db.execute(table.insert().values(tuple(row)))
            self._version = ours.heads()[ours.pipelines()[0]]
        kind = make_url(url).get_backend_name()
        place = "%s" if kind == "postgresql" else "?"
        self._begin = "BEGIN IMMEDIATE" if kind == "sqlite" else "BEGIN"
        overwrite = f"UPDATE {CACHE_STATE_TABLE} SET state_json = ?, last_updated = ?, version = ?"
        statements = [_insert(events), _insert(bodies), f"{overwrite} WHERE row_key = ?"]
        self._statements = [statement.replace("?", place) for statement in statements]
        self._cursor = _cursor(url, kind, synchronous)

    def seconds(self) -> float:
        """Write what was written since; returns how long that took."""
        with self._theirs.connect() as db:
            writes = self._writes(db)
        cursor, statements = self._cursor, self._statements
        start = time.perf_counter()
        for rows in writes:
            cursor.execute(self._begin)
            for statement, row in zip(statements, rows, strict=True):
                cursor.execute(statement, row)
            cursor.execute("COMMIT")
        took = time.perf_counter() - start
        self._version += len(writes)
        return took

    def _writes(self, db: Connection) -> Sequence[Sequence[tuple[Any, ...]]]:
        state = CACHE_STATE_TABLE.c
        keys = dict(db.execute(select(state.stream_name, state.row_key)).tuples().all())
        with connect(self._theirs) as store:
            past = store.history(store.pipelines()[0], after=self._version)
            states = [
                (said.body.decode(), str(said.stored_at), said.version, keys[said.stream.name])
                for said in past
                if said.stream
            ]
        rows = [
            _since(db, table, version > self._version)
            for table, version in ((events, events.c.version), (bodies, BODY_VERSION))
        ]
        return list(zip(*rows, states, strict=True))


def count_of_appends(url: str, number: int, turn_s: float, wait: Callable[[], object]) -> int:
    """How many events and their bodies a bare PostgreSQL writer commits in a turn after a wait.

    One statement each, and nothing else: how much faster several are than one is the machine's.
    """
    sql = f"WITH event AS ({_insert(events)}) {_insert(bodies)}".replace("?", "%s")
    zeros = bytes(32)
    words = KIND.numbers["StateSaved"], ORIGIN.numbers["source"]
    says = (words[0], 1, 1, words[1], None, "somebody", None, "a run")
    body = (zeros[:16], PLAIN, b'{"type":"STREAM","stream":{"stream_descriptor":{}}}')
    cursor = _cursor(url, "postgresql", "")
    pipeline_id = time.time_ns() % (PIPELINES // 8) * 8 + number
    end = 0.0
    for version in count(1):
        place = pipeline_id, version
        event = (*place, time.time_ns() // 1000, zeros[:16], *says, None, zeros, zeros)
        cursor.execute(sql, (*event, body_id(*place), *body))
        if version == 1:
            wait()
            end = time.time() + turn_s
        elif time.time() > end:
            return version - 1
    raise AssertionError("count() does not end")


def as_kept(table: Table) -> list[ColumnElement[Any]]:
    """The columns of a table, for what is in it as a driver gives it."""
    return list(map(raw, table.columns))


def _since(db: Connection, table: Table, later: ColumnElement[bool]) -> list[tuple[Any, ...]]:
    """Its rows as they are kept, in the order of their versions."""
    rows = db.execute(select(*as_kept(table)).where(later).order_by(*table.primary_key))
    return [tuple(row) for row in rows]


def _insert(table: Table) -> str:
    names = [column.name for column in table.columns]
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _cursor(url: str, kind: str, synchronous: str) -> Any:
    path = make_url(url).database
    if kind == "postgresql":
        address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(address, autocommit=True).cursor()
    if kind == "duckdb":
        return duckdb.connect(path)
    cursor = sqlite3.connect(str(path), isolation_level=None).cursor()
    for setting in (f"synchronous = {synchronous}", f"cache_size = -{CACHE_KIB}"):
        cursor.execute(f"PRAGMA {setting}")
    return cursor
