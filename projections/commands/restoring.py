"""Commands that change the state by hand: each shows what it would do, and asks."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from eventstore import payload
from eventstore.errors import Invalid, InvalidEvent
from eventstore.events import Pipeline, StoredEvent
from eventstore.store import EventStore
from projections import audit, plans
from projections.as_of import locate, parse_moment
from projections.commands.explaining import difference_row
from projections.display import (
    complain,
    counted,
    difference_as_json,
    event_as_json,
    pipeline_as_json,
    print_json,
    printable,
)
from projections.exchange import read_state
from projections.options import (
    Actor,
    Json,
    Names,
    Yes,
    confirmed,
    moment_of,
    named_streams,
    on_pipeline,
    read_file,
    require_reason,
    warn_before_history,
    with_signature,
)
from projections.plans import Plan
from projections.rewind import check_expected
from projections.table import Table, print_found

Reason = Annotated[str, typer.Option(help="Why; whoever reads the history later will ask.")]
Expect = Annotated[
    str | None, typer.Option(metavar="@N", help="Refuse if the history has moved on from there.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
Streams = Annotated[
    list[str] | None,
    typer.Option("--stream", metavar="NAME", help="Only this stream; may be repeated."),
]
Namespace = Annotated[str | None, typer.Option(help="The namespace of the streams that are named.")]
ToSource = Annotated[str | None, typer.Option(help="The other source; by default the same.")]
ToDestination = Annotated[
    str | None, typer.Option(help="The other destination, '' for a cache; by default the same.")
]
ToPrefix = Annotated[str | None, typer.Option(help="The other table prefix; by default the same.")]
ToConnection = Annotated[
    str | None, typer.Option(help="The other connection; by default the same.")
]

_LEGACY = "legacy"


class Proposal(NamedTuple):
    """What is asked, and the plans that are carried out together if the answer is yes."""

    question: str
    plans: Sequence[Plan]


def by_hand(command: Callable[..., Proposal]) -> Callable[..., None]:
    """Give a command that proposes a change the options they all have: it is shown, asked, done."""

    def whole(
        store: EventStore,
        pipeline: Pipeline,
        reason: Reason = "",
        actor: Actor = None,
        expect: Expect = None,
        dry_run: DryRun = False,
        yes: Yes = False,
        json: Json = False,
        **own: Any,
    ) -> None:
        question, planned = command(store, pipeline, **own)
        check_expected(planned, None if expect is None else _version(expect))
        if not dry_run:
            require_reason(reason)
        _show(planned, json=json)
        if dry_run or not any(plan.events for plan in planned):
            return
        confirmed(question, yes)
        _report(plans.append_together(store, planned, reason=reason, actor=actor), json=json)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
    *common, _ = inspect.signature(whole, eval_str=True).parameters.values()
    proposed = with_signature(whole, command, [*common[:2], *own, *common[2:]])
    return on_pipeline(proposed, writes=True)


@by_hand
def rewind(
    store: EventStore,
    pipeline: Pipeline,
    to: Annotated[str, typer.Argument(metavar="WHEN", help="2h, @41, 2026-11-20T09:00:00Z ...")],
    stream: Streams = None,
    namespace: Namespace = None,
) -> Proposal:
    """Make the state as of a moment the current one.

    The history keeps what came since.
    """
    version = locate(store, pipeline, parse_moment(to)).version
    warn_before_history(store, pipeline, to, version)
    plan = plans.plan_rewind(store, pipeline, version, named_streams(stream, namespace))
    return Proposal(f"Rewind {pipeline} from @{plan.before.version} to @{version}?", [plan])


@by_hand
def clear(
    store: EventStore, pipeline: Pipeline, stream: Streams = None, namespace: Namespace = None
) -> Proposal:
    """Forget the state, of all streams or of some.

    The next sync reads them from the beginning.
    """
    plan = plans.plan_clear(store, pipeline, named_streams(stream, namespace))
    return Proposal(f"Forget this state of {pipeline}?", [plan])


@by_hand
def set_state(
    store: EventStore,
    pipeline: Pipeline,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A state in any form, - for stdin.")],
    form: Annotated[
        str | None, typer.Option(help="legacy: the file is the bare blob of a LEGACY state.")
    ] = None,
) -> Proposal:
    """Make the state in a file the current one.

    It is taken whole: streams that the file does not name are forgotten.
    """
    text = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    plan = plans.plan_set(store, pipeline, _read_state(text, form))
    return Proposal(f"Replace the state of {pipeline}?", [plan])


@by_hand
def copy(
    store: EventStore,
    pipeline: Pipeline,
    to_source: ToSource = None,
    to_destination: ToDestination = None,
    to_table_prefix: ToPrefix = None,
    to_connection: ToConnection = None,
    at: Annotated[str | None, typer.Option(metavar="WHEN", help="The state as of then.")] = None,
) -> Proposal:
    """Make the state of a pipeline that of another one."""
    target = _other(pipeline, Names(to_source, to_destination, to_table_prefix, to_connection))
    plan = plans.plan_copy(store, pipeline, target, moment_of(at))
    return Proposal(f"Replace the state of {target}?", [plan])


@by_hand
def move(
    store: EventStore,
    pipeline: Pipeline,
    to_source: ToSource = None,
    to_destination: ToDestination = None,
    to_table_prefix: ToPrefix = None,
    to_connection: ToConnection = None,
) -> Proposal:
    """Move the state to another pipeline.

    It is forgotten where it was. Both pipelines change, or neither does.
    """
    target = _other(pipeline, Names(to_source, to_destination, to_table_prefix, to_connection))
    planned = plans.plan_move(store, pipeline, target)
    return Proposal(f"Move the state of {pipeline} to {target}?", planned)


def _read_state(text: bytes, form: str | None) -> list[bytes]:
    """The states in a file; any JSON object may be a LEGACY state, so that has to be said."""
    if form not in {None, _LEGACY}:
        raise Invalid(f"--form takes {_LEGACY}, not {form!r}; every other form is recognised")
    if form == _LEGACY:
        return _read_blob(text)
    states = read_state(text)
    is_legacy = [payload.state_kind(state) for state in states] == ["LEGACY"]
    if is_legacy and payload.legacy_blob(states[0]) == text.strip():
        raise Invalid(
            "this JSON object is none of the forms of a state; if it is the bare blob of a LEGACY "
            f"state, add --form {_LEGACY}"
        )
    return states


def _read_blob(text: bytes) -> list[bytes]:
    """The state whose blob is in a file, unless that is a state of another type."""
    with suppress(InvalidEvent):  # any object may be a blob
        if [payload.state_kind(state) for state in read_state(text)] != ["LEGACY"]:
            raise Invalid("this is no LEGACY state: leave out --form")
    return read_state(b'{"type":"LEGACY","data":%b}' % text.strip())


def _version(expect: str) -> int:
    if not re.fullmatch(r"@\d{1,18}", expect.strip(), re.ASCII):
        raise Invalid(f"--expect takes a version such as @41, not {expect}")
    return int(expect.strip()[1:])


def _show(planned: Sequence[Plan], *, json: bool) -> None:
    changes = [(plan.before.pipeline, change) for plan in planned for change in plan.changes]
    table = Table(
        ["change", "stream", "path", "from -> to", "pipeline"],
        whole=1,
        value="from -> to",
        above={"pipeline": ""},
    )
    there = print_found(changes, table, _change_row, _change_as_json if json else None)
    if not any(plan.events for plan in planned):
        complain(["nothing to change: the state is like that already"])
    elif not there:
        complain(["no value would change, only the text of the state"])


def _change_row(change: tuple[Pipeline, audit.Change]) -> list[str]:
    pipeline, difference = change
    return [*difference_row(difference), str(pipeline)]


def _change_as_json(change: tuple[Pipeline, audit.Change]) -> dict[str, Any]:
    pipeline, difference = change
    return {**pipeline_as_json(pipeline), **difference_as_json(difference)}


def _report(stored: list[StoredEvent], *, json: bool) -> None:
    """Say what was done, of each pipeline in a line."""
    if json:
        for each in stored:
            print_json(event_as_json(each))
        return
    appended: dict[Pipeline, list[int]] = {}
    for each in stored:
        appended.setdefault(each.pipeline, []).append(each.version)
    for pipeline, versions in appended.items():
        where = " to ".join(f"@{version}" for version in sorted({versions[0], versions[-1]}))
        print(printable(f"{counted(len(versions), 'event')} appended to {pipeline}: {where}"))


def _other(pipeline: Pipeline, names: Names) -> Pipeline:
    """The pipeline that differs from this one in what was said."""
    destination = pipeline.destination if names.destination is None else names.destination or None
    prefix = names.table_prefix
    if prefix is None:
        prefix = "" if destination else pipeline.table_prefix
    return Pipeline(
        names.source or pipeline.source,
        destination,
        prefix,
        pipeline.connection if names.connection is None else names.connection,
    )
