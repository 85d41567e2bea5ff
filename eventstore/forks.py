"""Engines of ours have no connection open while the process forks: no two can share one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

from eventstore.database import has_connections_to_spare

if TYPE_CHECKING:
    from sqlalchemy import Engine

_ours: WeakSet[Engine] = WeakSet()


def close_before_forks(engine: Engine) -> None:
    """Close what the engine has open, each time the process forks; what needs it opens it again.

    Servers answer one process what the other asked. SQLite would take the locks of the parent for
    those of the child, and a child has none of the threads that its parent's DuckDB works with.
    """
    _ours.add(engine)


def _close() -> None:
    for engine in tuple(_ours):
        if has_connections_to_spare(engine):  # a database in memory ends with its connection
            engine.dispose()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_close)
