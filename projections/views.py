"""What a history adds up to: pure folds over its events, and the views they make."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eventstore import configured_streams, payload
from eventstore.events import Pipeline, Said, StoredEvent, StreamDescriptor, to_microseconds
from eventstore.state_messages import state_message
from projections.providers import CatalogProvider, StateProvider

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from airbyte_protocol.models import (
        AirbyteStateMessage,
        ConfiguredAirbyteCatalog,
        ConfiguredAirbyteStream,
    )

    from eventstore.codec import Draft

STATE_KINDS = ("StateSaved", "StateCleared")
"""The kinds a state view depends on; of each, the newest per stream is enough."""

CATALOG_KINDS = ("StreamDefined", "CatalogRegistered")
"""The kinds a catalog view depends on; of each, the newest per stream is enough."""


@dataclass(frozen=True)
class StateView:
    """The state of a pipeline after one of its events.

    `whole` is the GLOBAL or LEGACY state, if the newest state is one; otherwise `streams` holds
    the newest STREAM state per stream, least recently changed first. Both are the exact bytes.
    `final` says that no later append can change the answer. A state whose body was erased is in
    neither: `erased` says whose it was (None: a GLOBAL or LEGACY state) and which version kept it.
    """

    pipeline: Pipeline
    version: int = 0
    stored_at: datetime | None = None
    final: bool = False
    whole: bytes | None = None
    streams: Mapping[StreamDescriptor, bytes] = field(default_factory=dict)
    erased: Mapping[StreamDescriptor | None, int] = field(default_factory=dict, compare=False)

    def after(self, *stored: StoredEvent) -> StateView:
        """The view after more events."""
        if not stored:
            return self
        return self._with(stored, version=stored[-1].version, stored_at=stored[-1].stored_at)

    def with_(self, *events: StoredEvent | Said | Draft) -> StateView:
        """The state as events would leave it, at the same version."""
        return self._with(events)

    def _with(self, events: Iterable[StoredEvent | Said | Draft], **place: Any) -> StateView:
        telling = [event for event in events if event.kind in STATE_KINDS]
        if not telling:
            return replace(self, **place)
        whole, streams, erased = self.whole, dict(self.streams), dict(self.erased)
        for event in telling:
            stream, saves = event.stream, event.kind == "StateSaved"
            lost = erased_by(event)
            if stream is None:
                whole = event.body if saves and not lost else None
                streams, erased = {}, lost
                continue
            streams.pop(stream, None)
            erased.pop(stream, None)
            if saves:
                whole = None
                erased.pop(None, None)
                if lost:
                    erased |= lost
                else:
                    streams[stream] = event.body
        return replace(self, whole=whole, streams=streams, erased=erased, **place)

    @property
    def bodies(self) -> list[bytes]:
        """The states, each exactly as it was stored."""
        return [self.whole] if self.whole is not None else list(self.streams.values())

    @cached_property
    def messages(self) -> list[AirbyteStateMessage]:
        """The states as Airbyte's models."""
        return [state_message(body) for body in self.bodies]

    def state_file(self) -> str:
        """The text for a connector's `--state` file, made from the stored bytes.

        A list of messages, `[]` when there are none; for a LEGACY state its bare blob.
        """
        if self.whole is not None and payload.state_kind(self.whole) == "LEGACY":
            return payload.legacy_blob(self.whole).decode()
        return "[" + "\n, ".join(body.decode() for body in self.bodies) + "]"

    def only(self, stream_names: Iterable[str]) -> StateView:
        """The same view with the STREAM states of these names alone."""
        wanted = set(stream_names)
        kept = {key: body for key, body in self.streams.items() if key.name in wanted}
        return replace(self, streams=kept)

    def or_else(self, other: StateView) -> StateView:
        """The same state where there is any, with the streams that only the other has.

        By name alone, as PyAirbyte joins the states of a cache and of a destination. A GLOBAL or
        LEGACY state is whole: nothing is added to it, nor it to anything.
        """
        if not self.bodies:
            return other
        if self.whole is not None or other.whole is not None:
            return self
        names = {stream.name for stream in self.streams}
        added = {key: body for key, body in other.streams.items() if key.name not in names}
        return replace(self, streams={**self.streams, **added})

    def provider(self) -> StateProvider:
        """Hand the state to a runner."""
        return StateProvider(self)


