"""Projections of one's own: each event is applied once, in its order, whoever catches up."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import select

from eventstore import Invalid, Pipeline
from projections import catch_up, catching_up, connect
from projections.catching_up import progress
from tests.contract.catcher import Seen
from tests.interruptions import everywhere
from tests.messages import emitted, saved

ALL = list(range(1, 31))
SHOP, BANK = Pipeline("source-shop"), Pipeline("source-bank", "destination-lake")


@pytest.fixture
def filled(store):
    """A store with two histories."""
    store.append(SHOP, *emitted(30))
    store.append(BANK, saved("users", {"cursor": 1}))
    return store


def seen(store):
    """What the projection has in its table: the events in the order it was shown them."""
    query = select(Seen.table).order_by("number")
    rows = store.database.read(lambda db: db.execute(query).all())
    return [(row.source, row.version) for row in rows]


def history(store):
    return [
        (pipeline.source, stored.version)
        for pipeline in store.pipelines()
        for stored in store.history(pipeline)
    ]


def test_each_event_is_applied_once_in_its_order(filled):
    assert catch_up(filled, Seen()) == 31
    assert sorted(seen(filled)) == sorted(history(filled))
    assert [version for source, version in seen(filled) if source == SHOP.source] == ALL
    assert catch_up(filled, Seen()) == 0
    filled.append(BANK, *emitted(2))
    assert catch_up(filled, Seen()) == 2
    assert seen(filled)[-2:] == [(BANK.source, 2), (BANK.source, 3)]


@pytest.mark.parametrize("page", [5, 7, 1000])
def test_pages_end_anywhere_in_many_histories(store, monkeypatch, page):
    monkeypatch.setattr(catching_up, "PAGE", page)
    many = [Pipeline(f"source-{number}") for number in range(10)]
    for pipeline in many:
        store.append(pipeline, *emitted(5))
    assert catch_up(store, Seen()) == 50
    for pipeline in many[::3]:
        store.append(pipeline, *emitted(10))
    assert catch_up(store, Seen()) == 40
    shown = seen(store)
    assert sorted(shown) == sorted(history(store))
    for pipeline in many:
        versions = [version for source, version in shown if source == pipeline.source]
        assert versions == sorted(versions)


def test_anew_it_begins_with_empty_tables(filled):
    catch_up(filled, Seen())
    assert catch_up(filled, Seen(), anew=True) == 31
    assert sorted(seen(filled)) == sorted(history(filled))


def test_what_another_forgets_is_applied_anew(filled):
    """Also by who has just seen that there is nothing new."""
    catch_up(filled, Seen())
    for _ in range(2):
        assert catch_up(filled, Seen()) == 0
    with connect(filled.database.engine.url) as other:
        other.database.transact(lambda db: db.execute(progress.delete()))
    assert catch_up(filled, Seen()) == 31
    filled.database.transact(lambda db: db.execute(progress.delete()))
    assert catch_up(filled, Seen()) == 31


def test_two_projections_have_a_progress_each(filled):
    class Other(Seen):
        name = "other"
        TABLES = ()

        def apply(self, db, stored):
            """Change nothing."""

    assert (catch_up(filled, Other()), catch_up(filled, Seen())) == (31, 31)


def test_a_name_that_cannot_be_stored_is_refused(store):
    class Nameless(Seen):
        name = ""

    with pytest.raises(Invalid, match="1 to 64 characters"):
        catch_up(store, Nameless())


@pytest.mark.slow_on("duckdb")
def test_where_it_fails_nothing_of_the_page_stays_and_the_next_time_goes_on(store):
    class Failing(Seen):
        def apply(self, db, stored):
            super().apply(db, stored)
            if stored.version == 1200:
                raise ZeroDivisionError

    store.append(SHOP, *emitted(1500))
    with pytest.raises(ZeroDivisionError):
        catch_up(store, Failing())
    assert seen(store) == [(SHOP.source, version) for version in range(1, 1001)]
    assert catch_up(store, Seen()) == 500
    assert seen(store) == history(store)


@pytest.mark.slow_on("duckdb")
def test_wherever_another_catches_up_meanwhile_each_event_is_applied_once(database):
    with connect(database) as one, connect(database) as other:
        for interruption in everywhere():
            one.append(Pipeline(f"source-{interruption.at}"), *emitted(3))
            with interruption.of(one.database.engine, lambda: catch_up(other, Seen())):
                catch_up(one, Seen())
            assert sorted(seen(one)) == sorted(history(one))


@pytest.mark.needs("MANY_PROCESSES")
def test_processes_that_catch_up_while_others_append_see_all_once(database):
    with connect(database) as store:
        store.append(SHOP, *emitted(1))
        catch_up(store, Seen())
        command = [sys.executable, "-m", "tests.contract.catcher", database, "400"]
        root = Path(__file__).parents[2]
        catchers = [subprocess.Popen(command, cwd=root) for _ in range(3)]
        for _ in range(19):
            store.append(SHOP, *emitted(20))
            store.append(BANK, *emitted(1))
        assert [catcher.wait(60) for catcher in catchers] == [0, 0, 0]
        assert sorted(seen(store)) == sorted(history(store))
        versions = [version for source, version in seen(store) if source == SHOP.source]
        assert versions == sorted(versions)


def test_following_yields_what_there_is_and_what_comes(filled):
    following = filled.follow({SHOP: 20}, every_s=0.01)
    there = list(islice(following, 11))
    assert sorted((stored.pipeline.source, stored.version) for stored in there) == [
        (BANK.source, 1),
        *((SHOP.source, version) for version in range(21, 31)),
    ]
    new = filled.append(SHOP, *emitted(2))
    assert list(islice(following, 2)) == new
