"""A declarative source with a cursor for each of 5,000 partitions, against a local API."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import airbyte as ab
import pytest

from eventstore import Pipeline
from projections import connect, latest_state
from projections.pyairbyte import with_history
from tests.messages import stream_state
from tests.syncs.connectors import record, state

MANY = 5_000

pytestmark = pytest.mark.timeout(600)


class Api(BaseHTTPRequestHandler):
    """One order of each shop, unless the reader has it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = parse_qs(urlsplit(self.path).query)
        [shop], [since] = asked["shop"], asked["since"]
        order = {"id": shop, "shop": shop, "updated_at": f"2026-11-20T00:{int(shop) % 60:02}:00Z"}
        self.server.asked.append((shop, since))
        body = json.dumps({"items": [order] if since < order["updated_at"] else []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def api():
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.asked = []
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def orders(api, partitions):
    columns = {
        "id": {"type": "string"},
        "shop": {"type": "string"},
        "updated_at": {"type": "string"},
    }
    stream = {
        "type": "DeclarativeStream",
        "name": "orders",
        "primary_key": ["id"],
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {
                "type": "HttpRequester",
                "url_base": f"http://127.0.0.1:{api.server_port}",
                "path": "/orders",
                "http_method": "GET",
                "request_parameters": {
                    "shop": "{{ stream_partition.shop }}",
                    "since": "{{ stream_interval.start_time }}",
                },
            },
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": ["items"]},
            },
            "partition_router": {
                "type": "ListPartitionRouter",
                "values": [str(number) for number in range(partitions)],
                "cursor_field": "shop",
            },
        },
        "incremental_sync": {
            "type": "DatetimeBasedCursor",
            "cursor_field": "updated_at",
            "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
            "start_datetime": {"type": "MinMaxDatetime", "datetime": "2026-01-01T00:00:00Z"},
        },
        "schema_loader": {
            "type": "InlineSchemaLoader",
            "schema": {"type": "object", "properties": columns},
        },
    }
    manifest = {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["orders"]},
        "streams": [stream],
        "spec": {
            "type": "Spec",
            "connection_specification": {"type": "object", "properties": {}},
        },
    }
    return ab.get_source(
        "source-declarative-manifest",
        local_executable=Path(sys.executable).with_name("source-declarative-manifest"),
        install_if_missing=False,
        config={"__injected_declarative_manifest": manifest},
        streams="*",
    )


@pytest.mark.parametrize(
    ("plain_cache", "partitions"),
    [  # the connector takes two minutes for many
        ("duckdb", 50),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("duckdb", MANY), ("postgresql", 50), ("postgresql", MANY))
        ),
    ],
    indirect=["plain_cache"],
)
def test_the_cursor_of_each_partition_is_kept_and_given_back(plain_cache, api, partitions):
    source = orders(api, partitions)
    with with_history(plain_cache()) as cache:
        counts = [source.read(cache, skip_validation=True).processed_records for _ in range(2)]
        store = connect(cache)
        [pipeline] = store.pipelines()
        [body] = latest_state(store, pipeline).bodies
        kinds = [stored.kind for stored in store.history(pipeline)]
    assert pipeline == Pipeline("source-declarative-manifest", table_prefix="dev_")
    assert counts[0] == partitions
    assert {since for _, since in api.asked[:partitions]} == {"2026-01-01T00:00:00Z"}
    assert {since[:10] for _, since in api.asked[partitions:]} == {"2026-11-20"}
    assert kinds[-1] == "StateSaved"
    assert "StateEmitted" in kinds
    states = json.loads(body)["stream"]["stream_state"]["states"]
    assert {each["partition"]["shop"] for each in states} == set(map(str, range(partitions)))


def test_a_state_of_many_partitions_is_kept_and_given_back(plain_cache, shop):
    states = [
        {"partition": {"parent_slice": {}, "shop": str(n)}, "cursor": {"updated_at": f"{n:032}"}}
        for n in range(MANY)
    ]
    blob = {"use_global_cursor": False, "states": states, "lookback_window": 1}
    with with_history(plain_cache()) as cache:
        for _ in range(2):
            source = shop.says(record("users"), *[state(stream_state("users", blob))] * 3)
            source.read(cache, skip_validation=True)
        history = connect(cache).history(Pipeline("source-shop", table_prefix="dev_"))
        kinds = [stored.kind for stored in history if stored.kind.startswith("State")]
    assert kinds == [*["StateEmitted"] * 3, "StateSaved"] * 2
    [given] = json.loads(shop.given[-1])
    assert given["stream"]["stream_state"] == blob
