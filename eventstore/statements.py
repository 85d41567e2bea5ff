"""SQL compiled once per database, for statements that are run often.

SQLAlchemy's own cache does not help where it is hot: duckdb-engine switches it off, and building
a statement anew costs more than SQLite takes to run it.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, LargeBinary, literal_column

from eventstore.dialects import dialect_of
from eventstore.driver import execute, fetch
from eventstore.schema import schema_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import BindParameter, ColumnElement, Connection, Executable
    from sqlalchemy import Dialect as SQLAlchemysDialect

    from eventstore.dialects import Dialect
    from eventstore.driver import Answer


def limit_of(rows: int) -> ColumnElement[int]:
    """So many rows, for LIMIT, as text: PostgreSQL plans anew each time for a parameter there."""
    return literal_column(str(int(rows)), Integer)


ALONE = limit_of(0)
"""As an OFFSET it keeps a subquery from being made part of the rest."""


class Statement:
    """A Core statement with named parameters."""

    def __init__(self, core: Callable[[Dialect], Executable]) -> None:
        """Remember how it is built; it is compiled at its first run on each kind of database."""
        self._core = core
        self._compiled: dict[tuple[type, str, str, str | None], Compiled] = {}

    def execute(self, db: Connection, parameters: dict[str, Any]) -> Answer:
        """Run it once, as the driver does: a row has values, and no names."""
        compiled = self.compiled(db)
        return execute(db, compiled.sql, compiled.arrange(parameters))

    def fetch(self, db: Connection, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """Run it once, and take all its rows, which have values and no names."""
        compiled = self.compiled(db)
        return fetch(db, compiled.sql, compiled.arrange(parameters))

    def compiled(self, db: Connection) -> Compiled:
        """Its SQL for this kind of database."""
        schema = schema_name(db)
        # On MariaDB it depends on the sessions how names are quoted.
        quote = db.dialect.identifier_preparer.initial_quote
        key = (type(db.dialect), db.dialect.paramstyle, quote, schema)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _compile(self._core(dialect_of(db)), db, schema)
        return compiled


class Compiled(NamedTuple):
    """A statement as a driver takes it: `in_order` is None where it takes values by their names."""

    sql: str
    constants: Mapping[str, Any]
    processors: Sequence[tuple[str, Callable[[Any], Any]]]
    names: Sequence[str]
    in_order: Callable[[Mapping[str, Any]], tuple[Any, ...]] | None

    def arrange(self, parameters: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        """Order and convert values as the driver wants them."""
        values = {**self.constants, **parameters}
        for name, process in self.processors:
            values[name] = process(values[name])
        return self.in_order(values) if self.in_order else values


def _compile(core: Executable, db: Connection, schema: str | None) -> Compiled:
    compiled: Any = core.compile(  # type: ignore[attr-defined]
        dialect=db.dialect,
        schema_translate_map={None: schema} if schema else None,
        render_schema_translate=bool(schema),
    )
    constants: dict[str, Any] = {}
    processors = []
    for bound, name in compiled.bind_names.items():
        process = _processor(bound, db.dialect)
        if bound.value is not None:
            constants[name] = process(bound.value) if process else bound.value
        elif process:
            processors.append((name, process))
    if not compiled.positional:
        names = list(compiled.bind_names.values())
        return Compiled(compiled.string, constants, processors, names, None)
    names = compiled.positiontup
    in_order = (
        itemgetter(*names) if len(names) > 1 else lambda values: tuple(map(values.get, names))
    )
    return Compiled(compiled.string, constants, processors, names, in_order)


def _processor(
    bound: BindParameter[Any], dialect: SQLAlchemysDialect
) -> Callable[[Any], Any] | None:
    """What makes of a value what the driver takes; None where it is that already."""
    if isinstance(bound.type, LargeBinary):
        return None  # bytes, which take a driver longer in what SQLAlchemy wraps them in
    return bound.type.dialect_impl(dialect).bind_processor(dialect)
