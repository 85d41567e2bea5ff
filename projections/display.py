"""How the command line prints: tables on a terminal, plain lines in a pipe, or JSON lines."""

from __future__ import annotations

import logging
import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from projections import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor

_GAP = "  "
_LEAST_WIDTH = 8
"""Of a column; where there is less room, it is left out."""

_LEAST_MAIN_WIDTH = 20
"""Of the column that a table is about: others are left out to make room for it."""

_WEIGHT = 2
"""How many times as wide as another column that may be."""


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


class Table:
    """Rows for people: as wide as the terminal, or in a pipe lines with tabs between the columns.

    The first `whole` columns are not cut where they fit; `main` is cut after the others.
    """

    def __init__(self, headings: Sequence[str], *, whole: int, main: str | None = None) -> None:
        """Print nothing yet."""
        self._headings = headings
        self._whole = whole
        self._main = headings.index(main) if main else None
        self._widths: list[int] = []

    def print(self, rows: Iterable[Sequence[str]]) -> bool:
        """Print rows, the headings before the first; returns whether there were any.

        Columns keep their widths, unless what must not be cut grows.
        """
        clean = ([printable(cell) for cell in row] for row in rows)
        if not sys.stdout.isatty():
            return bool([print("\t".join(row)) for row in clean])
        there = list(clean)
        first = [] if self._widths else [list(self._headings)]
        wanted = [max(map(cell_len, column)) for column in zip(self._headings, *there, strict=True)]
        grown = any(map(int.__gt__, wanted[: self._whole], self._widths))
        if there and (first or grown):
            self._widths = _widths(wanted, self._whole, self._main)
        for row in [*first, *there] if there else []:
            print(_GAP.join(map(_cut, row, self._widths)).rstrip())
        return bool(there)


def print_rows(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: int,
    empty: str,
    main: str | None = None,
) -> None:
    """Print a table; `empty` is said on stderr when there are no rows."""
    if not Table(headings, whole=whole, main=main).print(rows):
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
    return {
        **pipeline_as_json(stored.pipeline),
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


def pipeline_as_json(pipeline: Pipeline | None) -> dict[str, str | None]:
    """A pipeline with the names that scripts may rely on; None is all of them."""
    return {
        "source": pipeline.source if pipeline else None,
        "destination": pipeline.destination if pipeline else None,
        "table_prefix": pipeline.table_prefix if pipeline else None,
        "connection": pipeline.connection if pipeline else None,
    }


def stream_as_json(stream: StreamDescriptor | None) -> dict[str, str | None]:
    """A stream with the names that scripts may rely on; None is the whole pipeline."""
    return {
        "namespace": stream.namespace if stream else None,
        "stream": stream.name if stream else None,
    }


def _widths(wanted: Sequence[int], whole: int, main: int | None) -> list[int]:
    """Widths of columns that fit on the terminal; the last are left out if need be."""
    room = shutil.get_terminal_size().columns
    while whole > 1 and sum(wanted[:whole]) + len(_GAP) * (whole - 1) > room:
        whole -= 1
    room -= sum(wanted[:whole]) + len(_GAP) * (whole - 1)
    columns = {place: width for place, width in enumerate(wanted) if place >= whole}

    def least(of_main: int) -> int:
        return sum(
            min(width, of_main if place == main else _LEAST_WIDTH) + len(_GAP)
            for place, width in columns.items()
        )

    while main is not None and max(columns) > main and least(_LEAST_MAIN_WIDTH) > room:
        columns.popitem()
    while columns and least(_LEAST_WIDTH) > room:
        columns.popitem()
    room -= len(_GAP) * len(columns)
    while columns and sum(columns.values()) > room:
        widest = max(columns, key=lambda place: columns[place] // (_WEIGHT if place == main else 1))
        columns[widest] -= 1
    return [*wanted[:whole], *columns.values()]


def _cut(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 1) + "…"
