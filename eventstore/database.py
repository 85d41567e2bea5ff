"""The database somebody named: its engine, asked for anew each time, and our transactions on it."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import exc
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from eventstore import schema
from eventstore.dialects import dialect_of
from eventstore.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine, Table

    from eventstore.schema import Schema

_log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 30.0
"""How long a transaction that loses races or its connection is tried again."""

_LONGEST_PAUSE_S = {"conflict": 0.1, "lost": 1.0, "refused": 1.0}


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

    def catch_up(self) -> None:
        """Take in what others have written since to tables that are ours."""
        self._catch_up(self.engine)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do work that only reads, again when its connection was lost; raises StoreUnavailable.

        Each of its statements may see what was committed since the one before.
        """
        return _persist(self.engine, partial(_each_alone, work=work))

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do the work in one transaction, again when it lost a race; raises StoreUnavailable.

        After a lost connection the outcome is unknown: the work must find out by itself.
        """
        engine = self.engine
        pooled = partial(_Pooled, engine, ends_committed=True)
        return _patiently(engine, pooled, partial(_in_transaction, work=work))

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Several transactions on one connection, which is closed at the end."""
        engine = self.engine
        with _Pooled(engine) as db:
            try:
                yield Session(db)
            finally:
                if has_connections_to_spare(engine):
                    db.invalidate()

    def make_tables(self, tables: Sequence[Table]) -> None:
        """Make those of these tables that are not there."""
        if missing := _persist(self.engine, lambda db: _missing(db, tables)):
            _persist(self.engine, lambda db: _make(db, missing))

    def _open(self, engine: Engine) -> None:
        found = _persist(engine, _find_versions)
        if not schema.is_current(found, self._schemas):
            if not self._create:
                schema.require(found, self._schemas)
            try:
                _persist(engine, self._upgrade)
            except StoreUnavailable as error:
                if not schema.is_old(found, self._schemas):
                    raise
                raise StoreUnavailable(
                    f"tables of an earlier release could not be copied: {error} (whoever opens "
                    "them first has to own them; drop views of yours on them, and make those again)"
                ) from error
        self._components = frozenset(found).union(step.component for step in self._schemas)
        self._catch_up(engine)

    def _upgrade(self, db: Connection) -> None:
        with dialect_of(db).schema_lock(db):
            _in_transaction(db, lambda db: schema.upgrade(db, self._schemas))

    def _catch_up(self, engine: Engine) -> None:
        for component in self._schemas:
            behind = _persist(engine, component.is_behind)
            if behind and self._create:
                _persist(engine, lambda db, it=component: _in_transaction(db, it.catch_up))  # type: ignore[misc]
            elif behind:
                _log.warning("%s: whatever opens the database to write takes them in", behind)


class Session:
    """Several transactions on one connection, which see its temporary tables."""

    def __init__(self, db: Connection) -> None:
        """Use a connection of nobody else's."""
        self._db = db

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do work that writes to temporary tables at most; raises StoreUnavailable."""
        return self._persist(partial(_and_commit, work=work))

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do the work in one transaction, again when it lost a race; raises StoreUnavailable."""
        return self._persist(partial(_in_transaction, work=work))

    def _persist(self, work: Callable[[Connection], T]) -> T:
        return _patiently(self._db.engine, self._connection, work)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            yield self._db
        except DBAPIError as error:
            if dialect_of(self._db).verdict(error) == "lost":  # and with it the temporary tables
                self._db.invalidate()
                raise _unavailable(self._db.engine, _words(error)) from error
            self._db.rollback()
            raise


def _each_alone(db: Connection, work: Callable[[Connection], T]) -> T:
    with dialect_of(db).each_alone(db):
        return work(db)


def _and_commit(db: Connection, work: Callable[[Connection], T]) -> T:
    result = work(db)
    db.commit()
    return result


def has_connections_to_spare(engine: Engine) -> bool:
    """Whether there are several to one database; where it is in memory, it ends with the first."""
    return isinstance(engine.pool, QueuePool)


def _find_versions(db: Connection) -> dict[str, int]:
    dialect_of(db).check_session(db)
    return schema.versions(db)


def _missing(db: Connection, tables: Sequence[Table]) -> list[Table]:
    names = dialect_of(db).column_names
    return [table for table in tables if not names(db, table.name, schema.schema_name(db))]


