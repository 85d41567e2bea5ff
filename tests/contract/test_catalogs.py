"""Catalogs: what is registered comes back whole, and only what changed is stored."""

import json
from collections import Counter

import pytest
from airbyte_protocol.models import ConfiguredAirbyteCatalog

from eventstore import InvalidEvent, Pipeline, StreamDefined, StreamDescriptor
from projections import (
    CatalogView,
    catalog_as_of,
    connect,
    latest_catalog,
    register_catalog,
    replay,
)
from tests.messages import catalog, configured_stream

SHOP = Pipeline("source-shop")

WHOLE = {
    "stream": {
        "name": "users",
        "namespace": "audit",
        "json_schema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": ["null", "object"],
            "properties": {
                "id": {"type": "integer", "maximum": 123456789012345678901234567890},
                "ärger": {"type": ["null", "string"], "default": None},
            },
            "additionalProperties": True,
        },
        "supported_sync_modes": ["full_refresh", "incremental"],
        "source_defined_cursor": True,
        "default_cursor_field": ["meta", "updated_at"],
        "source_defined_primary_key": [["id"], ["meta", "tenant"]],
        "is_resumable": False,
        "is_file_based": False,
        "x_of_the_stream": {"nested": None},
    },
    "sync_mode": "incremental",
    "cursor_field": ["updated_at"],
    "destination_sync_mode": "append_dedup",
    "destination_object_name": "people",
    "primary_key": [["id"], ["meta", "tenant"]],
    "generation_id": 3,
    "minimum_generation_id": 2,
    "sync_id": 8812,
    "include_files": False,
    "x_of_the_configuration": [1, {"a": None}],
}


@pytest.mark.parametrize(
    "form",
    [
        lambda given: given,
        json.dumps,
        lambda given: json.dumps(given).encode(),
        ConfiguredAirbyteCatalog.model_validate,
    ],
    ids=["dict", "text", "bytes", "model"],
)
def test_a_configured_stream_survives_whole_in_a_new_store(database, form):
    with connect(database) as store:
        register_catalog(store, SHOP, form(catalog(WHOLE)))
    with connect(database) as store:
        assert _dumped(latest_catalog(store, SHOP)) == [WHOLE]
        assert _dumped(catalog_as_of(store, SHOP, 2)) == [WHOLE]
        assert _dumped(replay(store, SHOP, CatalogView(SHOP))) == [WHOLE]


def test_a_view_is_airbytes_catalog(store):
    register_catalog(store, SHOP, catalog(WHOLE))
    assert latest_catalog(store, SHOP).catalog == ConfiguredAirbyteCatalog.model_validate(
        catalog(WHOLE)
    )


def test_an_identical_registration_is_an_event_and_defines_nothing(store):
    for _ in range(3):
        register_catalog(store, SHOP, catalog(WHOLE, configured_stream("orders")))
    kinds = [stored.kind for stored in store.history(SHOP)]
    assert kinds == ["StreamDefined", "StreamDefined", *["CatalogRegistered"] * 3]


@pytest.mark.parametrize("field", ["sync_id", "generation_id", "minimum_generation_id"])
def test_a_field_that_changes_with_each_sync_does_not_redefine_a_stream(store, field):
    register_catalog(store, SHOP, catalog(WHOLE))
    [registered] = register_catalog(store, SHOP, catalog({**WHOLE, field: 77}))
    assert registered.kind == "CatalogRegistered"
    assert _dumped(latest_catalog(store, SHOP)) == [{**WHOLE, field: 77}]


