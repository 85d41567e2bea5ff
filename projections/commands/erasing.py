"""Commands that erase for good: each shows what would go, and asks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer

from eventstore import erasure
from eventstore.errors import Invalid
from eventstore.events import Pipeline, to_datetime
from eventstore.store import EventStore
from projections.as_of import BeforeHead, locate, parse_moment
from projections.display import (
    complain,
    counted,
    pipeline_as_json,
    print_json,
    printable,
    rfc3339,
    stream_as_json,
)
from projections.options import (
    Actor,
    Json,
    Names,
    Yes,
    confirmed,
    instant,
    known_streams,
    named_streams,
    on_store,
    require_reason,
)
from projections.plans import chosen_streams
from projections.table import Table, print_found
from projections.views import STATE_KINDS, standing
from projections.wording import shortened

_ERASE = "Erase them for good?"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

Reason = Annotated[str | None, typer.Option(help="Why; it stands in the history for good.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")]


_NEXT = {
    "state": "the next sync then reads from the beginning",
    "definition": "the catalog is then without it, until a sync registers it again",
}
"""What comes of it where an event is erased that says what stands now."""


class _Lost(NamedTuple):
    """An event that would lose its body; and of what that is current, if it is."""

    pipeline: Pipeline
    event: erasure.Pointer
    current: str


@partial(on_store, writes=True)
def erase(
    store: EventStore,
    names: Names,
    version: Annotated[
        str | None, typer.Argument(metavar="@VERSION", help="The event whose body goes.")
    ] = None,
    stream: Annotated[str | None, typer.Option(help="All bodies of this stream.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The stream's namespace.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="WHEN", help="What was stored before then.")
    ] = None,
    reapply: Annotated[
        bool, typer.Option("--reapply", help="Erase again what a restored backup brought back.")
    ] = False,
    reason: Reason = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Erase bodies for good, for legal reasons.

    The events stay, and the chain can be verified.
    """
    named = named_streams([stream] if stream else None, namespace)
    if reapply:
        if version or stream or before:
            raise Invalid(
                "--reapply erases what the history says: it takes names of pipelines alone"
            )
        among = None if names == Names() else names.some(store)
        planned = erasure.reapply(store, among, dry_run=True)
        if _agreed(store, planned, dry_run=dry_run, yes=yes, json=json):
            _report(erasure.reapply(store, among), json=json)
        return
    if (version is None) == (stream is None and before is None):
        raise Invalid("say what to erase: @VERSION; or --stream, --before, or both of these")
    if not dry_run:
        require_reason(reason)
    pipeline = names.one(store)
    what: dict[str, Any] = {
        "version": None if version is None else _version(store, pipeline, version),
        "stream": named and chosen_streams(named, known_streams(store, [pipeline])).pop(),
        "before": instant(before, "--before"),
        "reason": reason or ("none yet" if dry_run else ""),
        "actor": actor,
    }
    planned = [erasure.erase(store, pipeline, **what, dry_run=True)]
    if _agreed(store, planned, dry_run=dry_run, yes=yes, json=json):
        _report([erasure.erase(store, pipeline, **what)], json=json)


@partial(on_store, writes=True)
def retention(
    store: EventStore,
    names: Names,
    keep: Annotated[str, typer.Option(metavar="AGE", help="90d, 12w, 48h: what is younger stays.")],
    reason: Reason = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Erase the bodies of states that are older than an age.

    Current states and every catalog stay.
    """
    what: dict[str, Any] = {
        "pipelines": None if names == Names() else names.some(store),
        "reason": reason or f"retention --keep {keep}",
        "actor": actor,
    }
    age = _age(keep)
    planned = erasure.retention(store, age, **what, dry_run=True)
    if _agreed(store, planned, dry_run=dry_run, yes=yes, json=json):
        _report(erasure.retention(store, age, **what), json=json)


def _version(store: EventStore, pipeline: Pipeline, text: str) -> int:
    moment = parse_moment(text)
    if not isinstance(moment, int | BeforeHead):
        raise Invalid(f"{text} is no version; write @41 or @-1, or use --before")
    return locate(store, pipeline, moment).version


def _age(text: str) -> timedelta:
    age = re.fullmatch(r"(\d{1,6})([hdw])", text.strip(), re.ASCII)
    if age is None:
        raise Invalid(f"{text!r} is no age; write 48h, 90d or 12w")
    return timedelta(**{_UNITS[age[2]]: int(age[1])})


def _agreed(
    store: EventStore, planned: list[erasure.Erasure], *, dry_run: bool, yes: bool, json: bool
) -> bool:
    """Show every event that loses its body, and have it confirmed."""
    lost = [each for planned_one in planned for each in _lost(store, planned_one)]
    headings = ["version", "stored at", "event", "body", "stream", "of now", "pipeline"]
    table = Table(headings, whole=4, above={"pipeline": ""})
    print_found(lost, table, _lost_row, _lost_as_json if json else None, empty="nothing to erase")
    bodies = sum(len(each.bodies) for each in planned)
    if not bodies:
        return False
    complain([f"to be erased: {_bodies(bodies)} of {counted(len(lost), 'event')}"])
    _warn_of_current(lost)
    if not dry_run:
        confirmed(_ERASE, yes)
    return not dry_run


def _lost(store: EventStore, planned: erasure.Erasure) -> list[_Lost]:
    if not planned.bodies:
        return []
    states = standing(store.newest(planned.pipeline, STATE_KINDS)).values()
    current = {stored.version: "state" for stored in states}
    for stored in store.newest(planned.pipeline, ["StreamDefined"]):
        current[stored.version] = "definition"
    return [
        _Lost(planned.pipeline, event, current.get(event.version, "")) for event in planned.events
    ]


def _warn_of_current(lost: Iterable[_Lost]) -> None:
    streams: dict[tuple[Pipeline, str], list[str]] = {}
    for each in lost:
        if each.current:
            of = streams.setdefault((each.pipeline, each.current), [])
            of.append(str(each.event.stream or "all streams"))
    complain(
        f"this takes the current {what} of {', '.join(shortened(of))} in {pipeline}: {_NEXT[what]}"
        for (pipeline, what), of in streams.items()
    )


def _lost_row(lost: _Lost) -> list[str | datetime]:
    event = lost.event
    return [
        f"@{event.version}",
        to_datetime(event.stored_at),
        event.kind,
        f"@{event.body_version}",
        str(event.stream or ""),
        f"current {lost.current}" if lost.current else "",
        str(lost.pipeline),
    ]


def _lost_as_json(lost: _Lost) -> dict[str, Any]:
    event = lost.event
    return {
        **pipeline_as_json(lost.pipeline),
        "version": event.version,
        "kind": event.kind,
        **stream_as_json(event.stream),
        "stored_at": rfc3339(to_datetime(event.stored_at)),
        "body_version": event.body_version,
        "current": bool(lost.current),
    }


def _report(done: list[erasure.Erasure], *, json: bool) -> None:
    """Say what was done, of each history in a line."""
    for each in done:
        if json:
            erased = {"version": each.version, "erased": list(each.bodies)}
            print_json({**pipeline_as_json(each.pipeline), **erased})
        else:
            what = _bodies(len(each.bodies))
            print(printable(f"{what} of {each.pipeline} erased: see @{each.version}"))


def _bodies(number: int) -> str:
    return "1 body" if number == 1 else f"{number} bodies"
