"""Anything that can be asked of a store, in any order, by two at once, broken off anywhere.

Whatever happens, every acknowledged event is there, and every answer is that of a model.
"""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import timedelta
from itertools import count, pairwise
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eventstore import (
    AppendIdReused,
    ErasedBody,
    HistoryConflict,
    StaleWriter,
    StreamNotFound,
    WriterStarted,
)
from eventstore.erasure import erase, reapply, retention
from eventstore.integrity import verify
from projections import (
    catalog_as_of,
    connect,
    latest_catalog,
    latest_state,
    rebuild,
    register_catalog,
    state_as_of,
)
from projections.exchange import export_histories, import_histories
from projections.rewind import clear, copy, move, rewind, set_state
from projections.tables_check import check_tables
from tests.contract.model import Lost, Model, columns, stream_of
from tests.contract.random_histories import (
    batches,
    check_appended,
    check_registered,
    messages,
    new_pipelines,
    registrations,
    streams,
)
from tests.interruptions import at_commit
from tests.messages import catalog
from tests.read_side.breakdowns import Breakdown, BrokenDown

WHY = {"reason": "to try it", "actor": "machine"}

numbers = st.integers(0, 2)
versions = st.floats(0, 1) | st.integers(-3, -1)  # a part of the history, or from its end
crashes = st.none() | st.none() | st.integers(0, 15)
states = messages.map(lambda text: [text]) | st.lists(
    messages.filter(stream_of), max_size=3, unique_by=stream_of
)


