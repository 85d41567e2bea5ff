"""Two states side by side: by stream, then by path into the JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from projections.json_text import compact, parse
from projections.parts import Cut, cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from eventstore.events import StreamDescriptor
    from projections.parts import Part
    from projections.views import StateView

Kind = Literal["added", "removed", "changed"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Item(NamedTuple):
    """An item of a list: the path of the list, the item's own, and what such items are called."""

    list: str
    path: str
    noun: str


@dataclass(frozen=True)
class Change:
    """One difference between two states; `path` is empty where a whole state came or went.

    `stream` is None for a LEGACY state and for what a GLOBAL state shares. `item` says in which
    list the difference is, if it is in one.
    """

    change: Kind
    stream: StreamDescriptor | None
    path: str
    before: Any
    after: Any
    item: Item | None = field(default=None, compare=False)


def diff(before: StateView, after: StateView) -> list[Change]:
    """The differences between two states: by stream, then by path into its JSON.

    Streams inside a GLOBAL state are compared like those that have a state of their own, and
    items of a list by their `partition` where they all have one.
    """
    return list(differences(*parts_of_both(before, after)))


def stat(changes: Iterable[Change]) -> dict[StreamDescriptor | None, Counter[Kind]]:
    """How many differences of each kind there are, by stream."""
    counts: dict[StreamDescriptor | None, Counter[Kind]] = {}
    for change in changes:
        counts.setdefault(change.stream, Counter())[change.change] += 1
    return counts


def json_patch(before: StateView, after: StateView) -> list[dict[str, Any]]:
    """What makes of one state the other, as they stand in a `--state` file: RFC 6902.

    Numbers are `json_text.Number`: write it with `json_text.compact`.
    """
    from jsonpatch import JsonPatch  # noqa: PLC0415 - few need it

    then, now = (parse(view.state_file()) for view in (before, after))
    patch: list[dict[str, Any]] = JsonPatch.from_diff(then, now, dumps=compact).patch
    return patch


def parts_of_both(
    before: StateView, after: StateView
) -> tuple[
    Mapping[StreamDescriptor | None, Part],
    Mapping[StreamDescriptor | None, Part],
]:
    """The parts of two states, of which those that are equal are not parsed."""
    then = cut_view(before)
    return then.parts, cut_view(after, then).parts


def cut_view(view: StateView, like: Cut | None = None) -> Cut:
    """The parts of all states of a view."""
    if view.whole is not None:
        return cut(view.whole, like)
    parts: dict[StreamDescriptor | None, Part] = {}
    for body in view.streams.values():
        parts.update(cut(body).parts)
    return Cut("STREAM", parts, {})


def differences(
    then: Mapping[StreamDescriptor | None, Part], now: Mapping[StreamDescriptor | None, Part]
) -> Iterator[Change]:
    """The differences between the parts of two states."""
    for stream in [*then, *(stream for stream in now if stream not in then)]:
        if stream not in now:
            yield Change("removed", stream, "", then[stream].blob, None)
        elif stream not in then:
            yield Change("added", stream, "", None, now[stream].blob)
        elif then[stream].text != now[stream].text:
            for kind, path, old, new, item in _within(
                "", None, then[stream].blob, now[stream].blob
            ):
                yield Change(kind, stream, path, old, new, item)


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that holds no other, with its path; an empty object or list is one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(step(path, key), inner)
    elif isinstance(value, list) and value:
        for name, inner in _named(value).items():
            yield from leaves(f"{path}[{name}]", inner)
    else:
        yield path or ".", value


def step(path: str, key: str) -> str:
    """The path of a member of an object."""
    if not key.isidentifier():
        return f"{path}[{compact(key)}]"
    return f"{path}.{key}" if path else key


def touches(change: Change, path: str) -> bool:
    """Whether a difference is at a path, below it, or in something that holds it."""
    if _is_below(change.path, path):
        return True
    values = [change.before] if change.change != "added" else []
    values += [change.after] if change.change != "removed" else []
    return any(
        _is_below(found, path) for value in values for found, _ in leaves(change.path, value)
    )


def _is_below(path: str, above: str) -> bool:
    return above in {".", path} or path.startswith((f"{above}.", f"{above}["))


def same(old: Any, new: Any) -> bool:
    """Whether two JSON values are equal: a number is no text of the same digits."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    return type(old) is type(new) and bool(old == new)


_ABSENT = object()

_Difference = tuple[Kind, str, Any, Any, "Item | None"]


def _within(path: str, item: Item | None, old: Any, new: Any) -> Iterator[_Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            here = step(path, key)
            yield from _at(here, item, old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list):
        noun = "partition" if _have_partitions(old) and _have_partitions(new) else "item"
        then, now = (
            (_named(old), _named(new)) if noun == "partition" else (_counted(old), _counted(new))
        )
        for name in [*then, *(name for name in now if name not in then)]:
            here = f"{path}[{name}]"
            inside = item or Item(path, here, noun)
            yield from _at(here, inside, then.get(name, _ABSENT), now.get(name, _ABSENT))
    elif type(old) is not type(new) or old != new:
        yield "changed", path or ".", old, new, item


def _at(path: str, item: Item | None, old: Any, new: Any) -> Iterator[_Difference]:
    if old is _ABSENT:
        yield "added", path, None, new, item
    elif new is _ABSENT:
        yield "removed", path, old, None, item
    else:
        yield from _within(path, item, old, new)


def _named(items: list[Any]) -> dict[str, Any]:
    """Items by their partition, as the CDK writes one cursor for each; else by their place."""
    if not _have_partitions(items):
        return _counted(items)
    return {f"partition={compact(item['partition'])}": item for item in items}


def _counted(items: list[Any]) -> dict[str, Any]:
    return {str(place): item for place, item in enumerate(items)}


def _have_partitions(items: list[Any]) -> bool:
    if not all(isinstance(item, dict) and "partition" in item for item in items):
        return False
    return len({compact(item["partition"]) for item in items}) == len(items)
