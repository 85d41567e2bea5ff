"""The `eventstore` command."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from eventstore.errors import (
    EventStoreError,
    Invalid,
)
from eventstore.events import KINDS, Pipeline
from eventstore.identity import check_attribution
from projections import audit, json_text
from projections.as_of import BeforeHead, catalog_as_of, locate, parse_moment, state_as_of
from projections.catalogs import register_catalog
from projections.display import (
    counted,
    event_as_json,
    prepare_output,
    print_json,
    print_json_text,
    print_rows,
    printable,
    rfc3339,
)
from projections.options import (
    At,
    Connection,
    Db,
    Destination,
    Json,
    Prefix,
    Schema,
    Source,
    instant,
    one,
    some,
)
from projections.projector import rebuild as rebuild_tables
from projections.record import Recorder, Stopped
from projections.wiring import connect

if TYPE_CHECKING:
    from collections.abc import Iterable


app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; errors are one line on stderr, exit code 2 for wrong usage, else 1."""
    if sys.stderr is None:  # its number would soon be a file of the database's
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open to the end
    if sys.stdout is None:
        _fail("there is no output to write to", 1)
    # DuckDB imports it, to look at the first parameter of a statement: half a second for nothing.
    sys.modules.setdefault("pandas", None)  # type: ignore[arg-type]
    prepare_output()
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')} (see --help)", 2)
    except Invalid as error:
        _fail(str(error), 2)
    except (EventStoreError, Stopped) as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        # Python flushes stdout once more when it ends: give it somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        what = error.filename or "the output"
        _fail(f"{what} cannot be written: {error.strerror}", 1)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The history of Airbyte connector state, in the SQL database you already run."""
    if version:
        print(f"eventstore {metadata.version('airbyte-eventstore')}")
        raise typer.Exit


@app.command()
def record(
    db: Db,
    source: Annotated[str, typer.Option(help="The name of the source.")],
    schema: Schema = None,
    destination: Destination = None,
    table_prefix: Prefix = "",
    connection: Connection = "",
    catalog: Annotated[
        Path | None, typer.Option(help="A configured catalog to register first.", dir_okay=False)
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Who; by default the OS user.")] = None,
    run: Annotated[str | None, typer.Option(help="Which run; by default a fresh id.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    emitted: Annotated[
        bool, typer.Option("--emitted", help="The states are not confirmed by a destination yet.")
    ] = False,
) -> None:
    """Pass Airbyte messages from stdin to stdout; each STATE is stored before its line goes on."""
    if sys.stdin is None:  # its number would soon be a file of the database's
        raise Stopped("there is no input to read")
    pipeline = Pipeline(source, destination or None, table_prefix or "", connection or "")
    with connect(db, schema=schema) as store:
        # Before the first line is taken: a database has to be there, and stay.
        if store.database.engine.url.database in {None, "", ":memory:"}:
            raise Invalid(f"the database {db} is in memory, and all in it ends with this command")
        actor, reason, run = check_attribution(actor or store.actor, reason, run or store.run)
        if catalog:
            text = _read_file(catalog)
            register_catalog(store, pipeline, text, actor=actor, reason=reason, run=run)
        recorder = Recorder(store, pipeline, emitted, actor, reason, run)
        try:
            recorder.pump(0, 1)
        except Stopped as stopped:
            _complain(recorder.passed.report(pipeline))
            _fail(str(stopped), 128 + stopped.signal if stopped.signal else 1)
        _complain(recorder.passed.report(pipeline))
    if recorder.passed.invalid:
        raise typer.Exit(1)


@app.command()
def pipelines(db: Db, schema: Schema = None, json: Json = False) -> None:
    """List the pipelines, with the version and time each has reached."""
    with connect(db, schema=schema, create=False) as store:
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


@app.command()
def log(
    db: Db,
    schema: Schema = None,
    source: Source = None,
    destination: Destination = None,
    table_prefix: Prefix = None,
    connection: Connection = None,
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
    with connect(db, schema=schema, create=False) as store:
        among = None
        if (source, destination, table_prefix, connection) != (None,) * 4:
            among = some(store, source, destination, table_prefix, connection)
        events = store.log(
            among=among,
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


@app.command()
def show(
    version: Annotated[str, typer.Argument(metavar="@VERSION", help="@41, or @-1.")],
    db: Db,
    schema: Schema = None,
    source: Source = None,
    destination: Destination = None,
    table_prefix: Prefix = None,
    connection: Connection = None,
    json: Json = False,
) -> None:
    """Print one event whole."""
    with connect(db, schema=schema, create=False) as store:
        pipeline = one(store, source, destination, table_prefix, connection)
        place = locate(store, pipeline, parse_moment(version))
        stored = store.event(pipeline, place.version)
    if json:
        print_json(event_as_json(stored))
        return
    for name, value in event_as_json(stored).items():
        if value is not None and name != "body":
            print(f"{name:<13} {printable(str(value))}")
    print()
    if stored.body:
        print_json_text(json_text.indented(json_text.parse(stored.body)))


@app.command()
def state(
    db: Db,
    schema: Schema = None,
    source: Source = None,
    destination: Destination = None,
    table_prefix: Prefix = None,
    connection: Connection = None,
    at: At = None,
    table: Annotated[bool, typer.Option("--table", help="For people.")] = False,
    json: Json = False,
) -> None:
    """Print the state, as a connector's --state file takes it."""
    with connect(db, schema=schema, create=False) as store:
        pipeline = one(store, source, destination, table_prefix, connection)
        # Not from the tables: in those PyAirbyte may have written and deleted since.
        view = state_as_of(store, pipeline, BeforeHead(0) if at is None else parse_moment(at))
        if not view.version and at is not None and not at.strip().startswith("@"):
            first = rfc3339(store.event(pipeline, 1).stored_at)
            _complain([f"the history of {pipeline} begins after {at}, at {first}: no state yet"])
    if table or json:
        rows = [
            (message.stream.stream_descriptor if message.stream else None, message, body)
            for message, body in zip(view.messages, view.bodies, strict=True)
        ]
        if json:
            for stream, message, body in rows:
                print_json(
                    {
                        "namespace": stream.namespace if stream else None,
                        "stream": stream.name if stream else None,
                        "type": message.type.value if message.type else "LEGACY",
                        "body": body.decode(),
                    }
                )
            return
        print_rows(
            ["namespace", "stream", "state"],
            [
                [
                    (stream.namespace or "") if stream else "",
                    stream.name if stream else "",
                    audit.blob(body),
                ]
                for stream, _, body in rows
            ],
            whole=0,
            empty="no state",
        )
    else:
        print_json_text(view.state_file())


