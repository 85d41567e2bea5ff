"""JSON read and written with every digit of its numbers, as a diff and a reader need them."""

from __future__ import annotations

import json
from typing import Any


class Number(str):
    """A JSON number, by its digits."""

    __slots__ = ()


def parse(text: bytes | str) -> Any:
    """Parse JSON; numbers keep their digits and their own type."""
    return json.loads(text, parse_float=Number, parse_int=Number)


def compact(value: Any) -> str:
    """Write a value on one line."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{compact(str(key))}:{compact(item)}" for key, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(compact, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def indented(value: Any, margin: str = "") -> str:
    """Write a value over several lines, indented by two spaces."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        items = [f"{compact(key)}: {indented(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        items = [indented(item, inner) for item in value]
        return "[\n" + ",\n".join(inner + item for item in items) + f"\n{margin}]"
    return compact(value)


def escaped(text: str) -> str:
    """The same JSON, without characters that could move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