class Machine(RuleBasedStateMachine):
    """Three pipelines, each with its model, behind two stores on one database."""

    url = None
    empty = None

    def __init__(self):
        super().__init__()
        self.stores = [connect(self.url), connect(self.url)]
        self.turn = 0
        self.pipelines = new_pipelines()
        self.models = [Model() for _ in self.pipelines]
        self.changed = set()
        self.last = {}

    @property
    def store(self):
        """One of the two, in turns: neither may rely on what it remembers."""
        self.turn += 1
        return self.stores[self.turn % 2]

    def carry_out(self, act, crash):
        """Do it, or break down in the middle of it, which leaves nothing: returns None."""
        store, done = self.store, []
        if crash is None:
            return act(store)
        breakdown = Breakdown(crash)
        with breakdown.of(store.database.engine):
            done.append(act(store))
        return None if breakdown.happened else done[0]

    def changes(self, number, act, crash=None):
        """Carry out what returns the events it appends; returns whether it did."""
        self.changed.add(number)
        stored = self.carry_out(act, crash)
        self.models[number].append(stored or [])
        return stored is not None

    def version(self, number, of):
        head = self.models[number].head
        return max(0, head + 1 + of) if of < 0 else round(of * head)

    @rule()
    def reopen(self):
        self.store.close()
        self.stores[self.turn % 2] = connect(self.url)

    @rule(number=numbers, batch=batches, crash=crashes)
    def append(self, number, batch, crash):
        head, again = self.models[number].head, uuid4()

        def act(store):
            return store.append(self.pipelines[number], *batch, expected=head, id=again)

        if self.changes(number, act, crash):
            check_appended(self.models[number].events[head:], batch)
            self.last[number] = (again, batch, self.models[number].events[head:])

    @rule(number=numbers, other=batches)
    def append_the_last_again(self, number, other):
        if number not in self.last:
            return
        again, batch, stored = self.last[number]
        gone = {each.version for each in self.models[number].history() if each.erased}
        if not gone & {each.version for each in stored}:
            assert self.store.append(self.pipelines[number], *batch, id=again) == stored
        if batch != other:
            with pytest.raises(AppendIdReused):
                self.store.append(self.pipelines[(number + 1) % 3], *other, id=again)

    @rule(number=numbers, batch=batches)
    def lose_the_acknowledgement(self, number, batch):
        head, again = self.models[number].head, uuid4()

        def commit_and_break_down(db):
            db.connection.dbapi_connection.commit()
            raise BrokenDown

        store = self.store
        with at_commit(store.database.engine, commit_and_break_down), pytest.raises(BrokenDown):
            store.append(self.pipelines[number], *batch, id=again)
        self.changes(number, lambda store: store.append(self.pipelines[number], *batch, id=again))
        check_appended(self.models[number].events[head:], batch)

    @rule(number=numbers, batch=batches, behind=st.sampled_from([-1, 1]))
    def expect_another_version(self, number, batch, behind):
        head = self.models[number].head
        if head + behind < 0:
            return
        with pytest.raises(HistoryConflict) as conflict:
            self.store.append(self.pipelines[number], *batch, expected=head + behind)
        assert (conflict.value.expected, conflict.value.actual) == (head + behind, head)

    @rule(number=numbers, one=batches, other=batches)
    def append_at_once(self, number, one, other):
        def append(store, batch):
            stored = store.append(self.pipelines[number], *batch)
            check_appended(stored, batch)
            return stored

        with ThreadPoolExecutor(2) as both:
            stored = sorted(both.map(append, self.stores, [one, other]), key=first_version)
        self.changes(number, lambda _: stored[0] + stored[1])

    @rule(number=numbers, batch=batches)
    def write_alone(self, number, batch):
        pipeline = self.pipelines[number]
        first, second = [self.store.append(pipeline, WriterStarted()) for _ in range(2)]
        with pytest.raises(StaleWriter):
            self.store.append(pipeline, *batch, writer=first[0].version)
        stored = self.store.append(pipeline, *batch, writer=second[0].version)
        self.changes(number, lambda _: first + second + stored)

    @rule(number=numbers, configured=registrations, crash=crashes)
    def register(self, number, configured, crash):
        def act(store):
            return register_catalog(store, self.pipelines[number], catalog(*deepcopy(configured)))

        before = self.models[number].catalog()
        if self.changes(number, act, crash):
            check_registered(before, self.models[number].catalog(), configured)

    @rule(number=numbers, of=versions, crash=crashes)
    def rewind(self, number, of, crash):
        model, version = self.models[number], self.version(number, of)

        def act(store):
            return rewind(store, self.pipelines[number], version, **WHY)

        try:
            then = model.state(version)
        except Lost:
            with pytest.raises(ErasedBody):
                act(self.store)
        else:
            if self.changes(number, act, crash):
                assert model.state() == then

    @rule(number=numbers, of=versions, stream=streams)
    def rewind_one(self, number, of, stream):
        model, version, now = self.models[number], self.version(number, of), {}
        try:
            now, then = model.state(), model.state(version)
        except Lost:
            return
        if None in now or None in then or stream not in {*now, *then}:
            return
        self.changes(
            number,
            lambda store: rewind(store, self.pipelines[number], version, [stream], **WHY),
        )
        others = {key: body for key, body in now.items() if key != stream}
        assert model.state() == others | ({stream: then[stream]} if stream in then else {})

    @rule(number=numbers, crash=crashes)
    def clear(self, number, crash):
        if self.changes(number, lambda s: clear(s, self.pipelines[number], **WHY), crash):
            assert self.models[number].state() == {}

    @rule(number=numbers, stream=streams)
    def clear_one(self, number, stream):
        now = self.models[number].state()
        if stream in now:
            self.changes(number, lambda s: clear(s, self.pipelines[number], [stream], **WHY))
            del now[stream]
            assert self.models[number].state() == now
        elif None not in now:
            with pytest.raises(StreamNotFound):
                clear(self.store, self.pipelines[number], [stream], **WHY)

    @rule(number=numbers, wanted=states, crash=crashes)
    def set(self, number, wanted, crash):
        def act(store):
            return set_state(store, self.pipelines[number], wanted, **WHY)

        if self.changes(number, act, crash):
            given = {stream_of(text): text.encode() for text in wanted}
            assert self.models[number].state() == given

    @rule(number=numbers, by=st.integers(1, 2), of=versions, crash=crashes)
    def copy(self, number, by, of, crash):
        target, version = (number + by) % 3, self.version(number, of)

        def act(store):
            return copy(store, self.pipelines[number], self.pipelines[target], version, **WHY)

        try:
            then = self.models[number].state(version)
        except Lost:
            with pytest.raises(ErasedBody):
                act(self.store)
        else:
            if self.changes(target, act, crash):
                assert self.models[target].state() == then

    @rule(number=numbers, by=st.integers(1, 2), crash=crashes)
    def move(self, number, by, crash):
        target, now = (number + by) % 3, self.models[number].state()
        places = [self.pipelines[number], self.pipelines[target]]
        stored = self.carry_out(lambda store: move(store, *places, **WHY), crash)
        for index, place in zip((number, target), places, strict=True):
            self.changes(
                index, lambda _, at=place: [each for each in stored or [] if each.pipeline == at]
            )
        if stored is not None:
            assert (self.models[target].state(), self.models[number].state()) == (now, {})

    @rule(number=numbers, of=versions, crash=crashes)
    def erase(self, number, of, crash):
        model, version = self.models[number], self.version(number, of)
        if version:
            chosen = [model.events[version - 1]]
            self.erases(number, model.kept(chosen), crash, version=version)

    @rule(number=numbers, stream=streams)
    def erase_a_stream(self, number, stream):
        model = self.models[number]
        chosen = [each for each in model.events if each.stream == stream]
        if chosen:
            self.erases(number, model.kept(chosen), None, stream=stream)
        elif model.head:
            with pytest.raises(StreamNotFound):
                erase(self.store, self.pipelines[number], stream=stream, reason="asked to")

    def erases(self, number, kept, crash, **chosen):
        model, pipeline = self.models[number], self.pipelines[number]
        planned = erase(self.store, pipeline, dry_run=True, reason="asked to", **chosen)
        erased = self.carry_out(
            lambda store: erase(store, pipeline, reason="asked to", **chosen), crash
        )
        for told in filter(None, (planned, erased)):
            assert told.bodies == kept
            assert [each.version for each in told.events] == model.pointing_at(kept)
        self.has_erased(number, erased)

    def has_erased(self, number, erased):
        if erased and erased.bodies:
            self.changes(number, lambda s: [s.event(self.pipelines[number], erased.version)])

    @rule(number=numbers, crash=crashes)
    def retain(self, number, crash):
        superseded = self.models[number].superseded()
        among = [self.pipelines[number]]
        erased = self.carry_out(lambda s: retention(s, timedelta(0), pipelines=among), crash)
        if erased is not None:
            assert [each.bodies for each in erased] == [superseded] * bool(superseded)
            self.has_erased(number, *erased or [None])

    @rule(crash=crashes)
    def rebuild(self, crash):
        self.carry_out(rebuild, crash)
        self.changed.update(range(3))

    @rule(number=numbers, of=versions)
    def look_back(self, number, of):
        """By version, and by the moment at which it was stored."""
        model, version = self.models[number], self.version(number, of)
        moments = [version, *(model.events[version - 1].stored_at for _ in range(version and 1))]
        for moment in moments:
            self.same(
                lambda m=moment: _state(state_as_of(self.store, self.pipelines[number], m)),
                lambda: list(model.state(version).items()),
            )
            self.same(
                lambda m=moment: _catalog(catalog_as_of(self.store, self.pipelines[number], m)),
                lambda: model.catalog(version),
            )

    def same(self, told, expected):
        try:
            right = expected()
        except Lost:
            with pytest.raises(ErasedBody):
                told()
        else:
            assert told() == right

    @precondition(lambda self: self.changed)
    @invariant()
    def all_is_as_the_model_says(self):
        store = self.store
        for number in self.changed:
            pipeline, model = self.pipelines[number], self.models[number]
            history = list(store.history(pipeline))
            assert history == model.history()
            assert all(one.stored_at < then.stored_at for one, then in pairwise(history))
            assert _state(latest_state(store, pipeline)) == list(model.state().items())
            assert _catalog(latest_catalog(store, pipeline)) == model.catalog()
        begun = [self.pipelines[number] for number in self.changed if self.models[number].head]
        assert verify(store, begun).is_whole
        assert not check_tables(store, begun).problems
        self.changed.clear()

    def teardown(self):
        """Elsewhere the histories are the same, and nothing that was erased comes back."""
        begun = [
            pipeline
            for pipeline, model in zip(self.pipelines, self.models, strict=True)
            if model.head
        ]
        assert reapply(self.store) == []
        with connect(self.empty()) as elsewhere:
            import_histories(elsewhere, export_histories(self.store, begun))
            for pipeline, model in zip(self.pipelines, self.models, strict=True):
                assert list(elsewhere.history(pipeline)) == model.history()
                assert _state(latest_state(elsewhere, pipeline)) == list(model.state().items())
        for store in self.stores:
            store.close()


def first_version(stored):
    return stored[0].version


def _state(view):
    if view.whole is not None:
        return [(None, view.whole)]
    return list(view.streams.items())


def _catalog(view):
    return {
        stream: (columns(configured.model_dump(by_alias=True)), configured.sync_id)
        for stream, configured in view.by_descriptor.items()
    }


@pytest.mark.parametrize(
    ("examples", "steps"), [(4, 15), pytest.param(25, 50, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(3600)
def test_whatever_happens_every_answer_is_that_of_a_model(
    shared_store, empty_log, tmp_path, examples, steps
):
    numbered = count()

    def empty():
        file = tmp_path / f"{next(numbered)}.db"
        file.write_bytes(empty_log("sqlite://").read_bytes())
        return file

    class OnDatabase(Machine):
        url = shared_store.database.engine.url

    OnDatabase.empty = staticmethod(empty)
    run_state_machine_as_test(
        OnDatabase, settings=settings(max_examples=examples, stateful_step_count=steps)
    )
