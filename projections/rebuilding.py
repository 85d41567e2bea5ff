"""Fills the tables anew from the log beside the live ones, and exchanges what is different."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, exists, func, not_, or_, select
from sqlalchemy.schema import DropTable

from eventstore.dialects import dialect_of
from eventstore.errors import StoreUnavailable
from eventstore.inserts import insert_rows
from eventstore.schema import missing_guards, refuse_changes, schema_name
from projections.projector import KINDS, expected_rows
from projections.tables import ALL_TABLES, create_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import ColumnElement, Connection, Table

    from eventstore.events import Pipeline
    from eventstore.store import EventStore

_log = logging.getLogger(__name__)

PAGE = 100
"""Pipelines that are read in one transaction."""

_PASSES = 3
"""How often what was appended meanwhile is read before writers have to wait for the rest of it."""


def rebuild(
    store: EventStore, *, progress: Callable[[int, int], None] = lambda _done, _of: None
) -> int:
    """Fill the tables anew from the log; returns how many pipelines it read.

    They are filled beside the live ones, page by page, while writers go on. Then, if there are
    rows that are different, what was appended since is read too, and they are exchanged, in one
    transaction: cut off anywhere before its end, a rebuild leaves the live tables as they were.
    Rows that were not written by us are left alone. `progress` is told how many pipelines were
    read, of how many. Then triggers of the log that are gone or off are put back, with a warning
    in the log of this package. Raises StoreUnavailable.
    """
    with store.database.session() as session:
        beside = session.read(Beside)
        for _ in range(_PASSES):
            behind = iter(session.read(lambda db: beside.behind(db, store)).items())
            while page := dict(islice(behind, PAGE)):
                session.read(lambda db, page=page: beside.fill(db, store, page))  # type: ignore[misc]
                beside.reached.update(page)
                progress(len(beside.reached), beside.of)
        rest, are_right = session.read(lambda db: _look(db, store, beside))
        beside.reached.update(rest)
        if not are_right:
            session.transact(lambda db: _exchange(db, store, beside))
        session.read(beside.drop)
    if missing := store.database.read(missing_guards):
        store.database.transact(refuse_changes)
        for guard in missing:
            _log.warning("put back the trigger %s, which keeps the log from being changed", guard)
    return beside.of


class Beside:
    """Tables like the live ones that end with their connection, and what is in them.

    Rows are exchanged instead of tables: with a table other people's views and grants on it would
    go, MariaDB renames none in a transaction, and who has read the old one waits for the new.
    """

    def __init__(self, db: Connection) -> None:
        """Make them."""
        self.tables = {table: create_beside(db, table) for table in ALL_TABLES}
        self.reached: dict[Pipeline, int] = {}
        """The version at least that each history had when its rows were put here."""
        self.of = 0

    def behind(self, db: Connection, store: EventStore) -> dict[Pipeline, int]:
        """The histories that have grown since, and their heads."""
        heads = store.heads_within(db)
        self.of = len(heads)
        return {each: head for each, head in heads.items() if head != self.reached.get(each)}

    def fill(self, db: Connection, store: EventStore, behind: Mapping[Pipeline, int]) -> None:
        """Put the rows of these pipelines here, instead of those that are."""
        rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in self.tables}
        for _, newest in store.newest_by_pipeline(db, behind, KINDS):
            for table, row in expected_rows(newest):
                rows[table].append(row)
        again = [pipeline.key for pipeline in behind.keys() & self.reached.keys()]
        for table, new in rows.items():
            beside = self.tables[table]
            if again:
                db.execute(beside.delete().where(beside.c.pipeline_key.in_(again)))
            insert_rows(db, beside, new)

    def drop(self, db: Connection) -> None:
        """Remove them before their connection ends."""
        for beside in self.tables.values():
            db.execute(DropTable(beside, if_exists=True))


def _look(db: Connection, store: EventStore, beside: Beside) -> tuple[dict[Pipeline, int], bool]:
    """Read what was appended since; whether the live tables are what those beside them are then.

    If they are nobody has to wait; and on Galera a transaction that locks what others write all
    the time may never end. What is written in the middle of the look is taken for different.
    """
    behind = beside.behind(db, store)
    beside.fill(db, store, behind)
    tables = beside.tables.items()
    return behind, not any(_are_different(db, live, new) for live, new in tables)


def _exchange(db: Connection, store: EventStore, beside: Beside) -> None:
    """Make the live tables what those beside them are, while writers wait."""
    for table in beside.tables:
        dialect_of(db).lock_table(db, table, schema_name(db))
    beside.fill(db, store, beside.behind(db, store))
    for live, new in beside.tables.items():
        db.execute(live.delete().where(_is_wrong(db, live, new)))
        names = [column.name for column in live.columns]
        db.execute(live.insert().from_select(names, select(new).where(_is_missing(live, new))))
        if _are_different(db, live, new):
            raise StoreUnavailable(
                f"{live.name} is not what was written to it, and was left as it was: look for a "
                "trigger or a rule on it that changes rows"
            )


def _are_different(db: Connection, live: Table, new: Table) -> bool:
    wrong = select(func.count()).select_from(live).where(_is_wrong(db, live, new))
    missing = select(func.count()).select_from(new).where(_is_missing(live, new))
    return bool(db.scalar(wrong) or db.scalar(missing))


def _is_wrong(db: Connection, live: Table, new: Table) -> ColumnElement[bool]:
    """The condition for our rows that are not the same, or are there twice."""
    others = [column.name for column in live.columns if column.name != "row_key"]
    same = [live.c[name].is_not_distinct_from(new.c[name]) for name in others]
    mine = live.c.row_key == new.c.row_key
    is_wrong = not_(exists(select(new.c.row_key).where(mine, *same).correlate(live)))
    if not dialect_of(db).UNIQUE_ROWS:
        ours = live.alias()
        keys = select(ours.c.row_key).where(ours.c.pipeline_key.is_not(None))
        is_wrong = or_(
            is_wrong,
            live.c.row_key.in_(keys.group_by(ours.c.row_key).having(func.count() > 1)),
        )
    return and_(live.c.pipeline_key.is_not(None), is_wrong)


def _is_missing(live: Table, new: Table) -> ColumnElement[bool]:
    there = live.alias()
    mine = (there.c.row_key == new.c.row_key, there.c.pipeline_key.is_not(None))
    return not_(exists(select(there.c.row_key).where(*mine).correlate(new)))
