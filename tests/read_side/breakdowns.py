"""A database that breaks down in the middle of what it is asked to do."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine


class BrokenDown(Exception):
    """What a user's engine raises who wants to see what is lost then."""


def everywhere() -> Iterator[Breakdown]:
    """Breakdowns before the first statement, the second, ... and the commit, until none is left."""
    for at in count():
        breakdown = Breakdown(at)
        yield breakdown
        if not breakdown.happened:
            return


class Breakdown:
    """An engine fails, once, before one of its statements or commits."""

    def __init__(self, at: int) -> None:
        """Count statements and commits from 0."""
        self.at = at
        self.happened = False

    @contextmanager
    def of(self, engine: Engine) -> Iterator[None]:
        """Break down inside; nothing happens if there are too few statements."""
        steps = count()

        def fail(*_: object) -> None:
            if next(steps) == self.at:
                self.happened = True
                raise BrokenDown

        def fail_to_commit(db: Connection) -> None:
            if _has_begun(db):
                fail()

        listeners = {"before_cursor_execute": fail, "commit": fail_to_commit}
        for name, listener in listeners.items():
            event.listen(engine, name, listener)
        try:
            with suppress(BrokenDown):
                yield
        finally:
            for name, listener in listeners.items():
                event.remove(engine, name, listener)


def _has_begun(db: Connection) -> bool:
    """Whether there is something to commit: a statement may have been a transaction by itself."""
    info = getattr(db.connection.driver_connection, "info", None)  # psycopg's, of either version
    return info is None or info.transaction_status != 0
