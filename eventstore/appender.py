"""Who appends: what this process remembers of each history, and where it waits in line."""

from __future__ import annotations

import time
from contextlib import nullcontext
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from eventstore import reading
from eventstore.dialects import dialect_of
from eventstore.errors import AppendIdReused, HistoryConflict, StaleWriter, StoreUnavailable
from eventstore.head import stopwatch_us
from eventstore.memory import find_end
from eventstore.placing import Append, place
from eventstore.schema import LOG, schema_name
from eventstore.writing import write, write_at_once, write_if_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine

    from eventstore.database import Database
    from eventstore.events import Pipeline, StoredEvent
    from eventstore.memory import Memory
    from eventstore.placing import Placed
    from eventstore.writing import Beside

_CROWDED_S = 1.0
"""How long after a lost race one waits in line to append: who has won is fast enough to win again,
and who pauses is passed by all who do not."""


class _Line(NamedTuple):
    pipeline_id: int
    until: float


class Appender:
    """Appends to the histories of one database; the parameters are those of `EventStore`."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], int],
        inline: Callable[[Connection, Sequence[StoredEvent]], None] | None,
        beside: Callable[[StoredEvent], Beside | None],
    ) -> None:
        """Remember nothing yet."""
        self._database = database
        self._clock = clock
        self._inline = inline
        self._beside = beside
        self._memories: dict[Pipeline, Memory] = {}
        self._memories_of: Engine | None = None
        self._lines: dict[Pipeline, _Line] = {}

    def append(self, append: Append, *, named: bool) -> list[StoredEvent]:
        """Append in a transaction of its own, once under an id that the caller has `named`."""
        tries = count()

        def work(db: Connection) -> tuple[list[StoredEvent], Memory | None]:
            again = next(tries) > 0
            # An acknowledgement may have got lost.
            return self._append(db, append, may_be_there=again or named, again=again, alone=True)

        stored, memory = self._database.transact(work)
        if memory:
            self._memories[append.pipeline] = memory
        return stored

    def append_within(self, db: Connection, append: Append, *, named: bool) -> list[StoredEvent]:
        """Append in a transaction of the caller's, once under an id that the caller has `named`."""
        stored, _ = self._append(db, append, may_be_there=named)
        return stored

    def require_inline(self) -> None:
        """Raise StoreUnavailable if this log has inline tables that nobody here keeps."""
        if self._inline is None and self._database.components() != {LOG.component}:
            raise StoreUnavailable(
                "this log has tables that every append must keep up to date, and this store does "
                "not know them: open it with projections.connect"
            )

    def forget(self) -> None:
        """Remember nothing of any history."""
        self._memories.clear()

    def _append(
        self,
        db: Connection,
        append: Append,
        *,
        may_be_there: bool,
        again: bool = False,
        alone: bool = False,
    ) -> tuple[list[StoredEvent], Memory | None]:
        """Append, unless it was done before, and say what there is to remember.

        `again` after a try that failed; `alone` if the transaction is for this only.
        """
        self.require_inline()
        dialect, pipeline = dialect_of(db), append.pipeline
        if line := self._line(pipeline):
            dialect.wait_in_line(db, schema_name(db), line.pipeline_id)
        with dialect.each_alone(db) if alone and not line else nullcontext():
            # Taken away until it is committed: what a failed transaction learned is wrong.
            memory = self._memories_in(db).pop(pipeline, None)
            expects = append.expected is not None or append.writer is not None
            read = may_be_there or expects or line is not None
            if memory and alone and not read and dialect.INSERTS_TOGETHER:
                stored = self._append_unseen(db, append, memory)
                if stored:
                    return stored, memory
            memory, now = find_end(db, pipeline, memory, self._clock, read=read)
            if again:
                self._lines[pipeline] = _Line(memory.id, time.monotonic() + _CROWDED_S)
            # Looked for behind the head: what is appended after that was read loses the race.
            if may_be_there and (stored := reading.appended_as(db, append.id)):
                return _same_append(stored, append), None
            _check_expectations(db, append, memory)
            # Also of a body that is there already: in a table it stands as it is.
            dialect.check_size(db, max([len(draft.body) for draft in append.drafts], default=0))
            placed = place(db, append, memory, now)
            written = dialect.INSERTS_TOGETHER and self._write_at_once(db, placed)
        if not written:
            write(db, placed)
            if self._inline:
                self._inline(db, placed.stored)
        memory.learn(placed.learned)
        memory.mark = dialect.mark_written(db, pipeline.key)
        return placed.stored, memory

    def _write_at_once(self, db: Connection, placed: Placed) -> bool:
        """Write it all by one statement, if it is an event that the tables can show so."""
        show = self._beside(*placed.stored) if placed.is_event_with_body else None
        if show:
            write_at_once(db, placed, show)
        return show is not None

    def _append_unseen(
        self, db: Connection, append: Append, memory: Memory
    ) -> list[StoredEvent] | None:
        """Append a state behind the head of a moment ago, if that is still the last.

        What was read then need not be asked for again: that takes as long as to write. What time it
        is can only be estimated: what is early waits until its time has come.
        """
        estimated_us = memory.time_if_fresh()
        if estimated_us is None or len(append.drafts) > 1:
            return None
        [draft] = append.drafts
        if draft.stream is None or not draft.body or not memory.knows_another_body(draft):
            return None
        placed = place(db, append, memory, estimated_us)
        show = self._beside(*placed.stored) if placed.is_event_with_body else None
        asked_at_us = stopwatch_us()
        now_us = write_if_last(db, placed, show, memory.head) if show else None
        if now_us is None:
            return None
        memory.learn(placed.learned)
        memory.hear_time(asked_at_us, now_us)
        if now_us < estimated_us:
            time.sleep((estimated_us - now_us) / 1_000_000)
        return placed.stored

    def _line(self, pipeline: Pipeline) -> _Line | None:
        line = self._lines.get(pipeline)
        return line if line and time.monotonic() < line.until else None

    def _memories_in(self, db: Connection) -> dict[Pipeline, Memory]:
        """What is remembered of a database: nothing, where another was asked before."""
        if self._memories_of is not db.engine:
            self._memories_of, self._memories = db.engine, {}
        return self._memories


