"""SQL compiled once per database, for the statements of every append.

SQLAlchemy's own cache does not help where it is hot: duckdb-engine switches it off, and building
a statement anew costs more than SQLite takes to run it.
"""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam

from eventstore.dialects import dialect_of
from eventstore.driver import execute
from eventstore.schema import schema_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, CursorResult, Executable, Table

    from eventstore.dialects import Dialect
    from eventstore.driver import Answer


class Statement:
    """A Core statement with named parameters."""

    def __init__(self, core: Callable[[Dialect], Executable]) -> None:
        """Remember how it is built; it is compiled at its first run on each kind of database."""
        self._core = core
        self._compiled: dict[tuple[type, str, str | None], _Compiled] = {}

    def run(self, db: Connection, parameters: dict[str, Any]) -> CursorResult[Any]:
        """Run it once."""
        compiled = self.compiled(db)
        return db.exec_driver_sql(compiled.sql, compiled.arrange(parameters))

    def run_each(self, db: Connection, rows: list[dict[str, Any]]) -> None:
        """Run it for each row, in batches."""
        if len(rows) == 1:
            self.on_driver(db, rows[0])
        else:
            db.execute(self._core(dialect_of(db)), rows)

    def on_driver(self, db: Connection, parameters: dict[str, Any]) -> Answer:
        """Run it once, as the driver does: a row has values, and no names."""
        compiled = self.compiled(db)
        return execute(db, compiled.sql, compiled.arrange(parameters))

    def compiled(self, db: Connection) -> _Compiled:
        """Its SQL for this kind of database."""
        schema = schema_name(db)
        # On MariaDB it depends on the sessions how names are quoted.
        key = (type(db.dialect), db.dialect.identifier_preparer.initial_quote, schema)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _compile(self._core(dialect_of(db)), db, schema)
        return compiled


BATCH = 1000
"""Rows in a statement: SQLite opens a journal for each, beside a table with triggers."""


class Batches:
    """An INSERT of many rows, so many in a statement; a row is a tuple in the table's order.

    Of integers, text and bytes, which every driver takes as they are.
    """

    def __init__(self, table: Table) -> None:
        """Remember the table."""
        self._names = [column.name for column in table.columns]
        self._places = [f"{name}_{number}" for number in range(BATCH) for name in self._names]
        self._one = Statement(lambda _: table.insert())
        self._many = Statement(
            lambda _: table.insert().values(
                [{name: bindparam(f"{name}_{n}") for name in self._names} for n in range(BATCH)]
            )
        )

    def run(self, db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows."""
        whole = len(rows) - len(rows) % BATCH
        compiled = self._many.compiled(db) if whole else None
        for start in range(0, whole, BATCH):
            assert compiled is not None
            values = tuple(chain.from_iterable(rows[start : start + BATCH]))
            if compiled.in_order:
                assert compiled.names == self._places
                db.exec_driver_sql(compiled.sql, values)
            else:
                db.exec_driver_sql(compiled.sql, dict(zip(self._places, values, strict=True)))
        if rest := rows[whole:]:
            self._one.run_each(db, [dict(zip(self._names, row, strict=True)) for row in rest])


class _Compiled(NamedTuple):
    sql: str
    constants: Mapping[str, Any]
    processors: Mapping[str, Callable[[Any], Any]]
    names: Sequence[str]
    in_order: Callable[[Mapping[str, Any]], tuple[Any, ...]] | None

    def arrange(self, parameters: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        """Order and convert values as the driver wants them."""
        values = {**self.constants, **parameters}
        for name, process in self.processors.items():
            values[name] = process(values[name])
        return self.in_order(values) if self.in_order else values


def _compile(core: Executable, db: Connection, schema: str | None) -> _Compiled:
    compiled: Any = core.compile(  # type: ignore[attr-defined]
        dialect=db.dialect,
        schema_translate_map={None: schema} if schema else None,
        render_schema_translate=bool(schema),
    )
    processors = {
        name: process
        for name, bound in compiled.binds.items()
        if (process := bound.type.dialect_impl(db.dialect).bind_processor(db.dialect))
    }
    constants = {
        name: bound.value for name, bound in compiled.binds.items() if bound.value is not None
    }
    if not compiled.positional:
        return _Compiled(compiled.string, constants, processors, list(compiled.binds), None)
    names = compiled.positiontup
    in_order = (
        itemgetter(*names) if len(names) > 1 else lambda values: tuple(map(values.get, names))
    )
    return _Compiled(compiled.string, constants, processors, names, in_order)
