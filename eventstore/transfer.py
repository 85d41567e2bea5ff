"""Whole histories taken out, as they are; `importing` takes them into another database.

An export is JSON lines in UTF-8. The first names the form and its number:

    {"airbyte-eventstore":"histories","format":1}

Then comes each event, one history after the other, each from version 1 on, in this order with its
pipeline's
`source`, `destination`, `table_prefix` and `connection`, its `version`, `stored_at` (microseconds
since 1970, UTC), `append_id`, `kind`, `format`, `namespace`, `stream`, `origin`, `of`, `actor`,
`reason`, `run`, `body_version` (the event of this history that keeps the body), `commitment` and
`hash`: all that `chain` hashes. Bytes are lower-case hexadecimal digits. The event that keeps a
body has its `salt` and the `body`, a text whose UTF-8 is the exact bytes, besides; both are null
where it was erased.

The last line tells how many events there are, the `version` and `hash` of each head, and the
SHA-256 of all lines before it:

    {"events":2,"heads":[{"source":"a",...,"version":2,"hash":"5f.."}],"sha256":"c0.."}
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import bindparam, select

from eventstore.dialects import dialect_of
from eventstore.errors import StoreUnavailable
from eventstore.reading import FIRST_PAGE, newest_of_kind, next_size
from eventstore.rows import find_pipeline_id
from eventstore.sharing import reader
from eventstore.statements import limit_of
from eventstore.tables import bodies, body_id, events, keeper_of, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Connection, FromClause, Row, Select

    from eventstore.dialects import Dialect
    from eventstore.events import Pipeline
    from eventstore.store import EventStore

FORMAT = 1
"""The shape of an export; a later shape gets the next number and a reader here."""

HEADER = {"airbyte-eventstore": "histories", "format": FORMAT}

NAMES = ("source", "destination", "table_prefix", "connection")
EVENT = (
    *NAMES,
    *("version", "stored_at", "append_id", "kind", "format", "namespace", "stream", "origin"),
    *("of", "actor", "reason", "run", "body_version", "commitment", "hash"),
)
"""The keys of an event, in the order in which their values are hashed."""

EVENT_WITH_BODY = (*EVENT, "salt", "body")

_COLUMNS = {
    "of" if name == "of_version" else name: name
    for name in map(str, events.columns.keys())
    if name not in {"pipeline_id", "body_at"}
}
"""The columns of an event by their names in an export; `body_version` comes after them."""


def export_histories(
    store: EventStore, pipelines: Iterable[Pipeline] | None = None
) -> Iterator[bytes]:
    """Yield the lines of an export, of all pipelines or of these, up to their heads of now.

    It is read in pages: what is appended meanwhile is left out, whatever the size of the log.
    Raises StoreUnavailable where a body was erased meanwhile, and with it the reason left out.
    """
    there = store.heads()
    chosen = there if pipelines is None else {each: there.get(each, 0) for each in pipelines}
    digest, count, heads = sha256(), 0, []
    yield _written(HEADER, digest)
    for pipeline, head in chosen.items():
        last: dict[str, Any] = {}
        for last in _exported(store, pipeline, head):
            count += 1
            yield _written(last, digest)
        if last:
            heads.append({key: last[key] for key in (*NAMES, "version", "hash")})
    end = {"events": count, "heads": heads, "sha256": digest.hexdigest()}
    yield orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE)


def _written(line: dict[str, Any], digest: Any) -> bytes:
    text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    digest.update(text)
    return text


def _page(dialect: Dialect, size: int) -> Select[Any]:
    """The first events of a history, each with the body that it keeps itself."""
    event: FromClause = events
    wanted = [
        events.c.pipeline_id == bindparam("pipeline"),
        events.c.version > bindparam("after"),
        events.c.version <= bindparam("up_to"),
    ]
    if dialect.KEEPS_COLUMNS:  # chosen first: it reads all bodies else
        chosen = select(events).where(*wanted).order_by(events.c.version)
        event, wanted = chosen.limit(limit_of(size)).subquery(), []
    columns = [event.c[name] for name in _COLUMNS.values()]
    beside = bodies.c.id == body_id(event.c.pipeline_id, event.c.version)
    return (
        select(*columns, keeper_of(event), bodies.c.salt, bodies.c.codec, bodies.c.data)
        .outerjoin_from(event, bodies, beside)
        .where(*wanted)
        .order_by(event.c.version)
        .limit(limit_of(size))
    )


def _exported(store: EventStore, pipeline: Pipeline, head: int) -> Iterator[dict[str, Any]]:
    names = {name: getattr(pipeline, name) for name in NAMES}
    dialect, numbered = dialect_of(store.database.engine), _numbered_streams(store, pipeline)
    its_id = store.database.read(lambda db: find_pipeline_id(db, pipeline))
    after, size, lacks_bodies = 0, FIRST_PAGE, False
    while after < head:
        where = {"pipeline": its_id, "after": after, "up_to": head}
        rows = store.database.read(partial(_rows, page=_page(dialect, size), where=where))
        yield from (_line(row, body, names, numbered) for row, body in rows)
        after = rows[-1][0].version
        size = next_size(size, sum(len(body or b"") for _, body in rows))
        lacks_bodies |= any(body is None and row.commitment is not None for row, body in rows)
    if lacks_bodies:
        store.database.read(lambda db: _require_reasons(db, pipeline, head))


def _require_reasons(db: Connection, pipeline: Pipeline, head: int) -> None:
    """Raise StoreUnavailable if a body was erased by an event that the export leaves out."""
    erased = newest_of_kind(db, find_pipeline_id(db, pipeline) or 0, "BodyErased")
    if erased and erased.version > head:
        raise StoreUnavailable(
            f"a body of {pipeline} was erased meanwhile, at @{erased.version}: export again, what "
            "was written is of no use"
        )


def _rows(
    db: Connection, page: Select[Any], where: Mapping[str, Any]
) -> list[tuple[Row[Any], bytes | None]]:
    """The rows of a page, each with the body that it keeps itself."""
    read = reader(db, where["pipeline"])
    return [
        (row, None if row.data is None else read.body(row.codec, row.data, row.version))
        for row in db.execute(page, where).all()
    ]


def _line(
    row: Row[Any],
    body: bytes | None,
    names: Mapping[str, Any],
    numbered: Mapping[int, tuple[str | None, str | None]],
) -> dict[str, Any]:
    found = dict(zip((*_COLUMNS, "body_version"), row, strict=False))
    found["namespace"], found["stream"] = numbered[found["stream_number"]]
    for key in ("append_id", "commitment", "hash"):
        found[key] = _hexadecimal(found[key])
    line = {**names, **{key: found[key] for key in EVENT[len(NAMES) :]}}
    if line["body_version"] == line["version"]:
        line["salt"] = _hexadecimal(row.salt)
        line["body"] = None if body is None else body.decode()
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