def standing(events: Iterable[StoredEvent]) -> dict[StreamDescriptor | None, StoredEvent]:
    """The events that say what the state is, by stream; `StateView` is the same rule.

    A GLOBAL or LEGACY state stands alone, under None.
    """
    found: dict[StreamDescriptor | None, StoredEvent] = {}
    for stored in events:
        supersede(found, stored)
    return found


def supersede(standing: dict[StreamDescriptor | None, StoredEvent], stored: StoredEvent) -> None:
    """Put one more event, in place, in the place of those that it makes void."""
    if stored.stream is None:
        standing.clear()
    elif stored.kind == "StateSaved":
        standing.pop(None, None)
    standing.pop(stored.stream, None)
    if stored.kind == "StateSaved":
        standing[stored.stream] = stored


@dataclass(frozen=True)
class CatalogView:
    """The catalog of a pipeline after one of its events: full configured streams, nothing lost.

    `erased` says whose definition was erased (None: the registration) and which version kept it.
    """

    pipeline: Pipeline
    version: int = 0
    stored_at: datetime | None = None
    final: bool = False
    definitions: Mapping[StreamDescriptor, bytes] = field(default_factory=dict)
    registered: Mapping[StreamDescriptor, Mapping[str, Any]] = field(default_factory=dict)
    erased: Mapping[StreamDescriptor | None, int] = field(default_factory=dict, compare=False)

    def after(self, *stored: StoredEvent) -> CatalogView:
        """The view after more events."""
        if not stored:
            return self
        place: dict[str, Any] = {"version": stored[-1].version, "stored_at": stored[-1].stored_at}
        telling = [event for event in stored if event.kind in CATALOG_KINDS]
        if not telling:
            return replace(self, **place)
        definitions, registered = dict(self.definitions), self.registered
        erased = dict(self.erased)
        for event in telling:
            erased.pop(event.stream, None)
            erased |= erased_by(event)
            if event.kind == "CatalogRegistered":
                registered = registered_by(event)
            elif event.stream is not None:
                definitions.pop(event.stream, None)
                if not event.erased:
                    definitions[event.stream] = event.body
        return replace(self, definitions=definitions, registered=registered, erased=erased, **place)

    @cached_property
    def by_descriptor(self) -> dict[StreamDescriptor, ConfiguredAirbyteStream]:
        """The configured streams in the order of the newest registration."""
        listed = [stream for stream in self.registered if stream in self.definitions]
        others = [stream for stream in self.definitions if stream not in self.registered]
        return {
            stream: configured_streams.configured_stream(
                self.definitions[stream], self.registered.get(stream, {})
            )
            for stream in [*listed, *others]
        }

    @property
    def streams(self) -> list[ConfiguredAirbyteStream]:
        """The configured streams."""
        return list(self.by_descriptor.values())

    @property
    def catalog(self) -> ConfiguredAirbyteCatalog:
        """The catalog as Airbyte's model."""
        return configured_streams.configured_catalog({"streams": []}).model_copy(
            update={"streams": self.streams}
        )

    def provider(self) -> CatalogProvider:
        """Hand the catalog to a runner."""
        return CatalogProvider(self.catalog)


def erased_by(event: StoredEvent | Said | Draft) -> dict[StreamDescriptor | None, int]:
    """What of an event is not there any more, by the version that kept it."""
    if not event.erased or event.body_version is None:
        return {}
    return {event.stream: event.body_version}


def registered_by(stored: StoredEvent) -> dict[StreamDescriptor, dict[str, Any]]:
    """The streams of a CatalogRegistered, each with the time its registration was stored."""
    if stored.erased:
        return {}
    return {
        StreamDescriptor(entry["name"], entry.get("namespace")): {
            "registered_at": to_microseconds(stored.stored_at),
            **entry,
        }
        for entry in payload.registered_streams(stored.body)
    }
