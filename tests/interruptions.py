"""Something that happens right in the middle of what the store does: a writer, a failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

_BLOCKED_AFTER_S = 0.15


def everywhere(*, at_most: int = 100, step: int = 1) -> Iterator[Interruption]:
    """Interruptions at the first statement, the second, ... until there are no more."""
    for at in range(0, at_most, step):
        interruption = Interruption(at)
        yield interruption
        if not interruption.happened:
            return


class Interruption:
    """Somebody who acts just before a statement of an engine.

    Where a lock makes them wait for the engine's transaction, they act as soon as it ends.
    """

    def __init__(self, at: int) -> None:
        """Count statements from 0."""
        self.at = at
        self.happened = False

    @contextmanager
    def of(self, engine: Engine, act: Callable[[], Any]) -> Iterator[None]:
        """Let them act; after the last statement if there are too few."""
        statements = iter(range(self.at + 1))
        with ThreadPoolExecutor(1) as somebody:
            acting = []

            def interrupt(*_: object) -> None:
                if next(statements, None) == self.at:
                    self.happened = True
                    acting.append(somebody.submit(act))
                    wait(acting, _BLOCKED_AFTER_S)

            event.listen(engine, "before_cursor_execute", interrupt)
            try:
                yield
            finally:
                event.remove(engine, "before_cursor_execute", interrupt)
            if not acting:
                acting.append(somebody.submit(act))
            acting[0].result()


class LostRace(DBAPIError):
    """What every dialect takes for one."""

    class _Orig(Exception):
        sqlstate = "40001"

    def __init__(self) -> None:
        """Speak as each database does."""
        super().__init__("", {}, self._Orig(1213, "Conflict on a row: database is locked"))


@contextmanager
def lost_race(engine: Engine, beginning: str) -> Iterator[None]:
    """Let the engine's transaction lose a race, once, before a statement with this beginning."""
    waiting = [beginning]

    def lose(_db: object, _cursor: object, statement: str, *_: object) -> None:
        if waiting and statement.startswith(beginning):
            waiting.pop()
            raise LostRace

    event.listen(engine, "before_cursor_execute", lose)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", lose)


@contextmanager
def at_commit(engine: Engine, act: Callable[[Connection], None]) -> Iterator[None]:
    """Do something to the connection that commits next, once, before it does."""
    waiting = [act]

    def interrupt(db: Connection) -> None:
        if waiting:
            waiting.pop()(db)

    event.listen(engine, "commit", interrupt)
    try:
        yield
    finally:
        event.remove(engine, "commit", interrupt)


def die(db: Connection) -> None:
    """Lose the connection."""
    db.connection.dbapi_connection.close()


def commit_then_die(db: Connection) -> None:
    """Lose the connection after the server has committed."""
    db.connection.dbapi_connection.commit()
    die(db)


@contextmanager
def counted(engine: Engine, *, all_statements: bool = False) -> Iterator[list[str]]:
    """Collect the statements; without those that only begin, end or tune a transaction unless
    `all_statements` are wanted.
    """
    statements: list[str] = []

    def note(_db: object, _cursor: object, statement: str, *_: object) -> None:
        if all_statements or statement.split(maxsplit=1)[0].upper() not in {
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "PRAGMA",
            "SET",
        }:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)
