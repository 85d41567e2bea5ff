"""Commands that prove that nothing was changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from eventstore import checkpoints, integrity
from eventstore.errors import CheckpointBroken, CheckpointUnusable, StoreUnavailable
from eventstore.store import EventStore
from projections.display import Progress, complain, counted, pipeline_as_json, print_json
from projections.options import Db, Json, Names, Schema, on_store, opened
from projections.table import Table, print_found
from projections.tables_check import check_tables

_ALTERED = 1
_CANNOT_TELL = 3

PublicKey = Annotated[
    Path | None, typer.Option(metavar="PUBLIC", help="The public key checkpoints are checked with.")
]


def _or_cannot_tell(command: Callable[..., None]) -> Callable[..., None]:
    """End with the exit code that says so where the database, a checkpoint or a key is no use."""

    @wraps(command)
    def call(**options: Any) -> None:
        try:
            command(**options)
        except (CheckpointUnusable, StoreUnavailable) as error:
            complain([f"cannot tell: {error}"])
            raise typer.Exit(_CANNOT_TELL) from error

    return call


@_or_cannot_tell
@on_store
def verify(
    store: EventStore,
    names: Names,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint; may be repeated.")
    ] = None,
    key: PublicKey = None,
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many processes compute.")
    ] = 1,
    json: Json = False,
) -> None:
    """Prove that nothing was changed.

    The exit code is 0 if all is whole, 1 if something was altered, 3 if nobody can tell.
    """
    signed, broken = _read_checkpoints(checkpoint or [], key)
    among = None if names == Names() else names.some(store)
    report = integrity.verify(
        store,
        among,
        checkpoints=signed,
        processes=processes,
        progress=Progress("event", "verified"),
    )
    whole = [found.pipeline for found in report.pipelines if found.is_whole]
    everything = among is None and report.is_whole
    tables = check_tables(store, None if everything else whole)
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
    headings = ["found", "last good", "first bad", "checkpoint", "pipeline", "what"]
    as_json = _verified_as_json if json else None
    print_found(found, Table(headings, whole=4), _verified_row, as_json, empty="no pipeline yet")


def _verified_row(each: integrity.Verified) -> list[str]:
    return [
        "whole" if each.is_whole else "altered",
        f"@{each.last_good}",
        "" if each.first_bad is None else f"@{each.first_bad}",
        f"covers @{each.covered}" if each.covered else "none",
        str(each.pipeline),
        each.problem or "",
    ]


def _verified_as_json(each: integrity.Verified) -> dict[str, Any]:
    return {
        **pipeline_as_json(each.pipeline),
        "whole": each.is_whole,
        "events": each.events,
        "last_good": each.last_good,
        "first_bad": each.first_bad,
        "covered": each.covered,
        "problem": each.problem,
    }


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
    """Sign where all histories end; keep the file elsewhere.

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
    """Make a pair of keys for checkpoints.

    The private one is FILE: keep it away from the database. The public one is FILE.pub.
    """
    public, key_id = checkpoints.keygen(file)
    complain([f"key {key_id}: the private key is in {file}, the public key in {public}"])
    print(public.read_text(), end="")


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointUnusable(f"cannot read {path}: {error.strerror}") from error
