"""A history of a million events: what the present, the past and an append cost there.

Two sides take turns in one run, A B A B. What counts is the ratio of the medians. The same for a
hundred times as many events as there are in another takes ten minutes and 15 GB:

    pytest -m "bench and slow" -n 0 tests/bench/test_million.py
"""

import random
from functools import partial
from itertools import count

import pytest
from sqlalchemy import text

from eventstore import Pipeline
from eventstore.integrity import verify
from projections import connect, latest_state, rebuild, replay, state_as_of
from projections.views import StateView
from tests.bench.turns import in_turns
from tests.messages import saved

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SHOP = Pipeline("source-shop")
EVENTS, STREAMS, BATCH = 1_000_000, 1_000, 5_000
FEW = 1_000
SHORT, LONG = 100_000, 10_000_000

ROUNDS_OF_NEW = 20
ROUNDS = 25
APPENDS = 20
PERCENT = (1, 50, 100)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def million(request, tmp_path_factory):
    """The kind of a database, and a store with one long history and its tables."""
    kind = request.param
    url = f"sqlite:///{tmp_path_factory.mktemp('million') / 'log.db'}"
    if kind == "postgresql":
        server = request.getfixturevalue("durable_server")
        server.execute(None, "CREATE DATABASE million")
        url = server.url("million")
    with connect(url) as store:
        append(store, EVENTS)
        if kind == "postgresql":
            vacuum(store)
        yield kind, store


def append(store, events, pipeline=SHOP):
    """Append so many events, as they would be without us."""
    for first in range(0, events, BATCH):
        numbers = range(first, min(first + BATCH, events))
        store.append(pipeline, *(saved(f"s{n % STREAMS}", {"cursor": n}) for n in numbers))


def vacuum(store):
    """What PostgreSQL does by itself within minutes."""
    with store.database.engine.connect() as db:
        db.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


def test_the_past_costs_little_more_than_the_present(results, million):
    kind, store = million
    works = {"now": lambda: latest_state(store, SHOP)} | {
        f"at {percent} %": partial(state_as_of, store, SHOP, EVENTS * percent // 100)
        for percent in PERCENT
    }
    took = in_turns(works, ROUNDS)
    past = [took[f"at {percent} %"] for percent in PERCENT]
    results[f"state_as_of of {STREAMS} streams in a million events, {kind}"] = {
        "unit": "ms",
        **{name: round(each, 2) for name, each in took.items()},
        "ratio": f"{max(past) / took['now']:.2f} times as long as now, "
        f"{max(past) / min(past):.2f} from the cheapest to the dearest",
        "target": "<= 2, <= 1.3",
    }
    assert max(past) <= 4 * took["now"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_past_costs_the_same_in_a_hundred_times_as_many_events(results, fresh_url, kind):
    with connect(fresh_url(kind)) as short, connect(fresh_url(kind)) as long:
        works = {}
        for store, events in ((short, SHORT), (long, LONG)):
            append(store, events)
            if kind == "postgresql":
                vacuum(store)
            works |= {
                f"{percent} % of {events}": partial(
                    state_as_of, store, SHOP, events * percent // 100
                )
                for percent in PERCENT
            }
            works[f"now of {events}"] = partial(latest_state, store, SHOP)
            works[f"append to {events}"] = partial(store.append, SHOP, saved("s1", {}))
        took = in_turns(works, ROUNDS)
    past = [took[name] for name in works if "%" in name]
    results[f"state_as_of of {STREAMS} streams in {SHORT} and {LONG} events, {kind}"] = {
        "unit": "ms",
        **{name: round(each, 2) for name, each in took.items()},
        "ratio": f"{max(past) / min(past):.2f} from the cheapest to the dearest",
        "target": "<= 1.3",
    }
    assert max(past) <= 2 * min(past)


def test_the_past_is_read_as_fast_before_the_first_analyze(results, fresh_url):
    pipelines = [Pipeline(f"source-{number}") for number in range(2)]
    with connect(fresh_url("postgresql")) as store:
        for pipeline in pipelines:
            append(store, STREAMS * ROUNDS_OF_NEW, pipeline)
        middle = STREAMS * ROUNDS_OF_NEW // 2
        works = {"now": partial(latest_state, store, pipelines[1])} | {
            str(pipeline): partial(state_as_of, store, pipeline, middle) for pipeline in pipelines
        }
        took = in_turns(works, ROUNDS)
    now, *past = took.values()
    results[f"state_as_of of {STREAMS} streams, not analyzed yet, postgresql"] = {
        "unit": "ms",
        "now": round(now, 2),
        "then": round(max(past), 2),
        "ratio": round(max(past) / now, 2),
        "target": "<= 2",
    }
    assert max(past) <= 6 * now


def test_a_moment_is_found_at_once(results, million):
    kind, store = million
    chance = random.Random(3)
    moments = [store.event(SHOP, chance.randrange(1, EVENTS)).stored_at for _ in range(ROUNDS)]
    asked = iter(moments)
    took = in_turns({"ours": lambda: store.version_at(SHOP, next(asked))}, ROUNDS)["ours"]
    results[f"the version at a moment in a million events, {kind}"] = {
        "unit": "ms",
        "ours": round(took, 3),
        "target": "<= 0.2",
    }


def test_an_append_costs_what_it_cost_at_the_beginning(results, million, fresh_url):
    kind, store = million
    numbers = count()

    def some(here):
        for _ in range(APPENDS):
            here.append(SHOP, saved("s1", {"cursor": next(numbers)}))

    with connect(fresh_url(kind)) as young:
        append(young, FEW)
        works = {f"at {FEW}": partial(some, young), f"at {EVENTS}": partial(some, store)}
        took = in_turns(works, ROUNDS)
    ratio = took[f"at {EVENTS}"] / took[f"at {FEW}"]
    results[f"an append among many events, {kind}"] = {
        "unit": "ms",
        **{name: round(each / APPENDS, 3) for name, each in took.items()},
        "ratio": round(ratio, 2),
        "target": "<= 1.2",
    }
    assert ratio <= 1.2


def test_a_rebuild_does_not_read_the_history(results, million):
    kind, store = million
    works = {
        "rebuild": lambda: rebuild(store),
        "replay": lambda: replay(store, SHOP, StateView(SHOP)),
    }
    took = in_turns(works, rounds=3)
    results[f"rebuild from a million events, {kind}"] = {
        "unit": "s",
        **{name: round(each / 1000, 2) for name, each in took.items()},
        "ratio": round(took["replay"] / took["rebuild"], 1),
        "target": ">= 20, and <= 3 s on SQLite",
    }


def test_two_processes_verify_faster_than_one(results, million):
    kind, store = million
    works = {f"{number} of them": partial(verify, store, processes=number) for number in (1, 2)}
    took = in_turns(works, rounds=3)
    one, two = took.values()
    results[f"verify of a million events with processes, {kind}"] = {
        "unit": "s",
        **{name: round(each / 1000, 2) for name, each in took.items()},
        "ratio": f"{one / two:.2f} times as fast with two",
        "target": "> 1",
    }
    assert two < one
