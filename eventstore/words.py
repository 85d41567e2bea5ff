"""Words of closed lists, kept as numbers: a word would stand in the table and in its indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import SmallInteger, TypeDecorator

from eventstore.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class _Known(dict[Any, Any]):
    """The words by their numbers; another release, or who altered a row, may have put others."""

    def __missing__(self, number: object) -> str:
        return f"unknown ({number!r})"


class Words(TypeDecorator[str]):
    """A word as its place in a list, which may get longer and never another order.

    Who gives rows to a driver, or takes them from it, looks into `numbers` and `words`.
    """

    impl = SmallInteger
    cache_ok = True

    def __init__(self, what: str, listed: Sequence[str]) -> None:
        """Number the words from 0 on; `what` says what they are."""
        super().__init__()
        self.what = what
        self.listed = tuple(listed)
        self.words = _Known(enumerate(listed))
        self.words[None] = None
        self.numbers: dict[Any, Any] = {word: number for number, word in self.words.items()}

    def check(self, *words: str | None) -> None:
        """Raise Invalid if one of these is not in the list."""
        for word in words:
            if word not in self.numbers:
                there = ", ".join(self.listed)
                raise Invalid(f"there is no {self.what} {word!r}; there are {there}")

    def process_bind_param(self, value: str | None, _: Dialect) -> int | None:
        """The number of a word, which was checked."""
        number: int | None = self.numbers[value]
        return number

    def process_result_value(self, value: Any, _: Dialect) -> str | None:
        """The word of a number."""
        word: str | None = self.words[value]
        return word


def kept_type(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of what rows have that a driver takes or gives: numbers for words."""
    return SmallInteger() if isinstance(column_type, Words) else column_type
