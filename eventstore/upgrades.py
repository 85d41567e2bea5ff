"""Tables as earlier releases made them, brought to what they are now with all that is in them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, String, Table, case, null, select
from sqlalchemy.schema import DropTable

from eventstore.compression import PLAIN, ZSTD
from eventstore.dialects import dialect_of
from eventstore.parts import CODECS
from eventstore.tables import KIND, ORIGIN, bodies, body_id, events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection, Select

_log = logging.getLogger(__name__)

_metadata = MetaData()

_WORDS = {"kind": KIND.numbers, "origin": ORIGIN.numbers}

_events = Table(
    events.name,
    _metadata,
    *(
        Column(column.name, String if column.name in _WORDS else column.type)
        for column in events.columns
        if column.name != "body_at"
    ),
    Column("body_version", events.c.body_at.type),
)

_bodies = Table(
    bodies.name,
    _metadata,
    *(Column(name, events.c[name].type) for name in ("pipeline_id", "version")),
    *(Column(name, bodies.c[name].type) for name in ("salt", "data")),
    Column("codec", String),
)

_CODECS = {"plain": PLAIN, "zstd-1": ZSTD, "parts-1": CODECS[PLAIN], "parts-z1": CODECS[ZSTD]}


def number_words(db: Connection, schema: str | None) -> None:
    """Keep words as numbers, bodies by an id, and only of a body elsewhere where it is.

    Where nothing can be rolled back, it goes on from wherever it was broken off.
    """
    _fill_anew(db, schema, events, _events.c.body_version, _numbered_events())
    _fill_anew(db, schema, bodies, _bodies.c.version, _numbered_bodies())


def _fill_anew(
    db: Connection, schema: str | None, table: Table, gone: Column[Any], rows: Select[Any]
) -> None:
    """Make a table anew, with these rows of the old one: that has a column which is gone."""
    dialect = dialect_of(db)
    new = table.to_metadata(MetaData(), name=f"{table.name}_new")
    new.indexes.clear()  # their names are taken
    if gone.name in dialect.column_names(db, table.name, schema):
        _log.warning("copying %s into a smaller form, which an earlier release cannot read", table)
        db.execute(DropTable(new, if_exists=True))
        dialect.create_table(db, new)
        db.execute(new.insert().from_select(new.columns.keys(), rows))
        db.execute(DropTable(table))
    if dialect.column_names(db, new.name, schema):
        dialect.rename_table(db, new.name, table.name, schema)
    dialect.create_table(db, table)  # what is missing of it: the indexes


def _numbered_events() -> Select[Any]:
    old = _events.c
    made = {name: _number_of(old[name], numbers) for name, numbers in _WORDS.items()}
    made["body_at"] = case((old.body_version != old.version, old.body_version))
    names = events.columns.keys()
    return select(*(made[name] if name in made else old[name] for name in names))


def _numbered_bodies() -> Select[Any]:
    old = _bodies.c
    its_id = body_id(old.pipeline_id, old.version)
    return select(its_id, old.salt, _number_of(old.codec, _CODECS), old.data)


def _number_of(column: Column[Any], numbers: Mapping[Any, int]) -> ColumnElement[Any]:
    """The number of a word, and one that no word has where it was altered: the hash shows it."""
    known = [(column == word, number) for word, number in numbers.items() if word is not None]
    return case((column.is_(None), null()), *known, else_=-1)
