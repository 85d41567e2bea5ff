"""Where values stand in a JSON text, so that they can be cut out byte for byte."""

from __future__ import annotations

import json
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Only where a value ends is wanted, and Python refuses to read an integer of 5,000 digits.
_JSON = json.JSONDecoder(parse_int=str, parse_float=str)


def spans(text: str) -> dict[str, tuple[int, int]]:
    """Where the value of each key of a JSON object starts and ends; of one key twice, the last."""
    reader = JsonReader(text)
    return {key: reader.span() for key in reader.members()}


def elements(text: str) -> list[str]:
    """The exact texts of the elements of a JSON list."""
    reader = JsonReader(text)
    return [reader.value()[1] for _ in reader.items()]


class JsonReader:
    """Reads JSON that is known to be valid; whoever is given a key or an item reads its value."""

    def __init__(self, text: str) -> None:
        """Stop at its first value."""
        self._text = text
        self._at = self._after_space(0)

    def members(self) -> Iterator[str]:
        """Stop at the value of each key of an object."""
        text, at = self._text, self._after_space(self._at + 1)
        while text[at] != "}":
            key, at = scanstring(text, at + 1)
            self._at = self._after_space(text.index(":", at) + 1)
            yield key
            at = self._next()
        self._at = at + 1

    def items(self) -> Iterator[None]:
        """Stop at each item of a list."""
        self._at = at = self._after_space(self._at + 1)
        while self._text[at] != "]":
            yield
            self._at = at = self._next()
        self._at = at + 1

    def is_at(self, character: str) -> bool:
        """Whether the next character is this one."""
        return self._text[self._at] == character

    def value(self) -> tuple[Any, str]:
        """Read a value, numbers as text, and its exact text."""
        start = self._at
        value, self._at = _JSON.raw_decode(self._text, start)
        return value, self._text[start : self._at]

    def span(self) -> tuple[int, int]:
        """Pass over a value, and tell where it starts and ends in the text."""
        start = self._at
        _, self._at = _JSON.raw_decode(self._text, start)
        return start, self._at

    def passes(self, text: str) -> bool:
        """Pass over an object or list whose text is known, if it stands here."""
        there = text[:1] in {"{", "["} and self._text.startswith(text, self._at)
        if there:
            self._at += len(text)
        return there

    def _next(self) -> int:
        """Where the next member or item begins, or what holds them ends."""
        at = self._after_space(self._at)
        return self._after_space(at + 1) if self._text[at] == "," else at

    def _after_space(self, at: int) -> int:
        while self._text[at] in " \t\n\r":
            at += 1
        return at