@app.command()
def catalog(
    db: Db,
    schema: Schema = None,
    source: Source = None,
    destination: Destination = None,
    table_prefix: Prefix = None,
    connection: Connection = None,
    at: At = None,
    table: Annotated[bool, typer.Option("--table", help="For people.")] = False,
) -> None:
    """Print the configured catalog, as a connector's --catalog file takes it."""
    with connect(db, schema=schema, create=False) as store:
        pipeline = one(store, source, destination, table_prefix, connection)
        view = catalog_as_of(store, pipeline, BeforeHead(0) if at is None else parse_moment(at))
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


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A moment: 2h, @41, 2026-11-20 ...")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another moment.")],
    db: Db,
    schema: Schema = None,
    source: Source = None,
    destination: Destination = None,
    table_prefix: Prefix = None,
    connection: Connection = None,
    json: Json = False,
) -> None:
    """Print what changed in the state from one moment to another."""
    with connect(db, schema=schema, create=False) as store:
        pipeline = one(store, source, destination, table_prefix, connection)
        views = [state_as_of(store, pipeline, parse_moment(moment)) for moment in (a, b)]
    changes = audit.diff(*views)
    if json:
        for change in changes:
            print_json(
                {
                    "change": change.change,
                    "namespace": change.stream.namespace if change.stream else None,
                    "stream": change.stream.name if change.stream else None,
                    "path": change.path,
                    "before": change.before,
                    "after": change.after,
                }
            )
        return
    print_rows(
        ["change", "stream", "path", "from -> to"],
        [
            [change.change, str(change.stream or ""), change.path, audit.moved(change)]
            for change in changes
        ],
        whole=1,
        empty=f"nothing changed from @{views[0].version} to @{views[1].version}",
    )


@app.command()
def rebuild(db: Db, schema: Schema = None) -> None:
    """Fill the state and catalog tables anew from the log."""
    with connect(db, schema=schema, create=False) as store:
        _ = store.database.engine  # has to be there: this command makes no log
    with connect(db, schema=schema) as store:
        count = rebuild_tables(store)
    print(f"rebuilt the tables of {counted(count, 'pipeline')}")


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option(help="Where to leave the database and the connector.")
    ] = Path("eventstore-demo"),
) -> None:
    """Sync a real connector three times and look at the history."""
    from projections.demo import run_demo  # noqa: PLC0415 - needs PyAirbyte

    run_demo(folder)


def _fail(problem: str, code: int) -> NoReturn:
    _complain([problem])
    sys.exit(code)


def _complain(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"eventstore: {printable(problem)}", file=sys.stderr)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error
