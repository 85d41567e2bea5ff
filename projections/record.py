"""The pipe: Airbyte messages pass through, and each STATE is durable before its line goes on."""

from __future__ import annotations

import os
import re
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import orjson

from eventstore.errors import InvalidEvent, StaleWriter, StoreUnavailable
from eventstore.events import StateEmitted, StateSaved, WriterStarted
from projections.display import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from eventstore.events import Event, Pipeline, StoredEvent
    from eventstore.store import EventStore

_CHUNK = 1 << 16

# To search for what begins with a letter takes little longer than to read the memory.
_TYPE_IS_STATE = re.compile(rb'"type"\s*:\s*"STATE"')
_ESCAPED_LETTER_OF_THOSE = re.compile(rb"\\u00(?:4[15]|5[34]|65|7[049])")
_NOT_BETWEEN_OBJECTS = re.compile(rb'\n(?:(?<!\}\n)(?<!\}\r\n)|(?!\{"|\Z))')

_TOLD = 10
"""Of the invalid states, at the end."""


@dataclass
class Passed:
    """What went through, and what was wrong with it."""

    lines: int = 0
    any_message: bool = False
    states: int = 0
    not_json: int = 0
    invalid: list[str] = field(default_factory=list)

    def report(self, pipeline: Pipeline) -> list[str]:
        """Say so in lines, the first few that were invalid among them."""
        states, lines = counted(self.states, "state"), counted(self.lines, "line")
        said = [f"{states} of {pipeline} recorded, {lines} passed on"]
        if self.lines and not self.any_message:
            said.append("no line was an Airbyte message: a connector puts out one on each line")
        if self.not_json:
            said.append(f"no JSON: {counted(self.not_json, 'line')}")
        if self.invalid:
            said.append(f"invalid and not recorded: {counted(len(self.invalid), 'state')}")
            said += self.invalid[:_TOLD]
        if len(self.invalid) > _TOLD:
            said.append(f"and {len(self.invalid) - _TOLD} more")
        return said


class Stopped(Exception):
    """The pipe ended before its input did; `signal` is the number of the signal, if it was one."""

    def __init__(self, why: str, *, signal: int | None = None) -> None:
        """Say why in a sentence."""
        super().__init__(why)
        self.signal = signal


@dataclass
class Recorder:
    """Records the states of one pipeline while its messages pass from one file to another."""

    store: EventStore
    pipeline: Pipeline
    emitted: bool = False
    actor: str | None = None
    reason: str | None = None
    run: str | None = None
    passed: Passed = field(default_factory=Passed)
    _started: int | None = None
    _signal: int | None = None
    _waiting: bool = False

    def take_over(self) -> None:
        """Be the exclusive writer from now on: who was it before stops at its next state."""
        [started] = self._append(WriterStarted())
        self._started = started.version

    def pump(self, source: int, sink: int) -> None:
        """Pass every line on, byte for byte, until the input ends.

        Raises Stopped before that when the sink is closed, the database fails or a signal comes;
        then every line before the one it names was passed on.
        """
        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._interrupt) for number in signals]
        try:
            for block in self._read(source):
                if self._needs_no_parsing(block):
                    self._write(sink, block)
                    self.passed.lines += block.count(b"\n")
                else:
                    self._pass_on(block, sink)
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def _read(self, source: int) -> Iterator[bytes]:
        """Yield the whole lines of each chunk, and at the end what stands behind the last one."""
        pending: list[bytes] = []
        while chunk := self._wait_for(source):
            head, newline, tail = chunk.rpartition(b"\n")
            if newline:
                yield b"".join([*pending, head, newline])
                pending = []
            pending.append(tail)
        if rest := b"".join(pending):
            yield rest

    def _wait_for(self, source: int) -> bytes:
        try:
            with self._interruptible():
                return os.read(source, _CHUNK)
        except OSError as error:
            raise Stopped(f"the input cannot be read: {error.strerror}") from error

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let a signal end what only waits; otherwise it ends the work between two lines."""
        self._waiting = True
        try:
            self._stop_if_interrupted()
            yield
        finally:
            self._waiting = False

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        if self._waiting:
            self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            raise Stopped(f"stopped by {name}", signal=self._signal)

    def _needs_no_parsing(self, lines: bytes) -> bool:
        """Whether each line looks like a JSON object, and none of them like a state.

        The first message is parsed all the same, to see that it is one.
        """
        return (
            self.passed.any_message
            and lines.startswith(b'{"')
            and lines.endswith((b"}\n", b"}\r\n"))
            and not _NOT_BETWEEN_OBJECTS.search(lines)
            and not _TYPE_IS_STATE.search(lines)
            and not _ESCAPED_LETTER_OF_THOSE.search(lines)
        )

    def _pass_on(self, block: bytes, sink: int) -> None:
        """Record the states among the lines, each before its line leaves."""
        done: list[bytes] = []
        try:
            for line in BytesIO(block):
                self._stop_if_interrupted()
                stored = self._record(line, self.passed.lines + 1)
                self.passed.lines += 1
                done.append(line)
                if stored:  # and took its time: whoever waits for the line gets it now
                    self._write(sink, b"".join(done))
                    done.clear()
        finally:
            self._write(sink, b"".join(done))

    def _record(self, line: bytes, number: int) -> bool:
        """Record the state in a line, if there is one; returns whether it is stored."""
        message = line.strip()
        if not message or self._needs_no_parsing(line):
            return False
        try:
            parsed = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            # A state that is no strict JSON is a lost state, and no mere noise.
            if message.startswith(b"{") and _TYPE_IS_STATE.search(message):
                self.passed.invalid.append(f"line {number}: not strict JSON: {error}")
            else:
                self.passed.not_json += 1
            return False
        if not isinstance(parsed, dict) or "type" not in parsed:
            return False
        self.passed.any_message = True
        if parsed["type"] != "STATE":
            return False
        kind = StateEmitted if self.emitted else StateSaved
        try:
            self._append(kind(message))
        except InvalidEvent as error:
            self.passed.invalid.append(f"line {number}: {error}")
            return False
        except (StoreUnavailable, StaleWriter) as error:
            raise Stopped(
                f"line {number} and what follows it were not passed on: {error}"
            ) from error
        self.passed.states += 1
        return True

    def _append(self, event: Event) -> list[StoredEvent]:
        return self.store.append(
            self.pipeline,
            event,
            actor=self.actor,
            reason=self.reason,
            run=self.run,
            writer=self._started,
        )

    def _write(self, sink: int, data: bytes) -> None:
        try:
            while data:
                with self._interruptible():
                    data = data[os.write(sink, data) :]
        except BrokenPipeError as error:
            raise Stopped("whoever read the output is gone") from error
        except OSError as error:
            raise Stopped(f"the output cannot be written: {error.strerror}") from error
