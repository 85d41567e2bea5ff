"""Commands that only read: they create nothing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventstore import payload
from eventstore.errors import Invalid
from eventstore.events import Pipeline, StreamDescriptor, to_datetime
from eventstore.head import Head
from eventstore.store import EventStore
from projections import audit, json_text
from projections.as_of import catalog_as_of, locate, parse_moment, state_as_of
from projections.display import (
    change_as_json,
    complain,
    event_as_json,
    pipeline_as_json,
    print_json,
    print_json_text,
    printable,
    rfc3339,
    stream_as_json,
)
from projections.exchange import FORMS, write_state
from projections.options import (
    At,
    Db,
    Json,
    Schema,
    moment_of,
    on_pipeline,
    opened,
    warn_before_history,
)
from projections.table import Table, print_found

if TYPE_CHECKING:
    from airbyte_protocol.models import ConfiguredAirbyteStream


def pipelines(db: Db, schema: Schema = None, json: Json = False) -> None:
    """List the pipelines, and the version and time of each."""
    table = Table(["version", "last event", "pipeline"], whole=2)
    as_json = _head_as_json if json else None
    with opened(db, schema) as store:
        print_found(store.ends().items(), table, _head_row, as_json, empty="no pipeline yet")


def _head_row(reached: tuple[Pipeline, Head]) -> list[str | datetime]:
    pipeline, head = reached
    return [f"@{head.version}", to_datetime(head.stored_at), str(pipeline)]


def _head_as_json(reached: tuple[Pipeline, Head]) -> dict[str, Any]:
    pipeline, head = reached
    return {
        **pipeline_as_json(pipeline),
        "version": head.version,
        "stored_at": rfc3339(to_datetime(head.stored_at)),
    }


@on_pipeline
def show(
    store: EventStore,
    pipeline: Pipeline,
    version: Annotated[str, typer.Argument(metavar="@VERSION", help="@41, or @-1.")],
    json: Json = False,
) -> None:
    """Print one event whole."""
    place = locate(store, pipeline, parse_moment(version))
    stored = store.event(pipeline, place.version)
    [change] = audit.explained(store, [stored])
    if json:
        print_json(change_as_json(change))
        return
    for name, value in event_as_json(stored).items():
        if value not in {None, ""} and name != "body":
            print(f"{name:<13} {printable(str(value))}")
    if change.before or change.notes:
        print(f"{'what':<13} {printable(change.words)}")
    print()
    if stored.erased:
        print(printable(audit.erasure(store, stored)))
    elif stored.body:
        print_json_text(json_text.indented(json_text.parse(stored.body)))


@on_pipeline
def state(
    store: EventStore,
    pipeline: Pipeline,
    at: At = None,
    form: Annotated[
        str | None, typer.Option(help=f"For machines: {', '.join(FORMS)}; by default the first.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="For people.")] = False,
    json: Json = False,
) -> None:
    """Print the state, as a connector's --state file takes it."""
    if form not in {None, *FORMS}:  # before a database is asked
        raise Invalid(f"there is no form {form!r} of a state; there are {', '.join(FORMS)}")
    if form and (table or json):
        raise Invalid("--form is for a file: it goes with neither --table nor --json")
    # Not from the tables: in those PyAirbyte may have written and deleted since.
    view = state_as_of(store, pipeline, moment_of(at))
    warn_before_history(store, pipeline, at, view.version)
    if not table and not json:
        print_json_text(write_state(view, form or "protocol"))
        return
    print_found(
        view.streams.items() if view.whole is None else [(None, view.whole)],
        Table(["namespace", "stream", "state"], whole=0, value="state"),
        _state_row,
        _state_as_json if json else None,
        empty="no state",
    )


def _state_row(state: tuple[StreamDescriptor | None, bytes]) -> list[str]:
    stream, body = state
    return [(stream and stream.namespace) or "", stream.name if stream else "", audit.blob(body)]


def _state_as_json(state: tuple[StreamDescriptor | None, bytes]) -> dict[str, Any]:
    stream, body = state
    return {**stream_as_json(stream), "type": payload.state_kind(body), "body": body.decode()}


@on_pipeline
def catalog(
    store: EventStore,
    pipeline: Pipeline,
    at: At = None,
    table: Annotated[bool, typer.Option("--table", help="For people.")] = False,
) -> None:
    """Print the catalog, as a connector's --catalog file takes it."""
    view = catalog_as_of(store, pipeline, moment_of(at))
    erased = [f"not there: {words}" for _, words in audit.erased_from(store, view)]
    complain(erased)
    if not table and not view.by_descriptor and not erased:
        complain([f"no catalog of {pipeline} yet"])
    if not table:
        print_json_text(view.catalog.model_dump_json(by_alias=True, exclude_unset=True))
        return
    headings = ["stream", "sync mode", "destination", "cursor", "primary key", "fields"]
    print_found(
        view.by_descriptor.items(),
        Table(headings, whole=0),
        _configured_row,
        empty="no stream is registered",
    )


def _configured_row(configured: tuple[StreamDescriptor, ConfiguredAirbyteStream]) -> list[str]:
    descriptor, stream = configured
    return [
        str(descriptor),
        stream.sync_mode.value,
        stream.destination_sync_mode.value,
        ".".join(stream.cursor_field or []),
        ", ".join(".".join(key) for key in stream.primary_key or []),
        str(len(stream.stream.json_schema.get("properties", {}))),
    ]
