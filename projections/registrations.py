"""Registrations that say what the last one said: each sync registers a catalog that is as it was.

To find that out stream by stream takes as long as to write them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventstore import codec
from eventstore.configured_streams import streams_as_json
from eventstore.errors import HistoryConflict
from eventstore.reading import FIRST_PAGE
from projections.catalogs import count_of_rows
from projections.views import CATALOG_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airbyte_protocol.models import ConfiguredAirbyteStream

    from eventstore.codec import Draft
    from eventstore.events import Pipeline, StoredEvent
    from eventstore.store import EventStore


class _Last(NamedTuple):
    said: bytes | None
    draft: Draft
    version: int
    hash: bytes
    rows: int


class Registrations:
    """The last registration of each pipeline, as this process knows it."""

    def __init__(self, store: EventStore) -> None:
        """Know none yet."""
        self._store = store
        self._last: dict[Pipeline, _Last] = {}

    def remember(self, streams: Sequence[ConfiguredAirbyteStream], registered: StoredEvent) -> None:
        """Take what was registered, and the CatalogRegistered that was stored for it."""
        rows = count_of_rows(self._store, registered.pipeline)
        self._take(streams_as_json(streams), registered, rows)

    def repeat(
        self,
        pipeline: Pipeline,
        streams: Sequence[ConfiguredAirbyteStream],
        *,
        actor: str | None,
        run: str | None,
    ) -> bool:
        """Register once more what was registered last; False, and nothing, if it was not this.

        Raises StoreUnavailable.
        """
        last = self._last.get(pipeline)
        if last is None or last.said is None or last.said != streams_as_json(streams):
            return False
        head = self._head_if_unchanged(pipeline, last)
        if head is None:
            return False
        try:
            [stored] = self._store.append_encoded(
                pipeline, [last.draft], expected=head, actor=actor, run=run
            )
        except HistoryConflict:
            return False
        self._take(last.said, stored, last.rows)
        return True

    def _take(self, said: bytes | None, stored: StoredEvent, rows: int) -> None:
        draft = codec.Draft(stored.kind, None, stored.body, stored.origin)
        self._last[stored.pipeline] = _Last(said, draft, stored.version, stored.hash, rows)

    def _head_if_unchanged(self, pipeline: Pipeline, last: _Last) -> int | None:
        """The version that the history has reached, if its catalog is still what it was then.

        None also where a page and more was appended since: to read the catalog is cheaper then.
        """
        if count_of_rows(self._store, pipeline) != last.rows:
            return None  # PyAirbyte has deleted some
        head = self._store.head(pipeline)
        if head.hash == last.hash:
            return head.version
        if not last.version < head.version < last.version + FIRST_PAGE:
            return None
        first, *since = self._store.history(pipeline, after=last.version - 1, up_to=head.version)
        telling = {*CATALOG_KINDS, "BodyErased"}
        if first.hash != last.hash:  # a backup was restored
            return None
        return None if any(stored.kind in telling for stored in since) else head.version
