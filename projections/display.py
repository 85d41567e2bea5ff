"""How the command line prints: tables on a terminal, plain lines in a pipe, or JSON lines."""

from __future__ import annotations

import logging
import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from projections import audit, json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from eventstore.events import StoredEvent, StreamDescriptor
    from projections.audit import Change

_GAP = "  "
_LEAST_WIDTH = 8
"""Of a column; where there is less room, it is left out."""


def prepare_output() -> None:
    """Print UTF-8 into pipes and what a terminal can show on it; log to stderr, line by line."""
    if sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    else:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    for package in ("eventstore", "projections"):
        logger = logging.getLogger(package)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"eventstore: {printable(record.getMessage())}"


def print_rows(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, whole: int, empty: str
) -> None:
    """Print rows: a table on a terminal, else lines with tabs between their columns.

    The first `whole` columns are not cut where they fit. `empty` is said on stderr when there are
    no rows.
    """
    clean = ([printable(cell) for cell in row] for row in rows)
    if not sys.stdout.isatty():
        printed = [print("\t".join(row)) for row in clean]
    else:
        printed = [print(line) for line in _table(headings, list(clean), whole)]
    if not printed:
        print(empty, file=sys.stderr)


def print_json(value: object) -> None:
    """Print one JSON line."""
    print_json_text(json_text.compact(value))


def print_json_text(text: str) -> None:
    """Print JSON exactly, or on a terminal so that it does no harm there."""
    print(json_text.escaped(text) if sys.stdout.isatty() else text)


def printable(text: str) -> str:
    """Escape what could move a terminal's cursor or break a line: names come from connectors."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def complain(problems: Iterable[str]) -> None:
    """Say on stderr what is wrong, or what a reader of stdout should know, a line each."""
    for problem in problems:
        print(f"eventstore: {printable(problem)}", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def rfc3339(moment: datetime) -> str:
    """A moment in UTC with microseconds and `Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event_as_json(stored: StoredEvent) -> dict[str, Any]:
    """An event with the names that scripts may rely on."""
    pipeline = stored.pipeline
    return {
        "source": pipeline.source,
        "destination": pipeline.destination,
        "table_prefix": pipeline.table_prefix,
        "connection": pipeline.connection,
        "version": stored.version,
        "id": str(stored.id),
        "kind": stored.kind,
        **stream_as_json(stored.stream),
        "origin": stored.origin,
        "of": stored.of,
        "stored_at": rfc3339(stored.stored_at),
        "actor": stored.actor,
        "reason": stored.reason,
        "run": stored.run,
        "hash": stored.hash.hex(),
        "body": None if stored.erased else stored.body.decode(),
    }


def stream_as_json(stream: StreamDescriptor | None) -> dict[str, str | None]:
    """A stream with the names that scripts may rely on; None is the whole pipeline."""
    return {
        "namespace": stream.namespace if stream else None,
        "stream": stream.name if stream else None,
    }


def print_changes(changes: Iterable[Change], *, json: bool, empty: str) -> None:
    """Print the differences between two states, as rows or as JSON lines."""
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


def _table(headings: Sequence[str], rows: list[list[str]], whole: int) -> list[str]:
    """The lines of a table as wide as the terminal, none if there are no rows."""
    if not rows:
        return []
    wanted = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]
    room = shutil.get_terminal_size().columns
    while whole > 1 and sum(wanted[:whole]) + len(_GAP) * (whole - 1) > room:
        whole -= 1
    widths = wanted[:whole]
    room -= sum(widths) + len(_GAP) * (whole - 1)
    widths += _share(wanted[whole:], room)
    return [_GAP.join(map(_cut, row, widths)).rstrip() for row in [list(headings), *rows]]


def _share(wanted: Sequence[int], room: int) -> list[int]:
    """Widths for columns that may be cut, the widest first; the last are left out if need be."""
    columns = list(wanted)
    while columns and sum(min(width, _LEAST_WIDTH) + len(_GAP) for width in columns) > room:
        columns.pop()
    room -= len(_GAP) * len(columns)
    while columns and sum(columns) > room:
        columns[columns.index(max(columns))] -= 1
    return columns


def _cut(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 1) + "…"
