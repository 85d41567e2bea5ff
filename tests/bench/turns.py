"""Sides that take turns, A B A B, so that what else the machine does meets all."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def in_turns(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median of the milliseconds that each side takes; the first round only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            taken[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(each[1:]) for name, each in taken.items()}
