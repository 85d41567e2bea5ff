"""Statements given to the driver itself: SQLAlchemy's bookkeeping takes longer than SQLite does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Answer(Protocol):
    """What a statement answers: a driver's cursor, or SQLAlchemy's result."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed, where the driver knows."""

    def fetchone(self) -> Any:
        """The next row, or None."""


def execute(db: Connection, sql: str, values: Any = ()) -> Answer:
    """Run a driver's SQL, with values as the driver wants them; raises DBAPIError.

    Whoever listens to the engine's statements, or has them logged, still hears of it.
    """
    engine, errors = db.engine, db.dialect.loaded_dbapi.Error
    if engine.dispatch.before_cursor_execute or engine.echo:
        return db.exec_driver_sql(sql, values)
    connection = db.connection
    cursor = connection.cursor()
    try:
        cursor.execute(sql, values)
    except errors as error:
        lost = db.dialect.is_disconnect(error, connection, cursor)
        if lost:
            db.invalidate(error)
        raise DBAPIError.instance(
            sql, None, error, errors, connection_invalidated=lost, dialect=db.dialect
        ) from error
    return cursor