def _make(db: Connection, tables: Sequence[Table]) -> None:
    def make(db: Connection) -> None:
        for table in _missing(db, tables):
            dialect_of(db).create_table(db, table)

    with dialect_of(db).schema_lock(db):
        _in_transaction(db, make)


def _in_transaction(db: Connection, work: Callable[[Connection], T]) -> T:
    dialect = dialect_of(db)
    with dialect.turn(db):
        if not db.in_transaction():  # a lock may have begun it
            db.begin()
        dialect.begin_write(db)
        result = work(db)
        if not db.in_transaction() or not dialect.is_open(db):
            raise StoreUnavailable(
                "the transaction was ended in the middle: whatever takes part in it, such as a "
                "projection, must neither commit nor roll back, nor use another connection where "
                "the pool has but one"
            )
        try:
            db.commit()
        except BaseException:
            # SQLAlchemy takes a failed COMMIT for the end of the transaction, and would put the
            # connection back into the pool as it is: a locked SQLite file leaves it open.
            if not db.invalidated:
                try:
                    db.connection.rollback()
                    db.rollback()
                except db.dialect.loaded_dbapi.Error:  # DuckDB has rolled back already
                    if has_connections_to_spare(db.engine):
                        db.invalidate()  # what DuckDB 1.4 writes on it from now on may be garbage
            raise
    return result


def _persist(engine: Engine, work: Callable[[Connection], T]) -> T:
    return _patiently(engine, partial(_Pooled, engine), work)


def _patiently(
    engine: Engine,
    connection: Callable[[], AbstractContextManager[Connection]],
    work: Callable[[Connection], T],
) -> T:
    dialect = dialect_of(engine)
    deadline = time.monotonic() + PATIENCE_S
    lost: DBAPIError | None = None
    for attempt in count():
        connected = False
        try:
            with connection() as db:
                connected = True
                return work(db)
        except DBAPIError as error:
            verdict = dialect.verdict(error)
            if verdict == "lost" and lost is None:
                lost = error
            # Only the server knows what became of a COMMIT: wait for it, or for its successor.
            final = verdict == "refused" and (connected or not lost)
            if final or time.monotonic() > deadline:
                raise _unavailable(engine, _words_of(error, lost)) from error
            _log.warning("trying again after a lost race or connection: %s", _words(error))
        longest = _LONGEST_PAUSE_S[verdict]
        time.sleep(random.random() * min(0.001 * 2 ** min(attempt, 10), longest))  # noqa: S311
    raise AssertionError("count() does not end")


class _Pooled:
    """A connection from the pool, which is put back unless it is no longer of use.

    A server that has lost its cluster answers, and cannot even roll back: the next try may get
    to another. A class, since a generator takes three times as long, with each append.
    """

    def __init__(self, engine: Engine, *, ends_committed: bool = False) -> None:
        self._engine = engine
        self._ends_committed = ends_committed

    def __enter__(self) -> Connection:
        try:
            self._db = self._engine.connect()
        except exc.TimeoutError as error:  # not a driver's: all of the pool are in use
            raise _unavailable(self._engine, str(error)) from error
        return self._db

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._end_if_lost(error)
        try:
            if self._ends_committed and error is None and not self._db.invalidated:
                # As SQLAlchemy does where a transaction ends with its connection. It rolls back
                # else, whatever was committed: DuckDB takes as long to refuse that as to insert.
                db: Any = self._db
                db.connection._close_special(transaction_reset=True)
                db._dbapi_connection = None  # or `close` would put it back once more
            self._db.close()
        except DBAPIError as failure:
            self._end_if_lost(failure)
            self._db.close()
            raise

    def _end_if_lost(self, error: BaseException | None) -> None:
        if isinstance(error, DBAPIError) and dialect_of(self._engine).verdict(error) == "lost":
            self._db.invalidate()


def _unavailable(engine: Engine, why: str) -> StoreUnavailable:
    return StoreUnavailable(f"{engine.url.render_as_string(hide_password=True)}: {why}")


def _words_of(error: DBAPIError, lost: DBAPIError | None) -> str:
    """What the server said when it went is the cause; that it is not there any more follows."""
    cause = f", after the connection was lost: {_words(lost)}" if lost else ""
    return _words(error) + cause


def _words(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
