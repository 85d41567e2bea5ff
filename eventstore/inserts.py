"""Rows inserted, as many by a statement as the database takes fast."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, LargeBinary, String, Text, bindparam, cast, func, select
from sqlalchemy.types import NullType

from eventstore.dialects import dialect_of
from eventstore.driver import execute
from eventstore.statements import Statement
from eventstore.words import kept_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table
    from sqlalchemy.types import TypeEngine

    from eventstore.statements import Compiled

_SIZES = (1000, 100, *range(10, 0, -1))
"""Rows in a statement: SQLite opens a journal for each, beside a table with triggers."""

_WEIGHT = 256 * 1024
"""Bytes of bodies in a statement of several rows, at most: what any server takes in a packet."""

_WEIGHT_OF_LISTS = 64 << 20
"""Bytes and characters in a statement of lists: PostgreSQL takes 1 GiB, and some count thrice."""


class Batches:
    """An INSERT of many rows, as many in a statement as can be; a row has the table's columns.

    Of integers, text and bytes, which every driver takes as they are; the last may be long.
    """

    def __init__(self, table: Table) -> None:
        """Remember the table."""
        self._table = table
        row: dict[str, Any] = {each.name: bindparam(each.name) for each in table.columns}
        self._one = Statement(lambda _: table.insert().values(row))

    def run(self, db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows."""
        if len(rows) > 1 and dialect_of(db).UNNESTS:
            _lists(self._table).run(db, rows)
            return
        one = self._one.compiled(db)
        if len(rows) == 1:
            execute(db, _of_rows(one, 1), rows[0])
            return
        start = 0
        while start < len(rows):
            size = next(size for size in _SIZES if size <= len(rows) - start)
            while size > 1 and _weight(rows[start : start + size]) > _WEIGHT:
                size = next(smaller for smaller in _SIZES if smaller < size)
            some = rows[start : start + size]
            execute(db, _of_rows(one, size), tuple(chain.from_iterable(some)))
            start += size


def _of_rows(one: Compiled, size: int) -> str:
    """An INSERT of one row as one of several, which takes their values in order.

    Drivers that want names take values in order, too.
    """
    return _repeated(one.sql, size, None if one.in_order else len(one.names))


@lru_cache(maxsize=256)
def _repeated(sql: str, size: int, columns: int | None) -> str:
    # Text, not Core: to build and compile an INSERT of a thousand rows takes half a second.
    insert, values, row = sql.rpartition(" VALUES ")
    if columns is not None:
        row = f"({', '.join(['%s'] * columns)})"
    return f"{insert}{values}{', '.join([row] * size)}"


def _weight(rows: Sequence[tuple[Any, ...]]) -> int:
    return sum(len(row[-1]) for row in rows)


def insert_rows(db: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of whatever types, each with a value for each column of the table."""
    if len(rows) > 1 and dialect_of(db).UNNESTS:
        _lists(table).run(db, list(map(itemgetter(*table.columns.keys()), rows)))
    elif rows:
        db.execute(table.insert(), list(rows))


class _Lists:
    """An INSERT of any number of rows, which takes a list for each column."""

    def __init__(self, table: Table) -> None:
        columns = table.columns.values()
        self._names = table.columns.keys()
        self._heavy = [column.name for column in columns if _has_no_limit(column.type)]
        # Of texts of any length: a cast to a shorter one cuts off what is refused else.
        types = [
            Text() if isinstance(column.type, String) else kept_type(column.type)
            for column in columns
        ]
        lists = [
            func.unnest(cast(bindparam(name, type_=NullType()), ARRAY(its_type)))
            for name, its_type in zip(self._names, types, strict=True)
        ]
        insert = table.insert().from_select(self._names, select(*lists))
        self._statement = Statement(lambda _: insert)

    def run(self, db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run it once, or for each half of the rows where they are too heavy for one."""
        lists = dict(zip(self._names, zip(*rows, strict=True), strict=True))
        weight = sum(sum(map(len, filter(None, lists[name]))) for name in self._heavy)
        if weight > _WEIGHT_OF_LISTS and len(rows) > 1:
            middle = len(rows) // 2
            self.run(db, rows[:middle])
            self.run(db, rows[middle:])
        else:
            as_list = dialect_of(db).as_list
            self._statement.execute(db, {name: as_list(each) for name, each in lists.items()})


@lru_cache(maxsize=32)  # a rebuild has tables of its own each time
def _lists(table: Table) -> _Lists:
    return _Lists(table)


def _has_no_limit(its_type: TypeEngine[Any]) -> bool:
    return isinstance(its_type, String | LargeBinary) and its_type.length is None
