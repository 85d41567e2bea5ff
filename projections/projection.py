"""What a read model is to the rest of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table

    from eventstore.events import StoredEvent


class Projection(Protocol):
    """Tables derived from the log, and the rule that derives them; a module can be one."""

    TABLES: Sequence[Table]

    KINDS: Sequence[str]
    """The kinds of events it depends on. Of each, the newest per stream must be enough."""

    @staticmethod
    def apply(db: Connection, stored: StoredEvent) -> None:
        """Change the tables for one event. It reads no clock, calls no network, never commits."""