def _check_expectations(db: Connection, append: Append, memory: Memory) -> None:
    """Raise HistoryConflict or StaleWriter if the history is not what the caller has seen."""
    expected, actual = append.expected, memory.head.version
    if expected is not None and expected != actual:
        raise HistoryConflict(append.pipeline, expected=expected, actual=actual)
    if append.writer is not None:
        _check_writer(db, append, memory.id)


def _check_writer(db: Connection, append: Append, pipeline_id: int) -> None:
    """Raise StaleWriter unless the writer is the last that has started.

    Read behind the head, as the append id is: who starts from now on wins the race for it.
    """
    last = reading.newest_of_kind(db, pipeline_id, "WriterStarted")
    if last is None or last.version != append.writer:
        raise StaleWriter(append.pipeline, append.writer, last)


def _same_append(stored: list[StoredEvent], append: Append) -> list[StoredEvent]:
    # An erased body cannot be compared any more: its place in the append has to do.
    erased = {place for place, event in enumerate(stored) if event.erased}
    then = [(s.pipeline, s.kind, s.stream, s.origin, s.of, s.body) for s in stored]
    now = [
        (append.pipeline, d.kind, d.stream, d.origin, d.of, b"" if place in erased else d.body)
        for place, d in enumerate(append.drafts)
    ]
    if then != now:
        first = stored[0]
        raise AppendIdReused(
            f"append id {append.id} was used for {len(stored)} other event(s) of {first.pipeline} "
            f"from version {first.version} on: use a new id for new content"
        )
    return stored
