"""Events looked up by their versions, whole or what they say; the newest of kinds and streams."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select

from eventstore.dialects import dialect_of
from eventstore.events import Said
from eventstore.head import pipeline_id
from eventstore.newest import END, kinds_there, newest_of_streams
from eventstore.reading import PAGE
from eventstore.rows import STORED, Names, stored_events
from eventstore.sharing import reader
from eventstore.statements import Statement
from eventstore.tables import bodies, events, streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Select, Table

    from eventstore.events import Pipeline, StoredEvent


def _chosen(query: Select[Any], of: Table) -> Statement:
    """Rows of a pipeline by their versions."""
    mine = of.c.pipeline_id == bindparam("pipeline_id")
    return Statement(
        lambda dialect: query.where(mine, dialect.is_in_list(of.c.version, "versions"))
    )


_chosen_events = _chosen(STORED.order_by(events.c.version), events)
_chosen_keepers = _chosen(select(events.c.version, events.c.body_version), events)
_chosen_bodies = _chosen(select(bodies.c.version, bodies.c.codec, bodies.c.data), bodies)


@cache
def _newest_versions(kinds: tuple[str, ...]) -> Statement:
    """Of each stream its row, and the version of the newest event of each kind."""
    names = (streams.c.number, streams.c.namespace, streams.c.name)
    return Statement(
        lambda dialect: newest_of_streams(
            dialect, names, kinds, bindparam("pipeline_id"), before=bindparam("before")
        )
    )


@cache
def _kinds_there(kinds: tuple[str, ...]) -> Statement:
    return Statement(lambda _: kinds_there(kinds))


def newest(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> list[StoredEvent]:
    """The newest event of each kind and stream up to a version, in the order of versions."""
    its_id, places, names = _newest(db, pipeline, kinds, up_to)
    return list(at_versions(db, its_id, [place.version for place in places], names))


def newest_said(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> list[Said]:
    """What they say."""
    its_id, places, names = _newest(db, pipeline, kinds, up_to)
    keepers, kept = _bodies(db, its_id, [place.version for place in places])
    its, found = reader(db, its_id), []
    for place in places:
        keeper = keepers.get(place.version, place.version)
        body = its.body(*kept[keeper], keeper) if keeper in kept else None
        erased = body is None and keeper is not None
        stream = names.streams[its_id, place.number]
        found.append(Said(place.version, place.kind, stream, body or b"", keeper, erased))
    return found


class _Place(NamedTuple):
    version: int
    kind: str
    number: int


def _newest(
    db: Connection, pipeline: Pipeline, kinds: Sequence[str], up_to: int | None
) -> tuple[int, list[_Place], Names]:
    """Where they are: the pipeline's id, the place of each, and the names of the streams."""
    names = Names()
    its_id = pipeline_id(db, pipeline)
    if its_id is None:
        return 0, [], names
    wanted = tuple(kinds)
    # One look for each kind saves one for each stream, where nothing can come between the two.
    if len(wanted) > 1 and up_to is not None:
        [there] = _kinds_there(wanted).fetch(db, {"pipeline_id": its_id})
        found = zip(wanted, there, strict=True)
        wanted = tuple(kind for kind, number in found if number is not None)
    if not wanted:
        return 0, [], names
    bounds = {"pipeline_id": its_id, "before": END if up_to is None else up_to + 1}
    names.pipelines[its_id] = pipeline
    places = []
    for number, namespace, name, *newest in _newest_versions(wanted).fetch(db, bounds):
        names.add(its_id, number, namespace, name)
        each = zip(newest, wanted, strict=True)
        places += [_Place(version, kind, number) for version, kind in each if version is not None]
    return its_id, sorted(places), names


def _bodies(
    db: Connection, its_id: int, versions: Sequence[int]
) -> tuple[dict[int, int | None], dict[int, tuple[str, bytes]]]:
    """Who keeps the bodies of these events, if not they themselves, and what is kept.

    Not joined: before its first ANALYZE PostgreSQL reads all bodies of a history for it.
    """

    def rows(chosen: Statement, versions: Sequence[int]) -> Iterator[Any]:
        return chain.from_iterable(_by_versions(db, chosen, its_id, versions))

    kept = {version: (codec, data) for version, codec, data in rows(_chosen_bodies, versions)}
    elsewhere = [version for version in versions if version not in kept]
    keepers: dict[int, int | None] = dict(rows(_chosen_keepers, elsewhere))
    named = [keeper for keeper in keepers.values() if keeper is not None]
    kept |= {version: (codec, data) for version, codec, data in rows(_chosen_bodies, named)}
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
    as_list = dialect_of(db).as_list
    for start in range(0, len(versions), PAGE):
        some = as_list(versions[start : start + PAGE])
        yield chosen.fetch(db, {"pipeline_id": its_id, "versions": some})
