"""A sync through PyAirbyte keeps each state, or ends; what PyAirbyte cannot read it never sees."""

import json

import pytest
from airbyte.exceptions import AirbyteConnectorError
from airbyte_protocol.models import AirbyteMessage
from pydantic import ValidationError

from eventstore import Pipeline
from projections import connect
from projections.pyairbyte import with_history
from tests.exact_or_refused import CASES
from tests.messages import envelope

SHOP = Pipeline("source-shop", table_prefix="dev_")


def parsed(case):
    """The message as PyAirbyte has it, None if it takes the line for a log's."""
    try:
        return AirbyteMessage.model_validate_json(envelope(case.text)).state
    except ValidationError:
        return None


SEEN = {name: case for name, case in CASES.items() if parsed(case)}
REFUSED = {name: case for name, case in SEEN.items() if case.refused}


@pytest.fixture
def cache(plain_cache):
    with with_history(plain_cache()) as cache:
        yield cache


def test_all_that_is_valid_is_kept_as_pyairbyte_has_parsed_it(cache, shop):
    lines = [envelope(case.text) for name, case in CASES.items() if name not in REFUSED]
    shop.says(*lines).read(cache, skip_validation=True)
    emitted = [
        json.loads(stored.body)
        for stored in connect(cache).history(SHOP)
        if stored.kind == "StateEmitted"
    ]
    assert emitted == [
        parsed(case).model_dump(by_alias=True, exclude_unset=True, mode="json")
        for name, case in SEEN.items()
        if name not in REFUSED
    ]


def test_what_pyairbyte_cannot_read_would_be_refused_but_for_one():
    unseen = [name for name in CASES if name not in SEEN and not CASES[name].refused]
    assert unseen == ["nesting of 201"]  # in its envelope it is one more


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_ends_the_read(cache, shop, case):
    with pytest.raises(AirbyteConnectorError, match="The source put out an invalid state"):
        shop.says(envelope(case.text)).read(cache, skip_validation=True)
    kinds = {stored.kind for stored in connect(cache).history(SHOP)}
    assert kinds == {"StreamDefined", "CatalogRegistered"}
