"""Commands that only read: they create nothing."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from eventstore import codec
from eventstore.errors import Invalid
from eventstore.events import KINDS, Pipeline
from eventstore.store import EventStore
from projections import audit, json_text
from projections.as_of import BeforeHead, catalog_as_of, locate, parse_moment, state_as_of
from projections.display import (
    complain,
    event_as_json,
    print_changes,
    print_json,
    print_json_text,
    print_rows,
    printable,
    rfc3339,
    stream_as_json,
)
from projections.exchange import FORMS, write_state
from projections.options import At, Db, Json, Names, Schema, instant, moment_of, opened


def pipelines(db: Db, schema: Schema = None, json: Json = False) -> None:
    """List the pipelines, with the version and time each has reached."""
    with opened(db, schema) as store:
        rows = [
            (pipeline, locate(store, pipeline, BeforeHead(0))) for pipeline in store.pipelines()
        ]
    if json:
        for pipeline, head in rows:
            print_json(
                {
                    "source": pipeline.source,
                    "destination": pipeline.destination,
                    "table_prefix": pipeline.table_prefix,
                    "connection": pipeline.connection,
                    "version": head.version,
                    "stored_at": head.stored_at and rfc3339(head.stored_at),
                }
            )
        return
    print_rows(
        ["version", "last event", "pipeline"],
        [
            [f"@{head.version}", (head.stored_at and rfc3339(head.stored_at)) or "", str(pipeline)]
            for pipeline, head in rows
        ],
        whole=2,
        empty="no pipeline yet",
    )


def log(
    store: EventStore,
    names: Names,
    stream: Annotated[str | None, typer.Option(help="Events of this stream.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Events of this namespace.")] = None,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="From then on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Up to then.")] = None,
    kind: Annotated[str | None, typer.Option(help="StateSaved, CatalogRegistered ...")] = None,
    actor: Annotated[str | None, typer.Option(help="Appended by them.")] = None,
    run: Annotated[str | None, typer.Option(help="Appended in this run.")] = None,
    last: Annotated[int | None, typer.Option("-n", min=1, help="Only the newest.")] = None,
    json: Json = False,
) -> None:
    """Print events, oldest first."""
    if kind not in {None, *KINDS}:
        raise Invalid(f"there is no kind of event {kind!r}; there are {', '.join(KINDS)}")
    events = store.log(
        among=None if names == Names() else names.some(store),
        since=instant(since, "--since"),
        until=instant(until, "--until"),
        stream=stream,
        namespace=namespace,
        kind=kind,
        actor=actor,
        run=run,
        last=last,
    )
    if json:
        for stored in events:
            print_json(event_as_json(stored))
        return
    # In a pipe the columns stay where they are when there is a second pipeline one day.
    several = ["pipeline"] if not sys.stdout.isatty() or len(store.pipelines()) > 1 else []
    headings = ["version", "stored at", "event", *several, "stream", "what"]
    headings += ["actor", "run", "reason"]
    rows = (
        [
            f"@{stored.version}",
            rfc3339(stored.stored_at),
            stored.kind
            if stored.origin in {None, "source"}
            else f"{stored.kind} ({stored.origin})",
            *(str(stored.pipeline) for _ in several),
            str(stored.stream or ""),
            audit.summary(stored),
            stored.actor,
            stored.run,
            stored.reason or "",
        ]
        for stored in events
    )
    print_rows(headings, rows, whole=3, empty="no event matches")


def show(
    store: EventStore,
    pipeline: Pipeline,
    version: Annotated[str, typer.Argument(metavar="@VERSION", help="@41, or @-1.")],
    json: Json = False,
) -> None:
    """Print one event whole."""
    place = locate(store, pipeline, parse_moment(version))
    stored = store.event(pipeline, place.version)
    if json:
        print_json(event_as_json(stored))
        return
    for name, value in event_as_json(stored).items():
        if value is not None and name != "body":
            print(f"{name:<13} {printable(str(value))}")
    print()
    if stored.erased:
        print(printable(audit.erasure(store, stored)))
    elif stored.body:
        print_json_text(json_text.indented(json_text.parse(stored.body)))


def state(
    store: EventStore,
    pipeline: Pipeline,
    at: At = None,
    form: Annotated[str, typer.Option(help=f"For machines: {', '.join(FORMS)}.")] = "protocol",
    table: Annotated[bool, typer.Option("--table", help="For people.")] = False,
    json: Json = False,
) -> None:
    """Print the state, as a connector's --state file takes it."""
    if form not in FORMS:  # before a database is asked
        raise Invalid(f"there is no form {form!r} of a state; there are {', '.join(FORMS)}")
    # Not from the tables: in those PyAirbyte may have written and deleted since.
    view = state_as_of(store, pipeline, moment_of(at))
    if not view.version and at is not None and not at.strip().startswith("@"):
        first = rfc3339(store.event(pipeline, 1).stored_at)
        complain([f"the history of {pipeline} begins after {at}, at {first}: no state yet"])
    if not table and not json:
        print_json_text(write_state(view, form))
        return
    rows = [(None, view.whole)] if view.whole is not None else view.streams.items()
    if json:
        for stream, body in rows:
            of_type = codec.state_kind(body)
            print_json({**stream_as_json(stream), "type": of_type, "body": body.decode()})
        return
    print_rows(
        ["namespace", "stream", "state"],
        [
            [(stream and stream.namespace) or "", stream.name if stream else "", audit.blob(body)]
            for stream, body in rows
        ],
        whole=0,
        empty="no state",
    )


def catalog(
    store: EventStore,
    pipeline: Pipeline,
    at: At = None,
    table: Annotated[bool, typer.Option("--table", help="For people.")] = False,
) -> None:
    """Print the configured catalog, as a connector's --catalog file takes it."""
    view = catalog_as_of(store, pipeline, moment_of(at))
    if not table:
        print_json_text(view.catalog.model_dump_json(by_alias=True, exclude_unset=True))
        return
    print_rows(
        ["stream", "sync mode", "destination", "cursor", "primary key", "fields"],
        [
            [
                str(descriptor),
                stream.sync_mode.value,
                stream.destination_sync_mode.value,
                ".".join(stream.cursor_field or []),
                ", ".join(".".join(key) for key in stream.primary_key or []),
                str(len(stream.stream.json_schema.get("properties", {}))),
            ]
            for descriptor, stream in view.by_descriptor.items()
        ],
        whole=0,
        empty="no stream is registered",
    )


def diff(
    store: EventStore,
    pipeline: Pipeline,
    a: Annotated[str, typer.Argument(metavar="A", help="A moment: 2h, @41, 2026-11-20 ...")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another moment.")],
    json: Json = False,
) -> None:
    """Print what changed in the state from one moment to another."""
    views = [state_as_of(store, pipeline, parse_moment(moment)) for moment in (a, b)]
    nothing = f"nothing changed from @{views[0].version} to @{views[1].version}"
    print_changes(audit.diff(*views), json=json, empty=nothing)
