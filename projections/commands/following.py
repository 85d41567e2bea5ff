"""`eventstore log`: what each event moved, and what is new as it comes."""

from __future__ import annotations

import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventstore.dialects import dialect_of
from eventstore.errors import Invalid, StoreUnavailable, StreamNotFound
from eventstore.events import Pipeline
from eventstore.store import EventStore
from projections import audit
from projections.display import change_as_json, complain
from projections.options import (
    Json,
    Names,
    instant,
    on_store,
    require_stream,
    streams_with_events,
)
from projections.table import Table, print_found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from typing_extensions import Self


_POLL_MS = 1000


@on_store
def log(
    store: EventStore,
    names: Names,
    stream: Annotated[str | None, typer.Option(help="Events of this stream.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Events of this namespace.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From then on: 2h, 2026-11-20 ...")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Up to then.")] = None,
    kind: Annotated[str | None, typer.Option(help="StateSaved, CatalogRegistered ...")] = None,
    actor: Annotated[str | None, typer.Option(help="Appended by them.")] = None,
    run: Annotated[str | None, typer.Option(help="Appended in this run.")] = None,
    changed: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="That moved this field of a state: cursor.updated_at"),
    ] = None,
    last: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="Only the newest N.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is new.")] = False,
    json: Json = False,
) -> None:
    """Print events, oldest first, and what each of them moved.

    What looks wrong is marked by an exclamation mark: see `doctor`. On a terminal, what events
    have in common is told once above them, and times are in UTC.
    """
    among = store.pipelines() if names == Names() else names.some(store)
    if stream is not None and "." in stream and namespace is None:
        stream, namespace = _as_printed(store, among, stream)
    earliest, latest = instant(since, "--since"), instant(until, "--until")
    if earliest and latest and earliest > latest:
        raise Invalid(f"--since {since} is later than --until {until}: nothing is in between")
    filters: dict[str, Any] = {
        "among": None if names == Names() else among,
        "since": earliest,
        "until": latest,
        "stream": stream,
        "namespace": namespace,
        "kind": kind,
        "actor": actor,
        "run": run,
        "changed": changed,
    }
    if follow:
        pages = _following(store, filters, last)
    else:
        pages = iter([audit.changes(store, **filters, last=last)])
    headings = ["version", "stored at", "event", "pipeline", "stream", "what"]
    table = Table(
        [*headings, "actor", "run", "reason"],
        whole=2,
        value="what",
        above={"pipeline": "", "actor": "by ", "run": "run ", "reason": "reason: "},
    )
    there = False
    with suppress(*([KeyboardInterrupt] if follow else [])):
        for number, page in enumerate(pages):
            there = print_found(page, table, _row, change_as_json if json else None)
            if follow:
                sys.stdout.flush()
            if not (there or number) and (stream is not None or namespace is not None):
                _require_stream(store, among, stream, namespace, may_come=follow)
    if not (there or json or follow):
        print("no event matches", file=sys.stderr)


def _as_printed(store: EventStore, among: list[Pipeline], stream: str) -> tuple[str, str | None]:
    """The name and the namespace of a stream that may be named as it is printed; raises Invalid."""
    meant = require_stream(store, among, stream, None)
    with_namespace = [each for each in meant if each.name != stream]
    if not with_namespace:
        return stream, None
    if len(meant) > 1:
        named = (f"--stream {each.name} --namespace {each.namespace}" for each in with_namespace)
        raise Invalid(
            f"several streams are called {stream}: name one by {' or '.join(sorted(named))}"
        )
    return with_namespace[0]


def _require_stream(
    store: EventStore,
    among: list[Pipeline],
    stream: str | None,
    namespace: str | None,
    *,
    may_come: bool,
) -> None:
    try:
        meant = require_stream(store, among, stream, namespace)
    except StreamNotFound as error:
        if not may_come:
            raise
        complain([str(error)])
        return
    if not any(meant & streams_with_events(store, pipeline) for pipeline in among):
        what = f"the state of {stream or namespace} is part of a GLOBAL one, and no event is of it"
        complain([f"{what} alone: see `eventstore blame`, or the log without --stream"])


def _following(
    store: EventStore, filters: dict[str, Any], last: int | None
) -> Iterator[Iterable[audit.EventChange]]:
    """What is there, and then what is new, looked for once a second."""
    engine = store.database.engine
    shared = dialect_of(engine).MANY_PROCESSES
    count, seen = store.count(), store.heads()
    yield _up_to(seen, audit.changes(store, **filters, last=last))
    with _Pause() as pause:
        while True:
            if not shared:
                engine.dispose()  # whoever wants to write needs the file for himself
            pause.wait()
            try:
                now = store.count()  # before the heads: what comes in between is counted next time
                if now == count:
                    continue
                heads = store.heads()
                page = list(_up_to(heads, audit.changes(store, **filters, after=seen)))
            except StoreUnavailable:
                if shared:
                    raise
                continue  # somebody is writing
            yield page
            count, seen = now, heads


def _up_to(
    heads: dict[Pipeline, int], page: Iterator[audit.EventChange]
) -> Iterator[audit.EventChange]:
    return (each for each in page if each.stored.version <= heads.get(each.stored.pipeline, 0))


class _Pause:
    """The time between two looks; Ctrl-C ends that, and never what a driver is doing."""

    def __init__(self) -> None:
        self._waiting = self._stopped = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def wait(self) -> None:
        """Wait a second, or until nobody reads the output any more."""
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)
        self._waiting = True
        try:
            if self._stopped:
                raise KeyboardInterrupt
            if output.poll(_POLL_MS):
                raise BrokenPipeError
        finally:
            self._waiting = False

    def _stop(self, *_: object) -> None:
        if self._waiting or self._stopped:
            raise KeyboardInterrupt
        self._stopped = True


def _row(each: audit.EventChange) -> list[str | datetime]:
    stored = each.stored
    ours = stored.origin in {None, "source"}
    return [
        f"@{stored.version}",
        stored.stored_at,
        stored.kind if ours else f"{stored.kind} ({stored.origin})",
        str(stored.pipeline),
        str(stored.stream or ""),
        each.words,
        stored.actor,
        stored.run,
        stored.reason or "",
    ]
