"""Numbered steps that make and upgrade tables, each run once, recorded per component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import inspect, select
from sqlalchemy.schema import CreateSchema

from eventstore import upgrades
from eventstore.dialects import dialect_of
from eventstore.errors import NotAnEventStore, SchemaTooNew, SchemaTooOld
from eventstore.tables import bodies, events, pipelines, schema_versions, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True)
class Schema:
    """The steps of one component; its version is how many of them a database has seen.

    `is_behind` says what others have written since to tables that are ours, and `catch_up`, run
    in a transaction, takes it in.
    """

    component: str
    steps: Sequence[Callable[[Connection], None]]
    is_behind: Callable[[Connection], str | None] = lambda _: None
    catch_up: Callable[[Connection], None] = lambda _: None


def schema_name(db: Connection) -> str | None:
    """Where the engine's owner puts tables that name no schema."""
    translation = db.get_execution_options().get("schema_translate_map")
    return translation.get(None) if translation else None


def versions(db: Connection) -> dict[str, int]:
    """The components this database has, and the version of each; none where there is no log."""
    if not _exists(db):
        return {}
    rows = db.execute(select(schema_versions.c.component, schema_versions.c.version))
    return {row.component: row.version for row in rows}


def is_current(found: dict[str, int], schemas: Iterable[Schema]) -> bool:
    """Whether nothing is to be made; raises SchemaTooNew."""
    current = True
    for schema in schemas:
        version = found.get(schema.component, 0)
        if version > len(schema.steps):
            raise SchemaTooNew(
                f"the {schema.component} tables are of version {version}, made by a later release; "
                f"this one knows version {len(schema.steps)}: upgrade airbyte-eventstore"
            )
        current = current and version == len(schema.steps)
    return current


def upgrade(db: Connection, schemas: Iterable[Schema]) -> None:
    """Run the steps that this database has not seen, in the caller's transaction.

    Where a step cannot be taken back, it is as if it had not been run until its version is there:
    a step can be run again on what it has made.
    """
    where = schema_name(db)
    if where and not inspect(db).has_schema(where):
        db.execute(CreateSchema(where, if_not_exists=True))
    if not _exists(db):
        dialect_of(db).create_table(db, schema_versions)
    found = versions(db)
    for schema in schemas:
        seen = found.get(schema.component, 0)
        for step in schema.steps[seen:]:
            step(db)
        if not seen:
            row = {"component": schema.component, "version": len(schema.steps)}
            db.execute(schema_versions.insert(), row)
        elif seen < len(schema.steps):
            mine = schema_versions.c.component == schema.component
            db.execute(schema_versions.update().where(mine).values(version=len(schema.steps)))


def require(found: dict[str, int], schemas: Iterable[Schema]) -> None:
    """Raise NotAnEventStore unless the database has every component, SchemaTooOld unless of now."""
    for schema in schemas:
        if schema.component not in found:
            raise NotAnEventStore(
                "this database holds no event store yet; record a state into it first (what "
                "PyAirbyte has stored there is taken over then)"
            )
    if is_old(found, schemas):
        raise SchemaTooOld(
            "the tables here are of an earlier release: make a backup, end what uses them, and let "
            "their owner copy them by `eventstore rebuild`"
        )


def is_old(found: dict[str, int], schemas: Iterable[Schema]) -> bool:
    """Whether a component is there as an earlier release has made it."""
    return any(found.get(each.component, len(each.steps)) < len(each.steps) for each in schemas)


def _exists(db: Connection) -> bool:
    # Not SQLAlchemy's has_table: on DuckDB it finds a table of that name in any schema.
    return bool(dialect_of(db).column_names(db, schema_versions.name, schema_name(db)))


def _create_log(db: Connection) -> None:
    for table in (pipelines, streams, events, bodies):
        dialect_of(db).create_table(db, table)


def refuse_changes(db: Connection) -> None:
    """Make the triggers that refuse changes to the log, also those that are gone or off."""
    dialect_of(db).refuse_changes(db, schema_name(db))


def missing_guards(db: Connection) -> list[str]:
    """The triggers that should refuse changes to the log, and are gone or off."""
    return dialect_of(db).missing_guards(db, schema_name(db))


def _from_version_2(db: Connection) -> None:
    upgrades.from_version_2(db, schema_name(db))
    refuse_changes(db)  # the triggers went with the table


LOG = Schema("log", [_create_log, refuse_changes, _from_version_2])
