"""What a state read and a catalog registered cost through the classes that PyAirbyte has too.

Two sides take turns in one run, A B A B, with the same states and catalogs; each has a fresh
database. What counts is the ratio of the medians.
"""

import statistics
import time
from itertools import count

import duckdb
import orjson
import pytest
from sqlalchemy import make_url, select

from eventstore import Pipeline, StateEmitted
from eventstore.tables import bodies, bodies_of, events, pipelines, streams
from projections import SqlCatalogBackend, SqlStateBackend, connect, register_catalog
from projections.tables import STREAMS_TABLE
from tests.bench.bare import as_kept
from tests.bench.turns import in_turns
from tests.messages import configured_stream, stream_state
from tests.read_side.sql_config import SqlConfig

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS = 15
SOURCE = "source-shop"
STATES, STREAMS = 200, 500
BATCHES = (100, 1_000)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgresql"])
def test_a_state_is_read_faster_than_by_pyairbyte(results, fresh_url, kind):
    from airbyte.caches._state_backend import SqlStateBackend as Own  # noqa: PLC0415 - slow to import
    from airbyte_protocol.models import AirbyteStateMessage  # noqa: PLC0415

    def reading(backend_class):
        backend = backend_class(SqlConfig(fresh_url(kind)))
        writer = backend.get_state_writer(SOURCE)
        for number in range(STATES):
            state = stream_state(f"stream_{number}", {"cursor": "2026-11-22", "n": number})
            writer.write_state(AirbyteStateMessage.model_validate_json(state))

        def read():  # what a sync gives to its connector
            text = backend.get_state_provider(SOURCE).to_state_input_file_text()
            assert len(orjson.loads(text)) == STATES

        return read

    took = in_turns({"ours": reading(SqlStateBackend), "pyairbyte": reading(Own)}, ROUNDS)
    ratio = took["ours"] / took["pyairbyte"]
    results[f"latest state of {STATES} streams, {kind}"] = {
        "unit": "ms",
        **{side: round(each, 2) for side, each in took.items()},
        "ratio": round(ratio, 2),
        "target": "<= 0.7",
    }


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgresql"])
def test_a_catalog_is_registered_faster_than_by_pyairbyte(results, fresh_url, kind):
    from airbyte.caches._catalog_backend import SqlCatalogBackend as Own  # noqa: PLC0415
    from airbyte_protocol.models import ConfiguredAirbyteCatalog  # noqa: PLC0415

    names = [f"stream_{number}" for number in range(STREAMS)]
    catalog = ConfiguredAirbyteCatalog.model_validate(
        {"streams": [configured_stream(name, columns="abcdefgh") for name in names]}
    )

    def registering(backend_class):
        backend = backend_class(SqlConfig(fresh_url(kind)), "")
        return lambda: backend.register_source(SOURCE, catalog, set(names))

    took = in_turns({"ours": registering(SqlCatalogBackend), "pyairbyte": registering(Own)}, ROUNDS)
    ratio = took["pyairbyte"] / took["ours"]
    results[f"register_source of {STREAMS} unchanged streams, {kind}"] = {
        "unit": "ms",
        **{side: round(each, 2) for side, each in took.items()},
        "ratio": f"{ratio:.1f} times as many per second",
        "target": ">= 10",
    }


class Unnested:
    """The floor on DuckDB: rows of ours, inserted again from a list for each column."""

    def __init__(self, url):
        with connect(url) as store:
            store.pipelines()
        self._db = duckdb.connect(make_url(url).database)

    def insert(self, rows):
        """Insert rows into tables; returns how many milliseconds that took."""
        columns = {table: list(map(list, zip(*each, strict=True))) for table, each in rows.items()}
        start = time.perf_counter()
        self._db.begin()
        for table, values in columns.items():
            lists = ", ".join(f"unnest(${number})" for number, _ in enumerate(values, start=1))
            names = ", ".join(column.name for column in table.columns)
            self._db.execute(f"INSERT INTO {table.name} ({names}) SELECT {lists}", values)
        self._db.commit()
        return (time.perf_counter() - start) * 1000


def rows_of(store, pipeline, *tables):
    """What there is of a pipeline, by table."""
    with store.database.engine.connect() as db:
        mine = db.scalar(select(pipelines.c.id).where(pipelines.c.key == pipeline.key))
        found = {}
        for table in tables:
            if table is bodies:
                where = bodies_of(mine)
            elif "pipeline_id" in table.c:
                where = table.c.pipeline_id == mine
            else:
                where = table.c.pipeline_key == pipeline.key
            rows = db.execute(select(*as_kept(table)).where(where))
            found[table] = [tuple(row) for row in rows]
        return found


def beside_unnest(fresh_url, work, *tables):
    """The medians of ours, which does the work for a new pipeline, and of its rows unnested."""
    taken = {"ours": [], "unnest": []}
    floor = Unnested(fresh_url("duckdb"))
    with connect(fresh_url("duckdb")) as store:
        for number in range(ROUNDS):
            pipeline = Pipeline(f"source-{number}")
            start = time.perf_counter()
            work(store, pipeline)
            taken["ours"].append((time.perf_counter() - start) * 1000)
            taken["unnest"].append(floor.insert(rows_of(store, pipeline, *tables)))
    return {side: statistics.median(each[1:]) for side, each in taken.items()}


@pytest.mark.parametrize("size", BATCHES)
def test_what_a_batch_takes_on_duckdb(results, fresh_url, size):
    numbers = count()

    def append(store, pipeline):
        states = [stream_state("users", {"cursor": next(numbers)}) for _ in range(size)]
        store.append(pipeline, *map(StateEmitted, states))

    took = beside_unnest(fresh_url, append, events, bodies, streams)
    results[f"append in batches of {size}, duckdb"] = {
        "unit": "ms",
        **{side: round(each, 2) for side, each in took.items()},
        "ratio": round(took["ours"] / took["unnest"], 2),
        "target": "<= 2",
    }


def test_what_a_new_catalog_takes_on_duckdb(results, fresh_url):
    catalog = {"streams": [configured_stream(f"stream_{number}") for number in range(STREAMS)]}
    took = beside_unnest(
        fresh_url,
        lambda store, pipeline: register_catalog(store, pipeline, catalog),
        *(events, bodies, streams, STREAMS_TABLE),
    )
    results[f"registration of {STREAMS} new streams, duckdb"] = {
        "unit": "ms",
        **{side: round(each, 2) for side, each in took.items()},
        "ratio": round(took["ours"] / took["unnest"], 2),
        "target": "<= 2",
    }
