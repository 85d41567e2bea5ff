"""Databases for the command to read, written at times of our choosing."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from eventstore import EventStore, Pipeline, StateCleared, StateEmitted, StateSaved
from projections import connect, register_catalog
from projections.projector import apply_inline
from tests.messages import (
    catalog,
    configured_stream,
    global_state,
    inner_state,
    legacy_state,
    saved,
    stream_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from eventstore import StoredEvent

FILES = ("sqlite", "duckdb")

SHOP = Pipeline("source-shop", "destination-lake")
CACHE = Pipeline("source-shop")
PREFIXED = Pipeline("source-shop", table_prefix="p_")
BANK = Pipeline("source-bank", connection="account b")
OTHER = Pipeline("source-shop", "destination-lake", connection="b")

FIRST_DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


@dataclass
class Clock:
    """The time events are stored at, in whole seconds."""

    now: datetime = FIRST_DAY

    def __call__(self) -> int:
        """Count microseconds since 1970."""
        return int(self.now.timestamp()) * 1_000_000


def tallied(name: str, blob: object, read: int, written: int) -> StateSaved:
    """A state that tells how many records the source read, and the destination wrote."""
    state = json.loads(stream_state(name, blob))
    state |= {"sourceStats": {"recordCount": read}, "destinationStats": {"recordCount": written}}
    return StateSaved(json.dumps(state))


@contextmanager
def writing(url: str) -> Iterator[tuple[EventStore, Clock]]:
    """Open a store on a new database, and the clock it goes by."""
    with connect(url) as store:
        store.heads()
    engine, clock = create_engine(url), Clock()
    try:
        yield EventStore(engine, inline=apply_inline, clock=clock), clock
    finally:
        engine.dispose()


def events_in(database: Path | str) -> list[StoredEvent]:
    """Read the whole log."""
    with connect(database, create=False) as store:
        return list(store.log())


def write_history(url: str) -> None:
    """Write one pipeline, its nine events spread over the last ten days."""
    started = datetime.now(timezone.utc)
    with writing(url) as (store, clock):
        clock.now = started - 10 * DAY
        store.append(SHOP, saved("orders", {"cursor": 1}), actor="nightly", run="8810")
        clock.now = started - 5 * DAY
        orders = configured_stream("orders", cursor_field=["id"], primary_key=[["id"], ["shop"]])
        register_catalog(store, SHOP, catalog(orders), actor="nightly", run="8811")
        clock.now = started - timedelta(hours=3)
        store.append(
            SHOP,
            saved("orders", {"cursor": 2}),
            saved("users", {"page": 7}, "audit"),
            actor="maria",
            run="8812",
            reason="back to yesterday",
        )
        clock.now = started - timedelta(minutes=30)
        store.append(SHOP, StateEmitted(stream_state("orders", {"cursor": 99})))
        users = configured_stream("users", "audit", columns=["id", "name", "email"])
        register_catalog(store, SHOP, catalog(orders, users))
        clock.now = started
        store.append(SHOP, saved("orders", {"cursor": 3}))


_USERS = stream_state("users", {"page": 7}, "audit")

STATES = {
    0: [],
    1: [stream_state("orders", {"cursor": 1})],
    3: [stream_state("orders", {"cursor": 1})],
    5: [stream_state("orders", {"cursor": 2}), _USERS],
    8: [stream_state("orders", {"cursor": 2}), _USERS],
    9: [_USERS, stream_state("orders", {"cursor": 3})],
}
"""The state that `write_history` leaves after some of its versions."""

STREAMS = {
    0: [],
    1: [],
    3: ["orders"],
    5: ["orders"],
    8: ["orders", "users"],
    9: ["orders", "users"],
}
"""The streams in the catalog that `write_history` leaves after some of its versions."""

MOMENTS = {
    "@0": 0,
    "@1": 1,
    "@5": 5,
    "@-1": 8,
    "@-4": 5,
    "1w": 1,
    "3d": 3,
    "2h": 5,
    "15m": 8,
    "now": 9,
}
"""Moments of `write_history` for which one need not look at a calendar, and their versions."""


def write_crowd(url: str) -> None:
    """Write five pipelines; the reason of each event is a letter, and each has a day of its own."""
    orders, users = stream_state("orders", {"cursor": 1}), _USERS
    whole = global_state({"lsn": 1}, inner_state("orders", {}))
    steps = [
        ("a", SHOP, StateSaved(orders), "nightly", "8810"),
        ("b", SHOP, StateSaved(users), "maria", "8811"),
        ("c", SHOP, StateEmitted(orders), "nightly", "8811"),
        ("d", CACHE, StateSaved(orders), "nightly", "8812"),
        ("e", PREFIXED, StateSaved(whole), "airflow", "nightly-2026-01-05"),
        ("f", BANK, StateSaved(legacy_state({"page": 1})), "airflow", "nightly-2026-01-06"),
        ("g", BANK, StateCleared(), "maria", "by hand"),
        ("h", OTHER, StateSaved(users), "airflow", "nightly-2026-01-08"),
    ]
    with writing(url) as (store, clock):
        for reason, pipeline, event, actor, run in steps:
            store.append(pipeline, event, actor=actor, run=run, reason=reason)
            clock.now += DAY
