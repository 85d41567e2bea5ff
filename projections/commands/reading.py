"""Commands that only read: they create nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from eventstore import codec
from eventstore.errors import Invalid
from eventstore.events import Pipeline
from eventstore.store import EventStore
from projections import audit, json_text
from projections.as_of import BeforeHead, catalog_as_of, locate, parse_moment, state_as_of
from projections.display import (
    event_as_json,
    pipeline_as_json,
    print_json,
    print_json_text,
    printable,
    rfc3339,
    stream_as_json,
)
from projections.exchange import FORMS, write_state
from projections.options import At, Db, Json, Schema, moment_of, opened, warn_before_history
from projections.table import print_rows


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
                    **pipeline_as_json(pipeline),
                    "version": head.version,
                    "stored_at": head.stored_at and rfc3339(head.stored_at),
                }
            )
        return
    print_rows(
        ["version", "last event", "pipeline"],
        [[f"@{head.version}", head.stored_at or "", str(pipeline)] for pipeline, head in rows],
        whole=2,
        empty="no pipeline yet",
    )


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
    warn_before_history(store, pipeline, at, view.version)
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
        value="state",
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