def test_the_order_of_keys_does_not_redefine_a_stream(store):
    register_catalog(store, SHOP, catalog(WHOLE))
    turned = dict(reversed(WHOLE.items()))
    assert len(register_catalog(store, SHOP, json.dumps(catalog(turned)))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sync_mode": "full_refresh"},
        {"destination_sync_mode": "overwrite"},
        {"cursor_field": ["id"]},
        {"primary_key": [["email"]]},
        {"x_of_the_configuration": []},
        {"stream": {**WHOLE["stream"], "json_schema": {"properties": {}}}},
        {"stream": {**WHOLE["stream"], "is_resumable": True}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_other_change_redefines_its_stream_alone(store, change):
    register_catalog(store, SHOP, catalog(WHOLE, configured_stream("orders")))
    changed = {**WHOLE, **change}
    appended = register_catalog(store, SHOP, catalog(changed, configured_stream("orders")))
    assert [(stored.kind, stored.stream) for stored in appended] == [
        ("StreamDefined", StreamDescriptor("users", "audit")),
        ("CatalogRegistered", None),
    ]
    assert _dumped(latest_catalog(store, SHOP)) == [changed, configured_stream("orders")]


def test_registering_a_subset_keeps_the_others_as_they_were(store):
    register_catalog(store, SHOP, catalog(WHOLE, configured_stream("orders", sync_id=1)))
    register_catalog(store, SHOP, catalog(configured_stream("orders", sync_id=2)))
    assert _by_name(latest_catalog(store, SHOP)) == {
        ("users", "audit"): WHOLE,
        ("orders", None): configured_stream("orders", sync_id=2),
    }


def test_a_field_that_a_registration_does_not_name_is_forgotten(store):
    register_catalog(store, SHOP, catalog(configured_stream("users", sync_id=1)))
    register_catalog(store, SHOP, catalog(configured_stream("users")))
    assert _dumped(latest_catalog(store, SHOP)) == [configured_stream("users")]


def test_an_empty_catalog_changes_nothing_but_is_an_event(store):
    register_catalog(store, SHOP, catalog(WHOLE))
    [registered] = register_catalog(store, SHOP, catalog())
    assert (registered.kind, registered.version) == ("CatalogRegistered", 3)
    assert _dumped(latest_catalog(store, SHOP)) == [WHOLE]


def test_streams_come_back_in_the_order_of_the_newest_registration(store):
    names = ["users", "orders", "carts"]
    register_catalog(store, SHOP, catalog(*map(configured_stream, names)))
    register_catalog(store, SHOP, catalog(*map(configured_stream, reversed(names))))
    assert [stream.stream.name for stream in latest_catalog(store, SHOP).streams] == names[::-1]


def test_streams_that_no_registration_names_come_back_in_one_order_by_table_and_by_replay(store):
    users, orders = configured_stream("users"), configured_stream("orders")
    changed = configured_stream("users", columns=["id", "name"])
    store.append(SHOP, *(StreamDefined(stream) for stream in (users, orders, changed)))
    replayed = replay(store, SHOP, CatalogView(SHOP)).streams
    assert latest_catalog(store, SHOP).streams == catalog_as_of(store, SHOP, 3).streams == replayed


def test_streams_of_one_name_in_several_namespaces_are_several(store):
    streams = [configured_stream("users", namespace) for namespace in (None, "", "audit")]
    register_catalog(store, SHOP, catalog(*streams))
    assert _dumped(latest_catalog(store, SHOP)) == streams


@pytest.mark.parametrize("namespace", [None, "", "audit"])
def test_a_stream_named_twice_is_refused(store, namespace):
    twice = catalog(configured_stream("users", namespace), configured_stream("users", namespace))
    with pytest.raises(InvalidEvent, match=r"users twice"):
        register_catalog(store, SHOP, twice)
    assert store.heads() == {}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "[]",
        "{}",
        '{"streams":[{}]}',
        '{"streams":[{"stream":{"name":"users"}}]}',
        {"streams": [{**WHOLE, "sync_mode": "sometimes"}]},
        catalog(configured_stream("x" * 256)),
        catalog(configured_stream("users", "n" * 256)),
        catalog(configured_stream("nul\x00")),
        None,
        7,
    ],
    ids=repr,
)
def test_what_is_no_catalog_is_refused(shared_store, bad):
    with pytest.raises(InvalidEvent):
        register_catalog(shared_store, SHOP, bad)
    assert shared_store.heads() == {}


def test_catalogs_of_pipelines_are_kept_apart(store):
    other = Pipeline("source-shop", table_prefix="a_")
    register_catalog(store, SHOP, catalog(configured_stream("users", sync_id=1)))
    register_catalog(store, other, catalog(configured_stream("users", sync_id=2)))
    syncs = [latest_catalog(store, name).streams[0].sync_id for name in (SHOP, other)]
    assert syncs == [1, 2]


def test_many_unchanged_streams_cost_one_event(store):
    many = catalog(*(configured_stream(f"stream {number}") for number in range(200)))
    register_catalog(store, SHOP, many)
    register_catalog(store, SHOP, many)
    kinds = Counter(stored.kind for stored in store.history(SHOP))
    assert kinds == {"StreamDefined": 200, "CatalogRegistered": 2}


def _dumped(view):
    return [
        json.loads(stream.model_dump_json(by_alias=True, exclude_unset=True))
        for stream in view.streams
    ]


def _by_name(view):
    return {
        (stream["stream"]["name"], stream["stream"].get("namespace")): stream
        for stream in _dumped(view)
    }
