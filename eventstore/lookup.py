"""Events looked up by their versions, whole or what they say; the newest of kinds and streams."""

from __future__ import annotations

from functools import cache
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select

from eventstore.compression import PLAIN
from eventstore.dialects import dialect_of
from eventstore.errors import AlteredBody
from eventstore.events import Said
from eventstore.newest import (
    END,
    STREAM,
    newest_bodies,
    newest_of_each,
    newest_of_streams,
    what_is_there,
)
from eventstore.reading import PAGE, bytes_in, next_size
from eventstore.rows import (
    Names,
    find_pipeline_id,
    find_pipelines,
    stored_events,
    stored_where,
    stream_of,
)
from eventstore.sharing import reader
from eventstore.statements import Statement
from eventstore.tables import bodies, body_id, events, keeper_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor


def _among(dialect: Dialect) -> list[ColumnElement[bool]]:
    """The condition for events of a pipeline with these versions."""
    mine = events.c.pipeline_id == bindparam("pipeline_id")
    return [mine, dialect.is_in_list(events.c.version, "versions")]


_chosen_events = Statement(
    lambda dialect: stored_where(dialect, _among(dialect), [events.c.version])
)
_chosen_keepers = Statement(
    lambda dialect: select(events.c.version, keeper_of(events)).where(*_among(dialect))
)
_chosen_bodies = Statement(
    lambda dialect: select(bodies.c.id, bodies.c.codec, bodies.c.data).where(
        dialect.is_in_list(bodies.c.id, "ids")
    )
)


@cache
def _newest_versions(kinds: tuple[str, ...]) -> Statement:
    """Of each stream its row, and the version of the newest event of each kind."""
    its_id: Any = bindparam("pipeline_id")
    before: Any = bindparam("before")
    return Statement(
        lambda dialect: newest_of_streams(dialect, STREAM, kinds, its_id, before=before)
    )


_NEAR_PER_STREAM = 2
"""Among how many events for each stream of a history its newest is looked for first, at least."""


def _near(dialect: Dialect, length: int, count_of_streams: int) -> int:
    """Among how many events of a kind its newest are looked for in a row; 0 if by seeks alone."""
    dear_from = dialect.SEEKS_ARE_DEAR_FROM
    if dear_from is None or length < dear_from * count_of_streams:
        return 0
    # A power of two, or there would be as many statements as numbers of streams.
    return 1 << (_NEAR_PER_STREAM * count_of_streams).bit_length()


@cache
def _newest_bodies(kind: str, near: int) -> Statement:
    """Of each stream its row, the version of its newest event of a kind, and the body beside it."""
    return Statement(lambda dialect: newest_bodies(dialect, kind, near))


@cache
def _there(kinds: tuple[str, ...]) -> Statement:
    return Statement(lambda _: what_is_there(kinds))


