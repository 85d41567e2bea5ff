"""Events looked up by their versions, whole or what they say; the newest of kinds and streams."""

from __future__ import annotations

from functools import cache, partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select

from eventstore.dialects import dialect_of
from eventstore.errors import AlteredBody
from eventstore.events import Said
from eventstore.newest import END, kinds_there, newest_of_streams
from eventstore.reading import PAGE
from eventstore.rows import STORED, Names, find_pipeline_id, stored_events, stream_of
from eventstore.sharing import reader
from eventstore.statements import Statement
from eventstore.tables import KIND, bodies, body_id, events, keeper_of, streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from sqlalchemy import Connection, Select

    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor


def _chosen(query: Select[Any]) -> Statement:
    """Events of a pipeline by their versions."""
    mine = events.c.pipeline_id == bindparam("pipeline_id")
    return Statement(
        lambda dialect: query.where(mine, dialect.is_in_list(events.c.version, "versions"))
    )


_chosen_events = _chosen(STORED.order_by(events.c.version))
_chosen_keepers = _chosen(select(events.c.version, keeper_of(events)))
_chosen_bodies = Statement(
    lambda dialect: select(bodies.c.id, bodies.c.codec, bodies.c.data).where(
        dialect.is_in_list(bodies.c.id, "ids")
    )
)


_STREAM = (streams.c.number, streams.c.namespace, streams.c.name)


@cache
def _newest_versions(kinds: tuple[str, ...]) -> Statement:
    """Of each stream its row, and the version of the newest event of each kind."""
    return Statement(partial(_newest_in_query, kinds=kinds))


@cache
def _newest_of_some(kinds: tuple[str, ...]) -> Statement:
    """The row of each stream with one of these numbers, and its newest version of each kind."""
    return Statement(
        lambda dialect: _newest_in_query(dialect, kinds).where(
            dialect.is_in_list(streams.c.number, "numbers")
        )
    )


def _newest_in_query(dialect: Dialect, kinds: tuple[str, ...]) -> Select[Any]:
    return newest_of_streams(
        dialect, _STREAM, kinds, bindparam("pipeline_id"), before=bindparam("before")
    )


_its_streams = Statement(
    lambda _: select(*_STREAM).where(streams.c.pipeline_id == bindparam("pipeline_id"))
)

_NEAR_PER_STREAM = 2
"""Among how many events for each stream of a history its newest is looked for first."""

_newest_within = Statement(
    lambda _: (
        select(events.c.kind, events.c.stream_number, func.max(events.c.version))
        .where(events.c.pipeline_id == bindparam("pipeline_id"))
        .where(events.c.version > bindparam("after"), events.c.version <= bindparam("up_to"))
        .group_by(events.c.stream_number, events.c.kind)
    )
)


@cache
def _kinds_there(kinds: tuple[str, ...]) -> Statement:
    return Statement(lambda _: kinds_there(kinds))


