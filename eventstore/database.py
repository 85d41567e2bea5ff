"""The database somebody named: its engine, asked for anew each time, and our transactions on it."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from eventstore import schema
from eventstore.dialects import dialect_of
from eventstore.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from eventstore.schema import Schema

_log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 30.0
"""How long a transaction that loses races is tried again."""

_LONGEST_PAUSE_S = 0.1


class Database:
    """An engine, or what returns one: a runner may dispose its engine and make another."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        schemas: Sequence[Schema],
        *,
        create: bool,
    ) -> None:
        """Remember where to find the engine; nothing is opened before the first use."""
        self._engine = engine
        self._schemas = schemas
        self._create = create
        self._opened: Engine | None = None
        self._components: frozenset[str] = frozenset()
        self._opening = threading.RLock()

    @property
    def engine(self) -> Engine:
        """The engine of the moment, its tables made or checked."""
        engine = self._engine()
        if engine is not self._opened:
            with self._opening:
                if engine is not self._opened:
                    self._open(engine)
                    self._opened = engine
        return engine

    def components(self) -> frozenset[str]:
        """Which components have tables here, also ones that this process does not know."""
        _ = self.engine
        return self._components

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection to read from; raises StoreUnavailable."""
        engine = self.engine
        try:
            with engine.connect() as db:
                yield db
        except DBAPIError as error:
            raise _unavailable(engine, error) from error

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do the work in one transaction, again when it lost a race; raises StoreUnavailable.

        After a lost connection the outcome is unknown: the work must find out by itself.
        """
        return _transact(self.engine, work)

    def _open(self, engine: Engine) -> None:
        try:
            with engine.connect() as db:
                found = schema.versions(db)
        except DBAPIError as error:
            raise _unavailable(engine, error) from error
        if not schema.is_current(found, self._schemas):
            if not self._create:
                schema.require(found, self._schemas)
            _transact(engine, lambda db: schema.upgrade(db, self._schemas))
        self._components = frozenset(found).union(step.component for step in self._schemas)


def _transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    dialect = dialect_of(engine)
    deadline = time.monotonic() + PATIENCE_S
    for attempt in count():
        try:
            with engine.connect() as db:
                dialect.begin_write(db)
                result = work(db)
                db.commit()
                return result
        except DBAPIError as error:
            if dialect.verdict(error) == "refused" or time.monotonic() > deadline:
                raise _unavailable(engine, error) from error
            _log.debug("transaction %d lost a race, trying again: %s", attempt, error.orig)
        time.sleep(random.random() * min(0.001 * 2 ** min(attempt, 10), _LONGEST_PAUSE_S))  # noqa: S311
    raise AssertionError("count() does not end")


def _unavailable(engine: Engine, error: DBAPIError) -> StoreUnavailable:
    problem = " ".join(str(error.orig).split())
    where = engine.url.render_as_string(hide_password=True)
    return StoreUnavailable(f"{where}: {problem}")
