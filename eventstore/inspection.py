"""An export read to its end, and all of it checked, before anything of it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson

from eventstore import codec, payload
from eventstore.chain import GENESIS, commitment, encoded_names, row_hash
from eventstore.compression import packed
from eventstore.errors import Invalid, InvalidHistory
from eventstore.events import KINDS, ORIGINS, BodyErased, Pipeline, StreamDescriptor, descriptor
from eventstore.identity import check_attribution
from eventstore.spool import Batch
from eventstore.tables import KIND, ORIGIN, VERSIONS, WHOLE_PIPELINE
from eventstore.transfer import EVENT, EVENT_WITH_BODY, FORMAT, HEADER, NAMES
from eventstore.version_set import VersionSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventstore.spool import Spool

_LATEST = 253_402_300_800_000_000
"""The end of the year 9999 in microseconds."""

_SHORT = 16
"""Bytes in an append id or a salt."""

_DIGEST = 32
"""Bytes in a hash or a commitment."""

PAGE = 2000
"""Events written at a time."""

_BATCH_SIZE = 2 * 1024 * 1024
"""Bytes of bodies after which a batch ends, however few they are: MariaDB takes 16 MiB by default
in a statement, where they are twice as many hexadecimal digits."""

_AT_HAND = 32_768 * _DIGEST
"""Bytes of commitments that are in memory, at least: most bodies are pointed at by the next."""


class Stream(NamedTuple):
    """A stream of a history, its number there, and its names as they are hashed."""

    descriptor: StreamDescriptor | None
    number: int
    encoded: bytes


_ALL_STREAMS = Stream(None, WHOLE_PIPELINE, encoded_names((None, None)))


@dataclass
class History:
    """A history of the export, as far as it was read."""

    pipeline: Pipeline
    encoded: bytes
    version: int = 0
    hash: bytes = GENESIS
    stored_at: int = 0
    streams: dict[tuple[str | None, str | None], Stream] = field(
        default_factory=lambda: {(None, None): _ALL_STREAMS}
    )
    missing: VersionSet = field(default_factory=VersionSet)  # bodies no event has told of yet
    batches: int = 0


class Inspection:
    """What is known of an export while its lines are read."""

    def __init__(self, spool: Spool, scratch: IO[bytes]) -> None:
        """Keep the rows in `spool`, and in the file `scratch` what it takes to check them."""
        self._spool = spool
        self._commitments = _Commitments(scratch)
        self._digest = sha256()
        self._number = 0
        self._count = 0
        self._fields: tuple[str, ...] = ()
        self._names: tuple[object, ...] = ()
        self._newest: History
        self._histories: dict[Pipeline, History] = {}
        self._batch = Batch([], [])
        self._size = self._longest = 0
        self._who: tuple[object, ...] = ()
        self._what: tuple[object, ...] = ()
        self._append_id: object = self  # which no line has
        self._append = b""

    def read(self, lines: Iterable[bytes]) -> list[History]:
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
        self._put()
        self._check_end(end)
        return list(self._histories.values())

    def _check_end(self, end: dict[str, Any] | None) -> None:
        if end is None:
            raise InvalidHistory("the export was cut: its last line, with the heads, is not there")
        for history in self._histories.values():
            if (missing := history.missing.least()) is not None:
                raise InvalidHistory(
                    f"the body of version {missing} of {history.pipeline} is missing, "
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
        # Compared with the line before first: the parser gives out the same names again.
        if (names := tuple(line)) != self._fields:
            if names not in (EVENT_WITH_BODY, EVENT):
                raise InvalidHistory(f"an event has {', '.join(EVENT)}, in this order")
            self._fields = names
        # All of an export comes by here: it has names of its own, and is not cut into steps.
        values = tuple(line.values())
        (
            version,
            stored_at,
            append_id,
            kind,
            form,
            namespace,
            name,
            origin,
            of,
            actor,
            reason,
            run,
            keeper,
            committed,
            hash_there,
        ) = values[len(NAMES) : len(EVENT)]
        pipeline = values[: len(NAMES)]
        history = self._newest if pipeline == self._names else self._begin(pipeline)
        _check_place(history, version, stored_at, of)
        what, who = (kind, form, origin), (actor, reason, run)
        if what != self._what or who != self._who or type(form) is not int:
            self._check_words(what, who)
        stream = history.streams.get((namespace, name)) or _new_stream(history, namespace, name)
        if append_id != self._append_id:
            self._append_id, self._append = append_id, _read_bytes(append_id, _SHORT)
        committed = self._read_commitment(version, keeper, committed)
        place = version, stored_at, self._append, kind, form
        said: Any = (origin, of, actor, reason, run, keeper, committed)
        its_hash = row_hash(history.hash, history.encoded, *place, stream.encoded, *said)
        if its_hash.hex() != hash_there:
            raise InvalidHistory(
                f"version {version} of {history.pipeline} was changed: "
                "its hash does not follow from the one before and its columns"
            )
        if "body" in line:
            self._take_body(line, history, stream, committed)
        elif keeper == version:
            raise InvalidHistory(f"the body of version {version} is missing")
        history.version, history.stored_at, history.hash = version, stored_at, its_hash
        self._commitments.add(committed)
        body_at = None if keeper == version else keeper
        self._batch.events.append(
            (
                *(version, stored_at, self._append, KIND.numbers[kind], form, stream.number),
                *(ORIGIN.numbers[origin], of, actor, reason, run, body_at, committed, its_hash),
            )
        )
        self._count += 1
        if len(self._batch.events) == PAGE or self._size > _BATCH_SIZE:
            self._put()

    def _begin(self, names: tuple[Any, ...]) -> History:
        self._put()
        pipeline = Pipeline(*names)
        if pipeline in self._histories:
            raise InvalidHistory(f"the history of {pipeline} is there in two parts")
        self._newest = self._histories[pipeline] = History(pipeline, encoded_names(names))
        self._names = names
        self._commitments.clear()
        return self._newest

    def _check_words(self, what: tuple[Any, ...], who: tuple[Any, ...]) -> None:
        """Refuse what no log can hold; what was checked in the line before is not again."""
        check_attribution(*who)
        _check_what(*what)
        self._what, self._who = what, who

    def _read_commitment(self, version: int, keeper: Any, text: Any) -> bytes | None:
        """What an event commits to, which is what the event committed to that keeps the body."""
        if keeper is None and text is None:
            return None
        found = _read_bytes(text, _DIGEST)
        if type(keeper) is not int or not 1 <= keeper <= version:
            raise InvalidHistory(f"version {version} has no body that it could have: {keeper!r}")
        if keeper < version and found != self._commitments.of(keeper):
            raise InvalidHistory(f"version {version} commits to another body than version {keeper}")
        return found

    def _take_body(
        self, line: dict[str, Any], history: History, stream: Stream, committed: bytes | None
    ) -> None:
        version, kind = line["version"], line["kind"]
        if line["body_version"] != version:
            raise InvalidHistory("a body stands at an event that does not keep it")
        if line["salt"] is None and line["body"] is None:
            history.missing.add(version)
            return
        salt, body = _read_bytes(line["salt"], _SHORT), line["body"].encode()
        if commitment(salt, body) != committed:
            raise InvalidHistory("the body was changed: it is not the one that was committed to")
        payload.check_body(kind, stream.descriptor, body)
        if kind == BodyErased.__name__:
            for erased in payload.erased_versions(body):
                history.missing.discard(erased)
        self._batch.bodies.append((version, salt, *packed(body)))
        self._size += len(body)
        self._longest = max(self._longest, len(body))

    def _put(self) -> None:
        """Keep the rows of a batch; all are of the newest history."""
        if self._batch.events:
            self._spool.put(self._batch._replace(longest=self._longest))
            self._newest.batches += 1
            self._batch, self._size, self._longest = Batch([], []), 0, 0


class _Commitments:
    """What each version of a history commits to: the newest at hand, the others in a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.clear()

    def clear(self) -> None:
        """Begin another history."""
        self._newest = bytearray()
        self._in_file = 0

    def add(self, committed: bytes | None) -> None:
        """Remember that of the next version."""
        self._newest += committed or bytes(_DIGEST)
        if len(self._newest) == 2 * _AT_HAND:
            self._file.seek(self._in_file)
            self._in_file += self._file.write(self._newest[:_AT_HAND])
            del self._newest[:_AT_HAND]

    def of(self, version: int) -> bytes:
        """What a version commits to, or zeros."""
        place = (version - 1) * _DIGEST
        if place >= self._in_file:
            place -= self._in_file
            return bytes(self._newest[place : place + _DIGEST])
        self._file.seek(place)
        return self._file.read(_DIGEST)


