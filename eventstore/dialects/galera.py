"""Galera: a MariaDB as one of several nodes that hold the same, and all take writes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from eventstore.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

SYNC_WAIT = "wsrep_sync_wait = 1"
"""Read only after all that other nodes have committed before was applied."""

NO_VARIABLE = 1193
"""The error of a server that was built without Galera, wherever a variable of Galera is named."""

_ABORTED = 1213

_TURN_S = 60
_LOOK_AGAIN_S = 0.05

_TURNS = (
    "CREATE TABLE IF NOT EXISTS {turns} (id INT PRIMARY KEY, until BIGINT NOT NULL) ENGINE=InnoDB",
    "INSERT IGNORE INTO {turns} VALUES (1, 0)",
)
_TAKE = (
    "UPDATE {turns} SET until = unix_timestamp() + {seconds} "
    "WHERE id = 1 AND until < unix_timestamp()"
)
_GIVE_BACK = "UPDATE {turns} SET until = 0 WHERE id = 1"


def is_node(db: Connection) -> bool:
    """Whether the server is one of several."""
    return _is_true(db, "@@wsrep_on")


def reads_the_past(db: Connection) -> bool:
    """Whether the session may not see what has just been committed on another node."""
    return _is_true(db, "@@wsrep_on AND NOT @@wsrep_sync_wait & 1")


@contextmanager
def one_node_at_a_time(db: Connection, qualifier: str, for_s: int = _TURN_S) -> Iterator[None]:
    """Wait until no other node makes triggers in this database, or copies tables.

    Of two nodes that make a trigger of one name at the same time, one waits for itself for ever:
    it holds the name while it waits for the other's statement, for which it needs the name. Locks
    of the server are each node's own, so it is a row for which one of several commits first; who
    is killed meanwhile has it for so long.
    """
    turns = f"{qualifier}_eventstore_turns"
    for statement in _TURNS:
        _commit(db, statement.format(turns=turns))
    deadline = time.monotonic() + 2 * _TURN_S
    while not _commit(db, _TAKE.format(turns=turns, seconds=for_s)):
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"somebody on another node has been making the tables for {2 * _TURN_S} seconds: "
                f"SHOW PROCESSLIST there tells who, and {turns} until when it is their turn"
            )
        time.sleep(_LOOK_AGAIN_S)
    try:
        yield
    finally:
        if not db.invalidated:
            _commit(db, _GIVE_BACK.format(turns=turns))


def _commit(db: Connection, statement: str) -> int:
    """Execute it whatever statements of other nodes abort it; returns how many rows it found."""
    while True:
        try:
            found = db.exec_driver_sql(statement).rowcount
            db.exec_driver_sql("COMMIT")
        except DBAPIError as error:
            if _code(error) != _ABORTED:
                raise
        else:
            return found


def _is_true(db: Connection, condition: str) -> bool:
    try:
        return bool(db.exec_driver_sql(f"SELECT {condition}").scalar())
    except DBAPIError as error:
        if _code(error) == NO_VARIABLE:
            return False
        raise


def _code(error: DBAPIError) -> int | None:
    return error.orig.args[0] if error.orig and error.orig.args else None
