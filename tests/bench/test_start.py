"""How long it takes to import the package, and a command to start, beside an import of SQLAlchemy.

Whole processes in turns, A B A B; what counts is the median of the rounds' ratios of what the
processor spends on each, which other processes do not lengthen as they do time.
"""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import Pipeline
from projections import connect
from tests.messages import saved

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = 15

EVENTSTORE = Path(sys.executable).with_name("eventstore")
SQLALCHEMY = (sys.executable, "-c", "import sqlalchemy")
STARTED = {
    "import eventstore": ((sys.executable, "-c", "from eventstore import EventStore"), 1.3),
    "eventstore --help": ((EVENTSTORE, "--help"), 1.3),
    "eventstore log": ((EVENTSTORE, "log", "--db", "small.db"), 2.0),
}


@pytest.mark.parametrize("name", STARTED)
def test_starting_costs_little_more_than_importing_sqlalchemy(results, name, tmp_path):
    with connect(tmp_path / "small.db") as store:
        store.append(Pipeline("shop"), *(saved("users", {"cursor": n}) for n in range(10)))
    command, target = STARTED[name]
    ours, theirs = [], []
    cpu_seconds(command, tmp_path), cpu_seconds(SQLALCHEMY, tmp_path)
    for _ in range(ROUNDS):
        ours.append(cpu_seconds(command, tmp_path))
        theirs.append(cpu_seconds(SQLALCHEMY, tmp_path))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    results[name] = {
        "unit": "s of a processor",
        "ours": round(statistics.median(ours), 4),
        "import sqlalchemy": round(statistics.median(theirs), 4),
        "ratio": round(ratio, 2),
        "target": f"<= {target}",
        "rounds": {
            "ours": [round(each, 4) for each in ours],
            "import sqlalchemy": [round(each, 4) for each in theirs],
        },
    }
    assert ratio <= target


# What pip installs is compiled; without compiled files each start would compile the checkout anew.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def cpu_seconds(command, folder):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
