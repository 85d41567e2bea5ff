"""Fuzz every door for long: `python -m tests.fuzz [RUNS]`, of all doors together.

Each door gets its share in a process of its own, by atheris (`pip install '.[fuzz]'`), which
looks for inputs that reach new code. An input that finds something ends it, and is shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

SHARES = {"append": 40, "set": 16, "register": 4, "record": 18, "import": 2, "moment": 20}
"""Per cent of the runs: an import takes a hundred times as long as a moment."""

_MAX_BYTES = 4096


def main(runs: int = 1_000_000) -> None:
    """Fuzz the doors, as many at once as there are processors; tell how many inputs each had."""
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        for told in at_once.map(partial(fuzz_door, runs), SHARES):
            sys.stdout.write(told)
            sys.stdout.flush()


def fuzz_door(runs: int, door: str) -> str:
    """Fuzz one door in a process, and say how it went; exits with all it said if it found one."""
    count, began = runs * SHARES[door] // 100, time.monotonic()
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __spec__.name, door, str(count), folder]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        found = [file.read_bytes() for file in Path(folder).glob("*-*")]
    if f"Done {count} runs" not in done.stderr:
        sys.exit(f"{done.stdout}{done.stderr}\nThe inputs that found it: {found}")
    return f"{door}: {count} inputs in {time.monotonic() - began:.0f} s\n"


def fuzz(door: str, count: str, folder: str) -> None:
    """Fuzz one door in this process, and leave it as libFuzzer does."""
    import atheris  # noqa: PLC0415 - the extra is only needed here

    with atheris.instrument_imports(include=["eventstore", "projections"]):
        from tests.fuzz.doors import DOORS  # noqa: PLC0415 - what is imported is instrumented

    attempt, seeds = DOORS[door]
    for number, seed in enumerate(seeds):
        Path(folder, str(number)).write_bytes(seed)
    options = [f"-runs={count}", f"-max_len={_MAX_BYTES}", "-rss_limit_mb=0", "-verbosity=1"]
    atheris.Setup([door, *options, f"-artifact_prefix={folder}/", folder], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        fuzz(*sys.argv[1:])
    else:
        main(*map(int, sys.argv[1:]))
