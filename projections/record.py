"""The pipe: Airbyte messages pass through, and each STATE is durable before its line goes on."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from eventstore.errors import InvalidEvent, StoreUnavailable
from eventstore.events import StateEmitted, StateSaved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from eventstore.events import Pipeline
    from eventstore.store import EventStore

_CHUNK = 1 << 16


@dataclass
class Passed:
    """What went through, and what was wrong with it."""

    lines: int = 0
    states: int = 0
    not_json: int = 0
    invalid: list[str] = field(default_factory=list)


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
    _terminated: bool = False
    _waiting: bool = False

    def pump(self, source: int, sink: int) -> None:
        """Pass every line on, byte for byte, until the input ends.

        Raises Stopped before that when the sink is closed, the database fails or SIGTERM comes;
        then every line before the one it names was passed on.
        """
        before = signal.signal(signal.SIGTERM, self._terminate)
        try:
            for lines in self._read(source):
                self._pass_on(lines, sink)
        finally:
            signal.signal(signal.SIGTERM, before)

    def _read(self, source: int) -> Iterator[list[bytes]]:
        """Yield the whole lines of each chunk, and at the end what stands behind the last one."""
        pending: list[bytes] = []
        while chunk := self._wait_for(source):
            head, newline, tail = chunk.rpartition(b"\n")
            if newline:
                lines = b"".join([*pending, head]).split(b"\n")
                yield [line + b"\n" for line in lines]
                pending = []
            pending.append(tail)
        if rest := b"".join(pending):
            yield [rest]

    def _wait_for(self, source: int) -> bytes:
        self._waiting = True
        try:
            if self._terminated:
                raise _terminated()
            return os.read(source, _CHUNK)
        finally:
            self._waiting = False

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        # Between two lines, or at once while there is nothing to do but wait for one.
        self._terminated = True
        if self._waiting:
            raise _terminated()

    def _pass_on(self, lines: list[bytes], sink: int) -> None:
        """Record the states among the lines, each before its line leaves."""
        done: list[bytes] = []
        try:
            for line in lines:
                if self._terminated:
                    raise _terminated()
                self.passed.lines += 1
                self._record(line)
                done.append(line)
        finally:
            _write(sink, b"".join(done))

    def _record(self, line: bytes) -> None:
        message = line.strip()
        if not _may_be_state(message):
            if message and (message[:1] != b"{" or message[-1:] != b"}"):
                self.passed.not_json += 1
            return
        try:
            parsed = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            self._refuse(message, error)
            return
        if not isinstance(parsed, dict) or parsed.get("type") != "STATE":
            return
        kind = StateEmitted if self.emitted else StateSaved
        try:
            self.store.append(
                self.pipeline, kind(message), actor=self.actor, reason=self.reason, run=self.run
            )
        except InvalidEvent as error:
            self.passed.invalid.append(f"line {self.passed.lines}: {error}")
        except StoreUnavailable as error:
            raise Stopped(
                f"line {self.passed.lines} and what follows it were not passed on: {error}"
            ) from error
        else:
            self.passed.states += 1

    def _refuse(self, message: bytes, error: orjson.JSONDecodeError) -> None:
        """Tell a state that is not strict JSON from a line that is no JSON at all."""
        if re.match(rb'\{.*"type"\s*:\s*"STATE"', message, re.DOTALL):
            self.passed.invalid.append(f"line {self.passed.lines}: not strict JSON: {error}")
        else:
            self.passed.not_json += 1


def _may_be_state(message: bytes) -> bool:
    """Whether a line has to be parsed: the word stands in it, or letters that are escaped."""
    return b'"STATE"' in message or b"\\u" in message


def _terminated() -> Stopped:
    return Stopped("terminated (SIGTERM)", signal=signal.SIGTERM)


def _write(sink: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(sink, data) :]
    except BrokenPipeError as error:
        raise Stopped("whoever read the output is gone") from error
