"""What a read model is to the rest of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Table

    from eventstore.events import StoredEvent


class Projection(Protocol):
    """Tables derived from the log, and the rule that derives them; a module can be one."""

    @property
    def TABLES(self) -> Sequence[Table]:
        """The tables it fills, with a `pipeline_key` in each."""

    @property
    def KINDS(self) -> Sequence[str]:
        """The kinds of events it depends on. Of each, the newest per stream must be enough.

        It is shown appends in which one of these is, or a BodyErased: that may concern any row.
        """

    def apply(self, db: Connection, appended: Sequence[StoredEvent]) -> None:
        """Change the tables for some events of a history, one at least, in their order.

        It reads no clock, calls no network, never commits.
        """

    def expected_rows(
        self, newest: Sequence[StoredEvent]
    ) -> Iterator[tuple[Table, dict[str, Any]]]:
        """The rows that the newest events of a history say are there, each with its table."""


class OwnProjection(Protocol):
    """A name, tables, and the rule that fills them from the events of the log."""

    @property
    def name(self) -> str:
        """What its progress is kept under: of 64 characters at most, and no other projection's."""

    @property
    def TABLES(self) -> Sequence[Table]:
        """The tables it fills; they are made where they are not there."""

    def apply(self, db: Connection, stored: StoredEvent) -> None:
        """Change the tables for one event. It reads no clock, calls no network, never commits."""
