"""How fast `record` passes on what a connector puts out, beside `cat`.

The two take turns in the same place between two pipes, A B A B, over the same gigabyte: records
with a state after every so many.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from tests.messages import envelope, stream_state

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = 5
TIMES = 20
RECORDS = 150_000
STATES = 5

EVENTSTORE = Path(sys.executable).with_name("eventstore")


@pytest.fixture
def messages(tmp_path):
    """A file of 50 MB, as a connector writes them."""
    path = tmp_path / "messages.jsonl"
    with path.open("w") as file:
        for number in range(RECORDS):
            file.write(json.dumps(user(number), separators=(",", ":")) + "\n")
            if (number + 1) % (RECORDS // STATES) == 0:
                file.write(envelope(stream_state("users", {"cursor": number})) + "\n")
    return path


def user(number):
    data = {
        "id": number,
        "name": f"Zoë {number}",
        "email": f"user{number}@example.com",
        "address": {"city": "Springfield", "state": "STATE", "zip": str(number)},
        "bio": "reads the past as well as the present " * 3,
        "updated_at": "2026-11-20T09:00:00.123456+00:00",
    }
    record = {"stream": "users", "data": data, "emitted_at": 1_795_000_000_000 + number}
    return {"type": "RECORD", "record": record}


def test_a_gigabyte_passes_at_200_megabytes_a_second(results, messages, tmp_path):
    numbers = count()
    rounds = {"record": [], "cat": []}
    for _ in range(ROUNDS):
        database = tmp_path / f"{next(numbers)}.db"
        ours = (EVENTSTORE, "record", "--source", "s", "--db", database)
        rounds["record"].append(megabytes_per_second(ours, messages))
        rounds["cat"].append(megabytes_per_second(["cat"], messages))
    passed, worked = (
        {name: statistics.median(each[place] for each in rounds[name]) for name in rounds}
        for place in (0, 1)
    )
    results["record of a gigabyte of messages"] = {
        "unit": "MB/s",
        "ours": round(passed["record"]),
        "cat": round(passed["cat"]),
        "ours, by processor time": round(worked["record"]),
        "cat, by processor time": round(worked["cat"]),
        "target": ">= 200, by processor time",
        "rounds": {name: [list(map(round, each)) for each in rounds[name]] for name in rounds},
    }
    assert worked["record"] >= 200


def megabytes_per_second(command, messages):
    """What a command passes on in a second, and in a second of a processor that is its own."""
    start = time.perf_counter()
    source = subprocess.Popen(["cat", *[messages] * TIMES], stdout=subprocess.PIPE)
    between = subprocess.Popen(
        command, stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    source.stdout.close()
    counted = subprocess.run(["wc", "-c"], stdin=between.stdout, capture_output=True, check=True)
    between.stdout.close()
    _, status, usage = os.wait4(between.pid, 0)
    seconds = time.perf_counter() - start
    assert (source.wait(), status) == (0, 0)
    megabytes = messages.stat().st_size * TIMES / 1e6
    assert int(counted.stdout) / 1e6 == megabytes > 1000
    return megabytes / seconds, megabytes / (usage.ru_utime + usage.ru_stime)
