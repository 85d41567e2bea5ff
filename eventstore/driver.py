"""Statements given to the driver itself: SQLAlchemy's bookkeeping takes longer than SQLite does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


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
    engine = db.engine
    if engine.dispatch.before_cursor_execute or engine.echo:
        return db.exec_driver_sql(sql, values)
    cursor, errors = db.connection.cursor(), db.dialect.loaded_dbapi.Error
    try:
        cursor.execute(sql, values)
    except errors as error:
        raise _as_sqlalchemys(db, cursor, sql, error) from error
    return cursor


def fetch(db: Connection, sql: str, values: Any = ()) -> Sequence[Sequence[Any]]:
    """The same, for all rows that it answers."""
    answer, errors = execute(db, sql, values), db.dialect.loaded_dbapi.Error
    try:
        rows: Sequence[Sequence[Any]] = answer.fetchall()
    except errors as error:
        raise _as_sqlalchemys(db, answer, sql, error) from error
    return rows


def _as_sqlalchemys(db: Connection, answer: Any, sql: str, error: Exception) -> DBAPIError:
    """A driver's error as SQLAlchemy raises it; what it says of a lost connection is done."""
    lost = db.dialect.is_disconnect(error, db.connection, answer)  # type: ignore[arg-type]
    if lost:
        db.invalidate(error)
    made = DBAPIError.instance(
        sql,
        None,
        error,
        db.dialect.loaded_dbapi.Error,
        connection_invalidated=lost,
        dialect=db.dialect,
    )
    assert isinstance(made, DBAPIError)
    return made
