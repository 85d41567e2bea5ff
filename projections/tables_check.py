"""Whether the tables that runners read say what the log says."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select

from eventstore.tables import pipelines as pipelines_table
from eventstore.tables import raw
from projections.projector import KINDS, expected_rows
from projections.tables import ALL_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import ColumnElement, Connection, Table

    from eventstore.events import Pipeline
    from eventstore.store import EventStore

_AT_ONCE = 100
"""Pipelines that are compared on one connection."""

_ATTEMPTS = 10
"""How often rows are read again that a writer may have changed between two reads."""


@dataclass(frozen=True)
class TablesReport:
    """Rows that are not what the log says, in words; `notices` are of rows that others wrote."""

    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def check_tables(store: EventStore, pipelines: Iterable[Pipeline] | None = None) -> TablesReport:
    """Compare the rows of all pipelines, or of these, with the newest events of each stream.

    Rows that unmodified PyAirbyte wrote, and those it deleted for them, are a notice: they are
    taken in, or put back, when the store is next opened to write.
    """
    among = store.pipelines() if pipelines is None else list(pipelines)
    foreign = store.database.read(_foreign)
    problems: list[str] = []
    notices = [
        f"{table}: {count} row(s) written by unmodified PyAirbyte are not in the log yet"
        for table, count in sorted(Counter(table for table, _ in foreign.elements()).items())
    ]
    for pipeline, table, row, words in _differences(store, among):
        what = f"{table.name}: the row of {row['stream_name']} of {pipeline} {words}"
        if words == _MISSING and (table.name, _slot(row)) in foreign:
            notices.append(f"{what}: unmodified PyAirbyte has written one in its place")
        else:
            problems.append(f"{what}, which is not what the log says: {_REMEDY}")
    if pipelines is None:
        problems += [f"{each}: {_REMEDY}" for each in store.database.read(_unowned)]
    return TablesReport(tuple(problems), tuple(notices))


_MISSING = "is missing"
_REMEDY = "see `eventstore rebuild`"


class _Difference(NamedTuple):
    """A row that is not what the log says, or that is not there, and how so."""

    pipeline: Pipeline
    table: Table
    row: Mapping[str, Any]
    words: str


def _differences(store: EventStore, pipelines: Iterable[Pipeline]) -> Iterator[_Difference]:
    left = iter(pipelines)
    while some := list(islice(left, _AT_ONCE)):
        found = store.database.read(lambda db, some=some: list(_compare(db, store, some)))  # type: ignore[misc]
        differing = {difference.pipeline for difference in found}
        for pipeline in filter(differing.__contains__, some):
            yield from _when_nobody_wrote(store, pipeline)


def _when_nobody_wrote(store: EventStore, pipeline: Pipeline) -> list[_Difference]:
    found: list[_Difference] = []
    for _ in range(_ATTEMPTS):
        head = store.head(pipeline)
        found = store.database.read(lambda db: list(_compare(db, store, [pipeline])))
        if not found or store.head(pipeline) == head:
            break
    return found


def _compare(
    db: Connection, store: EventStore, pipelines: Iterable[Pipeline]
) -> Iterator[_Difference]:
    for pipeline, newest in store.newest_by_pipeline(db, pipelines, KINDS):
        expected = {(table, row["row_key"]): row for table, row in expected_rows(newest)}
        for table in ALL_TABLES:
            for row in _rows(db, table, table.c.pipeline_key == pipeline.key):
                wanted = expected.pop((table, row["row_key"]), None)
                if wanted is None:
                    yield _Difference(pipeline, table, row, "is there")
                elif differing := [name for name in row if not _is(row[name], wanted[name])]:
                    words = f"has another {', '.join(differing)}"
                    yield _Difference(pipeline, table, row, words)
        for (table, _), row in expected.items():
            yield _Difference(pipeline, table, row, _MISSING)


def _rows(db: Connection, table: Table, where: ColumnElement[bool]) -> Iterator[dict[str, Any]]:
    """Rows as the driver has them: SQLite keeps any text in the place of a time."""
    columns = [raw(column).label(column.name) for column in table.columns]
    return map(dict, db.execute(select(*columns).where(where)).mappings())


def _is(there: Any, wanted: Any) -> bool:
    """Whether a value is that one; a time without a zone is UTC: SQLite keeps none."""
    if isinstance(wanted, datetime):
        if isinstance(there, str):
            with suppress(ValueError):
                there = datetime.fromisoformat(there)
        if isinstance(there, datetime) and there.tzinfo is None:
            there = there.replace(tzinfo=timezone.utc)
    return bool(there == wanted)


def _foreign(db: Connection) -> Counter[tuple[str, Any]]:
    """Where the rows are that others wrote."""
    return Counter(
        (table.name, _slot(row))
        for table in ALL_TABLES
        for row in _rows(db, table, table.c.pipeline_key.is_(None))
    )


def _slot(row: Mapping[str, Any]) -> Any:
    """What PyAirbyte takes for the key of a row."""
    if "table_name" in row:
        return row["table_name"]
    return row["destination_name"], row["stream_name"]


def _unowned(db: Connection) -> list[str]:
    """Rows under the key of a pipeline that is not in the log."""
    known = select(pipelines_table.c.key)
    return [
        f"{table.name}: {count} row(s) belong to no pipeline of the log"
        for table in ALL_TABLES
        if (
            count := db.scalar(
                select(func.count())
                .select_from(table)
                .where(table.c.pipeline_key.is_not(None), table.c.pipeline_key.not_in(known))
            )
        )
    ]
