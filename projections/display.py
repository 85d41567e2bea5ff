"""How the command line prints: tables on a terminal, plain lines in a pipe, or JSON lines."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from eventstore.events import StoredEvent


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows: a table on a terminal, else lines with tabs between their columns.

    The last column takes what room is left. `empty` is said on stderr when there are none.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        printed = [print("\t".join(map(printable, row))) for row in rows]
        if not printed:
            print(empty, file=sys.stderr)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        last = heading == headings[-1]
        table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1 if last else None)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if table.row_count:
        console.print(table)
    else:
        print(empty, file=sys.stderr)


def print_json(value: object) -> None:
    """Print one JSON line."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def printable(text: str) -> str:
    """Escape what could move a terminal's cursor or break a line: names come from connectors."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def rfc3339(moment: datetime) -> str:
    """A moment in UTC with microseconds and `Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event_as_json(stored: StoredEvent) -> dict[str, Any]:
    """An event with the names that scripts may rely on."""
    pipeline, stream = stored.pipeline, stored.stream
    return {
        "source": pipeline.source,
        "destination": pipeline.destination,
        "table_prefix": pipeline.table_prefix,
        "connection": pipeline.connection,
        "version": stored.version,
        "id": str(stored.id),
        "kind": stored.kind,
        "namespace": stream.namespace if stream else None,
        "stream": stream.name if stream else None,
        "origin": stored.origin,
        "of": stored.of,
        "stored_at": rfc3339(stored.stored_at),
        "actor": stored.actor,
        "reason": stored.reason,
        "run": stored.run,
        "hash": stored.hash.hex(),
        "body": stored.body.decode(),
    }


def indented(body: bytes) -> Iterator[str]:
    """The lines of a JSON body, indented for reading."""
    yield from json.dumps(json.loads(body), indent=2, ensure_ascii=False).splitlines()
