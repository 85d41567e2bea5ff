"""Statements given to the driver itself: SQLAlchemy's bookkeeping takes longer than SQLite does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

T = TypeVar("T")


class Answer(Protocol):
    """What a statement answers: a driver's cursor, or SQLAlchemy's result."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed, where the driver knows."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> Any:
        """All rows that are left."""


def execute(db: Connection, sql: str, values: Any = ()) -> Answer:
    """Run a driver's SQL, with values as the driver wants them; raises DBAPIError.

    Whoever listens to the engine's statements, or has them logged, still hears of it.
    """
    return _take(db, sql, values, lambda answer: answer)


def fetch(db: Connection, sql: str, values: Any = ()) -> Sequence[Sequence[Any]]:
    """The same, for all rows that it answers."""
    return _take(db, sql, values, lambda answer: answer.fetchall())


def _take(db: Connection, sql: str, values: Any, take: Callable[[Answer], T]) -> T:
    engine, errors = db.engine, db.dialect.loaded_dbapi.Error
    if engine.dispatch.before_cursor_execute or engine.echo:
        return take(db.exec_driver_sql(sql, values))
    connection = db.connection
    cursor = connection.cursor()
    try:
        cursor.execute(sql, values)
        return take(cursor)
    except errors as error:
        lost = db.dialect.is_disconnect(error, connection, cursor)
        if lost:
            db.invalidate(error)
        raise DBAPIError.instance(
            sql, None, error, errors, connection_invalidated=lost, dialect=db.dialect
        ) from error
