"""The newest versions: of kinds and streams, of histories, and at a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    SmallInteger,
    UnaryExpression,
    and_,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.operators import custom_op

from eventstore.rows import OF_PIPELINE, OF_STREAM, PIPELINE_ID, stored_of
from eventstore.statements import ALONE, limit_of
from eventstore.tables import KIND, NEWEST_INDEX, bodies, body_id, events, pipelines, streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, ScalarSelect, Select, Subquery

    from eventstore.dialects import Dialect

END = 2**62
"""Beyond the last version there can be."""

_HEAD = (  # not max(), for which MariaDB reads all of a history
    select(events.c.version)
    .where(events.c.pipeline_id == pipelines.c.id)
    .order_by(events.c.version.desc())
    .limit(limit_of(1))
    .scalar_subquery()
)

_BY_PIPELINE = select(events.c.pipeline_id, func.max(events.c.version).label("version")).group_by(
    events.c.pipeline_id
)


def newest_of_streams(
    dialect: Dialect,
    columns: Sequence[ColumnElement[Any]],
    kinds: Sequence[str],
    pipeline_id: Any,
    *,
    before: Any,
) -> Select[Any]:
    """These columns of each stream, and for each kind the newest version before one."""
    mine = streams.c.pipeline_id == pipeline_id
    if dialect.KEEPS_COLUMNS:
        newest = _of_all_kinds(kinds, pipeline_id, before)
        same, (_, *versions) = newest.c.stream_number == streams.c.number, newest.c
        return select(*columns, *versions).outerjoin_from(streams, newest, same).where(mine)
    if not dialect.SKIPS_THROUGH_GROUPS:
        seeks = [
            newest_of_one(dialect, kind, streams.c.number, pipeline_id, before=before).label(
                f"newest_{kind}"
            )
            for kind in kinds
        ]
        return select(*columns, *seeks).where(mine)
    groups = [_by_stream(dialect, kind, pipeline_id, before) for kind in kinds]
    joined: Any = streams
    for group in groups:
        joined = joined.outerjoin(group, group.c.stream_number == streams.c.number)
    return select(*columns, *(group.c.version for group in groups)).select_from(joined).where(mine)


STREAM = (streams.c.number, streams.c.namespace, streams.c.name)


def newest_bodies(dialect: Dialect, kind: str, near: int) -> Select[Any]:
    """STREAM of each stream, its newest version of a kind, and the codec and data kept by that one.

    In the history `pipeline_id`, before the version `before`. They are sought one by one, unless
    some are `near`: then among so many of the kind first, which are read in a row.
    """
    its_id = bindparam("pipeline_id", type_=BigInteger)
    before: Any = bindparam("before", type_=BigInteger)
    if near:
        # PostgreSQL looks into no subquery, and so does not plan anew for each version; to SQLite
        # it is one value.
        before = select(before).scalar_subquery()
        newest = _nearest_of_streams(dialect, kind, its_id, before=before, near=near)
    else:
        newest = newest_of_streams(dialect, STREAM, [kind], its_id, before=before)
    found = newest.offset(ALONE).subquery()  # or SQLite would seek each version twice
    if near and dialect.SEEKS_BY_LATERAL:
        return _with_nearest_bodies(found, its_id, before=before, near=near)
    *_, version = found.c
    its_own = bodies.c.id == body_id(its_id, version)
    return select(found, bodies.c.codec, bodies.c.data).outerjoin_from(found, bodies, its_own)


_LOOKED_THROUGH = 8
"""Events of any kind that are read for each of a kind: in a row, as many cost less than a seek."""

_ANY_PLAN_BUT_LOOPS = {"full": True}
"""For a join of which one side has all that is wanted: as a FULL JOIN PostgreSQL cannot loop over
thousands of rows by thousands, as it does while it has no statistics of a pipeline."""


def _nearest_of_streams(
    dialect: Dialect, kind: str, pipeline_id: Any, *, before: Any, near: int
) -> Select[Any]:
    """What `newest_of_streams` finds: first among so many events, then by seeks.

    A seek is the dearer the longer the history of its stream is; to read events in a row is not.
    """
    last = _last_of_kind(dialect, kind, pipeline_id, before=before, near=near)
    found = (
        select(last.c.stream_number, func.max(last.c.version).label("version"))
        .group_by(last.c.stream_number)
        .subquery()
    )
    mine = select(*STREAM).where(streams.c.pipeline_id == pipeline_id).subquery()
    same = found.c.stream_number == mine.c.number
    far = newest_of_one(dialect, kind, mine.c.number, pipeline_id, before=before)
    how: Any = _ANY_PLAN_BUT_LOOPS if dialect.SEEKS_BY_LATERAL else {"isouter": True}
    return select(mine, func.coalesce(found.c.version, far).label("version")).select_from(
        mine.join(found, same, **how)
    )


def _last_of_kind(
    dialect: Dialect, kind: str, pipeline_id: Any, *, before: Any, near: int
) -> Subquery:
    """The last events of a kind: `near` at most, among some more of any kind before a version."""
    e, several = events.c, near * _LOOKED_THROUGH
    where = (e.pipeline_id == pipeline_id, e.version < before, e.version >= before - several)
    if dialect.SEEKS_BY_LATERAL:
        # In two steps: PostgreSQL takes the kind for rarer than it is, and would read and sort all.
        of_all = _last(select(e.stream_number, e.version, e.kind).where(*where), e.version, several)
        return _last(select(of_all).where(of_all.c.kind == kind), of_all.c.version, near)
    # As +kind: by the kind itself each stream would be sought in another index.
    number = type_coerce(e.kind, SmallInteger)
    its_kind = UnaryExpression(number, operator=custom_op("+"), type_=number.type)
    of_kind = select(e.stream_number, e.version).where(*where, its_kind == KIND.numbers[kind])
    return _last(of_kind, e.version, near)


def _last(query: Select[Any], order: ColumnElement[Any], rows: int) -> Subquery:
    return query.order_by(order.desc()).limit(limit_of(rows)).subquery()


def _with_nearest_bodies(newest: Subquery, its_id: Any, *, before: Any, near: int) -> Select[Any]:
    """The bodies beside these versions: first among so many, then by seeks."""
    what, end = (bodies.c.id, bodies.c.codec, bodies.c.data), body_id(its_id, before)
    there = select(*what).where(bodies.c.id < end, bodies.c.id >= end - near).subquery()
    its_own = body_id(its_id, newest.c.version)
    found = newest.join(there, there.c.id == its_own, **_ANY_PLAN_BUT_LOOPS)
    sought = select(*what).where(bodies.c.id == its_own, there.c.id.is_(None))
    far = sought.offset(ALONE).lateral()
    one = (func.coalesce(there.c[name], far.c[name]) for name in ("codec", "data"))
    # Not IS NOT NULL, which would make the join a plain one again.
    wanted = func.coalesce(newest.c.number, -1) >= 0
    return select(newest, *one).select_from(found.outerjoin(far, true())).where(wanted)


def what_is_there(kinds: Sequence[str]) -> Select[Any]:
    """The id of `pipeline_key`, how many streams it has, and for each kind one that has it or null.

    The first in the order of an index: where there is none, PostgreSQL would read all events for an
    EXISTS, which it expects to be answered by the first few.
    """
    number = select(func.count()).where(streams.c.pipeline_id == PIPELINE_ID)
    of_kinds = (
        select(events.c.stream_number)
        .where(OF_PIPELINE, events.c.kind == kind)
        .order_by(events.c.stream_number)
        .limit(limit_of(1))
        .scalar_subquery()
        for kind in kinds
    )
    return select(PIPELINE_ID, number.scalar_subquery(), *of_kinds)


def newest_of_each(dialect: Dialect, kinds: Sequence[str]) -> Select[Any]:
    """The newest event of each of these kinds and stream in the histories that are among `ids`.

    For what keeps columns: elsewhere to seek them takes less than to scan the histories.
    """
    e = events.c
    newest = (
        select(e.pipeline_id, func.max(e.version).label("version"))
        .join_from(events, streams, OF_STREAM)
        .where(dialect.is_in_list(e.pipeline_id, "ids"), or_(*(e.kind == kind for kind in kinds)))
        .group_by(e.pipeline_id, e.kind, e.stream_number)
    )
    return stored_of(newest.subquery(), dialect, [e.pipeline_id, e.version])


def newest_of_one(
    dialect: Dialect,
    kind: str,
    number: ColumnElement[int] | int,
    pipeline_id: Any,
    *,
    before: Any,
) -> ScalarSelect[int]:
    """The newest version of a kind and stream before one."""
    earlier = events.alias()
    where = (
        earlier.c.pipeline_id == pipeline_id,
        earlier.c.kind == kind,
        earlier.c.stream_number == number,
        earlier.c.version < before,
    )
    if dialect.KEEPS_COLUMNS:  # not so elsewhere: SQLite takes a tenth longer for a max()
        return select(func.max(earlier.c.version)).where(*where).scalar_subquery()
    last = (
        select(earlier.c.version)
        .where(*where)
        .order_by(earlier.c.version.desc())
        .limit(limit_of(1))
    )
    if dialect.INDEX_HINT:
        last = last.with_hint(earlier, dialect.INDEX_HINT.format(NEWEST_INDEX))
    return last.scalar_subquery()


def newest_of_pipelines(dialect: Dialect) -> Select[Any]:
    """All pipelines, and the version that each has reached."""
    if dialect.KEEPS_COLUMNS:
        newest = select(func.max(events.c.version)).where(events.c.pipeline_id == pipelines.c.id)
        query = select(pipelines, newest.scalar_subquery().label("version"))
    elif not dialect.SKIPS_THROUGH_GROUPS:
        query = select(pipelines, _HEAD.label("version"))
    else:
        group = _BY_PIPELINE.subquery()
        same = group.c.pipeline_id == pipelines.c.id
        query = select(pipelines, group.c.version).outerjoin_from(pipelines, group, same)
    return query.order_by(pipelines.c.id)


def ends_of_pipelines(dialect: Dialect) -> Select[Any]:
    """All pipelines, and the event that each has reached."""
    reached = newest_of_pipelines(dialect).order_by(None).subquery()
    last = and_(events.c.pipeline_id == reached.c.id, events.c.version == reached.c.version)
    query = select(reached, events.c.hash, events.c.stored_at).join_from(reached, events, last)
    return query.order_by(reached.c.id)


_LAST_FEW = 32
"""Events before a moment that are looked through: to bisect a long history reads as many pages."""


def newest_at(dialect: Dialect) -> Select[Any]:
    """The version that the history `pipeline_key` had reached at `moment`, in microseconds.

    Within a history time never runs backwards: where none of the last few events of all pipelines
    is its own, the key is bisected, in the same statement. A database that keeps columns finds it
    by scanning two.
    """
    by_then = events.c.stored_at <= bindparam("moment", type_=BigInteger)
    if dialect.KEEPS_COLUMNS:
        return select(func.max(events.c.version)).where(OF_PIPELINE, by_then)
    last = (
        select(events.c.pipeline_id, events.c.version)
        .where(by_then)
        .order_by(events.c.stored_at.desc())
        .limit(limit_of(_LAST_FEW))
        .subquery()
    )
    of_last = select(func.max(last.c.version)).where(last.c.pipeline_id == PIPELINE_ID)
    mine = pipelines.c.key == bindparam("pipeline_key")
    zero = cast(0, BigInteger)  # of the type that all the spans will have
    whole = select(pipelines.c.id, zero.label("low"), _HEAD.label("high")).where(mine)
    span = whole.cte("span", recursive=True)
    middle = (span.c.low + span.c.high + 1) // 2
    there = and_(events.c.pipeline_id == span.c.id, events.c.version == middle)
    half = select(
        span.c.id,
        case((by_then, middle), else_=span.c.low),
        case((by_then, span.c.high), else_=middle - 1),
    ).outerjoin_from(span, events, there)
    bisected = select(func.max(span.union_all(half.where(span.c.low < span.c.high)).c.low))
    return select(func.coalesce(of_last.scalar_subquery(), bisected.scalar_subquery()))


def count_of_events(dialect: Dialect) -> Select[Any]:
    """How many events there are: versions have no gaps, so the heads tell it."""
    if dialect.KEEPS_COLUMNS:
        return select(func.count()).select_from(events)
    if dialect.SKIPS_THROUGH_GROUPS:
        hint = dialect.INDEX_HINT.format("PRIMARY")
        heads = _BY_PIPELINE.with_hint(events, hint).subquery()
    else:
        heads = select(_HEAD.label("version")).select_from(pipelines).subquery()
    return select(func.coalesce(func.sum(heads.c.version), 0))


def _of_all_kinds(kinds: Sequence[str], pipeline_id: Any, before: Any) -> Subquery:
    """In one scan: what keeps columns would read them once more for each kind."""
    newest = (
        func.max(events.c.version).filter(events.c.kind == kind).label(kind) for kind in kinds
    )
    mine = (events.c.pipeline_id == pipeline_id, events.c.version < before)
    query = select(events.c.stream_number, *newest).where(*mine)
    return query.group_by(events.c.stream_number).subquery()


def _by_stream(dialect: Dialect, kind: str, pipeline_id: Any, before: Any) -> Subquery:
    e = events.alias()
    query = (
        select(e.c.stream_number, func.max(e.c.version).label("version"))
        .where(e.c.pipeline_id == pipeline_id, e.c.kind == kind, e.c.version < before)
        .group_by(e.c.pipeline_id, e.c.kind, e.c.stream_number)  # the index, from its beginning
    )
    return query.with_hint(e, dialect.INDEX_HINT.format(NEWEST_INDEX)).subquery()
