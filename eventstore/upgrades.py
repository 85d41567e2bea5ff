"""Tables as earlier releases made them, brought to what they are now with all that is in them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    case,
    null,
    select,
)
from sqlalchemy.schema import DropTable

from eventstore.compression import PLAIN, ZSTD
from eventstore.dialects import dialect_of
from eventstore.errors import StoreUnavailable
from eventstore.parts import CODECS
from eventstore.tables import KIND, ORIGIN, PIPELINES, VERSIONS, bodies, body_id, events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection, Select

_log = logging.getLogger(__name__)

_OF_VERSION_2 = MetaData()

# The columns that are read, under the names that the tables have while they are copied.
_OLD_EVENTS = Table(
    f"{events.name}_old",
    _OF_VERSION_2,
    Column("pipeline_id", BigInteger),
    Column("version", BigInteger),
    Column("kind", String),
    Column("origin", String),
    Column("body_version", BigInteger),
    *(
        Column(name, events.c[name].type)
        for name in (
            *("stored_at", "append_id", "format", "stream_number", "of_version"),
            *("actor", "reason", "run", "commitment", "hash"),
        )
    ),
)
_OLD_BODIES = Table(
    f"{bodies.name}_old",
    _OF_VERSION_2,
    Column("pipeline_id", BigInteger),
    Column("version", BigInteger),
    Column("salt", LargeBinary),
    Column("codec", String),
    Column("data", LargeBinary),
)

_CODEC_NUMBERS = {
    "plain": PLAIN,
    "zstd-1": ZSTD,
    "parts-1": CODECS[PLAIN],
    "parts-z1": CODECS[ZSTD],
}


def from_version_2(db: Connection, schema: str | None) -> None:
    """Keep words as numbers, bodies by an id, and of a body where it is only if it is elsewhere.

    Where nothing can be rolled back, it goes on from wherever it was broken off. Raises
    StoreUnavailable where a body is of a version that no event can have.
    """
    with dialect_of(db).step_alone(db, schema):
        if _is_there(db, schema, _OLD_BODIES.c.version, bodies):
            _refuse_strays(db)
        _copy(db, schema, _OLD_EVENTS.c.body_version, _events_of_now(), events)
        _copy(db, schema, _OLD_BODIES.c.version, _bodies_of_now(), bodies)


def _copy(
    db: Connection, schema: str | None, gone: Column[Any], rows: Select[Any], table: Table
) -> None:
    """Make a table anew from these rows of the old one, which has a column that is gone.

    The old one gets another name first: who still writes to it is refused, and loses nothing.
    """
    dialect, old = dialect_of(db), gone.table
    new = table.to_metadata(MetaData(), name=f"{table.name}_new")
    new.indexes.clear()  # their names are taken
    if _is_there(db, schema, gone, table):
        dialect.rename_table(db, table.name, old.name, schema)
    if dialect.column_names(db, old.name, schema):
        url = db.engine.url.render_as_string(hide_password=True)
        _log.warning("%s is of an earlier release, and its %s are copied", url, table)
        db.execute(DropTable(new, if_exists=True))
        dialect.create_table(db, new)
        db.execute(new.insert().from_select(new.columns.keys(), rows))
        with dialect.overwriting(db):  # what is erased later is nowhere else then
            db.execute(DropTable(old))
    if dialect.column_names(db, new.name, schema):
        dialect.rename_table(db, new.name, table.name, schema)
        _log.warning("%s are copied: an earlier release cannot read them any more", table)
    dialect.create_table(db, table)  # what is missing of it: the indexes


def _is_there(db: Connection, schema: str | None, gone: Column[Any], table: Table) -> bool:
    """Whether a table has a column that is gone: it is the old one, where nothing was done yet."""
    return gone.name in dialect_of(db).column_names(db, table.name, schema)


def _refuse_strays(db: Connection) -> None:
    """Raise StoreUnavailable if there is a body for which the table of now has no id."""
    live = _OLD_BODIES.to_metadata(MetaData(), name=bodies.name).c
    has_id = and_(live.pipeline_id.between(1, PIPELINES - 1), live.version.between(0, VERSIONS - 1))
    stray = db.execute(select(live.pipeline_id, live.version).where(~has_id)).first()
    if stray:
        raise StoreUnavailable(
            f"{bodies.name} has a row of pipeline number {stray[0]} and version {stray[1]}, which "
            "no event can have: the log was altered, and `eventstore verify` of the earlier "
            "release tells more"
        )


def _events_of_now() -> Select[Any]:
    old = _OLD_EVENTS.c
    made = {
        "kind": _number_of(old.kind, KIND.numbers),
        "origin": _number_of(old.origin, ORIGIN.numbers),
        "body_at": case((old.body_version != old.version, old.body_version)),
    }
    names = events.columns.keys()
    return select(*(made[name] if name in made else old[name] for name in names))


def _bodies_of_now() -> Select[Any]:
    old = _OLD_BODIES.c
    its_id = body_id(old.pipeline_id, old.version)
    return select(its_id, old.salt, _number_of(old.codec, _CODEC_NUMBERS), old.data)


def _number_of(column: Column[Any], numbers: Mapping[Any, int]) -> ColumnElement[Any]:
    """The number of a word, and one that no word has where it was altered: the hash shows it."""
    known = [(column == word, number) for word, number in numbers.items() if word is not None]
    return case((column.is_(None), null()), *known, else_=-1)
