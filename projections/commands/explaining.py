"""Commands that say what happened: they create nothing."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventstore.errors import Invalid
from eventstore.events import Pipeline
from eventstore.store import EventStore
from projections import audit
from projections.as_of import catalog_as_of, parse_moment, state_as_of
from projections.catalog_diff import shown
from projections.differences import KINDS as DIFFERENCES
from projections.display import (
    difference_as_json,
    pipeline_as_json,
    print_json,
    redefinition_as_json,
    rfc3339,
    stream_as_json,
)
from projections.json_text import compact
from projections.options import (
    At,
    Json,
    Names,
    instant,
    moment_of,
    on_pipeline,
    on_store,
    require_stream,
)
from projections.table import Table, print_found

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projections.views import CatalogView, StateView

OtherSource = Annotated[str | None, typer.Option(help="The source of B's pipeline, if not A's.")]
OtherDestination = Annotated[str | None, typer.Option(help="Its destination; '' for a cache.")]
OtherPrefix = Annotated[str | None, typer.Option(help="The prefix of its cache's tables.")]
OtherConnection = Annotated[str | None, typer.Option(help="Its connection.")]

_HINT = "not looked at: the chain of hashes; see eventstore verify"


@on_pipeline
def diff(
    store: EventStore,
    pipeline: Pipeline,
    a: Annotated[str, typer.Argument(metavar="A", help="A moment: 2h, @41, 2026-11-20 ...")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another moment.")],
    other_source: OtherSource = None,
    other_destination: OtherDestination = None,
    other_table_prefix: OtherPrefix = None,
    other_connection: OtherConnection = None,
    catalog: Annotated[bool, typer.Option("--catalog", help="Of the catalogs.")] = False,
    stat: Annotated[bool, typer.Option("--stat", help="How many, for each stream.")] = False,
    json: Json = False,
    json_patch: Annotated[
        bool, typer.Option("--json-patch", help="RFC 6902, from A's state to B's.")
    ] = False,
) -> None:
    """Print what changed from one moment to another.

    In the state, or in the catalogs. B is of the same pipeline, unless an option names what is
    other.
    """
    if catalog + stat + json_patch > 1 or (json and json_patch):
        raise Invalid("--catalog, --stat and --json-patch show different things: choose one")
    named = Names(other_source, other_destination, other_table_prefix, other_connection)
    sides = [(pipeline, parse_moment(a)), (_other(store, pipeline, named), parse_moment(b))]
    if catalog:
        _print_catalog_diff(*(catalog_as_of(store, *side) for side in sides), json=json)
        return
    views = [state_as_of(store, *side) for side in sides]
    if json_patch:
        print_json(audit.json_patch(*views))
    elif stat:
        _print_stat(*views, json=json)
    else:
        print_changes(audit.diff(*views), json=json, empty=_nothing_changed(*views))


@on_pipeline
def blame(
    store: EventStore,
    pipeline: Pipeline,
    at: At = None,
    stream: Annotated[str | None, typer.Option(help="Of this stream.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of this namespace.")] = None,
    json: Json = False,
) -> None:
    """Print who set each value of the state, when and in which run."""
    among = None
    if stream is not None or namespace is not None:
        among = require_stream(store, [pipeline], stream, namespace)
    found = [
        each
        for each in audit.blame(store, pipeline, moment_of(at))
        if among is None or each.stream in among
    ]
    table = Table(
        ["version", "stored at", "stream", "path", "value", "actor", "run", "reason"],
        whole=2,
        value="value",
        above={"actor": "by ", "run": "run ", "reason": "reason: "},
    )
    print_found(found, table, _blame_row, _blame_as_json if json else None, empty="no state")


def _blame_row(each: audit.Blame) -> list[str | datetime]:
    stored = each.stored
    return [
        f"@{stored.version}",
        stored.stored_at,
        str(each.stream or ""),
        each.path,
        compact(each.value),
        stored.actor,
        stored.run,
        stored.reason or "",
    ]


def _blame_as_json(each: audit.Blame) -> dict[str, Any]:
    return {
        **stream_as_json(each.stream),
        "path": each.path,
        "value": each.value,
        "version": each.stored.version,
        "stored_at": rfc3339(each.stored.stored_at),
        "actor": each.stored.actor,
        "run": each.stored.run,
        "reason": each.stored.reason,
    }


@on_store
def doctor(
    store: EventStore,
    names: Names,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only in what was stored from then on: 2d.")
    ] = None,
    json: Json = False,
) -> None:
    """Print what looks wrong.

    The exit code is 1 if anything does, else 0; what is in the history stays there, so say --since
    where it runs again and again. Looked for are a cursor that went backwards,
    records that were read and not written, a stream that vanished from a GLOBAL state, a state
    type that changed, runs whose events interleave, a state for a stream in no catalog, a clock
    that ran ahead, a guard of the log that is missing and a row that is not as the log says; not
    the chain of hashes: see `verify`.
    """
    pipelines = None if names == Names() else names.some(store)
    headings = ["version", "stream", "what looks wrong", "pipeline"]
    sick = print_found(
        audit.doctor(store, pipelines, since=instant(since, "--since")),
        Table(headings, whole=1, above={"pipeline": ""}),
        _finding_row,
        _finding_as_json if json else None,
        empty="nothing looks wrong",
    )
    if not json:
        print(_HINT, file=sys.stderr)
    if sick:
        raise typer.Exit(1)


def _finding_row(each: audit.Finding) -> list[str]:
    return [
        f"@{each.version}" if each.version else "",
        str(each.stream or ""),
        each.detail,
        str(each.pipeline or ""),
    ]


def _finding_as_json(each: audit.Finding) -> dict[str, Any]:
    return {
        **pipeline_as_json(each.pipeline),
        "version": each.version,
        **stream_as_json(each.stream),
        "what": each.what,
        "detail": each.detail,
    }


def _other(store: EventStore, pipeline: Pipeline, named: Names) -> Pipeline:
    """The pipeline that B is of: what is not named is as in A's."""
    if named == Names():
        return pipeline
    same = Names(
        pipeline.source, pipeline.destination or "", pipeline.table_prefix, pipeline.connection
    )
    return Names(
        *(own if own is not None else its for own, its in zip(named, same, strict=True))
    ).one(store)


