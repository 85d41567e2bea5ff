"""The past brought back, and states set by hand: always as new events, nothing is removed.

Each change is planned against the state of a version, can be looked at, and is appended only if
the history is still at that version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import Required, TypedDict, Unpack

from eventstore.errors import HistoryConflict
from projections.as_of import BeforeHead, Moment, locate
from projections.plans import (
    Plan,
    append_together,
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


class Said(TypedDict, total=False):
    """What is said of a change: why, by whom, in which run, and the version that was seen."""

    reason: Required[str]
    actor: str | None
    run: str | None
    expected: int | None


def rewind(
    store: EventStore,
    pipeline: Pipeline,
    to: Moment,
    streams: Iterable[StreamDescriptor | str] | None = None,
    **said: Unpack[Said],
) -> list[StoredEvent]:
    """Make the state as of a moment the current one, of all streams or of those that are named.

    By new events (`origin=restored`) that point at the old bodies; none where nothing differs.
    `expected` is the version the caller has seen. Raises Invalid, UnknownVersion, StreamNotFound,
    ErasedBody, HistoryConflict or StoreUnavailable; then nothing was stored.
    """
    # What `@-1` means is settled before somebody else appends.
    version = locate(store, pipeline, to).version
    named = None if streams is None else list(streams)
    return _carry_out(store, lambda: [plan_rewind(store, pipeline, version, named)], **said)


def clear(
    store: EventStore,
    pipeline: Pipeline,
    streams: Iterable[StreamDescriptor | str] | None = None,
    **said: Unpack[Said],
) -> list[StoredEvent]:
    """Forget the state of all streams, or of those that are named.

    Raises as `rewind` does.
    """
    named = None if streams is None else list(streams)
    return _carry_out(store, lambda: [plan_clear(store, pipeline, named)], **said)


def set_state(
    store: EventStore, pipeline: Pipeline, states: Sequence[object], **said: Unpack[Said]
) -> list[StoredEvent]:
    """Make these states, and no others, the current ones (`origin=edited`).

    Raises InvalidEvent, and as `rewind` does.
    """
    return _carry_out(store, lambda: [plan_set(store, pipeline, states)], **said)


def copy(
    store: EventStore,
    source: Pipeline,
    target: Pipeline,
    at: Moment | None = None,
    **said: Unpack[Said],
) -> list[StoredEvent]:
    """Make the state of one pipeline, as of a moment or now, that of another (`origin=copied`).

    `expected` is the version of the target. Raises as `rewind` does.
    """
    version = locate(store, source, BeforeHead(0) if at is None else at).version
    return _carry_out(store, lambda: [plan_copy(store, source, target, version)], **said)


def move(
    store: EventStore, source: Pipeline, target: Pipeline, **said: Unpack[Said]
) -> list[StoredEvent]:
    """Copy the current state to another pipeline, and forget it where it was: both or neither.

    `expected` is the version of the source. Raises as `rewind` does.
    """
    return _carry_out(store, lambda: plan_move(store, source, target), **said)


def _carry_out(
    store: EventStore,
    plan: Callable[[], Sequence[Plan]],
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
    expected: int | None = None,
) -> list[StoredEvent]:
    check_reason(reason)
    for _ in range(_ATTEMPTS):
        planned = plan()
        check_expected(planned, expected)
        try:
            return append_together(store, planned, reason=reason, actor=actor, run=run)
        except HistoryConflict as conflict:
            lost = conflict
    raise lost


def check_expected(plans: Sequence[Plan], expected: int | None) -> None:
    """Raise HistoryConflict if the history that is changed last is not where the caller saw it."""
    before = plans[-1].before
    if expected is not None and expected != before.version:
        raise HistoryConflict(before.pipeline, expected=expected, actual=before.version)
