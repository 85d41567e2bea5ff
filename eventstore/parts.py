"""Bodies in parts: a GLOBAL state says of most of its streams what the one before it said.

Such a body is kept as the parts that are new in it and the places of all others, which are in
earlier bodies of its history. A place names the body that has the part itself, never one that
points further: any body is read from those it names, and there are no chains. `projections.parts`
are others: parts of what a state says.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from eventstore import compression
from eventstore.errors import AlteredBody
from eventstore.events import BODY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CODECS = {compression.PLAIN: 2, compression.ZSTD: 3}
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


class Place(NamedTuple):
    """Where a part is: the version that keeps it, and its number among the parts kept there."""

    version: int
    number: int


KeptRow = tuple[int, int, bytes]
"""What keeps a body: its version, its codec and its data."""


def has_parts(body: bytes) -> bool:
    """Whether a body is worth looking for parts in."""
    return _SMALLEST <= len(body) <= BODY_LIMIT and body.count(_MARK) > 1


def packed(
    body: bytes, version: int, known: Mapping[bytes, Place]
) -> tuple[int, bytes, dict[bytes, Place]]:
    """The codec and the data by which a body is kept, and the places of all its parts."""
    parts = split(body)
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


def split(body: bytes) -> list[bytes]:
    """The parts of a body, which are the body when they are joined."""
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


class Kept(NamedTuple):
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


def is_in_parts(codec: int) -> bool:
    """Whether what is kept by this codec is no whole body."""
    return codec in _KEPT_AS


def read(row: KeptRow) -> Kept:
    """Read a row; a body that is kept whole has all of its parts.

    Raises AlteredBody, and StoreUnavailable without the package that compressed it.
    """
    own, line = _own(row)
    if line is None:
        return Kept(own, [(row[0], 0, len(own))])
    runs = _list(row, line)
    are_runs = all(type(run) is list and len(run) == _RUN and _are_counts(run) for run in runs)
    if not are_runs or sum(count for _, _, count in runs) > _MOST_PARTS:
        raise _astray(row)
    if any(named >= row[0] for named, _, _ in runs):  # what keeps a part is older
        raise _astray(row)
    return Kept(own, [(named or row[0], first, count) for named, first, count in runs])


def own_parts(row: KeptRow) -> list[bytes]:
    """The parts that a row has itself; raises what `read` raises."""
    return _own(row)[0]


def _own(row: KeptRow) -> tuple[list[bytes], bytes | None]:
    """The parts that a row has itself, and the line that says where all are; None: just these."""
    version, codec, data = row
    if codec not in _KEPT_AS:
        return split(compression.unpacked(codec, data, version)), None
    text = compression.unpacked(_KEPT_AS[codec], data, version)
    sizes, _, rest = text.partition(b"\n")
    runs, _, new = rest.partition(b"\n")
    found = _list(row, sizes)
    if not _are_counts(found):
        raise _astray(row)
    ends = pairwise(accumulate(found, initial=0))
    return [new[start:end] for start, end in ends], runs


def _list(row: KeptRow, line: bytes) -> list[Any]:
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise _astray(row) from error
    if type(found) is not list:
        raise _astray(row)
    return found


def _are_counts(numbers: Iterable[Any]) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _astray(row: KeptRow) -> AlteredBody:
    return AlteredBody(f"the body of @{row[0]} does not say where its parts are")


def joined(kept: Kept, own: Mapping[int, Sequence[bytes]], version: int) -> bytes:
    """The body of these parts, from those that each version has itself; raises AlteredBody."""
    parts: list[bytes] = []
    for keeper, first, count in kept.runs:
        there = own.get(keeper, [])[first : first + count]
        if len(there) < count:
            raise AlteredBody(f"the body of @{version} has a part in @{keeper} that is gone")
        parts += there
    size = sum(map(len, parts))
    if size > BODY_LIMIT:
        raise AlteredBody(f"the body of @{version} is kept in parts of {size} bytes")
    return b"".join(parts)


def taken_over(
    kept: Kept,
    version: int,
    leaving: Mapping[int, Sequence[bytes]],
    moved: dict[Place, Place],
) -> tuple[int, bytes]:
    """The codec and the data of a body that takes over the parts it shares with bodies that go.

    `moved` says where they went; what others took over before is there. Raises AlteredBody.
    """
    own, places = list(kept.own), kept.places
    here: dict[Place, Place] = {}
    for number, place in enumerate(places):
        if place.version in leaving:
            there = leaving[place.version]
            if place.number >= len(there):
                raise AlteredBody(f"the body of @{version} has a part in no body")
            if place not in moved and place not in here:
                here[place] = Place(version, len(own))
                own.append(there[place.number])
            places[number] = moved.get(place) or here[place]
    moved.update(here)
    kept_as, data = compression.packed(_written(places, version, own))
    return CODECS[kept_as], data
