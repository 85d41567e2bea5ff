"""What the commands have in common: their options, and which pipeline and moment those mean."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from eventstore.errors import InvalidMoment, InvalidPipeline, StoreUnavailable
from projections.as_of import BeforeHead, parse_moment

if TYPE_CHECKING:
    from datetime import datetime

    from eventstore.events import Pipeline
    from eventstore.store import EventStore

Db = Annotated[
    str,
    typer.Option(
        "--db", envvar="EVENTSTORE_DB", help="SQLAlchemy URL, or path to a SQLite or DuckDB file."
    ),
]
Schema = Annotated[str | None, typer.Option(help="Where the tables are, on PostgreSQL.")]
Source = Annotated[str | None, typer.Option(help="The pipeline's source.")]
Destination = Annotated[str | None, typer.Option(help="Its destination; '' for a cache.")]
Prefix = Annotated[str | None, typer.Option(help="The prefix of the cache's tables.")]
Connection = Annotated[str | None, typer.Option(help="Tells two configurations apart.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="WHEN", help="As of then: 2026-11-20T09:00:00Z, 2026-11-20, 2h, @41, @-1."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines with stable names.")]


def instant(text: str | None, option: str) -> datetime | None:
    """The time an option names; raises InvalidMoment for a version."""
    if text is None:
        return None
    moment = parse_moment(text)
    if isinstance(moment, int | BeforeHead):
        raise InvalidMoment(f"{option} takes a time, not a version: {text}")
    return moment


def some(
    store: EventStore,
    source: str | None,
    destination: str | None,
    table_prefix: str | None,
    connection: str | None,
) -> list[Pipeline]:
    """The pipelines that have these names; raises InvalidPipeline if there are none."""
    there = store.pipelines()
    found = [
        pipeline
        for pipeline in there
        if source in {None, pipeline.source}
        and destination in {None, pipeline.destination or ""}
        and table_prefix in {None, pipeline.table_prefix}
        and connection in {None, pipeline.connection}
    ]
    if found:
        return found
    if not there:
        raise StoreUnavailable("the log is empty; record a state into it first")
    raise InvalidPipeline(f"no such pipeline, there are: {'; '.join(_spelled(there))}")


def one(
    store: EventStore,
    source: str | None,
    destination: str | None,
    table_prefix: str | None,
    connection: str | None,
) -> Pipeline:
    """The pipeline that is meant: the one that matches, if there is exactly one."""
    found = some(store, source, destination, table_prefix, connection)
    if len(found) == 1:
        return found[0]
    raise InvalidPipeline(f"several pipelines match, name one: {'; '.join(_spelled(found))}")


def _spelled(pipelines: list[Pipeline]) -> list[str]:
    """The options that tell each pipeline from the others; a cache has the destination ''."""
    names = [
        {
            "--source": pipeline.source,
            "--destination": pipeline.destination or "",
            "--table-prefix": pipeline.table_prefix,
            "--connection": pipeline.connection,
        }
        for pipeline in pipelines
    ]
    telling = {option for option in names[0] if len({each[option] for each in names}) > 1}
    telling.add("--source")
    return [
        " ".join(f"{option} {shlex.quote(each[option])}" for option in each if option in telling)
        for each in names
    ]
