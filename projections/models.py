"""The three tables as models of SQLAlchemy's ORM, under the names PyAirbyte gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import DeclarativeBase

from projections import tables

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Mapped


class SqlAlchemyModel(DeclarativeBase):
    """The declarative base of the three tables."""

    metadata = tables.metadata


class CacheStreamStateModel(SqlAlchemyModel):
    """The latest state of a stream, for a PyAirbyte cache."""

    __tablename__ = tables.CACHE_STATE_TABLE_NAME
    __table__ = tables.CACHE_STATE_TABLE

    if TYPE_CHECKING:
        source_name: Mapped[str | None]
        stream_name: Mapped[str | None]
        table_name: Mapped[str | None]
        state_json: Mapped[str | None]
        last_updated: Mapped[datetime | None]
        row_key: Mapped[str]
        pipeline_key: Mapped[str | None]
        stream_namespace: Mapped[str | None]
        version: Mapped[int | None]


class DestinationStreamStateModel(SqlAlchemyModel):
    """The latest state of a stream, for a destination."""

    __tablename__ = tables.DESTINATION_STATE_TABLE_NAME
    __table__ = tables.DESTINATION_STATE_TABLE

    if TYPE_CHECKING:
        destination_name: Mapped[str]
        source_name: Mapped[str]
        stream_name: Mapped[str]
        state_json: Mapped[str | None]
        last_updated: Mapped[datetime | None]
        row_key: Mapped[str]
        pipeline_key: Mapped[str | None]
        stream_namespace: Mapped[str | None]
        version: Mapped[int | None]


class CachedStream(SqlAlchemyModel):
    """The latest definition of a stream; `catalog_metadata` is its JSON schema."""

    __tablename__ = tables.STREAMS_TABLE_NAME
    __table__ = tables.STREAMS_TABLE

    if TYPE_CHECKING:
        stream_name: Mapped[str | None]
        source_name: Mapped[str | None]
        table_name: Mapped[str | None]
        catalog_metadata: Mapped[str | None]
        row_key: Mapped[str]
        pipeline_key: Mapped[str | None]
        stream_namespace: Mapped[str | None]
        configured_stream: Mapped[str | None]
        version: Mapped[int | None]
