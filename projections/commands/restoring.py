"""Commands that change the state by hand: each shows what it would do, and asks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eventstore.errors import HistoryConflict, Invalid
from eventstore.events import Pipeline, StoredEvent
from eventstore.store import EventStore
from projections import plans
from projections import rewind as rewinding
from projections.as_of import locate, parse_moment
from projections.commands.explaining import print_changes
from projections.display import complain, counted, event_as_json, print_json
from projections.exchange import read_state
from projections.options import (
    Json,
    Names,
    confirmed,
    moment_of,
    named_streams,
    read_file,
    warn_before_history,
)
from projections.plans import Plan

Reason = Annotated[str, typer.Option(help="Why; whoever reads the history later will ask.")]
Actor = Annotated[str | None, typer.Option(help="Who; by default the OS user.")]
Expect = Annotated[
    str | None, typer.Option(metavar="@N", help="Refuse if the history has moved on from there.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Streams = Annotated[
    list[str] | None,
    typer.Option("--stream", help="Only this stream; may be given several times."),
]
Namespace = Annotated[str | None, typer.Option(help="The namespace of the streams that are named.")]


def rewind(
    store: EventStore,
    pipeline: Pipeline,
    to: Annotated[str, typer.Argument(metavar="WHEN", help="2h, @41, 2026-11-20T09:00:00Z ...")],
    reason: Reason = "",
    stream: Streams = None,
    namespace: Namespace = None,
    actor: Actor = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make the state as of a moment the current one; the history keeps what came since."""
    version = locate(store, pipeline, parse_moment(to)).version
    warn_before_history(store, pipeline, to, version)
    plan = plans.plan_rewind(store, pipeline, version, named_streams(stream, namespace))
    question = f"Rewind {pipeline} from @{plan.before.version} to @{version}?"
    _append(store, plan, question, reason, actor, expect, dry_run=dry_run, yes=yes, json=json)


def clear(
    store: EventStore,
    pipeline: Pipeline,
    reason: Reason = "",
    stream: Streams = None,
    namespace: Namespace = None,
    actor: Actor = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Forget the state, of all streams or of some: the next sync reads them from the beginning."""
    plan = plans.plan_clear(store, pipeline, named_streams(stream, namespace))
    question = f"Forget this state of {pipeline}?"
    _append(store, plan, question, reason, actor, expect, dry_run=dry_run, yes=yes, json=json)


def set_state(
    store: EventStore,
    pipeline: Pipeline,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A state in any form, - for stdin.")],
    reason: Reason = "",
    actor: Actor = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make the state in a file the current one, whole: streams it does not name are forgotten."""
    text = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    plan = plans.plan_set(store, pipeline, read_state(text))
    question = f"Replace the state of {pipeline}?"
    _append(store, plan, question, reason, actor, expect, dry_run=dry_run, yes=yes, json=json)


ToSource = Annotated[str | None, typer.Option(help="The other source; by default the same.")]
ToDestination = Annotated[
    str | None, typer.Option(help="The other destination, '' for a cache; by default the same.")
]
ToPrefix = Annotated[str | None, typer.Option(help="The other table prefix; by default the same.")]
ToConnection = Annotated[
    str | None, typer.Option(help="The other connection; by default the same.")
]


def copy(
    store: EventStore,
    pipeline: Pipeline,
    reason: Reason = "",
    to_source: ToSource = None,
    to_destination: ToDestination = None,
    to_table_prefix: ToPrefix = None,
    to_connection: ToConnection = None,
    at: Annotated[str | None, typer.Option(metavar="WHEN", help="The state as of then.")] = None,
    actor: Actor = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make the state of a pipeline that of another one."""
    target = _other(pipeline, Names(to_source, to_destination, to_table_prefix, to_connection))
    version = locate(store, pipeline, moment_of(at)).version
    plan = plans.plan_copy(store, pipeline, target, version)
    question = f"Replace the state of {target}?"
    if not dry_run:
        reason = rewinding.copied_from(reason, pipeline, version)
    _append(store, plan, question, reason, actor, expect, dry_run=dry_run, yes=yes, json=json)


def move(
    store: EventStore,
    pipeline: Pipeline,
    reason: Reason = "",
    to_source: ToSource = None,
    to_destination: ToDestination = None,
    to_table_prefix: ToPrefix = None,
    to_connection: ToConnection = None,
    actor: Actor = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Copy the state to another pipeline, and forget it where it was."""
    target = _other(pipeline, Names(to_source, to_destination, to_table_prefix, to_connection))
    both = plans.plan_move(store, pipeline, target)
    _expect(both[1], expect)
    if dry_run or not yes:
        for each in both:
            complain([f"{each.before.pipeline}:"])
            _show(each, json=json and dry_run)
    if dry_run:
        return
    plans.check_reason(reason)
    confirmed(f"Move the state of {pipeline} to {target}?", yes)
    _report(rewinding.append_move(store, *both, reason=reason, actor=actor), json=json)


def _append(
    store: EventStore,
    plan: Plan,
    question: str,
    reason: str,
    actor: str | None,
    expect: str | None,
    *,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> None:
    _expect(plan, expect)
    if not dry_run:
        plans.check_reason(reason)
    if dry_run or not yes:
        _show(plan, json=json and dry_run)
    if dry_run:
        return
    if plan.events:
        confirmed(question, yes)
    _report(plan.append(store, reason=reason, actor=actor), json=json)


def _expect(plan: Plan, expect: str | None) -> None:
    if expect is None:
        return
    moment = parse_moment(expect)
    if not isinstance(moment, int):
        raise Invalid(f"--expect takes a version such as @41, not {expect}")
    if moment != plan.before.version:
        raise HistoryConflict(plan.before.pipeline, expected=moment, actual=plan.before.version)


def _show(plan: Plan, *, json: bool = False) -> None:
    print_changes(plan.changes, json=json, empty=f"nothing would change in {plan.before.pipeline}")


def _report(stored: list[StoredEvent], *, json: bool) -> None:
    if json:
        for each in stored:
            print_json(event_as_json(each))
        return
    if not stored:
        complain(["nothing to change: the state is like that already"])
        return
    first, last = stored[0], stored[-1]
    complain([f"{counted(len(stored), 'event')} appended, {last.pipeline} is at @{last.version}"])
    if first.pipeline != last.pipeline:
        complain([f"and those of {first.pipeline} begin at @{first.version}"])


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