def _check_header(line: dict[str, Any]) -> None:
    if line.get("airbyte-eventstore") != "histories":
        raise InvalidHistory("this is no export of histories")
    if line != HEADER:
        raise InvalidHistory(
            f"the export has the format {line.get('format')}, and this release reads {FORMAT}: "
            "upgrade airbyte-eventstore"
        )


def _check_place(history: History, version: Any, stored_at: Any, of: Any) -> None:
    if type(version) is not int or version != history.version + 1:
        raise InvalidHistory(
            f"{history.pipeline} goes on with {version!r} after version {history.version}"
        )
    if type(stored_at) is not int or not history.stored_at < stored_at < _LATEST:
        raise InvalidHistory(f"time runs backwards, or is none: {stored_at!r}")
    if of is not None and (type(of) is not int or not 0 < of < VERSIONS):
        raise InvalidHistory(f"no history has a version {of!r}")


def _check_what(kind: object, form: object, origin: object) -> None:
    if kind not in KINDS or form != codec.FORMAT or type(form) is not int:
        raise InvalidHistory(
            f"{kind!r} in format {form!r} was stored by a later release: upgrade airbyte-eventstore"
        )
    if origin is not None and origin not in ORIGINS:
        raise InvalidHistory(f"origin {origin!r} is none of {', '.join(ORIGINS)}")


def _new_stream(history: History, namespace: Any, name: Any) -> Stream:
    stream = descriptor(StreamDescriptor(name, namespace))
    encoded = encoded_names((namespace, name))
    found = history.streams[namespace, name] = Stream(stream, len(history.streams), encoded)
    return found


def _read_bytes(text: str, size: int) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != size or found.hex() != text:  # upper case and spaces are read, too
        raise InvalidHistory(
            f"{size} bytes were expected, in lower-case hexadecimal digits: {text[:80]!r}"
        )
    return found
