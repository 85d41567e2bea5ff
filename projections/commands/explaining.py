"""Commands that say what happened: they create nothing."""

from __future__ import annotations

import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventstore.dialects import dialect_of
from eventstore.errors import Invalid, StoreUnavailable
from eventstore.events import KINDS, Pipeline
from eventstore.store import EventStore
from projections import audit
from projections.as_of import catalog_as_of, parse_moment, state_as_of
from projections.catalog_diff import shown
from projections.differences import KINDS as DIFFERENCES
from projections.display import (
    Table,
    event_as_json,
    pipeline_as_json,
    print_json,
    print_rows,
    rfc3339,
    stream_as_json,
)
from projections.json_text import compact
from projections.options import At, Json, Names, instant, moment_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

    from projections.views import CatalogView, StateView

_POLL_MS = 1000

OtherSource = Annotated[str | None, typer.Option(help="The source of B's pipeline, if not A's.")]
OtherDestination = Annotated[str | None, typer.Option(help="Its destination; '' for a cache.")]
OtherPrefix = Annotated[str | None, typer.Option(help="The prefix of its cache's tables.")]
OtherConnection = Annotated[str | None, typer.Option(help="Its connection.")]


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
    changed: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="That moved this field of a state: cursor.updated_at"),
    ] = None,
    last: Annotated[int | None, typer.Option("-n", min=1, help="Only the newest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is new.")] = False,
    json: Json = False,
) -> None:
    """Print events, oldest first: what each moved, and marked by ! what looks wrong."""
    if kind not in {None, *KINDS}:
        raise Invalid(f"there is no kind of event {kind!r}; there are {', '.join(KINDS)}")
    filters = {
        "among": None if names == Names() else names.some(store),
        "since": instant(since, "--since"),
        "until": instant(until, "--until"),
        "stream": stream,
        "namespace": namespace,
        "kind": kind,
        "actor": actor,
        "run": run,
        "changed": changed,
    }
    words = not json
    if follow:
        pages = _following(store, filters, last, words=words)
    else:
        pages = iter([_read(store, filters, words=words, last=last)])
    # In a pipe the columns stay where they are when there is a second pipeline one day.
    several = not sys.stdout.isatty() or follow or len(store.pipelines()) > 1
    pipeline = ["pipeline"] if several else []
    headings = ["version", "stored at", "event", *pipeline, "stream", "what"]
    table = Table([*headings, "actor", "run", "reason"], whole=2, main="what")
    found = False
    with suppress(*([KeyboardInterrupt] if follow else [])):
        for page in pages:
            if json:
                for each in page:
                    print_json(event_as_json(each.stored))
            else:
                found = table.print(_row(each, several=several) for each in page)
            if follow:
                sys.stdout.flush()
    if not (found or json or follow):
        print("no event matches", file=sys.stderr)


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
    """Print what changed in the state from one moment to another, or between two pipelines.

    B is of the same pipeline, unless an option names what is other.
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


def blame(
    store: EventStore,
    pipeline: Pipeline,
    at: At = None,
    stream: Annotated[str | None, typer.Option(help="Of this stream.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of this namespace.")] = None,
    json: Json = False,
) -> None:
    """Print every value of the state, and the event that last set it."""
    found = [
        each
        for each in audit.blame(store, pipeline, moment_of(at))
        if stream in {None, each.stream and each.stream.name}
        and namespace in {None, each.stream and each.stream.namespace}
    ]
    if json:
        for each in found:
            print_json(
                {
                    **stream_as_json(each.stream),
                    "path": each.path,
                    "value": each.value,
                    "version": each.stored.version,
                    "stored_at": rfc3339(each.stored.stored_at),
                    "actor": each.stored.actor,
                    "run": each.stored.run,
                    "reason": each.stored.reason,
                }
            )
        return
    print_rows(
        ["version", "stored at", "stream", "path", "value", "actor", "run", "reason"],
        [
            [
                f"@{each.stored.version}",
                rfc3339(each.stored.stored_at),
                str(each.stream or ""),
                each.path,
                compact(each.value),
                each.stored.actor,
                each.stored.run,
                each.stored.reason or "",
            ]
            for each in found
        ],
        whole=2,
        empty="no state",
    )


def doctor(store: EventStore, names: Names, json: Json = False) -> None:
    """Print what looks wrong; the exit code is 1 if anything does, else 0.

    A cursor that went backwards, a stream that vanished from a GLOBAL state, a state type that
    changed, runs whose events interleave, a state for a stream in no catalog, a clock that ran
    ahead, a guard of the log that is missing, a row that is not as the log says.
    """
    pipelines = None if names == Names() else names.some(store)
    several = not sys.stdout.isatty() or len(pipelines or store.pipelines()) > 1
    headings = ["version", "what looks wrong", *(["pipeline"] if several else [])]
    table = Table(headings, whole=1, main="what looks wrong")
    findings = list(audit.doctor(store, pipelines))
    if json:
        for each in findings:
            print_json(
                {
                    **pipeline_as_json(each.pipeline),
                    "version": each.version,
                    "what": each.what,
                    "detail": each.detail,
                }
            )
    elif not table.print(
        [
            f"@{each.version}" if each.version else "",
            each.detail,
            *([str(each.pipeline or "")] if several else []),
        ]
        for each in findings
    ):
        print("nothing looks wrong", file=sys.stderr)
    if findings:
        raise typer.Exit(1)


def _read(
    store: EventStore,
    filters: dict[str, Any],
    *,
    words: bool,
    last: int | None = None,
    after: dict[Pipeline, int] | None = None,
) -> Iterator[audit.EventChange]:
    if words or filters["changed"] is not None:
        return audit.changes(store, **filters, last=last, after=after)
    rest = {name: value for name, value in filters.items() if name != "changed"}
    events = store.log(**rest, last=last, after=after)
    return (audit.EventChange(stored, None) for stored in events)


def _following(
    store: EventStore, filters: dict[str, Any], last: int | None, *, words: bool
) -> Iterator[Iterable[audit.EventChange]]:
    """What is there, and then what is new, looked for once a second."""
    engine = store.database.engine
    shared = dialect_of(engine).MANY_PROCESSES
    seen = store.heads()
    yield _up_to(seen, _read(store, filters, words=words, last=last))
    with _Pause() as pause:
        while True:
            if not shared:
                engine.dispose()  # whoever wants to write needs the file for himself
            pause.wait()
            try:
                heads = store.heads()
                new = _read(store, filters, words=words, after=seen) if heads != seen else iter(())
                page = list(_up_to(heads, new))
            except StoreUnavailable:
                if shared:
                    raise
                continue  # somebody is writing
            yield page
            seen = heads


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


def _row(each: audit.EventChange, *, several: bool) -> list[str]:
    stored = each.stored
    ours = stored.origin in {None, "source"}
    return [
        f"@{stored.version}",
        rfc3339(stored.stored_at),
        stored.kind if ours else f"{stored.kind} ({stored.origin})",
        *([str(stored.pipeline)] if several else []),
        str(stored.stream or ""),
        each.words,
        stored.actor,
        stored.run,
        stored.reason or "",
    ]


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
    if json:
        for change in changes:
            print_json(
                {
                    "change": change.change,
                    **stream_as_json(change.stream),
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
        empty=empty,
    )


def _print_stat(before: StateView, after: StateView, *, json: bool) -> None:
    counts = audit.stat(audit.diff(before, after))
    if json:
        for stream, count in counts.items():
            numbers = {str(kind): count[kind] for kind in DIFFERENCES}
            print_json({**stream_as_json(stream), **numbers})
        return
    print_rows(
        [*DIFFERENCES, "stream"],
        [
            [*(str(count[kind]) for kind in DIFFERENCES), str(stream or "")]
            for stream, count in counts.items()
        ],
        whole=3,
        empty=_nothing_changed(before, after),
    )


def _print_catalog_diff(before: CatalogView, after: CatalogView, *, json: bool) -> None:
    changes = audit.diff_catalogs(before, after)
    if json:
        for change in changes:
            print_json(
                {
                    "change": change.change,
                    **stream_as_json(change.stream),
                    "what": change.what,
                    "path": change.path,
                    "before": change.before,
                    "after": change.after,
                    "breaking": change.breaking,
                }
            )
        return
    print_rows(
        ["change", "breaking", "stream", "what", "path", "from -> to"],
        [
            [
                change.change,
                "breaking" if change.breaking else "",
                str(change.stream or ""),
                change.what,
                change.path,
                ""
                if change.what == "stream"
                else f"{shown(change.before)} -> {shown(change.after)}",
            ]
            for change in changes
        ],
        whole=2,
        empty=_nothing_changed(before, after),
    )
