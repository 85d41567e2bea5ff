"""`kill -9` of a process that writes, at any moment: what it was told is stored, once and whole."""

import random
import time

import pytest

from projections import connect
from tests.faults.oracle import check, writer


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_what_was_acknowledged_before_a_kill_is_there_once(database, kills):
    acknowledged = []
    for number in range(1, kills + 1):
        it = writer(database)
        time.sleep(random.uniform(0, 0.1))
        acknowledged += it.kill()
        if number % 20 == 0 or number == kills:
            with connect(database) as store:
                check(store, acknowledged)
    assert len(acknowledged) >= kills


@pytest.mark.needs("MANY_PROCESSES")
@pytest.mark.timeout(600)
def test_writers_that_race_are_killed_one_by_one(database):
    writers = [writer(database) for _ in range(4)]
    acknowledged = []
    for it in writers:
        time.sleep(random.uniform(0, 0.1))
        acknowledged += it.kill()
    with connect(database) as store:
        check(store, acknowledged)
