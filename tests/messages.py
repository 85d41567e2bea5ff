"""Airbyte's states and catalogs, as connectors write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eventstore import StateEmitted, StateSaved

if TYPE_CHECKING:
    from collections.abc import Iterable


def stream_state(name: str, blob: object, namespace: str | None = None) -> str:
    """Write a STREAM state; a blob of None asks to reset the stream."""
    return _text({"type": "STREAM", "stream": inner_state(name, blob, namespace)})


def inner_state(name: str, blob: object, namespace: str | None = None) -> dict[str, Any]:
    """Write what STREAM and GLOBAL states have in common."""
    descriptor = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"stream_descriptor": descriptor, "stream_state": blob}


def global_state(shared: object, *streams: dict[str, Any]) -> str:
    """Write a GLOBAL state of inner states."""
    return _text(
        {"type": "GLOBAL", "global": {"shared_state": shared, "stream_states": list(streams)}}
    )


def legacy_state(data: object) -> str:
    """Write a LEGACY state."""
    return _text({"type": "LEGACY", "data": data})


def envelope(state: str) -> str:
    """Wrap a state as it stands on a connector's output."""
    return f'{{"type":"STATE","state":{state}}}'


def saved(name: str, blob: object, namespace: str | None = None) -> StateSaved:
    """A STREAM state that is confirmed."""
    return StateSaved(stream_state(name, blob, namespace))


def emitted(count: int, name: str = "users") -> list[StateEmitted]:
    """As many states, each different, that no table has to follow."""
    return [StateEmitted(stream_state(name, {"cursor": cursor})) for cursor in range(count)]


def configured_stream(
    name: str, namespace: str | None = None, *, columns: Iterable[str] = ("id",), **fields: Any
) -> dict[str, Any]:
    """A configured stream with these columns, and further fields of the configuration."""
    stream: dict[str, Any] = {
        "name": name,
        "json_schema": {"properties": {column: {"type": "string"} for column in columns}},
        "supported_sync_modes": ["full_refresh", "incremental"],
    }
    if namespace is not None:
        stream["namespace"] = namespace
    modes = {"sync_mode": "incremental", "destination_sync_mode": "append"}
    return {"stream": stream, **modes, **fields}


def catalog(*streams: dict[str, Any]) -> dict[str, Any]:
    """A configured catalog."""
    return {"streams": list(streams)}


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
