"""Rows for people: laid out on a terminal, plain lines in a pipe."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

from rich.cells import cell_len, chop_cells, set_cell_size

from projections.display import print_json, printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

_GAP = "  "
_INDENT = "    "
_GROUP = "-- "

_LEAST_ROOM = 20
"""A terminal of fewer columns is taken for one of these."""

_LEAST_WIDTH = 12
"""Of a column that is folded; where there is less room, it stands beneath its row."""

_LEAST_VALUE_WIDTH = 32
"""The same of the column of values."""

_MOST_LINES = 4
"""Of a value, before the rest of it is cut: a state may be a megabyte."""


class Table:
    """Rows for people: folded to the width of a terminal, in a pipe lines with tabs.

    The first `whole` columns are not folded. Those `above` are told once, after the words given,
    and again before a row where they change; with them goes the date. Only what is in the column
    `value` is cut after some lines. A column that is empty in all rows is left out.
    """

    def __init__(
        self,
        headings: Sequence[str],
        *,
        whole: int,
        value: str = "",
        above: Mapping[str, str] | None = None,
    ) -> None:
        """Print nothing yet."""
        self._headings = headings
        self._whole = set(headings[:whole])
        self._value = value
        self._above = {"date": "", **above} if above else {}
        self._common: dict[str, str] | None = None
        self._group: dict[str, str] = {}
        self._wanted: dict[str, int] = {}
        self._widths: dict[str, int] = {}  # 0 where a column stands beneath

    def print(self, rows: Iterable[Sequence[str | datetime]]) -> bool:
        """Print rows, the headings before the first; returns whether there were any."""
        if not sys.stdout.isatty():
            return bool([print("\t".join(map(_plain, row))) for row in rows])
        there = [self._cells(row) for row in rows]
        if there:
            self._tell_common(there)
            self._lay_out(there)
        for cells in there:
            self._tell_group(cells)
            self._print_row(cells)
        return bool(there)

    def _cells(self, row: Sequence[str | datetime]) -> dict[str, str]:
        """The text of each column, and the date where that is told above."""
        cells = dict.fromkeys(self._above, "")
        for heading, cell in zip(self._headings, row, strict=True):
            if not isinstance(cell, datetime):
                cells[heading] = printable(cell)
            elif self._above:
                cells["date"], cells[heading] = f"{cell:%Y-%m-%d}", f"{cell:%H:%M:%SZ}"
            else:
                cells[heading] = f"{cell:%Y-%m-%d %H:%M:%SZ}"
        return cells

    def _tell_common(self, there: Sequence[Mapping[str, str]]) -> None:
        if self._common is None:
            self._common = {
                name: there[0][name]
                for name in self._above
                if all(cells[name] == there[0][name] for cells in there)
            }
            self._say(self._common, "")

    def _tell_group(self, cells: Mapping[str, str]) -> None:
        common = self._common or {}
        self._common = {name: said for name, said in common.items() if cells[name] == said}
        group = {name: cells[name] for name in self._above if name not in self._common}
        if group != self._group:
            self._group = group
            self._say(group, _GROUP)

    def _say(self, told: Mapping[str, str], mark: str) -> None:
        said = [f"{self._above[name]}{text}" for name, text in told.items() if text]
        if said:
            print(f"\n{_INDENT}".join(_fold(mark + _GAP.join(said), _room() - len(_INDENT))))

    def _lay_out(self, there: Sequence[Mapping[str, str]]) -> None:
        """Find widths for these rows and those before; where columns move, the headings return."""
        wanted = dict(self._wanted)
        for name in self._headings:
            widest = max(cell_len(cells[name]) for cells in there)
            if name not in self._above and (widest or name in wanted):
                wanted[name] = max(widest, cell_len(name), wanted.pop(name, 0))
        if wanted == self._wanted:
            return
        self._wanted = wanted
        before, self._widths = self._widths, self._fitting(wanted, there)
        if self._widths != before:
            shown = [set_cell_size(name, width) for name, width in self._widths.items() if width]
            print(_GAP.join(shown).rstrip())

    def _fitting(
        self, wanted: Mapping[str, int], there: Sequence[Mapping[str, str]]
    ) -> dict[str, int]:
        """Widths that fit: the last columns go beneath, the widest of the others are folded."""
        room = _room()
        widths = {name: min(width, room) for name, width in wanted.items()}
        least = {name: min(width, self._least(name, there)) for name, width in widths.items()}
        shown = list(widths)
        while len(shown) > 1 and _sum(least[name] for name in shown) > room:
            shown.pop()
        while _sum(widths[name] for name in shown) > room:
            widest = max(shown, key=lambda name: (widths[name] > least[name], widths[name]))
            widths[widest] -= 1
        widths[shown[-1]] += room - _sum(widths[name] for name in shown)  # for what is to come
        return {name: width if name in shown else 0 for name, width in widths.items()}

    def _least(self, name: str, there: Sequence[Mapping[str, str]]) -> int:
        """The width below which a column goes beneath: no name is broken while there is room."""
        if name in self._whole:
            return sys.maxsize
        if name == self._value:
            return _LEAST_VALUE_WIDTH
        words = {word for cells in there for word in cells[name].split(" ")}
        return max(_LEAST_WIDTH, *map(cell_len, words))

    def _print_row(self, cells: Mapping[str, str]) -> None:
        beside = {name: width for name, width in self._widths.items() if width}
        columns = [self._folded(name, cells[name], width) for name, width in beside.items()]
        for pieces in zip_longest(*columns, fillvalue=""):
            print(_GAP.join(map(set_cell_size, pieces, beside.values())).rstrip())
        for name in self._widths:
            if name not in beside and cells[name]:
                said = cells[name] if name == self._value else f"{name}: {cells[name]}"
                for line in self._folded(name, said, _room() - len(_INDENT)):
                    print(_INDENT + line)

    def _folded(self, name: str, text: str, width: int) -> list[str]:
        if name != self._value:
            return _fold(text, width)
        lines = _fold(text[: (_MOST_LINES + 1) * width], width)
        if len(lines) > _MOST_LINES:
            last = set_cell_size(lines[_MOST_LINES - 1], width - 1).rstrip()
            lines[_MOST_LINES - 1 :] = [f"{last}…"]
        return lines


def print_found(
    found: Iterable[T],
    table: Table,
    as_row: Callable[[T], Sequence[str | datetime]],
    as_json: Callable[[T], object] | None = None,
    *,
    empty: str = "",
) -> bool:
    """Print what was found, for people or as JSON lines; returns whether there was anything.

    `empty` is said on stderr to people when there is nothing.
    """
    if as_json:
        return sum(1 for _ in map(print_json, map(as_json, found))) > 0
    there = table.print(map(as_row, found))
    if empty and not there:
        print(empty, file=sys.stderr)
    return there


def _plain(cell: str | datetime) -> str:
    return rfc3339(cell) if isinstance(cell, datetime) else printable(cell)


def _room() -> int:
    return max(shutil.get_terminal_size().columns, _LEAST_ROOM)


def _sum(widths: Iterable[int]) -> int:
    """How wide columns are, with the gaps between them."""
    return sum(width + len(_GAP) for width in widths) - len(_GAP)


def _fold(text: str, width: int) -> list[str]:
    """Lines that fit, broken after a space or a comma where there is one."""
    lines, line = [], ""
    for piece in re.split("(?<=[ ,])(?! )", text):
        word = piece.rstrip(" ")
        if line and cell_len(line + word) > width:
            lines.append(line.rstrip(" "))
            line = ""
        *full, line = chop_cells(line + word, width) or [""]  # rich 14.3 makes none of nothing
        lines += full
        line += piece[len(word) :]
    return [*lines, line.rstrip(" ")]
