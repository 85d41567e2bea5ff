"""Whether the log is what was stored: every chain computed anew, and compared with checkpoints.

The chain finds what was changed, added or taken away inside a history. That its end was cut off,
that a backup took its place, or that all of it was written and hashed anew, only a checkpoint
finds: a statement of the heads that is kept elsewhere.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import exists, func, make_url, select

from eventstore.checkpoints import order_problems
from eventstore.dialects import dialect_of
from eventstore.errors import InvalidPipeline
from eventstore.events import Pipeline
from eventstore.recompute import Outcome, Part, Problem, recompute
from eventstore.rows import belongs_to
from eventstore.schema import missing_guards, schema_name
from eventstore.store import EventStore
from eventstore.stream_rows import stream_problem
from eventstore.tables import (
    BODY_PIPELINE,
    BODY_VERSION,
    VERSIONS,
    bodies,
    bodies_of,
    body_id,
    events,
    pipelines,
    streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from eventstore.checkpoints import Checkpoint

_VERSIONS_PER_PART = (1_000, 50_000)
"""Versions that one process takes at a time: the least and the most."""

_PARTS_PER_PROCESS = 4

_LONGEST_PART = 1_000_000
"""Versions that are looked at with one knowledge of what was erased."""


@dataclass(frozen=True)
class Verified:
    """What was found of one history: whole up to `last_good`, and from `first_bad` on it is not.

    `first_bad` is None where it is whole, or where what was altered has no version; `problem` says
    what it is. `covered` is the version up to which a checkpoint vouches for it: of what comes
    after, nobody can tell whether there was more.
    """

    pipeline: Pipeline
    events: int
    last_good: int
    first_bad: int | None = None
    problem: str | None = None
    covered: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return self.problem is None


@dataclass(frozen=True)
class Report:
    """What was found in the log.

    `problems` are of no pipeline; `notices` are worth knowing, and alter nothing.
    """

    pipelines: tuple[Verified, ...]
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing was altered."""
        return not self.problems and all(found.is_whole for found in self.pipelines)


class _Owner(NamedTuple):
    """A row of the pipelines, as it is; its names may be of no pipeline."""

    id: int
    key: str
    names: tuple[str | None, ...]
    events: int
    first: int
    head: int

    @property
    def last(self) -> int:
        """Up to where to look: a history that has fewer events than versions has a gap by then."""
        return min(self.head, self.events + 1)


def verify(
    store: EventStore,
    pipelines: Iterable[Pipeline] | None = None,
    *,
    checkpoints: Sequence[Checkpoint] = (),
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Report:
    """Compute the chains of all pipelines, or of these, anew, and compare them with checkpoints.

    Several processes are used where a database can be opened by several, and its engine was made
    from a URL. `progress` is told how many events were read, of how many. What is appended
    meanwhile is not looked at.
    """
    wanted = None if pipelines is None else list(pipelines)
    owners = store.database.read(_owners)
    named, problems = _named(owners)
    if wanted is None:
        problems += store.database.read(_orphans)
    else:
        named = {pipeline: owner for pipeline, owner in named.items() if pipeline in wanted}
    outcomes = _recompute(store, list(named.values()), processes, progress)
    found = {
        pipeline: store.database.read(
            partial(_verified, pipeline=pipeline, owner=owner, outcomes=outcomes[owner.id])
        )
        for pipeline, owner in named.items()
    }
    for pipeline in wanted or ():
        found.setdefault(pipeline, _not_there(pipeline, "it has no history here"))
    for checkpoint in sorted(checkpoints, key=lambda each: each.made_at):
        for pipeline in checkpoint.heads:
            if wanted is None or pipeline in wanted:
                found[pipeline] = _compared(store, checkpoint, pipeline, found.get(pipeline))
    problems += order_problems(checkpoints)
    notices = store.database.read(lambda db: list(_notices(db)))
    return Report(tuple(found.values()), tuple(problems), tuple(notices))


def _owners(db: Connection) -> list[_Owner]:
    own = events.c.pipeline_id == pipelines.c.id
    each = [
        func.coalesce(select(measure).where(own).scalar_subquery(), default)
        for measure, default in (
            (func.count(events.c.version), 0),
            (func.min(events.c.version), 1),
            (func.max(events.c.version), 0),
        )
    ]
    rows = db.execute(select(pipelines, *each).order_by(pipelines.c.id))
    return [_Owner(row[0], row[1], tuple(row[2:6]), row[6], *_bounds(*row[6:])) for row in rows]


def _bounds(count: int, first: Any, head: Any) -> tuple[int, int]:
    """SQLite keeps a text in an integer column, and finds it larger than any integer."""
    return (first if type(first) is int else 1), (head if type(head) is int else count)


def _named(owners: Iterable[_Owner]) -> tuple[dict[Pipeline, _Owner], list[str]]:
    """The rows by the pipelines they name, and what is wrong with those that name none."""
    named: dict[Pipeline, _Owner] = {}
    problems: list[str] = []
    ids: set[int] = set()
    for owner in owners:
        try:
            pipeline = Pipeline(*owner.names)  # type: ignore[arg-type]
        except InvalidPipeline as error:
            problems.append(f"the row of pipeline number {owner.id} was changed: {error}")
            continue
        if pipeline in named or owner.id in ids:
            problems.append(f"there are two rows of {pipeline}, or of number {owner.id}")
            continue
        named[pipeline] = owner
        ids.add(owner.id)
    return named, problems


def _orphans(db: Connection) -> list[str]:
    """Rows that no pipeline owns."""
    owners = {
        table: db.scalars(select(owner).distinct()).all()
        for table, owner in (
            (events, events.c.pipeline_id),
            (bodies, BODY_PIPELINE),
            (streams, streams.c.pipeline_id),
        )
    }
    known = set(db.scalars(select(pipelines.c.id)))  # last: one may begin meanwhile
    return [
        f"{table.name} has rows of pipeline number {number}, which is not there"
        for table, numbers in owners.items()
        for number in numbers
        if number not in known
    ]


def _notices(db: Connection) -> Iterator[str]:
    for guard in missing_guards(db):
        yield f"the trigger {guard} is gone or off: `eventstore rebuild` puts it back"


def _parts(owners: Iterable[_Owner], size: int) -> list[Part]:
    return [
        Part(owner.id, owner.names, first, min(first + size - 1, owner.last))
        for owner in owners
        for first in range(1, owner.last + 1, size)
    ]


def _recompute(
    store: EventStore,
    owners: Sequence[_Owner],
    processes: int,
    progress: Callable[[int, int], None],
) -> dict[int, list[Outcome]]:
    total, done = sum(owner.last for owner in owners), 0

    def advance(versions: int) -> None:
        nonlocal done
        done += versions
        progress(done, total)

    engine = store.database.engine
    outcomes: dict[int, list[Outcome]] = {owner.id: [] for owner in owners}
    if processes <= 1 or not _opens_again(store):
        for part in _parts(owners, _LONGEST_PART):
            found = outcomes[part.pipeline_id]
            if not any(outcome.problem for outcome in found):
                found.append(recompute(store.database.read, part, advance))
        return outcomes
    url = engine.url.render_as_string(hide_password=False)
    schema = store.database.read(schema_name)
    least, most = _VERSIONS_PER_PART
    share = total // (processes * _PARTS_PER_PROCESS)
    # Not forked: a connection that two processes share is of use to neither.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        parts = {
            pool.submit(_elsewhere, url, schema, part): part
            for part in _parts(owners, min(max(share, least), most))
        }
        for finished in as_completed(parts):
            part = parts[finished]
            outcomes[part.pipeline_id].append(finished.result())
            advance(part.last - part.first + 1)
    return outcomes


