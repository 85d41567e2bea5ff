"""The states that a source puts out while it is read, appended in batches as they come."""

from __future__ import annotations

import logging
from threading import Lock, Timer
from typing import TYPE_CHECKING

from eventstore.events import StateEmitted, StreamDescriptor
from eventstore.identity import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from uuid import UUID

    from eventstore.codec import Draft

_log = logging.getLogger(__name__)

BATCH = 100
"""States appended together at most."""

LONGEST_WAIT_S = 1.0
"""How long a state waits for others."""


class EmittedStates:
    """Takes in the states of one read, in the order in which the source put them out.

    `encode` checks a state, and `append` stores a batch under an id. With `punctual`, a thread sees
    to it that none waits longer than LONGEST_WAIT_S, also while the source is silent.
    """

    def __init__(
        self,
        encode: Callable[[StateEmitted], Draft],
        append: Callable[[UUID, Sequence[StateEmitted]], object],
        *,
        punctual: bool,
    ) -> None:
        """Wait for the first state."""
        self._encode = encode
        self._append = append
        self._punctual = punctual
        self._lock = Lock()
        self._waiting: list[StateEmitted] = []
        self._timer: Timer | None = None
        self._unstored: tuple[UUID, list[StateEmitted]] | None = None
        self._whole: bytes | None = None
        self._streams: dict[StreamDescriptor, bytes] = {}

    def add(self, message: object) -> None:
        """Take a state in; raises InvalidEvent, or why states could not be stored."""
        draft = self._encode(StateEmitted(message))
        if draft.stream is None:
            self._whole, self._streams = draft.body, {}
        else:
            self._streams.pop(draft.stream, None)
            self._streams[draft.stream] = draft.body
        with self._lock:
            self._waiting.append(StateEmitted(draft.body))
            if self._unstored or len(self._waiting) >= BATCH:
                self._flush()
            elif self._punctual and self._timer is None:
                self._timer = Timer(LONGEST_WAIT_S, self._flush_late, [self._waiting])
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Store what waits; raises why it could not be stored, and keeps it for the next time."""
        with self._lock:
            self._flush()

    def unsaved(self, saved: Collection[bytes], stream_names: Collection[str]) -> list[bytes]:
        """What is still to be saved after the read, so that the state is the one put out last.

        `saved` are the states that were saved since; those of streams that are not among
        `stream_names` are left out, since their records are not kept either.
        """
        streams = [body for key, body in self._streams.items() if key.name in stream_names]
        if self._whole is not None:  # what it had replaced may have been saved after it
            return [self._whole, *streams]
        return [body for body in streams if body not in saved]

    def _flush(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._unstored or self._waiting:
            if self._unstored is None:
                self._unstored, self._waiting = (uuid7(), self._waiting), []
            self._append(*self._unstored)
            self._unstored = None

    def _flush_late(self, waiting: list[StateEmitted]) -> None:
        with self._lock:
            if waiting is not self._waiting:
                return  # it was flushed while this thread waited for the lock
            try:
                self._flush()
            except Exception as error:  # noqa: BLE001 - the next state, or the end, tries again
                _log.warning("%d states are not stored yet: %s", len(waiting), error)
