"""Configured streams: their definitions, and what of them changes with each registration.

Airbyte's models are imported where they are used: that takes as long as to import SQLAlchemy.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from eventstore.errors import InvalidEvent
from eventstore.events import StreamDescriptor, descriptor
from eventstore.strict_json import dump, first_problem, object_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airbyte_protocol.models import ConfiguredAirbyteCatalog, ConfiguredAirbyteStream
    from pydantic import BaseModel, TypeAdapter

    M = TypeVar("M", bound=BaseModel)

VOLATILE = ("generation_id", "minimum_generation_id", "sync_id")
"""Fields of a configured stream that change with each sync and so are no part of its definition."""


def configured_stream(
    definition: bytes, volatile: Mapping[str, Any] | None = None
) -> ConfiguredAirbyteStream:
    """Read a stored definition, with the fields of a registration merged back."""
    from airbyte_protocol.models import ConfiguredAirbyteStream  # noqa: PLC0415

    stream = ConfiguredAirbyteStream.model_validate_json(definition)
    for field in VOLATILE if volatile else ():
        if volatile and field in volatile:
            setattr(stream, field, volatile[field])
    return stream


def configured_catalog(catalog: object) -> ConfiguredAirbyteCatalog:
    """Validate a configured catalog given as Airbyte's model, a dict, text or bytes.

    Raises InvalidEvent, saying what is wrong and where.
    """
    from airbyte_protocol.models import ConfiguredAirbyteCatalog  # noqa: PLC0415

    return _validated(ConfiguredAirbyteCatalog, catalog, "catalog")


def _validated(model: type[M], value: object, what: str) -> M:
    from pydantic import ValidationError  # noqa: PLC0415

    if isinstance(value, model):
        return value
    try:
        return model.model_validate_json(object_bytes(value, f"the {what}"))
    except ValidationError as error:
        raise InvalidEvent(f"no configured {what}: {first_problem(error)}") from error


def same_definition(stream: ConfiguredAirbyteStream, definition: bytes | None) -> bool:
    """Whether a stream is defined by what is stored already; raises InvalidEvent."""
    if definition is None:
        return False
    body, _ = encode_definition(stream)
    return body == definition or _canonical(body) == _canonical(definition)


def _canonical(body: bytes) -> str:
    """An object as text that another has only if it says the same; Python takes 1 for true."""
    return json.dumps(json.loads(body), sort_keys=True)


def streams_as_json(streams: Iterable[ConfiguredAirbyteStream]) -> bytes | None:
    """All that configured streams say, to be compared; None where JSON cannot say it.

    One call for all of them; NaN stays NaN there, and is not taken for null.
    """
    from pydantic_core import PydanticSerializationError  # noqa: PLC0415

    try:
        return _serializer().dump_json(
            list(streams), by_alias=True, exclude_unset=True, warnings=False
        )
    except PydanticSerializationError:
        return None


@cache
def _serializer() -> TypeAdapter[list[ConfiguredAirbyteStream]]:
    from airbyte_protocol.models import ConfiguredAirbyteStream  # noqa: PLC0415
    from pydantic import ConfigDict, TypeAdapter  # noqa: PLC0415

    return TypeAdapter(
        list[ConfiguredAirbyteStream], config=ConfigDict(ser_json_inf_nan="constants")
    )


def catalog_of(streams: Iterable[ConfiguredAirbyteStream]) -> ConfiguredAirbyteCatalog:
    """The catalog that has these streams."""
    from airbyte_protocol.models import ConfiguredAirbyteCatalog  # noqa: PLC0415

    return ConfiguredAirbyteCatalog(streams=list(streams))


def encode_definition(stream: object) -> tuple[bytes, StreamDescriptor]:
    """The body that is stored of a configured stream, and which it is; raises InvalidEvent."""
    from airbyte_protocol.models import ConfiguredAirbyteStream  # noqa: PLC0415

    model = _validated(ConfiguredAirbyteStream, stream, "stream")
    named, definition = descriptor(model.stream), _definition(model)
    return object_bytes(definition, f"stream {named}"), named


def _definition(model: ConfiguredAirbyteStream) -> dict[str, Any]:
    dumped = model.model_dump(by_alias=True, exclude_unset=True)
    modes = dumped["stream"].get("supported_sync_modes")
    if isinstance(modes, list):
        dumped["stream"]["supported_sync_modes"] = [_value(mode) for mode in modes]
    return {key: _value(each) for key, each in dumped.items() if key not in VOLATILE}


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def encode_registration(streams: object) -> bytes:
    """The body that is stored of a registration; raises InvalidEvent."""
    if not isinstance(streams, list | tuple):
        raise InvalidEvent(f"registered streams are a list, not {type(streams).__name__}")
    for entry in streams:
        if not isinstance(entry, dict):
            raise InvalidEvent(f"a registered stream is a dict, not {type(entry).__name__}")
        descriptor(SimpleNamespace(**{"name": None, "namespace": None, **entry}))
        for field in (*VOLATILE, "registered_at"):
            if not _is_of_64_bits(entry.get(field)):
                raise InvalidEvent(f"{field} of stream {entry['name']} is no integer of 64 bits")
    return dump({"streams": list(streams)})


def _is_of_64_bits(value: object) -> bool:
    """Whether it is null or an integer that a database and orjson give back as it was."""
    return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)
