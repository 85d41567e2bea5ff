"""Rows kept in a file from when they are checked until they are written, batch by batch."""

from __future__ import annotations

import marshal
from io import SEEK_CUR
from typing import IO, Any, NamedTuple


class Batch(NamedTuple):
    """Rows of events and of bodies, without the id that their pipeline will have."""

    events: list[tuple[Any, ...]]
    bodies: list[tuple[Any, ...]]
    longest: int = 0
    """Bytes of the longest body, plain."""


class Spool:
    """Batches in a file: what is written is what was checked, and needs no parsing again."""

    def __init__(self, file: IO[bytes]) -> None:
        """Keep them in a file, which is empty."""
        self._file = file

    def put(self, batch: Batch) -> None:
        """Keep a batch behind the others."""
        rows = marshal.dumps(tuple(batch))
        self._file.write(len(rows).to_bytes(8, "big") + rows)

    def rewind(self) -> None:
        """Go back to the first batch."""
        self._file.seek(0)

    def take(self) -> Batch:
        """Read the next batch."""
        return Batch(*marshal.loads(self._file.read(self._size())))  # noqa: S302 - we wrote it

    def skip(self) -> None:
        """Pass over the next batch."""
        self._file.seek(self._size(), SEEK_CUR)

    def _size(self) -> int:
        return int.from_bytes(self._file.read(8), "big")
