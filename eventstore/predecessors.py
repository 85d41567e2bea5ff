"""What stood before an event: the newest event that spoke of the same thing."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import select

from eventstore.dialects import dialect_of
from eventstore.events import StreamDescriptor
from eventstore.lookup import at_versions
from eventstore.newest import newest_of_one, newest_of_streams
from eventstore.rows import stream_of
from eventstore.tables import WHOLE_PIPELINE, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from eventstore.events import Pipeline, StoredEvent

_CHUNK = 500
"""Conditions in a statement, below every database's limit."""

_Slot = tuple[str, StreamDescriptor | None]


def before(
    db: Connection, read: Sequence[StoredEvent], kinds: Sequence[str]
) -> dict[tuple[Pipeline, int], StoredEvent]:
    """For each event the newest one of these kinds before it, of its stream or of the pipeline.

    A STREAM event replaces what spoke of the whole pipeline, so what speaks of the whole pipeline
    is looked up against any stream; only a clear of one stream does not reach it. Index seeks,
    however long the histories are.
    """
    ids = _pipeline_ids(db, {stored.pipeline for stored in read})
    histories: defaultdict[Pipeline, list[StoredEvent]] = defaultdict(list)
    for stored in read:
        histories[stored.pipeline].append(stored)
    found: dict[tuple[Pipeline, int], int] = {}
    for pipeline, history in histories.items():
        history.sort(key=lambda stored: stored.version)
        of_history = _in_a_row if _is_gapless(history) else _scattered
        for version, earlier in of_history(db, ids[pipeline], history, kinds):
            found[pipeline, version] = earlier
    known = {(stored.pipeline, stored.version): stored for stored in read}
    missing: defaultdict[int, list[int]] = defaultdict(list)
    for pipeline, version in {(each[0], version) for each, version in found.items()} - known.keys():
        missing[ids[pipeline]].append(version)
    known.update(_fetch(db, missing))
    return {
        (pipeline, version): known[pipeline, earlier]
        for (pipeline, version), earlier in found.items()
    }


def _is_gapless(history: Sequence[StoredEvent]) -> bool:
    return history[-1].version - history[0].version == len(history) - 1


def _in_a_row(
    db: Connection, pipeline_id: int, history: Sequence[StoredEvent], kinds: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """One seek per kind and stream before the first; DuckDB has no index for more of them."""
    newest: dict[_Slot, int] = {}
    names = (streams.c.name, streams.c.namespace)
    query = newest_of_streams(dialect_of(db), names, kinds, pipeline_id, before=history[0].version)
    for name, namespace, *versions in db.execute(query):
        stream = stream_of(name, namespace)
        for kind, version in zip(kinds, versions, strict=True):
            if version is not None:
                newest[kind, stream] = version
    of_any = dict.fromkeys(kinds, 0)
    for (kind, stream), version in newest.items():
        if _reaches_all(kind, stream):
            of_any[kind] = max(of_any[kind], version)
    for stored in history:
        of_same = [newest.get((kind, stored.stream), 0) for kind in kinds]
        of_whole = [newest.get((kind, None), 0) for kind in kinds]
        earlier = max(*of_same, *(of_whole if stored.stream else of_any.values()))
        if earlier:
            yield stored.version, earlier
        if stored.kind in kinds:
            newest[stored.kind, stored.stream] = stored.version
            if _reaches_all(stored.kind, stored.stream):
                of_any[stored.kind] = stored.version


def _scattered(
    db: Connection, pipeline_id: int, history: Sequence[StoredEvent], kinds: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """A few seeks for each event."""
    here = events.alias()
    seeks = [
        newest_of_one(dialect_of(db), kind, number, pipeline_id, before=here.c.version)
        for kind in kinds
        for number in (here.c.stream_number, WHOLE_PIPELINE)
    ]
    found: defaultdict[int, int] = defaultdict(int)
    for versions in _chunks([each.version for each in history]):
        of_page = (here.c.pipeline_id == pipeline_id, here.c.version.in_(versions))
        for version, *earlier in db.execute(select(here.c.version, *seeks).where(*of_page)):
            found[version] = max(each or 0 for each in earlier)
    whole = [each.version for each in history if each.stream is None]
    reaching = [kind for kind in kinds if _reaches_all(kind, "a stream")]
    for kind, number in _spoken_of(db, pipeline_id, reaching, max(whole, default=0)):
        seek = newest_of_one(dialect_of(db), kind, number, pipeline_id, before=here.c.version)
        for versions in _chunks(whole):
            of_page = (here.c.pipeline_id == pipeline_id, here.c.version.in_(versions))
            for version, earlier in db.execute(select(here.c.version, seek).where(*of_page)):
                found[version] = max(found[version], earlier or 0)
    return ((version, earlier) for version, earlier in found.items() if earlier)


def _spoken_of(
    db: Connection, pipeline_id: int, kinds: Sequence[str], last: int
) -> list[tuple[str, int]]:
    """The streams that had such events of their own, where the whole pipeline has them too."""
    if not last or not kinds:
        return []
    numbers = (streams.c.number,)
    query = newest_of_streams(dialect_of(db), numbers, kinds, pipeline_id, before=last)
    query = query.where(streams.c.number != WHOLE_PIPELINE)
    return [
        (kind, number)
        for number, *versions in db.execute(query)
        for kind, version in zip(kinds, versions, strict=True)
        if version is not None
    ]


def _chunks(versions: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(versions), _CHUNK):
        yield versions[start : start + _CHUNK]


def _pipeline_ids(db: Connection, wanted: Iterable[Pipeline]) -> dict[Pipeline, int]:
    by_key = {pipeline.key: pipeline for pipeline in wanted}
    keys = list(by_key)
    ids: dict[Pipeline, int] = {}
    for start in range(0, len(keys), _CHUNK):
        chosen = pipelines.c.key.in_(keys[start : start + _CHUNK])
        for key, its_id in db.execute(select(pipelines.c.key, pipelines.c.id).where(chosen)):
            ids[by_key[key]] = its_id
    return ids


def _fetch(
    db: Connection, wanted: dict[int, list[int]]
) -> Iterator[tuple[tuple[Pipeline, int], StoredEvent]]:
    for pipeline_id, versions in wanted.items():
        for stored in at_versions(db, pipeline_id, versions):
            yield (stored.pipeline, stored.version), stored


def _reaches_all(kind: str, stream: object) -> bool:
    """Whether an event replaces what was said of the whole pipeline."""
    return stream is None or kind != "StateCleared"
