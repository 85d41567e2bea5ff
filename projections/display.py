"""How the command line prints: text that does no harm to a terminal, and JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from projections import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor
    from projections.catalog_diff import CatalogChange
    from projections.changes import EventChange
    from projections.differences import Change


_PROGRESS_S = 1.0


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


class Progress:
    """Says on a terminal how far it is, once a second."""

    def __init__(self, noun: str, done: str) -> None:
        """Take the words: so many of a thing are done."""
        self._noun, self._done = noun, done
        self._told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """Say it, unless it was just said."""
        if sys.stderr.isatty() and time.monotonic() - self._told > _PROGRESS_S:
            self._told = time.monotonic()
            complain([f"{done} of {counted(of, self._noun)} {self._done}"])


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


def change_as_json(change: EventChange) -> dict[str, Any]:
    """An event, what it moved, and the counts of records that its state tells."""
    return {
        **event_as_json(change.stored),
        "moved": [
            *map(difference_as_json, change.moves),
            *map(redefinition_as_json, change.redefined),
        ],
        "counts": {name: json_text.Number(count) for name, count in change.records.items()},
    }


def difference_as_json(change: Change) -> dict[str, Any]:
    """What is different in two states."""
    return {
        "change": change.change,
        **stream_as_json(change.stream),
        "path": change.path,
        "before": change.before,
        "after": change.after,
    }


def redefinition_as_json(change: CatalogChange) -> dict[str, Any]:
    """What is different in two catalogs."""
    return {
        "change": change.change,
        **stream_as_json(change.stream),
        "what": change.what,
        "path": change.path,
        "before": change.before,
        "after": change.after,
        "breaking": change.breaking,
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
