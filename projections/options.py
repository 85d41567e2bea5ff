"""What the commands have in common: their options, and which pipeline and moment those mean."""

from __future__ import annotations

import inspect
import shlex
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from eventstore.errors import (
    AlteredLog,
    EventStoreError,
    Invalid,
    InvalidMoment,
    InvalidPipeline,
    SchemaTooOld,
    StoreUnavailable,
    StreamNotFound,
)
from eventstore.events import KINDS, StreamDescriptor
from projections.as_of import BeforeHead, Moment, parse_moment, state_as_of
from projections.differences import cut_view
from projections.display import Progress, complain, printable, rfc3339
from projections.record import Stopped
from projections.wiring import connect
from projections.wording import some_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from eventstore.events import Pipeline
    from eventstore.store import EventStore

Db = Annotated[
    str,
    typer.Option(
        "--db", envvar="EVENTSTORE_DB", help="SQLAlchemy URL, or path to a SQLite or DuckDB file."
    ),
]
Schema = Annotated[str | None, typer.Option(help="Where the tables are, on a server.")]
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
Actor = Annotated[str | None, typer.Option(help="Who; by default the OS user.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


_LISTED = 8
"""Pipelines that an error names."""


class Names(NamedTuple):
    """What was said of a pipeline; None where nothing was."""

    source: str | None = None
    destination: str | None = None
    table_prefix: str | None = None
    connection: str | None = None

    def some(self, store: EventStore) -> list[Pipeline]:
        """The pipelines that have these names; raises InvalidPipeline if there are none."""
        there = store.pipelines()
        found = [
            pipeline
            for pipeline in there
            if self.source in {None, pipeline.source}
            and self.destination in {None, pipeline.destination or ""}
            and self.table_prefix in {None, pipeline.table_prefix}
            and self.connection in {None, pipeline.connection}
        ]
        if found:
            return found
        if not there:
            raise StoreUnavailable("the log is empty; record a state into it first")
        raise InvalidPipeline(f"no such pipeline, there are: {_spelled(there, self)}")

    def one(self, store: EventStore) -> Pipeline:
        """The pipeline that is meant: the one that matches, if there is exactly one."""
        found = self.some(store)
        if len(found) == 1:
            return found[0]
        raise InvalidPipeline(f"several pipelines match, name one: {_spelled(found, self)}")


@contextmanager
def opened(db: str, schema: str | None, *, writes: bool = False) -> Iterator[EventStore]:
    """Open a store that is there; raises NotAnEventStore: no command but `record` makes one."""
    with connect(db, schema=schema, create=False) as store:
        if not writes:
            with _altered_or_our_fault(store):
                yield store
            return
        with suppress(SchemaTooOld):
            _ = store.database.engine
    with connect(db, schema=schema) as store, _altered_or_our_fault(store):
        yield store


_EXPECTED = (EventStoreError, OSError, Stopped, typer.Exit, typer.Abort, typer.TyperException)


@contextmanager
def _altered_or_our_fault(store: EventStore) -> Iterator[None]:
    """Raise AlteredLog for what fails because somebody changed what is stored; else it is a bug."""
    try:
        yield
    except Exception as error:
        if isinstance(error, _EXPECTED) and not isinstance(error, AlteredLog):
            raise
        from eventstore.integrity import verify  # noqa: PLC0415 - needed here alone

        report = verify(store, progress=Progress("event", "verified"))
        found = [
            *(f"{bad.pipeline}: {bad.problem}" for bad in report.pipelines if bad.problem),
            *report.problems,
        ]
        if not found:
            raise
        told = f"this failed, and the log was altered: {found[0]} (see: eventstore verify)"
        raise AlteredLog(told) from error


def on_store(command: Callable[..., None], *, writes: bool = False) -> Callable[..., None]:
    """Give a command that takes a store and Names the options that say which."""

    def call(store: EventStore, names: Names, rest: dict[str, Any]) -> None:
        command(store, names, **rest)

    return _with_options(command, call, writes=writes)


def on_pipeline(command: Callable[..., None], *, writes: bool = False) -> Callable[..., None]:
    """Give a command that takes a store and one pipeline the options that say which."""

    def call(store: EventStore, names: Names, rest: dict[str, Any]) -> None:
        command(store, names.one(store), **rest)

    return _with_options(command, call, writes=writes)


def _with_options(
    command: Callable[..., None],
    call: Callable[[EventStore, Names, dict[str, Any]], None],
    *,
    writes: bool,
) -> Callable[..., None]:
    def whole(
        db: Db,
        schema: Schema = None,
        source: Source = None,
        destination: Destination = None,
        table_prefix: Prefix = None,
        connection: Connection = None,
        **rest: Any,
    ) -> None:
        # Whoever only looks takes in nothing that PyAirbyte has written beside.
        with opened(db, schema, writes=writes and not rest.get("dry_run")) as store:
            call(store, Names(source, destination, table_prefix, connection), rest)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
    *common, _ = inspect.signature(whole, eval_str=True).parameters.values()
    return with_signature(whole, command, [*own, *common])


def with_signature(
    whole: Callable[..., None], command: Callable[..., Any], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """Name a function as a command, and give it parameters: typer learns the options from those."""
    parameters.sort(key=lambda parameter: parameter.default is not parameter.empty)
    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    whole.__name__, whole.__doc__ = command.__name__, command.__doc__
    whole.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return whole


def confirmed(question: str, yes: bool) -> None:  # noqa: FBT001 - the value of --yes
    """Ask on a terminal, unless `--yes` was said; raises Invalid where nobody can be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise Invalid("nobody can be asked here: add --yes, or --dry-run to see what would change")
    sys.stdout.flush()  # what the question is about, where another program shows it
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        complain(["nothing was changed"])
        raise typer.Exit(1)


def require_reason(reason: str | None) -> None:
    """Demand that `--reason` was said; raises Invalid."""
    if not (reason or "").strip():
        raise Invalid(
            "a reason is needed: say why with --reason, for whoever reads the history later"
        )


def instant(text: str | None, option: str) -> datetime | None:
    """The time an option names; raises InvalidMoment for a version."""
    if text is None:
        return None
    moment = parse_moment(text)
    if isinstance(moment, int | BeforeHead):
        raise InvalidMoment(f"{option} takes a time, not a version: {text}")
    return moment


def moment_of(at: str | None) -> Moment:
    """The moment that `--at` names, now where nothing was said."""
    return BeforeHead(0) if at is None else parse_moment(at)


def warn_before_history(
    store: EventStore, pipeline: Pipeline, moment: str | None, version: int
) -> None:
    """Say that there was no state yet at a time that was named."""
    if not version and moment is not None and not moment.strip().startswith("@"):
        first = rfc3339(store.event(pipeline, 1).stored_at)
        complain([f"{moment}: no state yet; the history of {pipeline} begins at {first}"])


def require_stream(
    store: EventStore,
    pipelines: Iterable[Pipeline],
    stream: str | None,
    namespace: str | None,
) -> set[StreamDescriptor]:
    """The streams that `--stream` and `--namespace` mean; raises StreamNotFound if none does.

    A name is taken with its namespace as well, as it is printed.
    """
    known = known_streams(store, pipelines)
    found = {
        each
        for each in known
        if stream in {None, each.name, str(each)} and namespace in {None, each.namespace}
    }
    if not found:
        named = "" if stream is None else f" {stream}"
        where = "" if namespace is None else f" in the namespace {namespace!r}"
        there = some_streams(known, stream or "")
        raise StreamNotFound(f"there is no stream{named}{where}; there are: {there}")
    return found


def known_streams(store: EventStore, pipelines: Iterable[Pipeline]) -> set[StreamDescriptor]:
    """The streams that have events, or a part in a GLOBAL state."""
    known: set[StreamDescriptor | None] = set()
    for pipeline in pipelines:
        known |= streams_with_events(store, pipeline)
        known |= cut_view(state_as_of(store, pipeline, BeforeHead(0))).parts.keys()
    return {stream for stream in known if stream}


def streams_with_events(store: EventStore, pipeline: Pipeline) -> set[StreamDescriptor]:
    """The streams that have events of their own."""
    return {stored.stream for stored in store.newest(pipeline, KINDS) if stored.stream}


def named_streams(
    streams: list[str] | None, namespace: str | None
) -> list[StreamDescriptor | str] | None:
    """What `--stream` and `--namespace` name, None where nothing is; raises Invalid."""
    if not streams:
        if namespace is not None:
            raise Invalid("--namespace tells which --stream is meant, and none is named")
        return None
    if namespace is None:
        return list(streams)
    return [StreamDescriptor(name, namespace) for name in streams]


def read_file(path: Path) -> bytes:
    """What is in a file; raises Invalid."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error


def _spelled(pipelines: list[Pipeline], named: Names) -> str:
    """The options that tell pipelines apart, and those that were named; a cache has no destination.

    Of a few pipelines.
    """
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
    telling |= {o for o, name in zip(names[0], named, strict=True) if name is not None}
    telling.add("--source")
    said = [
        " ".join(f"{option} {shlex.quote(each[option])}" for option in each if option in telling)
        for each in names[:_LISTED]
    ]
    more = len(names) - len(said)
    return "; ".join(said) + (f"; and {more} more: see eventstore pipelines" if more else "")
