"""A little of what `python -m tests.fuzz` does for long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.damage import damaged
from tests.fuzz.doors import DOORS


@pytest.mark.parametrize("door", DOORS)
def test_bytes_come_back_exactly_or_are_refused(door):
    attempt, seeds = DOORS[door]

    @settings(max_examples=150)
    @given(st.sampled_from(seeds) | damaged(seeds) | st.binary(max_size=50))
    def fuzz(given):
        attempt(given)

    fuzz()