def _opens_again(store: EventStore) -> bool:
    """Whether another process can open the same database."""
    engine = store.database.engine
    in_memory = not engine.url.database or engine.url.database == ":memory:"
    return store.owns_engine and dialect_of(engine).MANY_PROCESSES and not in_memory


def _elsewhere(url: str, schema: str | None, part: Part) -> Outcome:
    """`recompute` in a process of its own."""
    engine = dialect_of(make_url(url)).open_engine(make_url(url), create=False)
    if schema is not None:
        engine = engine.execution_options(schema_translate_map={None: schema})
    with EventStore(engine, create=False, dispose=True) as store:
        return recompute(store.database.read, part, lambda _: None)


def _verified(
    db: Connection, pipeline: Pipeline, owner: _Owner, outcomes: Sequence[Outcome]
) -> Verified:
    whole = Verified(pipeline, owner.events, owner.events)
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    if owner.first < 1:
        problems.append(Problem(owner.first, "stands before the first version there can be"))
    if owner.key != pipeline.key:
        words = "is not theirs: the names or the key of the pipeline were changed"
        problems.append(Problem(1, words))
    if not owner.events:
        problems.append(Problem(1, "is missing, and all the others"))
    problems = problems or list(_stray_bodies(db, owner))
    if problems:
        return _broken(whole, *min(problems))
    used = frozenset(number for outcome in outcomes for number in outcome.streams)
    return replace(whole, problem=stream_problem(db, owner.id, used))


def _stray_bodies(db: Connection, owner: _Owner) -> Iterator[Problem]:
    stray = select(func.min(bodies.c.id)).where(
        bodies_of(owner.id),
        (bodies.c.id > body_id(owner.id, owner.head)) | (bodies.c.id == body_id(owner.id, 0)),
        ~exists().where(events.c.pipeline_id == owner.id, events.c.version == BODY_VERSION),
    )
    found = db.scalar(stray)
    if found is not None:
        yield Problem(found % VERSIONS, "is missing, but its body is there")


def _broken(whole: Verified, version: int, words: str) -> Verified:
    good = max(min(version - 1, whole.events), 0)
    return replace(whole, last_good=good, first_bad=version, problem=f"@{version} {words}")


def _not_there(pipeline: Pipeline, words: str) -> Verified:
    return Verified(pipeline, 0, 0, None, words)


def _compared(
    store: EventStore, checkpoint: Checkpoint, pipeline: Pipeline, found: Verified | None
) -> Verified:
    """What a checkpoint adds to what was found; the earliest problem stands."""
    signed = checkpoint.heads[pipeline]
    name = f"the checkpoint of {checkpoint.made_at}"
    if found is None or not found.events:
        return Verified(
            pipeline, 0, 0, 1, f"{name} knows it up to @{signed.version}, and it is not there"
        )
    if signed.version > found.events:
        missing = found.events + 1
        words = f"is missing: {name} knows up to @{signed.version}"
        return found if _is_earlier(found, missing) else _broken(found, missing, words)
    place = (belongs_to(pipeline), events.c.version == signed.version)
    stored = store.database.read(lambda db: db.scalar(select(events.c.hash).where(*place)))
    if stored is not None and bytes(stored) == signed.hash:
        proven = signed.version if signed.version <= found.last_good else 0
        return replace(found, covered=max(found.covered, proven))
    if _is_earlier(found, signed.version):
        return found
    words = f"is not the event that {name} signed: it, or one before it, was written anew"
    broken = _broken(found, signed.version, words)
    return replace(broken, last_good=min(found.covered, found.last_good))


def _is_earlier(found: Verified, version: int) -> bool:
    return found.first_bad is not None and found.first_bad <= version