def newest(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> list[StoredEvent]:
    """The newest event of each kind and stream up to a version, in the order of versions."""
    if up_to is None:
        its_id, wanted = find_pipeline_id(db, pipeline), tuple(kinds)
    else:  # one look for each kind saves one for each stream, and nothing comes between the two
        its_id, _, wanted = _what_is_there(db, pipeline, tuple(kinds))
    if its_id is None or not wanted:
        return []
    names = Names()
    names.pipelines[its_id] = pipeline
    versions: list[int] = []
    bounds = {"pipeline_id": its_id, "before": END if up_to is None else up_to + 1}
    for number, namespace, name, *of_kinds in _newest_versions(wanted).fetch(db, bounds):
        names.streams[its_id, number] = stream_of(name, namespace)
        versions += [version for version in of_kinds if version is not None]
    return list(at_versions(db, its_id, sorted(versions), names))


@cache
def _newest_of_each(kinds: tuple[str, ...]) -> Statement:
    return Statement(lambda dialect: newest_of_each(dialect, kinds))


_FIRST_TOGETHER, _MOST_TOGETHER = 8, 128
"""Pipelines whose newest events are read together: in between, as many as their bodies let."""


def newest_by_pipeline(
    db: Connection, pipelines: Iterable[Pipeline], kinds: Sequence[str]
) -> Iterator[tuple[Pipeline, list[StoredEvent]]]:
    """The `newest` of each of these pipelines, many of them together where that takes less."""
    if not dialect_of(db).KEEPS_COLUMNS:
        for pipeline in pipelines:
            yield pipeline, newest(db, pipeline, kinds, None)
        return
    left, size = iter(pipelines), _FIRST_TOGETHER
    while some := list(islice(left, size)):
        found = _newest_of_some(db, some, tuple(kinds))
        read = bytes_in(chain.from_iterable(found.values()))
        size = min(next_size(size, read), _MOST_TOGETHER)
        for pipeline in some:
            yield pipeline, found.get(pipeline, [])
        found.clear()


def _newest_of_some(
    db: Connection, pipelines: Sequence[Pipeline], kinds: tuple[str, ...]
) -> dict[Pipeline, list[StoredEvent]]:
    names = Names()
    names.pipelines = find_pipelines(db, pipelines)
    ids = dialect_of(db).as_list(names.pipelines)
    found: dict[Pipeline, list[StoredEvent]] = {}
    for stored in stored_events(db, _newest_of_each(kinds).fetch(db, {"ids": ids}), names):
        found.setdefault(stored.pipeline, []).append(stored)
    return found


def newest_said(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int, length: int
) -> list[Said]:
    """What the newest event of each kind and stream says, in the order of versions.

    `length` is how many events the history has.
    """
    its_id, count_of_streams, there = _what_is_there(db, pipeline, tuple(kinds))
    if its_id is None:
        return []
    near = _near(dialect_of(db), length, count_of_streams)
    bounds = {"pipeline_id": its_id, "before": up_to + 1}
    read = reader(db, its_id).body
    found: list[Said] = []
    elsewhere: dict[int, tuple[str, StreamDescriptor | None]] = {}
    new = tuple.__new__  # to call the class takes as long as all else here
    for kind in there:
        rows = _newest_bodies(kind, near).fetch(db, bounds)
        for _, namespace, name, version, codec, data in rows:
            if data is not None:
                # As most are: not even a call more.
                body = bytes(data) if codec == PLAIN else read(codec, data, version)
                stream = stream_of(name, namespace)
                said = version, kind, stream, body or b"", version, body is None
                found.append(new(Said, said))
            elif version is not None:
                elsewhere[version] = kind, stream_of(name, namespace)
    keepers, kept = _bodies_elsewhere(db, its_id, list(elsewhere))
    for version, (kind, stream) in elsewhere.items():
        keeper = keepers.get(version)
        body = read(*kept[keeper], keeper) if keeper in kept else None
        erased = body is None and keeper is not None
        found.append(Said(version, kind, stream, body or b"", keeper, erased))
    found.sort(key=itemgetter(0))
    return found


class _There(NamedTuple):
    """The id of a pipeline, None if it is new; how many streams it has; its kinds of events."""

    id: int | None
    streams: int
    kinds: tuple[str, ...]


def _what_is_there(db: Connection, pipeline: Pipeline, kinds: tuple[str, ...]) -> _There:
    [(its_id, number, *there)] = _there(kinds).fetch(db, {"pipeline_key": pipeline.key})
    of_kinds = zip(kinds, there, strict=True)
    return _There(its_id, number, tuple(kind for kind, one in of_kinds if one is not None))


def _bodies_elsewhere(
    db: Connection, its_id: int, versions: Sequence[int]
) -> tuple[dict[int, int], dict[int, tuple[int, bytes]]]:
    """Who keeps the bodies of these events, where they have any, and what is kept.

    Not joined: before its first ANALYZE PostgreSQL reads all bodies of a history for it. Raises
    AlteredBody.
    """
    keepers = {
        version: keeper
        for version, keeper in chain.from_iterable(
            _by_versions(db, _chosen_keepers, its_id, versions)
        )
        if keeper is not None
    }
    for version, keeper in keepers.items():
        if type(keeper) is not int:  # as SQLite lets somebody put there
            raise AlteredBody(f"@{version} says that {keeper!r} keeps its body: see `verify`")
    first = body_id(its_id, 0)
    kept = {
        its_own - first: (codec, data)
        for some in _as_lists(db, [first + keeper for keeper in keepers.values()])
        for its_own, codec, data in _chosen_bodies.fetch(db, {"ids": some})
    }
    return keepers, kept


def at_versions(
    db: Connection, its_id: int, versions: Sequence[int], names: Names | None = None
) -> Iterator[StoredEvent]:
    """The events of these versions of a pipeline, whose order is that of the versions."""
    names = names or Names()
    for rows in _by_versions(db, _chosen_events, its_id, versions):
        yield from stored_events(db, rows, names)


def _by_versions(
    db: Connection, chosen: Statement, its_id: int, versions: Sequence[int]
) -> Iterator[Sequence[Any]]:
    """The rows of these versions, a page of them at a time."""
    for some in _as_lists(db, versions):
        yield chosen.fetch(db, {"pipeline_id": its_id, "versions": some})


def _as_lists(db: Connection, numbers: Sequence[int]) -> Iterator[Any]:
    """The numbers as the database takes them, a page of them at a time."""
    as_list = dialect_of(db).as_list
    return (as_list(numbers[start : start + PAGE]) for start in range(0, len(numbers), PAGE))
