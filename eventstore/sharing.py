"""Bodies that share parts: read, found again by a writer, and handed on before an erasure."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from eventstore import parts
from eventstore.compression import PLAIN, unpacked
from eventstore.errors import AlteredBody, StoreUnavailable
from eventstore.tables import BODY_VERSION, bodies, bodies_at, bodies_of, body_id, raw

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from eventstore.parts import Kept, KeptRow, Place

_REMEMBERED = 64 * 1024 * 1024
"""Bytes of parts after which a reader forgets what it remembers."""

_CHUNK = 500
"""Versions in one statement."""

_ATTEMPTS = 10
"""Erasures that may come between the statements of a read."""


class Reader:
    """Puts the bodies of one history together; `fetch` reads the rows of some versions."""

    def __init__(self, fetch: Callable[[Sequence[int]], Iterable[KeptRow]]) -> None:
        """Remember nothing yet."""
        self._fetch = fetch
        self._own: dict[int, list[bytes]] = {}
        self._size = 0

    def body(self, codec: int, data: Any, version: int) -> bytes | None:
        """The body that a row keeps, None if it was erased since the row was read.

        Raises AlteredBody or StoreUnavailable.
        """
        if codec == PLAIN:  # as most are: not even a call more
            return bytes(data)
        if not parts.is_in_parts(codec):
            return unpacked(codec, data, version)
        row, before = (version, codec, bytes(data)), None
        for _ in range(_ATTEMPTS):
            try:
                return self.joined(parts.read(row), version)
            except AlteredBody as error:
                if row == before:
                    raise
                lost = error
            # Whoever has erased what it shares has handed that on, to this row or to another.
            self._forget()
            now = list(self._fetch([version]))
            if not now:
                return None
            row, before = now[0], row
        raise lost

    def joined(self, kept: Kept, version: int) -> bytes:
        """The body of these parts; raises AlteredBody or StoreUnavailable."""
        if self._size > _REMEMBERED:
            self._forget()
        self._remember(version, kept.own)
        unknown = sorted({keeper for keeper, _, _ in kept.runs} - self._own.keys())
        for row in _fetched(self._fetch, unknown):
            self._remember(row[0], parts.own_parts(row))
        return parts.joined(kept, self._own, version)

    def _remember(self, version: int, own: list[bytes]) -> None:
        if version not in self._own:
            self._own[version] = own
            self._size += sum(map(len, own))

    def _forget(self) -> None:
        self._own.clear()
        self._size = 0


def reader(db: Connection, pipeline_id: int) -> Reader:
    """A reader of the history of a pipeline, as long as the connection is there."""
    return Reader(lambda versions: body_rows(db, pipeline_id, versions))


def body_rows(db: Connection, pipeline_id: int, versions: Sequence[int]) -> list[KeptRow]:
    """What keeps these bodies, but data that was altered to no bytes."""
    query = select(BODY_VERSION, bodies.c.codec, raw(bodies.c.data)).where(
        bodies_at(pipeline_id, versions)
    )
    return [
        (version, codec, bytes(kept))
        for version, codec, kept in db.execute(query)
        if isinstance(kept, bytes | memoryview)
    ]


def _fetched(
    fetch: Callable[[Sequence[int]], Iterable[KeptRow]], versions: Sequence[int]
) -> Iterator[KeptRow]:
    for start in range(0, len(versions), _CHUNK):
        yield from fetch(versions[start : start + _CHUNK])


def places_in(db: Connection, pipeline_id: int, version: int) -> dict[bytes, Place]:
    """The places of all parts of a body, by their digests; none if it cannot be read."""
    for row in body_rows(db, pipeline_id, [version]):
        with suppress(AlteredBody, StoreUnavailable):  # the package that compressed it is not here
            kept = parts.read(row)
            found = parts.split(reader(db, pipeline_id).joined(kept, version))
            places = kept.places
            if len(found) == len(places):
                digests = (sha256(part).digest() for part in found)
                return dict(zip(digests, places, strict=True))
    return {}


def are_there(db: Connection, pipeline_id: int, places: Iterable[Place]) -> bool:
    """Whether the bodies that have these parts are all there still."""
    named = sorted({place.version for place in places})
    return all(
        len(db.execute(select(bodies.c.id).where(bodies_at(pipeline_id, chunk))).all())
        == len(chunk)
        for chunk in (named[start : start + _CHUNK] for start in range(0, len(named), _CHUNK))
    )


def hand_on(db: Connection, pipeline_id: int, versions: Collection[int]) -> None:
    """Before these bodies are deleted, give the parts that later ones share to the first of them.

    It takes a look at each body of the history that is kept in parts. One that cannot be read is
    left as it is. Raises StoreUnavailable if the package is not here that compressed one.
    """
    sharing = select(BODY_VERSION).where(
        bodies_of(pipeline_id), bodies.c.codec.in_(parts.CODECS.values())
    )
    found = db.scalars(sharing.order_by(bodies.c.id)).all()
    if found:
        handing_on = _HandingOn(db, pipeline_id, frozenset(versions))
        for version in found:
            with suppress(AlteredBody):
                handing_on.to(version)


class _HandingOn:
    """What bodies that go leave, and who has taken it over."""

    def __init__(self, db: Connection, pipeline_id: int, going: frozenset[int]) -> None:
        self._db = db
        self._pipeline_id = pipeline_id
        self._going = going
        self._fetch = partial(body_rows, db, pipeline_id)
        self._left: dict[int, list[bytes]] = {}
        self._moved: dict[Place, Place] = {}

    def to(self, version: int) -> None:
        """Let a body take over what it shares with those that go; raises AlteredBody."""
        for row in [] if version in self._going else self._fetch([version]):
            kept = parts.read(row)
            named = self._going.intersection(keeper for keeper, _, _ in kept.runs)
            for gone in _fetched(self._fetch, sorted(named - self._left.keys())):
                self._left[gone[0]] = parts.own_parts(gone)
            if named:
                codec, data = parts.taken_over(kept, version, self._left, self._moved)
                this = bodies.c.id == body_id(self._pipeline_id, version)
                self._db.execute(bodies.update().where(this).values(codec=codec, data=data))
