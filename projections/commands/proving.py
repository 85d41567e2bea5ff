"""Commands that prove that nothing was changed, and those that erase for good."""

from __future__ import annotations

import re
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from eventstore import checkpoints, erasure, integrity
from eventstore.errors import CheckpointBroken, CheckpointUnusable, Invalid, StoreUnavailable
from eventstore.events import Pipeline, StreamDescriptor, to_datetime
from eventstore.store import EventStore
from projections.as_of import BeforeHead, locate, parse_moment
from projections.display import (
    complain,
    counted,
    pipeline_as_json,
    print_json,
    rfc3339,
    stream_as_json,
)
from projections.options import (
    Connection,
    Db,
    Destination,
    Json,
    Names,
    Prefix,
    Schema,
    Source,
    confirmed,
    instant,
    opened,
)
from projections.table import print_rows
from projections.tables_check import check_tables

_ALTERED = 1
_CANNOT_TELL = 3

_PROGRESS_S = 1.0
_ERASE = "Erase them for good?"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

Reason = Annotated[str | None, typer.Option(help="Why; it stands in the history for good.")]
Actor = Annotated[str | None, typer.Option(help="Who; by default the OS user.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
PublicKey = Annotated[
    Path | None, typer.Option(metavar="PUBLIC", help="The public key checkpoints are checked with.")
]


def verify(
    db: Db,
    schema: Schema = None,
    source: Source = None,
    destination: Destination = None,
    table_prefix: Prefix = None,
    connection: Connection = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint; may be repeated.")
    ] = None,
    key: PublicKey = None,
    processes: Annotated[int, typer.Option(min=1, help="How many processes compute.")] = 1,
    json: Json = False,
) -> None:
    """Prove that nothing was changed: exit 0 whole, 1 altered, 3 cannot tell."""
    names = Names(source, destination, table_prefix, connection)
    try:
        signed, broken = _read_checkpoints(checkpoint or [], key)
        with opened(db, schema) as store:
            among = None if names == Names() else names.some(store)
            report = integrity.verify(
                store, among, checkpoints=signed, processes=processes, progress=_Progress()
            )
            whole = [found.pipeline for found in report.pipelines if found.is_whole]
            everything = among is None and report.is_whole
            tables = check_tables(store, None if everything else whole)
    except (CheckpointUnusable, StoreUnavailable) as error:
        complain([f"cannot tell: {error}"])
        raise typer.Exit(_CANNOT_TELL) from error
    problems = [*broken, *report.problems, *tables.problems]
    _print_verified(report.pipelines, json=json)
    for problem in problems if json else ():
        print_json({**pipeline_as_json(None), "whole": False, "problem": problem})
    complain([*(f"altered: {problem}" for problem in problems)])
    complain([*report.notices, *tables.notices])
    if problems or not report.is_whole:
        raise typer.Exit(_ALTERED)


def _read_checkpoints(
    files: list[Path], key: Path | None
) -> tuple[list[checkpoints.Checkpoint], list[str]]:
    """Those that are what was signed, and what is wrong with those that are not."""
    if files and key is None:
        raise CheckpointUnusable("a checkpoint is checked with a key: add --key PUBLIC")
    signed: list[checkpoints.Checkpoint] = []
    broken: list[str] = []
    for file in files:
        try:
            signed.append(checkpoints.read_file(file, key or file))
        except CheckpointBroken as error:
            broken.append(f"{file}: {error}")
    return signed, broken


def _print_verified(found: tuple[integrity.Verified, ...], *, json: bool) -> None:
    if json:
        for each in found:
            print_json(
                {
                    **pipeline_as_json(each.pipeline),
                    "whole": each.is_whole,
                    "events": each.events,
                    "last_good": each.last_good,
                    "first_bad": each.first_bad,
                    "covered": each.covered,
                    "problem": each.problem,
                }
            )
        return
    print_rows(
        ["found", "last good", "first bad", "checkpoint", "pipeline", "what"],
        [
            [
                "whole" if each.is_whole else "altered",
                f"@{each.last_good}",
                "" if each.first_bad is None else f"@{each.first_bad}",
                f"covers @{each.covered}" if each.covered else "covers nothing",
                str(each.pipeline),
                each.problem or "",
            ]
            for each in found
        ],
        whole=4,
        empty="no pipeline yet",
    )


class _Progress:
    """Says on a terminal how far it is, once a second."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._told > _PROGRESS_S:
            self._told = time.monotonic()
            complain([f"{done} of {counted(of, 'event')} verified"])


def checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the checkpoint.")],
    db: Db,
    key: Annotated[Path, typer.Option(metavar="PRIVATE", help="The private key: see keygen.")],
    schema: Schema = None,
    previous: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The checkpoint that this one extends.")
    ] = None,
    public: PublicKey = None,
) -> None:
    """Sign what the heads of all histories are, as they are; keep the file elsewhere.

    Nothing is verified before it is signed: run `verify` first.
    """
    private = _read_key(key)
    earlier = None
    if previous is not None:
        earlier = checkpoints.read_file(previous, public or key.with_name(f"{key.name}.pub"))
    with opened(db, schema) as store:
        document = checkpoints.make(store, private, previous=earlier)
        heads = len(store.pipelines())
    checkpoints.write_new(file, document.encode())
    complain([f"signed the heads of {counted(heads, 'pipeline')} in {file}"])


def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the private key.")],
) -> None:
    """Make a key for checkpoints: a private key to keep away from the database, and FILE.pub."""
    public, key_id = checkpoints.keygen(file)
    complain([f"key {key_id}: the private key is in {file}, the public key in {public}"])
    print(public.read_text(), end="")


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
    if namespace is not None and stream is None:
        raise Invalid("--namespace belongs to --stream: name it as well")
    if reapply:
        _agree(erasure.reapply(store, dry_run=True), dry_run=dry_run, yes=yes, json=json)
        done = [] if dry_run else erasure.reapply(store)
        _tell(done)
        return
    pipeline = names.one(store)
    what: dict[str, Any] = {
        "version": None if version is None else _version(store, pipeline, version),
        "stream": None if stream is None else StreamDescriptor(stream, namespace),
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
    if json:
        for each, event in events:
            print_json(
                {
                    **pipeline_as_json(each.pipeline),
                    "version": event.version,
                    "kind": event.kind,
                    **stream_as_json(event.stream),
                    "stored_at": rfc3339(to_datetime(event.stored_at)),
                    "body_version": event.body_version,
                }
            )
    else:
        print_rows(
            ["version", "stored at", "event", "body", "stream", "pipeline"],
            [
                [
                    f"@{event.version}",
                    to_datetime(event.stored_at),
                    event.kind,
                    f"@{event.body_version}",
                    str(event.stream or ""),
                    str(each.pipeline),
                ]
                for each, event in events
            ],
            whole=4,
            above={"pipeline": ""},
            empty="nothing to erase",
        )
    bodies = sum(len(each.bodies) for each in planned)
    if not bodies:
        return
    complain([f"{counted(len(events), 'event')} would lose {_bodies(bodies)}"])
    if not dry_run:
        confirmed(_ERASE, yes)


def _tell(done: list[erasure.Erasure]) -> None:
    for each in done:
        what = _bodies(len(each.bodies))
        complain([f"erased {what} of {each.pipeline}: see @{each.version}"])


def _bodies(number: int) -> str:
    return "1 body" if number == 1 else f"{number} bodies"


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointUnusable(f"cannot read {path}: {error.strerror}") from error
