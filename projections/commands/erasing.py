"""Commands that erase for good: each shows what would go, and asks."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from eventstore import erasure
from eventstore.errors import Invalid
from eventstore.events import Pipeline, to_datetime
from eventstore.store import EventStore
from projections.as_of import BeforeHead, locate, parse_moment
from projections.display import complain, counted, pipeline_as_json, rfc3339, stream_as_json
from projections.options import (
    Json,
    Names,
    confirmed,
    instant,
    known_streams,
    named_streams,
)
from projections.plans import chosen_streams
from projections.table import Table, print_found

_ERASE = "Erase them for good?"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

Reason = Annotated[str | None, typer.Option(help="Why; it stands in the history for good.")]
Actor = Annotated[str | None, typer.Option(help="Who; by default the OS user.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


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
    """Erase bodies for good, for legal reasons; the events stay, and the chain is verifiable."""
    named = named_streams([stream] if stream else None, namespace)
    if reapply:
        _agree(erasure.reapply(store, dry_run=True), dry_run=dry_run, yes=yes, json=json)
        done = [] if dry_run else erasure.reapply(store)
        _tell(done)
        return
    pipeline = names.one(store)
    what: dict[str, Any] = {
        "version": None if version is None else _version(store, pipeline, version),
        "stream": named and chosen_streams(named, known_streams(store, [pipeline])).pop(),
        "before": instant(before, "--before"),
        "reason": reason or "",
        "actor": actor,
    }
    planned = erasure.erase(store, pipeline, **what, dry_run=True)
    _agree([planned], dry_run=dry_run, yes=yes, json=json)
    _tell([] if dry_run or not planned.bodies else [erasure.erase(store, pipeline, **what)])


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
    """Erase the bodies of old states; current states and every catalog stay."""
    what: dict[str, Any] = {
        "pipelines": None if names == Names() else names.some(store),
        "reason": reason or f"retention --keep {keep}",
        "actor": actor,
    }
    age = _age(keep)
    planned = erasure.retention(store, age, **what, dry_run=True)
    _agree(planned, dry_run=dry_run, yes=yes, json=json)
    _tell([] if dry_run or not planned else erasure.retention(store, age, **what))


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


def _agree(planned: list[erasure.Erasure], *, dry_run: bool, yes: bool, json: bool) -> None:
    """Show every event that loses its body, and have it confirmed."""
    events = [(each, event) for each in planned for event in each.events]
    headings = ["version", "stored at", "event", "body", "stream", "pipeline"]
    table = Table(headings, whole=4, above={"pipeline": ""})
    print_found(
        events, table, _erased_row, _erased_as_json if json else None, empty="nothing to erase"
    )
    bodies = sum(len(each.bodies) for each in planned)
    if not bodies:
        return
    complain([f"{counted(len(events), 'event')} would lose {_bodies(bodies)}"])
    if not dry_run:
        confirmed(_ERASE, yes)


def _erased_row(erased: tuple[erasure.Erasure, erasure.Pointer]) -> list[str | datetime]:
    each, event = erased
    return [
        f"@{event.version}",
        to_datetime(event.stored_at),
        event.kind,
        f"@{event.body_version}",
        str(event.stream or ""),
        str(each.pipeline),
    ]


def _erased_as_json(erased: tuple[erasure.Erasure, erasure.Pointer]) -> dict[str, Any]:
    each, event = erased
    return {
        **pipeline_as_json(each.pipeline),
        "version": event.version,
        "kind": event.kind,
        **stream_as_json(event.stream),
        "stored_at": rfc3339(to_datetime(event.stored_at)),
        "body_version": event.body_version,
    }


def _tell(done: list[erasure.Erasure]) -> None:
    for each in done:
        what = _bodies(len(each.bodies))
        complain([f"erased {what} of {each.pipeline}: see @{each.version}"])


def _bodies(number: int) -> str:
    return "1 body" if number == 1 else f"{number} bodies"