def newest(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> list[StoredEvent]:
    """The newest event of each kind and stream up to a version, in the order of versions."""
    its_id, places, named = _newest(db, pipeline, kinds, up_to)
    names = Names()
    names.pipelines[its_id] = pipeline
    names.streams = {(its_id, number): stream for number, stream in named.items()}
    return list(at_versions(db, its_id, [version for version, _, _ in places], names))


def newest_said(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> list[Said]:
    """What the newest event of each kind and stream says, in the order of versions."""
    its_id, places, named = _newest(db, pipeline, kinds, up_to)
    keepers, kept = _bodies(db, its_id, [version for version, _, _ in places])
    read, found = reader(db, its_id).body, []
    new = tuple.__new__  # to call the class takes as long as all else here
    for version, kind, number in places:
        keeper = keepers.get(version, version)
        body = read(*kept[keeper], keeper) if keeper in kept else None
        erased = body is None and keeper is not None
        found.append(new(Said, (version, kind, named[number], body or b"", keeper, erased)))
    return found


_Place = tuple[int, str, int]
"""A version, its kind and the number of its stream."""


def _newest(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> tuple[int, list[_Place], dict[int, StreamDescriptor | None]]:
    """Where they are: the pipeline's id, the place of each, and the streams by their numbers."""
    its_id = find_pipeline_id(db, pipeline)
    if its_id is None:
        return 0, [], {}
    wanted = tuple(kinds)
    # One look for each kind saves one for each stream, where nothing can come between the two.
    if len(wanted) > 1 and up_to is not None:
        [there] = _kinds_there(wanted).fetch(db, {"pipeline_id": its_id})
        of_kinds = zip(wanted, there, strict=True)
        wanted = tuple(kind for kind, number in of_kinds if number is not None)
    if not wanted:
        return 0, [], {}
    if up_to is not None and dialect_of(db).SEEKS_ARE_DEAR:
        rows = _its_streams.fetch(db, {"pipeline_id": its_id})
        found = _nearest_first(db, its_id, wanted, {row[0] for row in rows}, up_to)
    else:
        bounds = {"pipeline_id": its_id, "before": END if up_to is None else up_to + 1}
        rows = _newest_versions(wanted).fetch(db, bounds)
        found = _by_kind(wanted, rows)
    places = [
        (version, kind, number) for kind, of in found.items() for number, version in of.items()
    ]
    places.sort(key=itemgetter(0))
    return its_id, places, {row[0]: stream_of(row[2], row[1]) for row in rows}


_ByKind = dict[str, dict[int, int]]
"""Versions by the numbers of their streams, for each kind."""


def _nearest_first(
    db: Connection, its_id: int, kinds: tuple[str, ...], numbers: AbstractSet[int], up_to: int
) -> _ByKind:
    """What `_newest_versions` finds, where seeks are dear: most are near.

    To read the events before `up_to` in a row takes PostgreSQL a fifth of the time of as many
    seeks, each of which is the dearer the longer the history of its stream is.
    """
    after = up_to - _NEAR_PER_STREAM * len(numbers)
    near = {"pipeline_id": its_id, "after": after, "up_to": up_to}
    found: _ByKind = {kind: {} for kind in kinds}
    of_kind = {KIND.numbers[kind]: of for kind, of in found.items()}
    # Were kinds asked for, PostgreSQL would seek each in another index.
    for kind_number, number, version in _newest_within.fetch(db, near):
        if kind_number in of_kind and number in numbers:
            of_kind[kind_number][number] = version
    far = {number for of in found.values() for number in numbers - of.keys()}
    if far and after > 0:
        bounds = {"pipeline_id": its_id, "before": after + 1}
        bounds["numbers"] = dialect_of(db).as_list(far)
        for kind, of in _by_kind(kinds, _newest_of_some(kinds).fetch(db, bounds)).items():
            found[kind] = of | found[kind]
    return found


def _by_kind(kinds: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> _ByKind:
    return {
        kind: {row[0]: version for row in rows if (version := row[place]) is not None}
        for place, kind in enumerate(kinds, start=len(_STREAM))
    }


def _bodies(
    db: Connection, its_id: int, versions: Sequence[int]
) -> tuple[dict[int, int | None], dict[int, tuple[int, bytes]]]:
    """Who keeps the bodies of these events, if not they themselves, and what is kept.

    Not joined: before its first ANALYZE PostgreSQL reads all bodies of a history for it. Raises
    AlteredBody.
    """
    kept = _kept(db, its_id, versions)
    elsewhere = [version for version in versions if version not in kept]
    keepers: dict[int, int | None] = dict(
        chain.from_iterable(_by_versions(db, _chosen_keepers, its_id, elsewhere))
    )
    named = {version: keeper for version, keeper in keepers.items() if keeper is not None}
    for version, keeper in named.items():
        if type(keeper) is not int:  # as SQLite lets somebody put there
            raise AlteredBody(f"@{version} says that {keeper!r} keeps its body: see `verify`")
    return keepers, kept | _kept(db, its_id, list(named.values()))


def _kept(db: Connection, its_id: int, versions: Sequence[int]) -> dict[int, tuple[int, bytes]]:
    first = body_id(its_id, 0)
    return {
        its_own - first: (codec, data)
        for some in _as_lists(db, [first + version for version in versions])
        for its_own, codec, data in _chosen_bodies.fetch(db, {"ids": some})
    }


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