def _nothing_changed(before: StateView | CatalogView, after: StateView | CatalogView) -> str:
    if before.pipeline != after.pipeline:
        return f"nothing differs between @{before.version} and @{after.version} of the other"
    return f"nothing changed from @{before.version} to @{after.version}"


def print_changes(changes: Iterable[audit.Change], *, json: bool, empty: str) -> None:
    """Print the differences between two states."""
    table = Table(["change", "stream", "path", "from -> to"], whole=1, value="from -> to")
    print_found(changes, table, difference_row, difference_as_json if json else None, empty=empty)


def difference_row(change: audit.Change) -> list[str]:
    """What is different in two states, for people."""
    return [change.change, str(change.stream or ""), change.path, audit.moved(change)]


def _print_stat(before: StateView, after: StateView, *, json: bool) -> None:
    def as_row(counted: tuple[Any, Any]) -> list[str]:
        stream, count = counted
        return [*(str(count[kind]) for kind in DIFFERENCES), str(stream or "")]

    def as_json(counted: tuple[Any, Any]) -> dict[str, Any]:
        stream, count = counted
        return {**stream_as_json(stream), **{str(kind): count[kind] for kind in DIFFERENCES}}

    print_found(
        audit.stat(audit.diff(before, after)).items(),
        Table([*DIFFERENCES, "stream"], whole=3),
        as_row,
        as_json if json else None,
        empty=_nothing_changed(before, after),
    )


def _print_catalog_diff(before: CatalogView, after: CatalogView, *, json: bool) -> None:
    headings = ["change", "breaking", "stream", "what", "path", "from -> to"]
    print_found(
        audit.diff_catalogs(before, after),
        Table(headings, whole=2, value="from -> to"),
        _redefinition_row,
        redefinition_as_json if json else None,
        empty=_nothing_changed(before, after),
    )


def _redefinition_row(change: audit.CatalogChange) -> list[str]:
    moved = f"{shown(change.before)} -> {shown(change.after)}"
    return [
        change.change,
        "breaking" if change.breaking else "",
        str(change.stream or ""),
        change.what,
        change.path,
        "" if change.what == "stream" else moved,
    ]
