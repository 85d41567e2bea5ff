"""Two catalogs side by side: streams, their fields and types, and how they are synced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from projections.json_text import compact, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventstore.events import StreamDescriptor
    from projections.views import CatalogView

What = Literal[
    "stream", "field", "type", "sync mode", "destination sync mode", "primary key", "cursor"
]

_CONFIGURATION: dict[str, tuple[What, bool]] = {
    "sync_mode": ("sync mode", False),
    "destination_sync_mode": ("destination sync mode", False),
    "primary_key": ("primary key", True),
    "cursor_field": ("cursor", True),
}
"""What is compared of a configured stream, and whether another than there was breaks a sync."""

_ABSENT: Any = object()


@dataclass(frozen=True)
class CatalogChange:
    """One difference between two catalogs.

    `breaking` where what is in the destination no longer fits: a stream or field that is gone, a
    type that holds what the old one could not, another primary key or cursor than there was.
    PyAirbyte's tables name neither: of streams taken over from those none was known.
    """

    change: Literal["added", "removed", "changed"]
    stream: StreamDescriptor | None
    what: What
    path: str
    before: Any
    after: Any
    breaking: bool

    @property
    def words(self) -> str:
        """The change in a few words, of a stream that is known."""
        mark = " (breaking)" if self.breaking else ""
        if self.what == "field":
            return f"{'+' if self.change == 'added' else '-'}{self.path}{mark}"
        name = self.path if self.what == "type" else self.what
        return f"{name} {shown(self.before)} -> {shown(self.after)}{mark}"


def diff_catalogs(before: CatalogView, after: CatalogView) -> list[CatalogChange]:
    """The differences between two catalogs: by stream, then by field."""
    then, now = before.definitions, after.definitions
    changes: list[CatalogChange] = []
    for stream in [*then, *(stream for stream in now if stream not in then)]:
        if stream not in now:
            changes.append(
                CatalogChange("removed", stream, "stream", "", None, None, breaking=True)
            )
        elif stream not in then:
            changes.append(CatalogChange("added", stream, "stream", "", None, None, breaking=False))
        else:
            changes += definition_changes(stream, then[stream], now[stream])
    return changes


def definition_changes(
    stream: StreamDescriptor | None, before: bytes, after: bytes
) -> list[CatalogChange]:
    """The differences between two definitions of a stream."""
    if before == after:
        return []
    then, now = parse(before), parse(after)
    changes = list(_fields(stream, then["stream"]["json_schema"], now["stream"]["json_schema"]))
    for key, (what, breaking) in _CONFIGURATION.items():
        old, new = then.get(key), now.get(key)
        if (old or None) != (new or None):
            breaks = breaking and bool(old)
            changes.append(CatalogChange("changed", stream, what, "", old, new, breaks))
    return changes


def shown(value: Any) -> str:
    """A type, a key or a mode as people write it."""
    if value in (None, []):
        return "none"
    if isinstance(value, list):
        return ", ".join(".".join(key) if isinstance(key, list) else key for key in value)
    return value if isinstance(value, str) else compact(value)


def _fields(stream: StreamDescriptor | None, then: Any, now: Any) -> Iterator[CatalogChange]:
    old, new = dict(_flattened((), then)), dict(_flattened((), now))
    for steps in [*old, *(steps for steps in new if steps not in old)]:
        path = _path(steps)
        if steps not in new:
            yield CatalogChange(
                "removed", stream, "field", path, _type(old[steps]), None, breaking=True
            )
        elif steps not in old:
            yield CatalogChange(
                "added", stream, "field", path, None, _type(new[steps]), breaking=False
            )
        elif (before := _type(old[steps])) != (after := _type(new[steps])):
            breaking = not _holds(new[steps], old[steps])
            yield CatalogChange("changed", stream, "type", path, before, after, breaking)


_Steps = tuple[str | None, ...]
"""The names on the way to a field, None for what is in a list; a name may have a point in it."""


def _path(steps: _Steps) -> str:
    return "".join("[]" if step is None else f".{step}" for step in steps).removeprefix(".")


def _flattened(path: _Steps, schema: Any) -> Iterator[tuple[_Steps, Any]]:
    """Every field of a JSON schema, those inside objects and lists after their own."""
    if not isinstance(schema, dict):
        return
    if path:
        yield path, schema
    properties = schema.get("properties")
    for name, inner in (properties if isinstance(properties, dict) else {}).items():
        yield from _flattened((*path, name), inner)
    if isinstance(schema.get("items"), dict):
        yield from _flattened((*path, None), schema["items"])


def _type(schema: dict[str, Any]) -> str:
    """The type with what narrows it: `string, null (date-time)`."""
    types = _types(schema)
    names = ", ".join(sorted(types - {"null"}) + sorted(types & {"null"}))
    formats = [str(schema[key]) for key in ("format", "airbyte_type") if key in schema]
    others = {key: schema[key] for key in ("oneOf", "anyOf", "$ref") if key in schema}
    if others:
        names = f"{names} {compact(others)}".strip()
    names = names or "any"
    return f"{names} ({', '.join(formats)})" if formats else names


def _types(schema: dict[str, Any]) -> set[str]:
    types = schema.get("type", [])
    return set(map(str, types if isinstance(types, list) else [types]))


def _holds(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a column of the new type takes all that one of the old could hold."""
    if any(new.get(key) != old.get(key) for key in ("format", "airbyte_type", "oneOf", "anyOf")):
        return False
    wanted, there = _types(old) - {"null"}, _types(new)
    if not there or not _types(old):  # any
        return not there
    if "number" in there:
        wanted -= {"integer"}
    return wanted <= there
