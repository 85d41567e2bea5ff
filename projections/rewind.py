"""The past brought back, and states set by hand: always as new events, nothing is removed.

Each change is planned against the state of a version, can be looked at, and is appended only if
the history is still at that version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventstore.errors import HistoryConflict
from projections.as_of import BeforeHead, Moment, locate
from projections.plans import (
    Plan,
    check_reason,
    plan_clear,
    plan_copy,
    plan_move,
    plan_rewind,
    plan_set,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventstore.events import Pipeline, StoredEvent, StreamDescriptor
    from eventstore.store import EventStore

_ATTEMPTS = 100


def rewind(
    store: EventStore,
    pipeline: Pipeline,
    to: Moment,
    streams: Iterable[StreamDescriptor | str] | None = None,
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
    expected: int | None = None,
) -> list[StoredEvent]:
    """Make the state as of a moment the current one, of all streams or of those that are named.

    By new events (`origin=restored`) that point at the old bodies; none where nothing differs.
    `expected` is the version the caller has seen. Raises Invalid, UnknownVersion, StreamNotFound,
    ErasedBody, HistoryConflict or StoreUnavailable; then nothing was stored.
    """
    # What `@-1` means is settled before somebody else appends.
    version = locate(store, pipeline, to).version
    named = None if streams is None else list(streams)
    return _carry_out(
        store,
        lambda: plan_rewind(store, pipeline, version, named),
        expected=expected,
        reason=reason,
        actor=actor,
        run=run,
    )


def clear(
    store: EventStore,
    pipeline: Pipeline,
    streams: Iterable[StreamDescriptor | str] | None = None,
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
    expected: int | None = None,
) -> list[StoredEvent]:
    """Forget the state of all streams, or of those that are named.

    Raises as `rewind` does.
    """
    named = None if streams is None else list(streams)
    return _carry_out(
        store,
        lambda: plan_clear(store, pipeline, named),
        expected=expected,
        reason=reason,
        actor=actor,
        run=run,
    )


def set_state(
    store: EventStore,
    pipeline: Pipeline,
    states: Sequence[object],
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
    expected: int | None = None,
) -> list[StoredEvent]:
    """Make these states, and no others, the current ones (`origin=edited`).

    Raises InvalidEvent, and as `rewind` does.
    """
    return _carry_out(
        store,
        lambda: plan_set(store, pipeline, states),
        expected=expected,
        reason=reason,
        actor=actor,
        run=run,
    )


def copy(
    store: EventStore,
    source: Pipeline,
    target: Pipeline,
    at: Moment | None = None,
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
    expected: int | None = None,
) -> list[StoredEvent]:
    """Make the state of one pipeline, as of a moment or now, that of another (`origin=copied`).

    `expected` is the version of the target. Raises as `rewind` does.
    """
    version = locate(store, source, BeforeHead(0) if at is None else at).version
    return _carry_out(
        store,
        lambda: plan_copy(store, source, target, version),
        expected=expected,
        reason=copied_from(reason, source, version),
        actor=actor,
        run=run,
    )


def move(
    store: EventStore,
    source: Pipeline,
    target: Pipeline,
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
    expected: int | None = None,
) -> list[StoredEvent]:
    """Copy the current state to another pipeline, and then forget it where it was.

    `expected` is the version of the source. Raises as `rewind` does; if the source's state changes
    at the last moment it is copied, and not forgotten.
    """
    plans = plan_move(store, source, target)
    _check_expected(plans[1], expected)
    return append_move(store, *plans, reason=reason, actor=actor, run=run)


def append_move(
    store: EventStore,
    copied: Plan,
    left: Plan,
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
) -> list[StoredEvent]:
    """Append both plans of a move; raises HistoryConflict if a history is not where it was."""
    source, seen = left.before.pipeline, left.before.version
    head = store.head(source).version
    if head != seen:
        raise HistoryConflict(source, expected=seen, actual=head)
    said: dict[str, Any] = {"actor": actor, "run": run}
    moved = copied.append(store, reason=copied_from(reason, source, seen), **said)
    to = f"{reason} (moved to {copied.before.pipeline})"
    return [*moved, *left.append(store, reason=to, **said)]


def copied_from(reason: str, source: Pipeline, version: int) -> str:
    """The reason of a copy, with where it came from: `of` is a version of another history."""
    check_reason(reason)
    return f"{reason} (copied from {source} @{version})"


def _carry_out(
    store: EventStore,
    plan: Callable[[], Plan],
    *,
    expected: int | None,
    reason: str,
    actor: str | None,
    run: str | None,
) -> list[StoredEvent]:
    check_reason(reason)
    for _ in range(_ATTEMPTS):
        planned = plan()
        _check_expected(planned, expected)
        try:
            return planned.append(store, reason=reason, actor=actor, run=run)
        except HistoryConflict as conflict:
            lost = conflict
    raise lost


def _check_expected(plan: Plan, expected: int | None) -> None:
    actual = plan.before.version
    if expected is not None and expected != actual:
        raise HistoryConflict(plan.before.pipeline, expected=expected, actual=actual)
