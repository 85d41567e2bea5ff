"""A program that opens a store, forks, and appends on both sides."""

from __future__ import annotations

import os
import sys

from eventstore import Pipeline
from projections import connect
from tests.messages import saved

FORKS = 3
PLACES = 5


def fork_and_append(url: str, source: str, *, at_once: bool) -> None:
    """Fork some times, and append in the child and in the parent: at once, or in turns."""
    pipeline, children = Pipeline(source), []
    store = connect(url)
    store.append(pipeline, saved("users", {"by": "parent"}))
    for number in range(FORKS):
        child = os.fork()
        if not child:
            for place in range(PLACES):
                store.append(pipeline, saved("users", {"by": number, "place": place}))
            os._exit(0)
        children.append(child)
        if not at_once:
            _wait_for(children.pop())
        for place in range(PLACES):
            store.append(pipeline, saved("users", {"by": "parent", "fork": number, "is": place}))
    for child in children:
        _wait_for(child)


def _wait_for(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert status == 0


if __name__ == "__main__":
    fork_and_append(sys.argv[1], sys.argv[2], at_once=sys.argv[3] == "at once")
