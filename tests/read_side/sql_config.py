"""What a PyAirbyte cache is to the backends: something that can be asked for an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import create_engine

if TYPE_CHECKING:
    from sqlalchemy import Engine


class SqlConfig:
    """Makes its engine as PyAirbyte's does: at the first use, and anew after it was disposed."""

    def __init__(self, url: str, schema_name: str | None = None) -> None:
        """Remember where the database is; nothing is opened."""
        self.url = url
        self._schema_name = schema_name
        self._engine: Engine | None = None

    def get_sql_engine(self) -> Engine:
        """Return the engine of the moment."""
        if self._engine is None:
            translation = {"schema_translate_map": {None: self._schema_name}}
            self._engine = create_engine(self.url, future=True, execution_options=translation)
        return self._engine

    def dispose_engine(self) -> None:
        """Close the engine, as `cache.close()` does."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
