"""Words of closed lists, kept as numbers: a word would stand in the table and in its indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import SmallInteger, TypeDecorator

from eventstore.errors import InvalidEvent

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

    def check(self, word: str | None) -> None:
        """Raise InvalidEvent if a word is not in the list."""
        if word not in self.numbers:
            raise InvalidEvent(
                f"there is no {self.what} {word!r}; there are {', '.join(self.listed)}"
            )

    def process_bind_param(self, value: str | None, _: Dialect) -> int | None:
        """The number of a word; raises InvalidEvent if it is not in the list."""
        self.check(value)
        number: int | None = self.numbers[value]
        return number

    def process_result_value(self, value: Any, _: Dialect) -> str | None:
        """The word of a number."""
        word: str | None = self.words[value]
        return word


def plain(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of what a driver's row has: a number, where a column is of words."""
    return SmallInteger() if isinstance(column_type, Words) else column_type
