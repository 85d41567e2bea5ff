"""A real connector in a virtual environment of its own, and processes that sync it."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e.syncs import sync_all

if TYPE_CHECKING:
    from collections.abc import Callable

Outcome = dict[str, Any]


class Demo(NamedTuple):
    """A folder where `eventstore demo` was typed, and what came of it."""

    folder: Path
    code: int
    stdout: str
    stderr: str


def run_demo(folder: Path) -> tuple[int, str, str]:
    """Type `eventstore demo`."""
    program = Path(sys.executable).with_name("eventstore")
    done = subprocess.run(
        [program, "demo"], cwd=folder, check=False, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


_DESTINATION = f"""#!{sys.executable}
import json
import multiprocessing
import os
import sys

messages = {{
    "spec": {{"type": "SPEC", "spec": {{"connectionSpecification": {{"type": "object"}}}}}},
    "check": {{"type": "CONNECTION_STATUS", "connectionStatus": {{"status": "SUCCEEDED"}}}},
}}
command = sys.argv[1]
if command in messages:
    print(json.dumps(messages[command]))
if command == "write":
    with open(sys.argv[sys.argv.index("--config") + 1]) as config:
        notes = json.load(config).get("notes", os.devnull)
    for line in sys.stdin:
        if json.loads(line)["type"] == "STATE":
            with open(notes, "a") as file:
                file.write(line)
            print(line, end="", flush=True)
"""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The first run of `eventstore demo`, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "demo"
    printed = shared / "demo.json"
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker runs it, the others wait
        if not printed.exists():
            folder.mkdir()
            printed.write_text(json.dumps(run_demo(folder)))
    return Demo(folder, *json.loads(printed.read_text()))


@pytest.fixture(scope="session")
def source_faker(demo: Demo) -> Path:
    """The executable of the connector that the demo has installed."""
    program = demo.folder / "eventstore-demo" / "source-faker" / "bin" / "source-faker"
    assert program.exists(), demo.stderr
    return program


@pytest.fixture(scope="session")
def destination_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A destination that confirms every state, and notes it in a file its config may name."""
    program = tmp_path_factory.mktemp("connectors") / "destination-lake"
    program.write_text(_DESTINATION)
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def sync(source_faker: Path) -> Callable[..., list[Outcome]]:
    """What runs syncs, one after the other, in a new process, and tells how each went.

    A sync is a list of streams and a dict of options. To import PyAirbyte takes five seconds: each
    process is the fork of one that has done so, and nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([sync_all.__module__])

    def run(*syncs: tuple[list[str], dict[str, Any]]) -> list[Outcome]:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            outcomes: list[Outcome] = process.submit(sync_all, source_faker, syncs).result()
        return outcomes

    return run
