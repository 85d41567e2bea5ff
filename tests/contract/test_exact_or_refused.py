"""The library and the drop-in writer store a state exactly, or refuse it and store nothing."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from airbyte_protocol.models import AirbyteStateMessage
from pydantic import ValidationError

from eventstore import InvalidEvent, Pipeline, StateEmitted, StateSaved
from eventstore.errors import InvalidMoment, InvalidPipeline, UnknownVersion
from projections import SqlStateBackend, connect, latest_state, parse_moment, state_as_of
from tests.exact_or_refused import BODY_LIMIT, CASES, sized
from tests.messages import envelope, saved

SHOP = Pipeline("source-shop")

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
@pytest.mark.parametrize("wrap", [str, envelope], ids=["bare", "in its envelope"])
@pytest.mark.parametrize("event", [StateSaved, StateEmitted])
def test_by_the_library(shared_store, event, wrap, case):
    before = shared_store.heads()
    if case.refused:
        with pytest.raises(InvalidEvent, match=case.refused):
            shared_store.append(SHOP, event(wrap(case.text)))
        assert shared_store.heads() == before
    else:
        [stored] = shared_store.append(SHOP, event(wrap(case.text)))
        assert shared_store.event(SHOP, stored.version).body == case.text.encode()


@cases
def test_by_the_drop_in_writer(shared_store, case):
    """PyAirbyte hands over what it has parsed; that is kept as its models hold it."""
    backend = SqlStateBackend(shared_store.database.engine)
    writer = backend.get_state_writer("source-shop")
    before = shared_store.heads()
    try:
        message = AirbyteStateMessage.model_validate_json(case.text)
    except ValidationError:
        assert case.refused  # nobody could hand it over
        return
    if case.refused:
        with pytest.raises(InvalidEvent, match=case.refused):
            writer.write_state(message)
        assert shared_store.heads() == before
    else:
        writer.write_state(message)
        [*_, body] = latest_state(shared_store, SHOP).bodies
        assert json.loads(body) == message.model_dump(
            by_alias=True, exclude_unset=True, mode="json"
        )


def test_the_limit_of_a_body_is_the_one_that_was_set(database):
    with connect(database, body_limit=100) as store:
        store.append(SHOP, StateSaved(sized(100)))
        with pytest.raises(InvalidEvent, match="101 bytes, at most 100 are stored"):
            store.append(SHOP, StateSaved(sized(101)))
    with connect(database, body_limit=BODY_LIMIT + 1) as store:
        [stored] = store.append(SHOP, StateSaved(sized(BODY_LIMIT + 1)))
        assert store.event(SHOP, stored.version).body == sized(BODY_LIMIT + 1).encode()


@pytest.mark.parametrize(
    ("moment", "error", "says"),
    [
        (datetime(2026, 11, 20), InvalidMoment, "has no time zone"),  # noqa: DTZ001 - naive on purpose
        (-1, UnknownVersion, "no version -1: there are the versions 1 to 2"),
        (3, UnknownVersion, "no version 3: there are the versions 1 to 2"),
        ("@1", InvalidMoment, "parse_moment"),
        (1.5, InvalidMoment, "1.5"),
        (parse_moment("@-3"), UnknownVersion, "no version 3 before the newest"),
    ],
    ids=repr,
)
def test_what_is_no_moment_is_refused(store, moment, error, says):
    store.append(SHOP, saved("users", {"n": 1}), saved("users", {"n": 2}))
    with pytest.raises(error, match=says):
        state_as_of(store, SHOP, moment)


def test_a_moment_in_the_future_is_answered_by_the_present_and_not_final(store):
    store.append(SHOP, saved("users", {"n": 1}))
    view = state_as_of(store, SHOP, datetime.now(timezone.utc) + timedelta(days=1))
    assert (view.version, view.final) == (1, False)


def test_names_that_make_no_pipeline_store_nothing(store):
    for names, says in (
        ({"source": ""}, "source is empty"),
        ({"source": "s", "destination": "d", "table_prefix": "p_"}, "not both"),
    ):
        with pytest.raises(InvalidPipeline, match=says):
            store.append(Pipeline(**names), saved("users", {}))
    assert store.heads() == {}
