"""Pipelines, the events that happen to them, and events as stored: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from eventstore.errors import ErasedBody, InvalidEvent, InvalidMoment, InvalidPipeline

if TYPE_CHECKING:
    from uuid import UUID

NAME_LIMIT = 255
"""Characters in any name; one limit for all databases, set by the key lengths of the smallest."""

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes in a body, unless the store is opened with another limit."""

# The log keeps origins and kinds of events by their places: a new one goes to the end, and with it
# a step into schema.LOG, or an earlier release takes the log for altered.
Origin = Literal["source", "adopted", "foreign", "restored", "copied", "edited", "imported"]
ORIGINS: tuple[str, ...] = get_args(Origin)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)


def to_datetime(microseconds: int) -> datetime:
    """Turn microseconds since 1970 into an aware datetime, exactly."""
    return _EPOCH + timedelta(0, 0, microseconds)  # by its name it takes twice as long


def to_microseconds(moment: datetime) -> int:
    """Turn an aware datetime into microseconds since 1970, exactly; raises InvalidMoment."""
    if moment.tzinfo is None:
        raise InvalidMoment(f"{moment} has no time zone: say which instant is meant")
    return (moment - _EPOCH) // MICROSECOND


def name_problem(name: object, *, limit: int = NAME_LIMIT) -> str | None:
    """Say why a name cannot be stored in every database, or None if it can."""
    if not isinstance(name, str):
        return f"must be text, not {type(name).__name__}"
    if len(name) > limit:
        return f"has {len(name)} characters, at most {limit} can be stored"
    if "\x00" in name:
        return "holds a NUL character, which PostgreSQL cannot store"
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
        return "holds a lone surrogate, which is not valid Unicode"
    return None


@lru_cache(maxsize=4096)  # to make the key of a row takes as long as to insert it
def names_key(*names: str | None) -> str:
    """Digest names into 32 hexadecimal digits; unlike joined text, no two lists collide."""
    digest = sha256()
    for name in names:
        text = b"" if name is None else name.encode()
        digest.update(b"-" if name is None else b"%d:" % len(text))
        digest.update(text)
    return digest.hexdigest()[:32]


class StreamDescriptor(NamedTuple):
    """Airbyte's identity of a stream: a name and a namespace; null and "" are two namespaces.

    A tuple, whose hash takes a third of a dataclass's time: each event is looked up by it.
    """

    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        """Show `namespace.name`, or the name alone."""
        return self.name if self.namespace is None else f"{self.namespace}.{self.name}"


def descriptor(stream: Any) -> StreamDescriptor:
    """The names of a stream; raises InvalidEvent if they cannot be stored."""
    name, namespace = getattr(stream, "name", None), getattr(stream, "namespace", None)
    if not isinstance(name, str):
        raise InvalidEvent(f"the stream's name {name_problem(name)}")
    if namespace is not None and not isinstance(namespace, str):
        raise InvalidEvent(f"the namespace of stream {name} {name_problem(namespace)}")
    if type(name) is not str or type(namespace) not in {str, type(None)}:  # as of an Enum
        name, namespace = "".join(name), namespace and "".join(namespace)
    return named(name, namespace)


@lru_cache(maxsize=4096)
def named(name: str, namespace: str | None) -> StreamDescriptor:
    """The stream of these names; raises InvalidEvent if they cannot be stored."""
    if problem := name_problem(name):
        raise InvalidEvent(f"the stream's name {problem}")
    if namespace is not None and (problem := name_problem(namespace)):
        raise InvalidEvent(f"the namespace of stream {name} {problem}")
    return known_as(name, namespace)


@lru_cache(maxsize=4096)  # as one object it is found in a dict without being compared
def known_as(name: str, namespace: str | None) -> StreamDescriptor:
    """The stream of these names, which were checked before."""
    return StreamDescriptor(name, namespace)


