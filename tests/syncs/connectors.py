"""Connectors that say what a test has written down, as real executables."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import airbyte as ab

from tests.messages import configured_stream, envelope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CONNECTOR = f"""#!{sys.executable} -IS
import json
import sys
import time

command, arguments = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
about = {{
    "spec": {{"type": "SPEC", "spec": {{"connectionSpecification": {{"type": "object"}}}}}},
    "check": {{"type": "CONNECTION_STATUS", "connectionStatus": {{"status": "SUCCEEDED"}}}},
}}
if command in about:
    print(json.dumps(about[command]))
    sys.exit()
with open(arguments["--config"]) as file:
    script = json.load(file)
given = open(script["given"], "a")
"""

_SOURCE = (
    _CONNECTOR
    + """
if command == "discover":
    print(json.dumps({"type": "CATALOG", "catalog": {"streams": script["streams"]}}))
if command == "read":
    with open(arguments["--state"]) as file:
        print(json.dumps(file.read()), file=given)
    for number, line in enumerate(script["lines"]):
        if number == script["crash_at"]:
            sys.exit(1)
        print(line, flush=True)
        time.sleep(script["pause"])
    if script["crash_at"] == len(script["lines"]):
        sys.exit(1)
"""
)

_DESTINATION = (
    _CONNECTOR
    + """
left = script["crash_after"]
for line in sys.stdin:
    given.write(line)
    if json.loads(line)["type"] == "STATE":
        if left == 0:
            sys.exit(1)
        left -= 1
        print(line, end="", flush=True)
"""
)


class ScriptedSource:
    """A source called `source-shop`, and the states it was given at each read."""

    def __init__(self, folder: Path) -> None:
        self._program = _executable(folder / "source-shop", _SOURCE)
        self._given = folder / "given.jsonl"

    def says(
        self,
        *lines: str,
        streams: Sequence[str] = ("users", "orders"),
        crash_at: int | None = None,
        pause: float = 0,
        name: str = "source-shop",
    ) -> ab.Source:
        """The source with this script; it crashes before the line of that number."""
        discovered = [configured_stream(stream)["stream"] for stream in streams]
        return ab.get_source(
            name,
            local_executable=self._program,
            install_if_missing=False,
            config={
                "lines": lines,
                "streams": discovered,
                "crash_at": crash_at,
                "pause": pause,
                "given": str(self._given),
            },
            streams=list(streams),
        )

    @property
    def given(self) -> list[str]:
        """The text of the `--state` file of each read."""
        return [json.loads(line) for line in self._given.read_text().splitlines()]


class ScriptedDestination:
    """A destination called `destination-lake`, and what it was sent."""

    def __init__(self, folder: Path) -> None:
        self._program = _executable(folder / "destination-lake", _DESTINATION)
        self._given = folder / "sent.jsonl"

    def confirms(self, states: int = -1) -> ab.Destination:
        """The destination that confirms each state, or crashes after as many."""
        return ab.get_destination(
            "destination-lake",
            local_executable=self._program,
            config={"given": str(self._given), "crash_after": states},
        )

    @property
    def given(self) -> list[dict[str, Any]]:
        """The messages on its standard input."""
        return [json.loads(line) for line in self._given.read_text().splitlines()]


def record(stream: str, number: int = 0) -> str:
    """A RECORD message."""
    data = {"id": str(number)}
    return json.dumps(
        {"type": "RECORD", "record": {"stream": stream, "data": data, "emitted_at": 0}}
    )


def state(text: str) -> str:
    """A STATE message on a connector's output."""
    return envelope(text)


def _executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
