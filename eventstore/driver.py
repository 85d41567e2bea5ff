"""Statements given to the driver itself: SQLAlchemy's bookkeeping takes longer than SQLite does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPICursor


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
    # SQLAlchemy 2.1 asks the engine, too, who listens to it; `do_execute` is of the dialect.
    if db._has_events or db.engine._has_events or db.dialect._has_events or db._echo:
        return db.exec_driver_sql(sql, values)
    cursor = _cursor(db)
    try:
        cursor.execute(sql, values)
    except db.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemys(db, cursor, sql, error) from error
    return cursor


def fetch(db: Connection, sql: str, values: Any = ()) -> Sequence[Sequence[Any]]:
    """The same, for all rows that it answers."""
    answer = execute(db, sql, values)
    try:
        rows: Sequence[Sequence[Any]] = answer.fetchall()
    except db.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemys(db, answer, sql, error) from error
    return rows


def _cursor(db: Connection) -> DBAPICursor:
    """As the driver answers fastest: psycopg 3 is sent twice as many bytes where they are text."""
    if db.dialect.driver == "psycopg":
        driver, connection = db.dialect.loaded_dbapi, db.connection.driver_connection
        if connection.cursor_factory is driver.Cursor:  # type: ignore[union-attr]
            return db.connection.cursor(binary=True)
    return db.connection.cursor()


def _as_sqlalchemys(db: Connection, answer: Any, sql: str, error: Exception) -> DBAPIError:
    """What SQLAlchemy makes of a driver's error; a connection that is lost is invalidated."""
    errors: Any = db.dialect.loaded_dbapi.Error
    lost = db.dialect.is_disconnect(error, db.connection, answer)  # type: ignore[arg-type]
    if lost:
        db.invalidate(error)
    made: Any = DBAPIError.instance(
        sql, None, error, errors, connection_invalidated=lost, dialect=db.dialect
    )
    return made  # type: ignore[no-any-return]
