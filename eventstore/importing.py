"""Whole histories taken in: the log's second way in; `transfer` tells what an export is."""

from __future__ import annotations

import marshal
from dataclasses import dataclass, field
from hashlib import sha256
from io import SEEK_CUR
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import func, select

from eventstore import codec
from eventstore.append import next_id, pipeline_id
from eventstore.chain import GENESIS, commitment, event_hash
from eventstore.errors import HistoryDiffers, Invalid, InvalidHistory
from eventstore.events import KINDS, ORIGINS, BodyErased, Pipeline, StreamDescriptor
from eventstore.identity import check_attribution
from eventstore.rows import pipeline_row
from eventstore.statements import Batches
from eventstore.tables import WHOLE_PIPELINE, bodies, events, pipelines, streams
from eventstore.transfer import EVENT, EVENT_WITH_BODY, FORMAT, HEADER, NAMES, PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from eventstore.store import EventStore

_PLACES = {key: place for place, key in enumerate(EVENT)}

_LATEST = 253_402_300_800_000_000
"""The end of the year 9999 in microseconds."""

_SHORT = 16
"""Bytes in an append id or a salt."""

_DIGEST = 32
"""Bytes in a hash or a commitment."""


@dataclass(frozen=True)
class Imported:
    """What an import did: the heads of the histories it wrote, and of those it found unchanged."""

    written: Mapping[Pipeline, int]
    unchanged: Mapping[Pipeline, int]


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
    missing: set[int] = field(default_factory=set)  # bodies that no event has told of yet
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
        self._what: tuple[object, ...] = ()

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
        except Invalid as error:
            raise InvalidHistory(f"line {self._number}: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            problem = f"line {self._number}: a value that no event has there: {error}"
            raise InvalidHistory(problem) from error
        self._write()
        self._check_end(end)
        return list(self._histories.values())

    def _check_end(self, end: dict[str, Any] | None) -> None:
        if end is None:
            raise InvalidHistory("the export was cut: its last line, with the heads, is not there")
        for history in self._histories.values():
            if history.missing:
                raise InvalidHistory(
                    f"the body of version {min(history.missing)} of {history.pipeline} is missing, "
                    "and no event says that it was erased"
                )
        heads = [
            {
                **{name: getattr(history.pipeline, name) for name in NAMES},
                "version": history.version,
                "hash": history.hash.hex(),
            }
            for history in self._histories.values()
        ]
        found = {"events": self._count, "heads": heads, "sha256": self._digest.hexdigest()}
        if end != found:
            raise InvalidHistory("the export was changed: its last line does not agree with it")

    def _take(self, line: dict[str, Any]) -> None:
        keys = tuple(line)
        if keys not in (EVENT_WITH_BODY, EVENT):
            raise InvalidHistory(f"an event has {', '.join(EVENT)}, in this order")
        values = list(line.values())
        history = self._history(values[: _PLACES["version"]])
        self._check_values(line, history)
        stream = self._stream(line["stream"], line["namespace"], history)
        values[_PLACES["append_id"]] = _short_bytes(line["append_id"])
        values[_PLACES["commitment"]] = its_commitment = _check_commitment(line, history)
        its_hash = event_hash(history.hash, values[: _PLACES["hash"]])
        if its_hash.hex() != line["hash"]:
            raise InvalidHistory(
                f"version {line['version']} of {history.pipeline} was changed: "
                "its hash does not follow from the one before and its columns"
            )
        if keys == EVENT_WITH_BODY:
            self._take_body(line, its_commitment, stream)
        history.version, history.stored_at = line["version"], line["stored_at"]
        history.hash = its_hash
        history.commitments += its_commitment or bytes(_DIGEST)
        # In a row the number of the stream stands in the place of its names.
        values[_PLACES["namespace"] : _PLACES["origin"]] = [history.numbers[stream]]
        self._batch.events.append((*values[_PLACES["version"] : _PLACES["hash"] - 1], its_hash))
        self._count += 1
        if len(self._batch.events) == PAGE:
            self._write()

    def _history(self, names: list[Any]) -> _History:
        if names != self._names:
            self._write()
            pipeline = Pipeline(*names)
            if pipeline in self._histories:
                raise InvalidHistory(f"the history of {pipeline} is there in two parts")
            for before in self._histories.values():
                before.commitments.clear()
            self._histories[pipeline] = _History(pipeline)
            self._names = names
        return self._newest

    @property
    def _newest(self) -> _History:
        """The history that is being read."""
        return next(reversed(self._histories.values()))

    def _stream(self, name: Any, namespace: Any, history: _History) -> StreamDescriptor | None:
        names = name, namespace
        if names == (None, None):
            return None
        known = history.streams.get(names)
        if known is None:
            known = history.streams[names] = codec.descriptor(StreamDescriptor(*names))
            history.numbers[known] = len(history.numbers)
        return known

    def _check_values(self, line: dict[str, Any], history: _History) -> None:
        """Refuse what no log can hold; what was checked in the line before is not again."""
        version, stored_at = line["version"], line["stored_at"]
        if type(version) is not int or version != history.version + 1:
            raise InvalidHistory(
                f"{history.pipeline} goes on with {version!r} after version {history.version}"
            )
        if type(stored_at) is not int or not history.stored_at < stored_at < _LATEST:
            raise InvalidHistory(f"time runs backwards, or is none: {stored_at!r}")
        codec.check_version(line["of"])
        if (line["of"] or 0) >> 63:
            raise InvalidHistory(f"no history has a version {line['of']}")
        said = line["actor"], line["reason"], line["run"]
        if said != self._said:
            check_attribution(*said)
            self._said = said
        what = line["kind"], line["format"], line["origin"]
        if what != self._what or type(line["format"]) is not int:
            _check_what(*what)
            self._what = what

    def _take_body(
        self, line: dict[str, Any], committed: bytes | None, stream: StreamDescriptor | None
    ) -> None:
        if line["body_version"] != line["version"]:
            raise InvalidHistory("a body stands at an event that does not keep it")
        if line["salt"] is None and line["body"] is None:
            self._newest.missing.add(line["version"])
            return
        salt, body = _short_bytes(line["salt"]), line["body"].encode()
        if commitment(salt, body) != committed:
            raise InvalidHistory("the body was changed: it is not the one that was committed to")
        codec.check_body(line["kind"], stream, body)
        if line["kind"] == BodyErased.__name__:
            self._newest.missing.difference_update(codec.erased_versions(body))
        self._batch.bodies.append((line["version"], salt, "plain", body))

    def _write(self) -> None:
        """Keep the rows of a batch; all are of the newest history."""
        if self._batch.events:
            rows = marshal.dumps(tuple(self._batch))
            self._spool.write(len(rows).to_bytes(8, "big") + rows)
            self._newest.batches += 1
            self._batch = _Batch([], [])


def _check_header(line: dict[str, Any]) -> None:
    if line.get("airbyte-eventstore") != "histories":
        raise InvalidHistory("this is no export of histories")
    if line != HEADER:
        raise InvalidHistory(
            f"the export has the format {line.get('format')}, and this release reads {FORMAT}: "
            "upgrade airbyte-eventstore"
        )


def _short_bytes(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != _SHORT:
        raise InvalidHistory(f"an append id and a salt have {_SHORT} bytes, not {len(found)}")
    return found


def _check_what(kind: object, of_format: object, origin: object) -> None:
    if kind not in KINDS or of_format != codec.FORMAT or type(of_format) is not int:
        raise InvalidHistory(
            f"{kind!r} in format {of_format!r} was stored by a later release: "
            "upgrade airbyte-eventstore"
        )
    if origin is not None and origin not in ORIGINS:
        raise InvalidHistory(f"origin {origin!r} is none of {', '.join(ORIGINS)}")


def _check_commitment(line: dict[str, Any], history: _History) -> bytes | None:
    """What an event commits to, which is what the event committed to that keeps the body."""
    version, keeper, text = line["version"], line["body_version"], line["commitment"]
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
        if _is_there(db, history):
            unchanged[history.pipeline] = history.version
            for _ in range(history.batches):
                spool.seek(_size(spool), SEEK_CUR)
            continue
        its_id = first + len(written)
        # As in an append, the rows of events go first: their key decides a race.
        for _ in range(history.batches):
            rows = spool.read(_size(spool))
            new_events, new_bodies = marshal.loads(rows)  # noqa: S302 - we wrote it
            _insert_events.run(db, [(its_id, *row) for row in new_events])
            _insert_bodies.run(db, [(its_id, *row) for row in new_bodies])
        db.execute(pipelines.insert(), pipeline_row(its_id, history.pipeline))
        db.execute(streams.insert(), _stream_rows(its_id, history))
        written[history.pipeline] = history.version
    for pipeline in written:
        store.apply_newest(db, pipeline)
    return Imported(written, unchanged)


def _size(spool: IO[bytes]) -> int:
    return int.from_bytes(spool.read(8), "big")


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
