"""What databases have in common where tables are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


def make_missing(db: Connection, table: Table) -> None:
    """Make a table and its indexes, or those of them that are not there."""
    db.execute(CreateTable(table, if_not_exists=True))
    for index in table.indexes:
        db.execute(CreateIndex(index, if_not_exists=True))
