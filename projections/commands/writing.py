"""Commands that add to the log, or write its tables anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eventstore.errors import Invalid, InvalidEvent
from eventstore.events import Pipeline
from eventstore.identity import check_attribution
from projections.catalogs import register_catalog
from projections.display import Progress, complain, counted
from projections.options import Connection, Db, Destination, Prefix, Schema, opened, read_file
from projections.rebuilding import rebuild as rebuild_tables
from projections.record import Recorder, Stopped
from projections.wiring import connect


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
    exclusive: Annotated[
        bool, typer.Option("--exclusive", help="Take over from whoever still records it so.")
    ] = False,
) -> None:
    """Store each state that passes from stdin to stdout.

    Every line is passed on as it came; a state is stored before its line goes on.
    """
    if sys.stdin is None:  # its number would soon be a file of the database's
        raise Stopped("there is no input to read")
    pipeline = Pipeline(source, destination or None, table_prefix or "", connection or "")
    with connect(db, schema=schema) as store:
        # Before the first line is taken: a database has to be there, and stay.
        if store.database.engine.url.database in {None, "", ":memory:"}:
            raise Invalid(f"the database {db} is in memory, and all in it ends with this command")
        actor, reason, run = check_attribution(actor or store.actor, reason, run or store.run)
        if catalog:
            text = read_file(catalog)
            try:
                register_catalog(store, pipeline, text, actor=actor, reason=reason, run=run)
            except InvalidEvent as error:
                raise Invalid(f"{catalog}: {error}") from error
        recorder = Recorder(store, pipeline, emitted, actor, reason, run)
        if exclusive:
            recorder.take_over()
        try:
            recorder.pump(0, 1)
        except Stopped as stopped:
            complain([*recorder.passed.report(pipeline), str(stopped)])
            raise typer.Exit(128 + stopped.signal if stopped.signal else 1) from stopped
        complain(recorder.passed.report(pipeline))
    if recorder.passed.invalid:
        raise typer.Exit(1)


def rebuild(db: Db, schema: Schema = None) -> None:
    """Fill the state and catalog tables anew from the log.

    Triggers of the log that are gone or off are put back.
    """
    with opened(db, schema, writes=True) as store:
        count = rebuild_tables(store, progress=Progress("pipeline", "read"))
    print(f"the tables of {counted(count, 'pipeline')} are as the log says")
