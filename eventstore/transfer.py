"""Whole histories out of one database and into another, unchanged: the log's second way in.

An export is JSON lines in UTF-8. The first names the form and its number:

    {"airbyte-eventstore":"histories","format":1}

Then comes each event, one history after the other, each from version 1 on, with the pipeline's
`source`, `destination`, `table_prefix` and `connection`, its `version`, `stored_at` (microseconds
since 1970, UTC), `append_id`, `kind`, `format`, `namespace`, `stream`, `origin`, `of`, `actor`,
`reason`, `run`, `body_version` (the event of this history that keeps the body), `commitment` and
`hash`: all that `chain` hashes. Bytes are hexadecimal. The event that keeps a body has its `salt`
and the `body`, a text whose UTF-8 is the exact bytes, besides; both are null where it was erased.

The last line tells how many events there are, the `version` and `hash` of each head, and the
SHA-256 of all lines before it:

    {"events":2,"heads":[{"source":"a",...,"version":2,"hash":"5f.."}],"sha256":"c0.."}
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass, field
from hashlib import sha256
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import and_, bindparam, func, select

from eventstore import codec
from eventstore.append import next_id, pipeline_id
from eventstore.chain import GENESIS, commitment, event_hash
from eventstore.errors import HistoryDiffers, Invalid, InvalidHistory
from eventstore.events import KINDS, ORIGINS, Pipeline, StreamDescriptor
from eventstore.identity import check_attribution
from eventstore.rows import hashed_columns, pipeline_row
from eventstore.statements import Batches
from eventstore.tables import WHOLE_PIPELINE, bodies, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Row, Select

    from eventstore.store import EventStore

FORMAT = 1
"""The shape of an export; a later shape gets the next number and a reader here."""

_HEADER = {"airbyte-eventstore": "histories", "format": FORMAT}

_NAMES = ("source", "destination", "table_prefix", "connection")
_EVENT = frozenset(
    (
        *_NAMES,
        *("version", "stored_at", "append_id", "kind", "format", "namespace", "stream", "origin"),
        *("of", "actor", "reason", "run", "body_version", "commitment", "hash"),
    )
)
_EVENT_WITH_BODY = _EVENT | {"salt", "body"}

_COLUMNS = {
    "of" if column is events.c.of_version else str(column.name): column
    for column in events.columns
    if column.name != "pipeline_id"
}
"""The columns of an event by their names in an export, but for its stream."""

_PAGE = 2000
"""Events read or written at a time."""

_LATEST = 253_402_300_800_000_000
"""The end of the year 9999 in microseconds."""

_DIGEST = 32
"""Bytes in a hash or a commitment."""


@dataclass(frozen=True)
class Imported:
    """What an import did: the heads of the histories it wrote, and of those it found unchanged."""

    written: Mapping[Pipeline, int]
    unchanged: Mapping[Pipeline, int]


# Out


def export_histories(
    store: EventStore, pipelines: Iterable[Pipeline] | None = None
) -> Iterator[bytes]:
    """Yield the lines of an export, of all pipelines or of these, up to their heads of now.

    It is read in pages: what is appended meanwhile is left out, whatever the size of the log.
    """
    there = store.heads()
    chosen = there if pipelines is None else {each: there.get(each, 0) for each in pipelines}
    digest, count, heads = sha256(), 0, []
    yield _written(_HEADER, digest)
    for pipeline, head in chosen.items():
        last: dict[str, Any] = {}
        for last in _exported(store, pipeline, head):
            count += 1
            yield _written(last, digest)
        if last:
            heads.append({key: last[key] for key in (*_NAMES, "version", "hash")})
    end = {"events": count, "heads": heads, "sha256": digest.hexdigest()}
    yield orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE)


def _written(line: dict[str, Any], digest: Any) -> bytes:
    text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    digest.update(text)
    return text


def _page() -> Select[Any]:
    """Events of a history, each with the body that it keeps itself."""
    own = and_(bodies.c.pipeline_id == events.c.pipeline_id, bodies.c.version == events.c.version)
    return (
        select(*_COLUMNS.values(), bodies.c.salt, bodies.c.data)
        .outerjoin_from(events, bodies, own)
        .where(events.c.pipeline_id == bindparam("pipeline"))
        .where(events.c.version > bindparam("after"))
        .where(events.c.version <= bindparam("up_to"))
        .order_by(events.c.version)
        .limit(_PAGE)
    )


def _exported(store: EventStore, pipeline: Pipeline, head: int) -> Iterator[dict[str, Any]]:
    names = {name: getattr(pipeline, name) for name in _NAMES}
    page, numbered = _page(), _numbered_streams(store, pipeline)
    its_id = store.database.read(lambda db: pipeline_id(db, pipeline))
    after = 0
    while after < head:
        where = {"pipeline": its_id, "after": after, "up_to": head}
        rows = store.database.read(lambda db, where=where: db.execute(page, where).all())  # type: ignore[misc]
        yield from (_line(row, names, numbered) for row in rows)
        after = rows[-1].version


def _line(
    row: Row[Any], names: Mapping[str, Any], numbered: Mapping[int, tuple[str | None, str | None]]
) -> dict[str, Any]:
    line = {**names, **dict(zip(_COLUMNS, row, strict=False))}
    line["namespace"], line["stream"] = numbered[line.pop("stream_number")]
    for key in ("append_id", "commitment", "hash"):
        line[key] = _hexadecimal(line[key])
    if line["body_version"] == line["version"]:
        line["salt"] = _hexadecimal(row.salt)
        line["body"] = None if row.data is None else bytes(row.data).decode()
    return line


def _hexadecimal(value: bytes | None) -> str | None:
    return None if value is None else bytes(value).hex()


def _numbered_streams(
    store: EventStore, pipeline: Pipeline
) -> dict[int, tuple[str | None, str | None]]:
    query = (
        select(streams.c.number, streams.c.namespace, streams.c.name)
        .join(pipelines, pipelines.c.id == streams.c.pipeline_id)
        .where(pipelines.c.key == pipeline.key)
    )
    rows = store.database.read(lambda db: db.execute(query).all())
    return {number: (namespace, name) for number, namespace, name in rows}


# In


def import_histories(store: EventStore, lines: Iterable[bytes]) -> Imported:
    """Write the histories of an export into a database that has none of these pipelines yet.

    The whole export is checked before the first row is written: versions without gaps, every
    hash, every commitment, and that the end is there. Versions, times, actors and hashes stay as
    they are; all is written in one transaction, with the tables derived from it. Histories that
    are there already, to the same head or further on, stay unchanged. Raises InvalidHistory,
    HistoryDiffers or StoreUnavailable; then nothing was stored.
    """
    with TemporaryFile() as spool:
        histories = _Check(spool).read(lines)
        return store.database.transact(lambda db: _import(db, store, histories, spool))


@dataclass
class _History:
    """A history of the export, as far as it was read."""

    pipeline: Pipeline
    version: int = 0
    hash: bytes = GENESIS
    stored_at: int = 0
    numbers: dict[StreamDescriptor | None, int] = field(
        default_factory=lambda: {None: WHOLE_PIPELINE}
    )
    streams: dict[tuple[object, object], StreamDescriptor] = field(default_factory=dict)
    commitments: bytearray = field(default_factory=bytearray)  # one for each version, or zeros
    batches: int = 0


class _Batch(NamedTuple):
    """Rows of events and of bodies, without the id that the pipeline will have."""

    events: list[tuple[Any, ...]]
    bodies: list[tuple[Any, ...]]


class _Check:
    """Reads an export to its end before anything is written, and keeps the rows in a file.

    So the rows that are written are those that were checked, and need no parsing again.
    """

    def __init__(self, spool: IO[bytes]) -> None:
        """Keep the rows in `spool`."""
        self._spool = spool
        self._digest = sha256()
        self._number = 0
        self._count = 0
        self._names: list[object] = []
        self._histories: dict[Pipeline, _History] = {}
        self._batch = _Batch([], [])
        self._said: tuple[object, ...] = ()

    def read(self, lines: Iterable[bytes]) -> list[_History]:
        """Check all lines; raises InvalidHistory."""
        end: dict[str, Any] | None = None
        try:
            for self._number, line in enumerate(lines, 1):
                if end is not None:
                    raise InvalidHistory("there is more after the end of the export")
                parsed = orjson.loads(line)
                if not isinstance(parsed, dict):
                    raise InvalidHistory("an export has an object in each line")
                if self._number == 1:
                    _check_header(parsed)
                elif "heads" in parsed:
                    end = parsed
                    continue
                else:
                    self._take(parsed)
                self._digest.update(line)
        except orjson.JSONDecodeError as error:
            raise InvalidHistory(f"line {self._number} is not JSON: {error}") from error
        except (Invalid, ValueError, TypeError) as error:
            raise InvalidHistory(f"line {self._number}: {error}") from error
        self._write()
        self._check_end(end)
        return list(self._histories.values())

    def _check_end(self, end: dict[str, Any] | None) -> None:
        if end is None:
            raise InvalidHistory("the export was cut: its last line, with the heads, is not there")
        heads = [
            {
                **{name: getattr(history.pipeline, name) for name in _NAMES},
                "version": history.version,
                "hash": history.hash.hex(),
            }
            for history in self._histories.values()
        ]
        found = {"events": self._count, "heads": heads, "sha256": self._digest.hexdigest()}
        if end != found:
            raise InvalidHistory("the export was changed: its last line does not agree with it")

    def _take(self, line: dict[str, Any]) -> None:
        if (keys := line.keys()) not in (_EVENT, _EVENT_WITH_BODY):
            odd = ", ".join(sorted(keys ^ _EVENT))
            raise InvalidHistory(f"an event without, or with other than, its columns: {odd}")
        history = self._history(line)
        row = _row(line, history)
        stream = self._stream(line, history)
        self._check_said(line)
        its_hash = event_hash(history.hash, hashed_columns(row, history.pipeline, stream))
        if its_hash.hex() != line["hash"]:
            raise InvalidHistory(
                f"version {row['version']} of {history.pipeline} was changed: "
                "its hash does not follow from the one before and its columns"
            )
        if keys == _EVENT_WITH_BODY:
            self._take_body(line, row, stream)
        history.version, history.stored_at, history.hash = (
            row["version"],
            row["stored_at"],
            its_hash,
        )
        history.commitments += row["commitment"] or bytes(_DIGEST)
        self._batch.events.append(
            (
                *(row["version"], row["stored_at"], row["append_id"], row["kind"], row["format"]),
                *(history.numbers[stream], row["origin"], row["of_version"], row["actor"]),
                *(row["reason"], row["run"], row["body_version"], row["commitment"], its_hash),
            )
        )
        self._count += 1
        if len(self._batch.events) == _PAGE:
            self._write()

    def _history(self, line: dict[str, Any]) -> _History:
        names = [line["source"], line["destination"], line["table_prefix"], line["connection"]]
        if names != self._names:
            self._write()
            pipeline = Pipeline(*names)
            if pipeline in self._histories:
                raise InvalidHistory(f"the history of {pipeline} is there in two parts")
            for before in self._histories.values():
                before.commitments.clear()
            self._histories[pipeline] = _History(pipeline)
            self._names = names
        return next(reversed(self._histories.values()))

    def _stream(self, line: dict[str, Any], history: _History) -> StreamDescriptor | None:
        names = line["stream"], line["namespace"]
        if names == (None, None):
            return None
        known = history.streams.get(names)
        if known is None:
            known = history.streams[names] = codec.descriptor(StreamDescriptor(*names))
            history.numbers[known] = len(history.numbers)
        return known

    def _check_said(self, line: dict[str, Any]) -> None:
        said = line["actor"], line["reason"], line["run"]
        if said != self._said:
            check_attribution(*said)
            self._said = said

    def _take_body(
        self, line: dict[str, Any], row: dict[str, Any], stream: StreamDescriptor | None
    ) -> None:
        if row["body_version"] != row["version"]:
            raise InvalidHistory("a body stands at an event that does not keep it")
        salt, text = line["salt"], line["body"]
        if salt is None and text is None:  # erased
            return
        body = text.encode()
        if commitment(bytes.fromhex(salt), body) != row["commitment"]:
            raise InvalidHistory("the body was changed: it is not the one that was committed to")
        codec.check_body(row["kind"], stream, body)
        self._batch.bodies.append((row["version"], bytes.fromhex(salt), "plain", body))

    def _write(self) -> None:
        """Keep the rows of a batch; all are of the newest history."""
        if self._batch.events:
            marshal.dump(tuple(self._batch), self._spool)
            next(reversed(self._histories.values())).batches += 1
            self._batch = _Batch([], [])


def _check_header(line: dict[str, Any]) -> None:
    if line.get("airbyte-eventstore") != "histories":
        raise InvalidHistory("this is no export of histories")
    if line != _HEADER:
        raise InvalidHistory(
            f"the export has the format {line.get('format')}, and this release reads {FORMAT}: "
            "upgrade airbyte-eventstore"
        )


def _row(line: dict[str, Any], history: _History) -> dict[str, Any]:
    """The row of an event, as it is hashed; raises InvalidHistory for what no log can hold."""
    version, stored_at, kind = line["version"], line["stored_at"], line["kind"]
    if type(version) is not int or version != history.version + 1:
        raise InvalidHistory(
            f"version {history.version + 1} of {history.pipeline} is missing; "
            f"after {history.version} comes {version!r}"
        )
    if type(stored_at) is not int or not history.stored_at < stored_at < _LATEST:
        raise InvalidHistory(f"time runs backwards, or is none: {stored_at!r}")
    if kind not in KINDS or line["format"] != codec.FORMAT or type(line["format"]) is not int:
        raise InvalidHistory(
            f"{kind!r} in format {line['format']!r} was stored by a later release: "
            "upgrade airbyte-eventstore"
        )
    if line["origin"] is not None and line["origin"] not in ORIGINS:
        raise InvalidHistory(f"origin {line['origin']!r} is none of {', '.join(ORIGINS)}")
    codec.check_version(line["of"])
    its_commitment = _check_commitment(line, version, history)
    append_id = bytes.fromhex(line["append_id"])
    if len(append_id) != _APPEND_ID:
        raise InvalidHistory("the append id is no UUID")
    return {
        "version": version,
        "stored_at": stored_at,
        "append_id": append_id,
        "kind": kind,
        "format": codec.FORMAT,
        "origin": line["origin"],
        "of_version": line["of"],
        "actor": line["actor"],
        "reason": line["reason"],
        "run": line["run"],
        "body_version": line["body_version"],
        "commitment": its_commitment,
    }


_APPEND_ID = 16


def _check_commitment(line: dict[str, Any], version: int, history: _History) -> bytes | None:
    """What an event commits to, which is what the event committed to that keeps the body."""
    keeper, text = line["body_version"], line["commitment"]
    if keeper is None and text is None:
        return None
    found = bytes.fromhex(text)
    if type(keeper) is not int or not 1 <= keeper <= version or len(found) != _DIGEST:
        raise InvalidHistory(f"version {version} has no body that it could have: {keeper!r}")
    if keeper == version:
        if "body" not in line:
            raise InvalidHistory(f"the body of version {version} is missing")
    elif found != history.commitments[(keeper - 1) * _DIGEST : keeper * _DIGEST]:
        raise InvalidHistory(f"version {version} commits to another body than version {keeper}")
    return found


_insert_events = Batches(events)
_insert_bodies = Batches(bodies)


def _import(
    db: Connection, store: EventStore, histories: Sequence[_History], spool: IO[bytes]
) -> Imported:
    store.require_inline()
    spool.seek(0)
    written: dict[Pipeline, int] = {}
    unchanged: dict[Pipeline, int] = {}
    first = next_id(db)
    for history in histories:
        batches = (marshal.load(spool) for _ in range(history.batches))  # noqa: S302 - we wrote it
        if _is_there(db, history):
            unchanged[history.pipeline] = history.version
            for _ in batches:
                pass
            continue
        its_id = first + len(written)
        # As in an append, the rows of events go first: their key decides a race.
        for new_events, new_bodies in batches:
            _insert_events.run(db, [(its_id, *row) for row in new_events])
            _insert_bodies.run(db, [(its_id, *row) for row in new_bodies])
        db.execute(pipelines.insert(), pipeline_row(its_id, history.pipeline))
        db.execute(streams.insert(), _stream_rows(its_id, history))
        written[history.pipeline] = history.version
    for pipeline in written:
        store.apply_newest(db, pipeline)
    return Imported(written, unchanged)


def _is_there(db: Connection, history: _History) -> bool:
    """Whether the database has this very history; raises HistoryDiffers if it has another."""
    its_id = pipeline_id(db, history.pipeline)
    if its_id is None:
        return False
    mine = events.c.pipeline_id == its_id
    found = db.scalar(select(events.c.hash).where(mine, events.c.version == history.version))
    if found is not None and bytes(found) == history.hash:
        return True
    head = db.scalar(select(func.max(events.c.version)).where(mine))
    raise HistoryDiffers(history.pipeline, here=head, there=history.version)


def _stream_rows(its_id: int, history: _History) -> list[dict[str, Any]]:
    return [
        {
            "pipeline_id": its_id,
            "number": number,
            "namespace": stream and stream.namespace,
            "name": stream and stream.name,
        }
        for stream, number in history.numbers.items()
    ]
