"""Changes of a state by hand, planned: what would be appended, and what that would change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eventstore import codec, payload
from eventstore.errors import HistoryConflict, Invalid, StreamNotFound
from eventstore.events import Pipeline, StateCleared, StateSaved, StreamDescriptor
from eventstore.identity import check_attribution, uuid7
from projections import audit
from projections.as_of import BeforeHead, Moment, locate, state_as_of
from projections.views import STATE_KINDS, StateView, standing
from projections.wording import some_streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from eventstore.events import Event, Origin, StoredEvent
    from eventstore.store import EventStore
    from projections.audit import Change


@dataclass(frozen=True)
class Plan:
    """Events that would change a state, and the state before them.

    `note` is added to the reason: where a state came from or went to.
    """

    before: StateView
    events: Sequence[Event]
    note: str = ""

    @property
    def after(self) -> StateView:
        """The state as it would be."""
        return self.before.with_(*map(codec.encode, self.events))

    @property
    def changes(self) -> list[Change]:
        """What would change, by stream and by path."""
        return audit.diff(self.before, self.after)

    def append(
        self,
        store: EventStore,
        *,
        reason: str,
        actor: str | None = None,
        run: str | None = None,
    ) -> list[StoredEvent]:
        """Append the events; raises HistoryConflict if the history is not where it was."""
        return store.append(
            self.before.pipeline,
            *self.events,
            expected=self.before.version,
            actor=actor,
            reason=self.reason(reason),
            run=run,
        )

    def append_within(
        self,
        db: Connection,
        store: EventStore,
        append_id: UUID,
        *,
        reason: str,
        actor: str | None,
        run: str | None,
    ) -> list[StoredEvent]:
        """`append` in a transaction of the caller's; under the same id it is done once."""
        pipeline, seen = self.before.pipeline, self.before.version
        if not self.events:
            actual = store.head_within(db, pipeline).version
            if actual != seen:
                raise HistoryConflict(pipeline, expected=seen, actual=actual)
            return []
        who, why, which = check_attribution(
            actor or store.actor, self.reason(reason), run or store.run
        )
        drafts = [store.encode(event) for event in self.events]
        return store.append_drafts(
            db, pipeline, drafts, id=append_id, expected=seen, actor=who, reason=why, run=which
        )

    def reason(self, given: str) -> str:
        """The reason that is stored; raises Invalid where none was given."""
        check_reason(given)
        return f"{given} ({self.note})" if self.note else given


def append_together(
    store: EventStore,
    plans: Sequence[Plan],
    *,
    reason: str,
    actor: str | None = None,
    run: str | None = None,
) -> list[StoredEvent]:
    """Append the events of all plans or none; raises HistoryConflict as `append` does."""
    said: dict[str, Any] = {"reason": reason, "actor": actor, "run": run}
    if len(plans) == 1:
        return plans[0].append(store, **said)

    named = [(plan, uuid7()) for plan in plans]  # whose acknowledgement may get lost

    def work(db: Connection) -> list[StoredEvent]:
        done = (plan.append_within(db, store, its_id, **said) for plan, its_id in named)
        return [stored for some in done for stored in some]

    return store.database.transact(work)


def plan_rewind(
    store: EventStore,
    pipeline: Pipeline,
    to: Moment,
    streams: Sequence[StreamDescriptor | str] | None = None,
) -> Plan:
    """What `rewind` would append; raises as it does."""
    if streams is not None and not streams:
        raise Invalid("no stream is named: name some, or leave them out to mean all")
    then = _standing(store, pipeline, to, streams)
    before = state_as_of(store, pipeline, BeforeHead(0))
    if streams is None:
        return Plan(before, _replacing(before, then, "restored"))
    if None in then or before.whole is not None:
        return Plan(before, _within_global(before, then, streams))
    chosen = chosen_streams(streams, {*then, *before.streams})
    return Plan(before, _replacing(before, then, "restored", among=chosen))


def plan_clear(
    store: EventStore,
    pipeline: Pipeline,
    streams: Sequence[StreamDescriptor | str] | None = None,
) -> Plan:
    """What `clear` would append; raises as it does."""
    before = state_as_of(store, pipeline, BeforeHead(0))
    if streams is None:
        return Plan(before, [StateCleared()] if before.bodies else [])
    if before.whole is not None:
        return Plan(before, _within_global(before, {}, streams))
    chosen = chosen_streams(streams, set(before.streams))
    return Plan(before, [StateCleared(stream) for stream in before.streams if stream in chosen])


def plan_set(store: EventStore, pipeline: Pipeline, states: Sequence[object]) -> Plan:
    """What `set_state` would append; raises as it does."""
    if not isinstance(states, list | tuple):
        raise Invalid(f"states are given in a list, not as {type(states).__name__}")
    before = state_as_of(store, pipeline, BeforeHead(0))
    given = [(StateSaved(state, "edited"), store.encode(StateSaved(state))) for state in states]
    if len({draft.stream for _, draft in given}) < len(given):
        raise Invalid("there are two states of one stream among those given")
    if len(given) > 1 and any(draft.stream is None for _, draft in given):
        raise Invalid("a GLOBAL or LEGACY state stands alone, and there are others beside it")
    wanted = {draft.stream: (saved, draft.body) for saved, draft in given}
    return Plan(before, _changes(before, wanted, set(before.streams)))


