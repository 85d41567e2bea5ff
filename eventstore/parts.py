"""Bodies kept in parts: a GLOBAL state says of most of its streams what the one before it said.

Such a body is kept as the parts that are new in it and the places of all others, which are in
earlier bodies of its history. A place names the body that has the part itself, never one that
points further: any body is read from those it names, and there are no chains.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import select, type_coerce
from sqlalchemy.types import NullType

from eventstore import compression
from eventstore.errors import AlteredBody, StoreUnavailable
from eventstore.events import BODY_LIMIT
from eventstore.tables import bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

CODECS = {compression.PLAIN: "parts-1", compression.ZSTD: "parts-z1"}
"""By how its text is kept: two lines of JSON, and the new parts one after the other.

The first line has the sizes of the new parts. The second says where all parts are, in runs: each is
a version (0: this one), the number of its first part among those kept there, and how many follow.
"""

_KEPT_AS = {codec: text for text, codec in CODECS.items()}

_MARK = b'"stream_descriptor"'
"""Where a part begins: each stream of a GLOBAL state has one. No JSON is read for it."""

_SMALLEST = 32 * 1024
"""Bytes of a body whose parts are worth looking for."""

_MOST_PARTS = BODY_LIMIT // len(_MARK) + 1
"""In a body; beyond is nothing but an attempt to fill the memory of who reads it."""

_RUN = 3

_REMEMBERED = 64 * 1024 * 1024
"""Bytes of parts that a reader remembers."""

_CHUNK = 500

_ATTEMPTS = 10


class Place(NamedTuple):
    """Where a part is: the version that keeps it, and its number among the parts kept there."""

    version: int
    number: int


Row = tuple[int, str, bytes]
"""What keeps a body: its version, its codec and its data."""


def has_parts(body: bytes) -> bool:
    """Whether a body is worth looking for parts in."""
    return _SMALLEST <= len(body) <= BODY_LIMIT and body.count(_MARK) > 1


def packed(
    body: bytes, version: int, known: Mapping[bytes, Place]
) -> tuple[str, bytes, dict[bytes, Place]]:
    """The codec and the data by which a body is kept, and the places of all its parts."""
    parts = _split(body)
    digests = [sha256(part).digest() for part in parts]
    if not any(digest in known for digest in digests):
        whole = {digest: Place(version, number) for number, digest in enumerate(digests)}
        return *compression.packed(body), whole
    own: list[bytes] = []
    places: dict[bytes, Place] = {}
    for digest, part in zip(digests, parts, strict=True):
        if digest not in places:
            places[digest] = known.get(digest) or Place(version, len(own))
            if places[digest].version == version:
                own.append(part)
    text = _written([places[digest] for digest in digests], version, own)
    kept_as, data = compression.packed(text)
    return CODECS[kept_as], data, places


def _split(body: bytes) -> list[bytes]:
    first, *others = body.split(_MARK)
    return [first, *(_MARK + other for other in others)]


def _written(places: Sequence[Place], version: int, own: Sequence[bytes]) -> bytes:
    runs: list[list[int]] = []
    for keeper, number in places:
        named = 0 if keeper == version else keeper
        if runs and runs[-1][0] == named and sum(runs[-1][1:]) == number:
            runs[-1][2] += 1
        else:
            runs.append([named, number, 1])
    return b"\n".join([orjson.dumps(list(map(len, own))), orjson.dumps(runs), b"".join(own)])


class _Kept(NamedTuple):
    """What a row keeps: the parts that it has itself, and where all parts of its body are."""

    own: list[bytes]
    runs: list[tuple[int, int, int]]

    @property
    def places(self) -> list[Place]:
        """The place of each part."""
        return [
            Place(version, first + number)
            for version, first, count in self.runs
            for number in range(count)
        ]


def _read(row: Row) -> _Kept:
    """Read a row; a body that is kept whole has all of its parts. Raises AlteredBody."""
    own, line = _own(row)
    if line is None:
        return _Kept(own, [(row[0], 0, len(own))])
    runs = _list(row, line)
    are_runs = all(type(run) is list and len(run) == _RUN and _are_counts(run) for run in runs)
    if not are_runs or sum(count for _, _, count in runs) > _MOST_PARTS:
        raise _astray(row)
    return _Kept(own, [(named or row[0], first, count) for named, first, count in runs])


def _own(row: Row) -> tuple[list[bytes], bytes | None]:
    """The parts that a row has itself, and the line that says where all are; None: just these."""
    version, codec, data = row
    if codec not in _KEPT_AS:
        return _split(compression.unpacked(codec, data, version)), None
    text = compression.unpacked(_KEPT_AS[codec], data, version)
    sizes, _, rest = text.partition(b"\n")
    runs, _, new = rest.partition(b"\n")
    found = _list(row, sizes)
    if not _are_counts(found):
        raise _astray(row)
    ends = pairwise(accumulate(found, initial=0))
    return [new[start:end] for start, end in ends], runs


def _list(row: Row, line: bytes) -> list[Any]:
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise _astray(row) from error
    if type(found) is not list:
        raise _astray(row)
    return found


def _are_counts(numbers: Iterable[Any]) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _astray(row: Row) -> AlteredBody:
    return AlteredBody(f"the body of @{row[0]} does not say where its parts are")


class Reader:
    """Puts the bodies of one history together; `fetch` reads the rows of versions."""

    def __init__(self, fetch: Callable[[Sequence[int]], Iterable[Row]]) -> None:
        """Remember nothing yet."""
        self._fetch = fetch
        self._own: dict[int, list[bytes]] = {}
        self._size = 0

    def body(self, codec: str, data: Any, version: int) -> bytes | None:
        """The body that a row keeps, None if it was erased since the row was read.

        Raises AlteredBody or StoreUnavailable.
        """
        if codec not in _KEPT_AS:
            return compression.unpacked(codec, data, version)
        row, before = (version, codec, bytes(data)), None
        for _ in range(_ATTEMPTS):
            try:
                return self.assembled(_read(row), version)
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

    def assembled(self, kept: _Kept, version: int) -> bytes:
        """The body of these parts; raises AlteredBody."""
        if self._size > _REMEMBERED:
            self._forget()
        self._remember(version, kept.own)
        unknown = sorted({keeper for keeper, _, _ in kept.runs} - self._own.keys())
        for start in range(0, len(unknown), _CHUNK):
            for row in self._fetch(unknown[start : start + _CHUNK]):
                self._remember(row[0], _own(row)[0])
        parts: list[bytes] = []
        for keeper, first, count in kept.runs:
            there = self._own.get(keeper, [])[first : first + count]
            if len(there) < count:
                raise AlteredBody(f"the body of @{version} has a part in @{keeper} that is gone")
            parts += there
        size = sum(map(len, parts))
        if size > BODY_LIMIT:
            raise AlteredBody(f"the body of @{version} is kept in parts of {size} bytes")
        return b"".join(parts)

    def _remember(self, version: int, own: list[bytes]) -> None:
        self._own[version] = own
        self._size += sum(map(len, own))

    def _forget(self) -> None:
        self._own.clear()
        self._size = 0


def reader(db: Connection, pipeline_id: int) -> Reader:
    """A reader of the history of a pipeline, as long as the connection is there."""
    return Reader(lambda versions: body_rows(db, pipeline_id, versions))


def body_rows(db: Connection, pipeline_id: int, versions: Sequence[int]) -> list[Row]:
    """What keeps these bodies; but data that was altered to no bytes."""
    data = type_coerce(bodies.c.data, NullType())
    query = select(bodies.c.version, bodies.c.codec, data).where(
        bodies.c.pipeline_id == pipeline_id, bodies.c.version.in_(versions)
    )
    return [
        (version, codec, bytes(kept))
        for version, codec, kept in db.execute(query)
        if isinstance(kept, bytes | memoryview)
    ]


def places_in(db: Connection, pipeline_id: int, version: int) -> dict[bytes, Place]:
    """The places of all parts of a body, by their digests; none if it cannot be read."""
    for row in body_rows(db, pipeline_id, [version]):
        with suppress(AlteredBody, StoreUnavailable):  # the package that compressed it is not here
            kept = _read(row)
            parts = _split(reader(db, pipeline_id).assembled(kept, version))
            places = kept.places
            if len(parts) == len(places):
                digests = (sha256(part).digest() for part in parts)
                return dict(zip(digests, places, strict=True))
    return {}


def are_there(db: Connection, pipeline_id: int, places: Iterable[Place]) -> bool:
    """Whether the bodies that have these parts are all there still."""
    named = sorted({place.version for place in places})
    for start in range(0, len(named), _CHUNK):
        chunk = named[start : start + _CHUNK]
        query = select(bodies.c.version).where(
            bodies.c.pipeline_id == pipeline_id, bodies.c.version.in_(chunk)
        )
        if len(db.execute(query).all()) < len(chunk):
            return False
    return True


def hand_on(db: Connection, pipeline_id: int, versions: Iterable[int]) -> None:
    """Before these bodies are deleted, give the parts that later ones share to the first of them.

    To read, it takes one look at each body of the history that is kept in parts.
    """
    going = set(versions)
    leaving = {row[0]: _own(row)[0] for row in body_rows(db, pipeline_id, sorted(going))}
    sharing = select(bodies.c.version).where(
        bodies.c.pipeline_id == pipeline_id, bodies.c.codec.in_(_KEPT_AS)
    )
    moved: dict[Place, Place] = {}
    for version in db.scalars(sharing.order_by(bodies.c.version)).all():
        if version not in going:
            [row] = body_rows(db, pipeline_id, [version])
            kept = _read(row)
            if leaving.keys().isdisjoint(keeper for keeper, _, _ in kept.runs):
                continue
            own, places = kept.own, kept.places
            for number, place in enumerate(places):
                if place.version in leaving:
                    if place not in moved:
                        moved[place] = Place(version, len(own))
                        own.append(leaving[place.version][place.number])
                    places[number] = moved[place]
            kept_as, data = compression.packed(_written(places, version, own))
            this = (bodies.c.pipeline_id == pipeline_id, bodies.c.version == version)
            again = bodies.update().where(*this)
            db.execute(again.values(codec=CODECS[kept_as], data=data))
