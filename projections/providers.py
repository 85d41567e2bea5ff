"""What a runner is handed: state and catalog as Airbyte objects, with PyAirbyte's method names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from eventstore.errors import EventStoreError, StateNotFound, StreamNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airbyte_protocol.models import (
        AirbyteStateMessage,
        AirbyteStreamState,
        ConfiguredAirbyteCatalog,
        ConfiguredAirbyteStream,
    )

    from projections.views import StateView


class StateProvider:
    """A snapshot of a pipeline's state; later appends do not change it."""

    def __init__(self, view: StateView) -> None:
        """Keep the view."""
        self._given = view

    @property
    def _view(self) -> StateView:
        return self._given

    @property
    def _state_message_artifacts(self) -> list[AirbyteStateMessage]:
        return self._view.messages

    @property
    def state_message_artifacts(self) -> list[AirbyteStateMessage]:
        """All states, of any type."""
        return self._state_message_artifacts

    @property
    def stream_state_artifacts(self) -> list[AirbyteStreamState]:
        """The stream states of the STREAM messages."""
        return [
            message.stream
            for message in self._state_message_artifacts
            if message.type and message.type.value == "STREAM" and message.stream
        ]

    @property
    def known_stream_names(self) -> set[str]:
        """The names of the streams that have a STREAM state."""
        return {stream.stream_descriptor.name for stream in self.stream_state_artifacts}

    def to_state_input_file_text(self) -> str:
        """The text for a connector's `--state` file, from the stored bytes."""
        return self._view.state_file()

    def get_stream_state(
        self,
        /,
        stream_name: str,
        not_found: AirbyteStateMessage | Literal["raise"] | None = "raise",
    ) -> AirbyteStateMessage | None:
        """The STREAM state of that name, the first where namespaces differ.

        Without one returns `not_found`, or raises StateNotFound if that is "raise".
        """
        for message in self._state_message_artifacts:
            if message.stream and message.stream.stream_descriptor.name == stream_name:
                return message
        if not_found == "raise":
            raise self._no_state(stream_name)
        return not_found

    def _no_state(self, stream_name: str) -> Exception:
        return StateNotFound(
            f"no state is stored for stream {stream_name!r}; there is one for: "
            f"{_listed(sorted(self.known_stream_names))}"
        )


class CatalogProvider:
    """A configured catalog, asked by stream name."""

    def __init__(self, configured_catalog: ConfiguredAirbyteCatalog) -> None:
        """Keep a reference: what is registered later shows up here."""
        self._catalog = configured_catalog

    @property
    def configured_catalog(self) -> ConfiguredAirbyteCatalog:
        """The catalog itself."""
        return self._catalog

    @property
    def stream_names(self) -> list[str]:
        """The names of the streams, each once, in the catalog's order."""
        return list(dict.fromkeys(stream.stream.name for stream in self._catalog.streams))

    def get_configured_stream_info(self, stream_name: str) -> ConfiguredAirbyteStream:
        """The configured stream of that name; raises StreamNotFound."""
        found = [stream for stream in self._catalog.streams if stream.stream.name == stream_name]
        if len(found) == 1:
            return found[0]
        raise self._not_one(stream_name, len(found))

    def get_stream_json_schema(self, stream_name: str) -> dict[str, Any]:
        """The JSON schema of a stream; raises StreamNotFound."""
        return self.get_configured_stream_info(stream_name).stream.json_schema

    def get_stream_properties(self, stream_name: str) -> dict[str, Any]:
        """The top-level properties of a stream; raises StreamNotFound."""
        properties: dict[str, Any] = self.get_stream_json_schema(stream_name)["properties"]
        return properties

    def get_primary_keys(self, stream_name: str) -> list[str]:
        """The top-level primary keys of a stream; raises StreamNotFound."""
        keys = self.get_configured_stream_info(stream_name).primary_key or []
        return [".".join(key) for key in keys]

    def get_cursor_key(self, stream_name: str) -> list[str] | None:
        """The path of a stream's cursor field; raises StreamNotFound."""
        return self.get_configured_stream_info(stream_name).cursor_field

    def _not_one(self, stream_name: str, found: int) -> EventStoreError:
        if found:
            return StreamNotFound(f"{found} streams are called {stream_name!r}")
        return StreamNotFound(
            f"the catalog has no stream {stream_name!r}; it has: {_listed(self.stream_names)}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
