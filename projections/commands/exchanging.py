"""Commands that take whole histories out of a database and into another."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from eventstore.errors import Invalid
from eventstore.store import EventStore
from projections.display import complain, counted, print_json_text, printable
from projections.exchange import export_histories, import_histories
from projections.options import Db, Names, Schema, on_store
from projections.record import Stopped
from projections.wiring import connect

_WORD_EVERY = 100_000
"""Events between two words about how far it has come."""


@on_store
def export(
    store: EventStore,
    names: Names,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A new file; by default stdout.")
    ] = None,
) -> None:
    """Write whole histories as JSON lines, for `import` elsewhere."""
    chosen = None if names == Names() else names.some(store)
    lines = _counting(export_histories(store, chosen), "exported")
    if file is not None:
        with _new_file(file) as output:
            output.writelines(lines)
    elif sys.stdout.isatty():
        for line in lines:
            print_json_text(line.decode().rstrip("\n"))
    else:
        sys.stdout.buffer.writelines(lines)


def import_(
    db: Db,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; - is stdin.")],
    schema: Schema = None,
) -> None:
    """Take in the whole histories of an export.

    The file is checked to its end first. Where a pipeline has another history, nothing of it is
    taken in.
    """
    with _input(file) as lines, connect(db, schema=schema) as store:
        done = import_histories(store, _counting(lines, "checked"))
    for pipeline, version in done.written.items():
        print(printable(f"{pipeline}: imported {counted(version, 'event')}"))
    for pipeline, version in done.unchanged.items():
        there = f"{pipeline}: {counted(version, 'event')}, all here already"
        print(printable(there))


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that was not there; gone again if it could not be written to its end."""
    try:
        output = path.open("xb")
    except FileExistsError as error:
        raise Invalid(f"{path} is there already; name a new file") from error
    try:
        with output:
            yield output
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _input(file: str) -> Iterator[Iterable[bytes]]:
    if file == "-":
        if sys.stdin is None:  # its number would soon be a file of the database's
            raise Stopped("there is no input to read")
        yield sys.stdin.buffer
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    with opened:
        yield opened


def _counting(lines: Iterable[bytes], verb: str) -> Iterator[bytes]:
    """The same lines, with a word now and then for who waits at a terminal."""
    for number, line in enumerate(lines):
        if number % _WORD_EVERY == 0 and number and sys.stderr.isatty():
            complain([f"{verb} {number:,} events"])
        yield line
