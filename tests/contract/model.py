"""What a history adds up to, told once more in plain Python: what stands, and what ended it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eventstore import StreamDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventstore import StoredEvent

STATES = ("StateSaved", "StateEmitted")


class Lost(Exception):
    """What a moment cannot tell any more: it was erased later."""


class Model:
    """The events of a history as they were acknowledged, and questions that go through all."""

    def __init__(self) -> None:
        """Begin without any."""
        self.events: list[StoredEvent] = []
        self._erased: dict[int, int] = {}  # the version that kept a body -> that of its erasure

    @property
    def head(self) -> int:
        """How many events there are."""
        return len(self.events)

    def append(self, stored: Iterable[StoredEvent]) -> None:
        """Take in what was acknowledged."""
        for each in stored:
            assert each.version == self.head + 1
            if each.body_version not in {None, each.version}:
                keeper = self.events[each.body_version - 1]
                assert (keeper.body, keeper.body_version) == (each.body, keeper.version)
                assert keeper.version not in self._erased
            self.events.append(each)
            if each.kind == "BodyErased":
                versions = json.loads(each.body)["versions"]
                self._erased.update(dict.fromkeys(versions, each.version))

    def history(self) -> list[StoredEvent]:
        """The events as they are read now."""
        return [
            replace(each, body=b"", erased=True) if each.body_version in self._erased else each
            for each in self.events
        ]

    def state(self, version: int | None = None) -> dict[StreamDescriptor | None, bytes]:
        """The bodies by stream, least recent first, None for a GLOBAL or LEGACY one."""
        past = self._until(version)
        saved = [each for each in past if each.kind == "StateSaved"]
        standing = [each for each in saved if not any(_ends(later, each) for later in past)]
        return {each.stream: each.body for each in self._told(standing, version)}

    def catalog(self, version: int | None = None) -> dict[StreamDescriptor, tuple[list[str], Any]]:
        """The columns and the sync id of each stream."""
        past = self._until(version)
        defined = {each.stream: each for each in past if each.kind == "StreamDefined"}
        registered = [each for each in past if each.kind == "CatalogRegistered"][-1:]
        entries = [
            entry
            for each in self._told(registered, version)
            for entry in json.loads(each.body)["streams"]
        ]
        syncs = {_descriptor(entry): entry.get("sync_id") for entry in entries}
        return {
            each.stream: (columns(json.loads(each.body)), syncs.get(each.stream))
            for each in self._told(defined.values(), version)
        }

    def kept(self, events: Iterable[StoredEvent]) -> tuple[int, ...]:
        """The versions that keep the bodies of these events, of those that are there."""
        kept = {each.body_version for each in events if each.kind != "BodyErased"}
        return tuple(sorted(kept - {None} - self._erased.keys()))

    def pointing_at(self, bodies: Iterable[int]) -> list[int]:
        """The versions of the events that have one of these bodies."""
        return [each.version for each in self.events if each.body_version in {*bodies}]

    def superseded(self) -> tuple[int, ...]:
        """The bodies that nothing needs: no catalog, and no state that was confirmed last."""
        newest = {each.stream: each for each in self.events if each.kind == "StateSaved"}
        needed = [each for each in self.events if each.kind not in STATES]
        states = [each for each in self.events if each.kind in STATES]
        return tuple(
            version
            for version in self.kept(states)
            if version not in {each.body_version for each in [*needed, *newest.values()]}
        )

    def _until(self, version: int | None) -> list[StoredEvent]:
        return self.events[:version]

    def _told(self, events: Iterable[StoredEvent], version: int | None) -> list[StoredEvent]:
        """Those whose bodies had not been erased by then; raises Lost if one was since."""
        until = self.head if version is None else version
        erased = {each.version: self._erased.get(each.body_version or 0) for each in events}
        if any(at and at > until for at in erased.values()):
            raise Lost
        return [each for each in events if not erased[each.version]]


def stream_of(message: str) -> StreamDescriptor | None:
    """The stream of a state, None if it is GLOBAL or LEGACY."""
    stream = json.loads(message).get("stream")
    return stream and _descriptor(stream["stream_descriptor"])


def descriptor_of(configured: dict[str, Any]) -> StreamDescriptor:
    """The stream that is configured."""
    return _descriptor(configured["stream"])


def columns(configured: dict[str, Any]) -> list[str]:
    """The columns of a configured stream."""
    return list(configured["stream"]["json_schema"]["properties"])


def _descriptor(named: dict[str, Any]) -> StreamDescriptor:
    return StreamDescriptor(named["name"], named.get("namespace"))


def _ends(later: StoredEvent, saved: StoredEvent) -> bool:
    """Whether a state does not stand any more after a later event."""
    if later.version <= saved.version or later.kind not in {"StateSaved", "StateCleared"}:
        return False
    if later.stream in {None, saved.stream}:
        return True
    return saved.stream is None and later.kind == "StateSaved"