@dataclass(frozen=True)
class Pipeline:
    """One source feeding one place; the owner of one history.

    `destination=None` is the PyAirbyte cache whose tables start with `table_prefix`; with a
    destination the prefix is "". `connection` tells two configurations of one source apart.
    Raises InvalidPipeline for an empty source, a destination with a prefix, or a name of more
    than 255 characters.
    """

    source: str
    destination: str | None = None
    table_prefix: str = ""
    connection: str = ""

    def __post_init__(self) -> None:
        """Refuse names that no database here could tell apart."""
        names = {
            "source": self.source,
            "destination": "" if self.destination is None else self.destination,
            "table_prefix": self.table_prefix,
            "connection": self.connection,
        }
        for field, name in names.items():
            if problem := name_problem(name):
                raise InvalidPipeline(f"the pipeline's {field} {problem}")
        if not self.source:
            raise InvalidPipeline("the pipeline's source is empty; name the connector")
        if self.destination == "":
            raise InvalidPipeline("the pipeline's destination is empty; use None for a cache")
        if self.destination is not None and self.table_prefix:
            raise InvalidPipeline(
                f"a pipeline has a destination ({self.destination}) or a table prefix "
                f"({self.table_prefix}), not both: only a cache prefixes its tables"
            )

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits, the same in every database."""
        return names_key(self.source, self.destination, self.table_prefix, self.connection)

    def __str__(self) -> str:
        """Show as `source -> destination`, with prefix and connection where there are any."""
        place = self.destination or (
            f"cache {self.table_prefix}*" if self.table_prefix else "cache"
        )
        return f"{self.source} -> {place}" + (f" [{self.connection}]" if self.connection else "")


@dataclass(frozen=True)
class StateSaved:
    """A state that is confirmed: the next run starts from it.

    `message` is text or bytes (kept byte for byte), an AirbyteStateMessage, the CDK's dataclass
    or a dict. `origin` says where it came from, `of` which version it restores or copies.
    """

    message: Any
    origin: Origin = "source"
    of: int | None = None


@dataclass(frozen=True)
class StateEmitted:
    """A state the source put out and nobody confirmed yet; no view shows it."""

    message: Any


@dataclass(frozen=True)
class StateCleared:
    """The state of one stream, or without a stream of the whole pipeline, is forgotten.

    A GLOBAL or LEGACY state is one message: clearing a single stream leaves it as it is.
    """

    stream: Any = None


@dataclass(frozen=True)
class StreamDefined:
    """A configured stream whose definition differs from the last."""

    stream: Any
    origin: Origin = "source"


@dataclass(frozen=True)
class CatalogRegistered:
    """A registration: the streams of the catalog, with the fields that change each time.

    `streams` is a list of dicts: `name`, `namespace` where there is one, `generation_id`,
    `minimum_generation_id`, `sync_id`, and `registered_at` (microseconds) for a stream that an
    earlier registration named and this one did not.
    """

    streams: Any
    origin: Origin = "source"


@dataclass(frozen=True)
class WriterStarted:
    """From here on only the writer that appended this may append as an exclusive one."""


@dataclass(frozen=True)
class BodyErased:
    """Bodies were removed for good; who did it and why is told by the event that says so.

    `versions` are those of the events that kept the bodies. Only `eventstore.erasure` appends it.
    """

    versions: Any


Event: TypeAlias = (
    StateSaved
    | StateEmitted
    | StateCleared
    | StreamDefined
    | CatalogRegistered
    | WriterStarted
    | BodyErased
)
# In this order for good: see Origin.
KINDS: tuple[str, ...] = tuple(event.__name__ for event in get_args(Event))


class Said(NamedTuple):
    """What an event says, as it was stored, without who stored it when: all that a state takes."""

    version: int
    kind: str
    stream: StreamDescriptor | None
    body: bytes
    body_version: int | None
    erased: bool


@dataclass(frozen=True)
class StoredEvent:
    """An event with its place in a history, its time and its hash.

    `body_version` is that of the event which keeps the body, None where there never was one.
    `erased` says that the body is not there any more; `body` is empty then.
    """

    pipeline: Pipeline
    version: int
    id: UUID
    stored_at: datetime
    kind: str
    format: int
    stream: StreamDescriptor | None
    origin: Origin | None
    of: int | None
    body: bytes
    actor: str
    reason: str | None
    run: str
    hash: bytes
    body_version: int | None = None
    erased: bool = False

    @classmethod
    def made_of(cls, fields: dict[str, Any]) -> StoredEvent:
        """Make one of all fields at once; to set each takes a frozen dataclass thrice the time."""
        stored = object.__new__(cls)
        stored.__dict__.update(fields)
        return stored

    @cached_property
    def event(self) -> Event:
        """The event as it was appended, its body as Airbyte's models; raises ErasedBody."""
        if self.erased:
            raise ErasedBody(
                f"the body of @{self.version} of {self.pipeline} was erased; the BodyErased events "
                "of the history say when, by whom and why"
            )
        from eventstore.codec import decode  # noqa: PLC0415 - imports this module

        return decode(self)
