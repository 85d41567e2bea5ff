"""A part of a history, computed anew from the columns of the tables, row by row.

The rows are taken as the driver gives them, and never become events: a history of millions is
read, and a page of it is all that is in memory.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import and_, bindparam, case, func, select
from sqlalchemy.exc import DBAPIError

from eventstore.chain import GENESIS, encoded_names, row_hash
from eventstore.compression import PLAIN
from eventstore.erasure import ERASURE
from eventstore.errors import AlteredBody, StoreUnavailable
from eventstore.payload import erased_versions
from eventstore.sharing import Reader, body_rows, reader
from eventstore.statements import Statement, limit_of
from eventstore.tables import KIND, ORIGIN, STANDS_BESIDE_IT, bodies, body_id, events, raw, streams
from eventstore.version_set import VersionSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Select
    from typing_extensions import Protocol

    from eventstore.dialects import Dialect

    T = TypeVar("T")

    class Read(Protocol):
        """Does work that only reads, on a connection of the moment."""

        def __call__(self, work: Callable[[Connection], T]) -> T:
            """Do the work."""


PAGE = 4000
"""Events read at a time."""

_SMALL = 16 * 1024
"""Bytes of a body that is read with its page; a larger one is read by itself."""

_SALT = 16
_OTHER_TYPE = "holds a value of another type than any event has"
_REMEMBERED = 50_000
_CHUNK = 500

_ERASURES = 100
"""BodyErased read at a time; each names 10,000 versions at most."""


class Part(NamedTuple):
    """Versions of one history, the first and the last included."""

    pipeline_id: int
    names: tuple[str | None, ...]
    first: int
    last: int


class Problem(NamedTuple):
    """The first version that is not as it was stored, and why."""

    version: int
    words: str


class Outcome(NamedTuple):
    """What was found in a part: the first problem, and the numbers of the streams it speaks of."""

    problem: Problem | None
    streams: frozenset[int]


class _Broken(Exception):
    def __init__(self, version: int, words: str) -> None:
        super().__init__(words)
        self.problem = Problem(version, words)


def _page(dialect: Dialect) -> Select[Any]:
    """Events with the bodies that they themselves keep."""
    size = getattr(func, dialect.BYTES_IN)(bodies.c.data)
    e = events.c
    its_id: Any = bindparam("pipeline_id")
    low: Any = bindparam("low")
    high: Any = bindparam("high")
    beside = [STANDS_BESIDE_IT]
    if dialect.KEEPS_COLUMNS:  # it reads all bodies else
        beside.append(bodies.c.id.between(body_id(its_id, low), body_id(its_id, high)))
    return (
        select(
            *(e.version, e.stored_at, e.append_id, e.kind, e.format, e.stream_number, e.origin),
            *(e.of_version, e.actor, e.reason, e.run, e.body_at, e.commitment, e.hash),
            bodies.c.salt,
            bodies.c.codec,
            case((size <= _SMALL, bodies.c.data)),
        )
        .outerjoin_from(events, bodies, and_(*beside))
        .where(e.pipeline_id == its_id, e.version >= low, e.version <= high)
        .order_by(e.version)
    )


_read_page = Statement(_page)


def recompute(read: Read, part: Part, progress: Callable[[int], None]) -> Outcome:
    """Follow the chain through a part; its first hash is taken from the row before it."""
    check = _Check(read, part)
    try:
        check.begin()
        for low in range(part.first, part.last + 1, PAGE):
            high = min(low + PAGE - 1, part.last)
            check.page(low, high)
            progress(high - low + 1)
    except _Broken as broken:
        return Outcome(broken.problem, frozenset(check.used))
    return Outcome(None, frozenset(check.used))


def _erasures(db: Connection, pipeline_id: int) -> Iterator[tuple[int, int]]:
    """Which bodies were erased from a history, each after the version that says so."""
    query = (
        select(events.c.version, bodies.c.codec, raw(bodies.c.data))
        .join_from(events, bodies, STANDS_BESIDE_IT)
        .where(events.c.pipeline_id == pipeline_id, events.c.kind == ERASURE)
        .order_by(events.c.version)
        .limit(limit_of(_ERASURES))
    )
    read = reader(db, pipeline_id)
    after = 0
    while page := db.execute(query.where(events.c.version > after)).all():
        for said_by, codec, data in page:
            # One that was altered is found in its turn.
            with suppress(ValueError, KeyError, TypeError):
                for version in erased_versions(_body_in(read, codec, _as_bytes(data), said_by)):
                    if type(version) is int:
                        yield said_by, version
        if len(page) < _ERASURES:
            return
        after = page[-1].version


def _as_bytes(value: Any) -> Any:
    return bytes(value) if type(value) is memoryview else value  # psycopg2's bytes


def _body_in(read: Reader, codec: Any, data: Any, version: int) -> Any:
    """The body that is kept so, None where none is."""
    try:
        return read.body(codec, data, version) if type(data) is bytes else None
    except AlteredBody:
        return None


class _Check:
    """What has to be known from row to row."""

    def __init__(self, read: Read, part: Part) -> None:
        self._read = read
        self._part = part
        self._names = encoded_names(part.names)
        self._bodies = Reader(
            lambda versions: read(lambda db: body_rows(db, part.pipeline_id, versions))
        )
        self._kept: dict[int, bytes | None] = {}
        """The commitments of bodies, by the versions that keep them."""
        self._previous, self._time = GENESIS, -1
        self.used: set[int] = set()

    def begin(self) -> None:
        """Read the streams, the erasures, and the row before the part."""
        part = self._part
        self._streams = self._read(self._stream_names)
        self._erased = self._read(self._erased_versions)
        if part.first > 1:
            place = (events.c.pipeline_id == part.pipeline_id, events.c.version == part.first - 1)
            query = select(raw(events.c.hash), events.c.stored_at).where(*place)
            row = self._read(lambda db: db.execute(query).first())
            if row is None:
                raise _Broken(part.first - 1, "is missing")
            if type(row.stored_at) is not int or type(_as_bytes(row[0])) is not bytes:
                raise _Broken(part.first - 1, _OTHER_TYPE)
            self._previous, self._time = _as_bytes(row[0]), row.stored_at

    def _stream_names(self, db: Connection) -> dict[int, bytes]:
        query = select(streams.c.number, streams.c.namespace, streams.c.name).where(
            streams.c.pipeline_id == self._part.pipeline_id
        )
        return {
            number: encoded_names((namespace, name))
            for number, namespace, name in db.execute(query)
        }

    def _erased_versions(self, db: Connection) -> VersionSet:
        part = self._part
        erased = VersionSet(part.first)
        for _, version in _erasures(db, part.pipeline_id):
            if part.first <= version <= part.last:
                erased.add(version)
        return erased

    def page(self, low: int, high: int) -> None:
        """Check all versions from one to another."""
        try:
            rows = self._read(lambda db: self._rows(db, low, high))
        except StoreUnavailable:
            if low == high:
                self._give_up_on(low)
            # Something in one of them that the driver cannot read.
            for version in range(low, high + 1):
                self.page(version, version)
            return
        self._remember({row[11] for row in rows}, low)
        expected = self._rows_in_order(rows, low)
        if expected <= high:
            raise _Broken(expected, "is missing")

    def _rows(self, db: Connection, low: int, high: int) -> Sequence[Sequence[Any]]:
        place = {"pipeline_id": self._part.pipeline_id, "low": low, "high": high}
        answer = _read_page.execute(db, place)
        try:
            rows: Sequence[Sequence[Any]] = answer.fetchall()
        except (DBAPIError, db.dialect.loaded_dbapi.Error) as error:
            raise StoreUnavailable(str(error)) from error
        if rows and type(rows[0][13]) is memoryview:
            return [list(map(_as_bytes, row)) for row in rows]
        return rows

    def _give_up_on(self, version: int) -> None:
        place = (events.c.pipeline_id == self._part.pipeline_id, events.c.version == version)
        self._read(lambda db: db.execute(select(events.c.version).where(*place)).all())
        raise _Broken(version, "holds what no event holds: the driver cannot read it")

    def _remember(self, versions: Iterable[int | None], low: int) -> None:
        """Read the commitments of bodies on earlier pages that are pointed at and not known."""
        if len(self._kept) >= _REMEMBERED:
            self._kept.clear()
        unknown = [v for v in versions if type(v) is int and v < low and v not in self._kept]
        for start in range(0, len(unknown), _CHUNK):
            query = select(events.c.version, raw(events.c.commitment)).where(
                events.c.pipeline_id == self._part.pipeline_id,
                events.c.version.in_(unknown[start : start + _CHUNK]),
                events.c.body_at.is_(None),
                events.c.commitment.is_not(None),
            )
            found = self._read(lambda db, query=query: db.execute(query).all())  # type: ignore[misc]
            self._kept.update((version, _as_bytes(commitment)) for version, commitment in found)

    def _rows_in_order(self, rows: Sequence[Sequence[Any]], expected: int) -> int:  # noqa: C901
        """Check rows; returns the version that should come next."""
        # The loop that all of a history goes through: names are local, and nothing is called that
        # need not be. Types are looked at, since SQLite keeps 3.5 in an integer column.
        pipeline, stream_names = self._names, self._streams
        kinds, origins = KIND.words, ORIGIN.words
        used, kept_at = self.used, self._kept
        erased = self._erased.between(expected, expected + len(rows))
        previous, time = self._previous, self._time
        for (
            version,
            stored_at,
            append_id,
            kind,
            form,
            number,
            origin,
            of,
            actor,
            reason,
            run,
            body_at,
            commitment,
            its_hash,
            salt,
            codec,
            data,
        ) in rows:
            if version != expected:
                if version < expected:
                    raise _Broken(version, "is there twice")
                raise _Broken(expected, "is missing")
            if not (
                type(version) is int
                and type(stored_at) is int
                and type(form) is int
                and type(append_id) is bytes
                and (of is None or type(of) is int)
                and (body_at is None or type(body_at) is int)
                and (commitment is None or type(commitment) is bytes)
            ):
                raise _Broken(version, _OTHER_TYPE)
            stream = stream_names.get(number)
            if stream is None:
                raise _Broken(version, f"speaks of stream number {number}, which is not there")
            used.add(number)
            keeps_one = body_at is None and commitment is not None
            previous = row_hash(
                previous,
                pipeline,
                version,
                stored_at,
                append_id,
                kinds[kind],
                form,
                stream,
                origins[origin],
                of,
                actor,
                reason,
                run,
                version if keeps_one else body_at,
                commitment,
            )
            if previous != its_hash:
                raise _Broken(
                    version, "has a hash that does not follow from its columns and the event before"
                )
            if stored_at <= time:
                raise _Broken(version, "was stored no later than the event before")
            time = stored_at
            if not keeps_one:
                if salt is not None:
                    raise _Broken(version, "has a body beside it that belongs to no event")
                if body_at is not None and (
                    commitment is None or kept_at.get(body_at) != commitment
                ):
                    raise _Broken(version, f"points at @{body_at}, which keeps another body")
                expected += 1
                continue
            kept_at[version] = commitment
            body = data if codec == PLAIN else _body_in(self._bodies, codec, data, version)
            if (
                body is None
                or version in erased
                or type(salt) is not bytes
                or type(body) is not bytes
                or len(salt) != _SALT
                or sha256(salt + body).digest() != commitment
            ):
                self._check_body(version, kinds[kind], commitment, salt, codec)
            expected += 1
        self._previous, self._time = previous, time
        return expected

    def _check_body(
        self, version: int, kind: str, commitment: bytes | None, salt: Any, codec: Any
    ) -> None:
        """What is wrong with a body, unless it is only large, or was erased as it should be."""
        if salt is not None and kind != ERASURE and version in self._erased:
            by = self._read(lambda db: self._erased_by(db, version))
            raise _Broken(
                version,
                f"has the body again that @{by} says was erased: "
                "after restoring a backup run `erase --reapply`",
            )
        data = None if salt is None else self._read(lambda db: self._body(db, version))
        if data is None:
            if version not in self._erased:
                # It may have been erased since.
                self._erased = self._read(self._erased_versions)
            if kind == ERASURE or version not in self._erased:
                raise _Broken(version, "has lost its body, and no event says that it was erased")
            return
        body = _body_in(self._bodies, codec, data, version)
        are_bytes = type(salt) is bytes and type(body) is bytes and len(salt) == _SALT
        if not are_bytes or sha256(salt + body).digest() != commitment:
            raise _Broken(version, "has another body than it was stored with")

    def _erased_by(self, db: Connection, version: int) -> int:
        named = _erasures(db, self._part.pipeline_id)
        return max(said_by for said_by, erased in named if erased == version)

    def _body(self, db: Connection, version: int) -> Any:
        this = bodies.c.id == body_id(self._part.pipeline_id, version)
        return _as_bytes(db.scalar(select(raw(bodies.c.data)).where(this)))