def plan_copy(
    store: EventStore, source: Pipeline, target: Pipeline, at: Moment | None = None
) -> Plan:
    """What `copy` would append; raises as it does."""
    if source == target:
        raise Invalid(f"{source} is the source and the target: use rewind for its own past")
    version = locate(store, source, BeforeHead(0) if at is None else at).version
    then = _standing(store, source, version)
    before = state_as_of(store, target, BeforeHead(0))
    # `of` is a version of another history.
    return Plan(before, _replacing(before, then, "copied"), f"copied from {source} @{version}")


def plan_move(store: EventStore, source: Pipeline, target: Pipeline) -> tuple[Plan, Plan]:
    """What `move` would append to the target, and then to the source; raises as it does."""
    left = replace(plan_clear(store, source), note=f"moved to {target}")
    return plan_copy(store, source, target, left.before.version), left


def chosen_streams(
    named: Sequence[StreamDescriptor | str],
    known: set[StreamDescriptor] | set[StreamDescriptor | None],
) -> set[StreamDescriptor]:
    """The streams that are meant; text is a name, or a name with its namespace as it is printed.

    A name alone is that of the stream without a namespace, else of the only one there is.
    """
    chosen: set[StreamDescriptor] = set()
    for name in named:
        found = {stream for stream in known if stream and _is_named(stream, [name])}
        if isinstance(name, str) and StreamDescriptor(name) in found:
            found = {StreamDescriptor(name)}
        if not found:
            there = some_streams(known, str(name))
            raise StreamNotFound(f"there is no stream {name}, now or then; there are: {there}")
        if len(found) > 1:
            several = ", ".join(sorted(repr(stream.namespace) for stream in found))
            raise Invalid(f"stream {name} is in several namespaces, say in which: {several}")
        chosen |= found
    return chosen


def _standing(
    store: EventStore,
    pipeline: Pipeline,
    moment: Moment,
    among: Sequence[StreamDescriptor | str] | None = None,
) -> dict[StreamDescriptor | None, StoredEvent]:
    """The events whose bodies were the state as of a moment; raises ErasedBody.

    Where streams are named, it does not matter what was erased of others.
    """
    version = locate(store, pipeline, moment).version
    found = standing(store.newest(pipeline, STATE_KINDS, version))
    lost = [stream for stream, stored in found.items() if stored.erased]
    if any(among is None or stream is None or _is_named(stream, among) for stream in lost):
        state_as_of(store, pipeline, version)  # says so, unless it had been erased by then
    return {stream: stored for stream, stored in found.items() if not stored.erased}


def check_reason(reason: str) -> None:
    """Demand a reason: whoever reads the history later will ask; raises Invalid."""
    if not isinstance(reason, str) or not reason.strip():
        raise Invalid("a reason is needed: say why, for whoever reads the history later")


def _replacing(
    before: StateView,
    then: Mapping[StreamDescriptor | None, StoredEvent],
    origin: Origin,
    among: set[StreamDescriptor] | None = None,
) -> list[Event]:
    """The events after which the state is that of then, or that of the streams among it."""
    wanted: dict[StreamDescriptor | None, tuple[StateSaved, bytes]] = {
        stream: (StateSaved(stored.body, origin, stored.version), stored.body)
        for stream, stored in then.items()
        if among is None or stream in among
    }
    return _changes(before, wanted, set(before.streams) if among is None else among)


def _changes(
    before: StateView,
    wanted: Mapping[StreamDescriptor | None, tuple[StateSaved, bytes]],
    streams: set[StreamDescriptor],
) -> list[Event]:
    """As few events as lead to the states that are wanted, and to no other of these streams."""
    if None in wanted:
        saved, body = wanted[None]
        return [] if before.whole == body else [saved]
    if before.whole is not None and not wanted:
        return [StateCleared()]
    if before.streams and not wanted and streams >= set(before.streams):
        return [StateCleared()]
    cleared = [
        StateCleared(stream)
        for stream in before.streams
        if stream in streams and stream not in wanted
    ]
    saved_anew = [
        saved
        for stream, (saved, body) in wanted.items()
        if stream is not None and before.streams.get(stream) != body
    ]
    return [*cleared, *saved_anew]


def _within_global(
    before: StateView,
    then: Mapping[StreamDescriptor | None, StoredEvent],
    streams: Sequence[StreamDescriptor | str],
) -> list[Event]:
    """One GLOBAL state in which the named streams are as they were then, or are not."""
    bodies = [before.whole, then[None].body] if None in then else [before.whole]
    if then and None not in then:
        bodies.append(None)
    if any(body is None or payload.state_kind(body) != "GLOBAL" for body in bodies):
        raise Invalid(
            "single streams can be told apart where the state is a GLOBAL one, or of streams, "
            "now and then; leave the streams out to mean the whole pipeline"
        )
    assert before.whole is not None
    now = payload.stream_states(before.whole)
    old = payload.stream_states(then[None].body) if then else {}
    chosen = chosen_streams(streams, {*now, *old})
    wanted = {}
    for stream in {**now, **old}:  # in the order of now, then of old
        entries = old if stream in chosen else now
        if stream in entries:
            wanted[stream] = entries[stream]
    if wanted == now:
        return []
    body = payload.with_stream_states(before.whole, wanted.values())
    return [StateSaved(body, "edited", then[None].version if then else None)]


def _is_named(stream: StreamDescriptor, names: Iterable[StreamDescriptor | str]) -> bool:
    return any(name in (stream, stream.name, str(stream)) for name in names)
