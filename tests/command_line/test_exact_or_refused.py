"""`eventstore record` stores each state exactly, or refuses it, reports it and passes it on."""

import json
import re

import pytest

from eventstore import Pipeline
from projections import connect, latest_catalog
from tests.command_line import shell
from tests.exact_or_refused import CASES, MIB
from tests.messages import catalog, configured_stream, envelope

SHOP = Pipeline("source-shop")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """All the cases in one pipe: what came out, what was said, what is stored."""
    database = tmp_path_factory.mktemp("doors") / "state.db"
    lines = [envelope(case.text).encode() for case in CASES.values()]
    done = shell.run("record", "--source", "source-shop", "--db", database, stdin=b"\n".join(lines))
    with connect(database) as store:
        stored = [event.body for event in store.history(SHOP)]
    return lines, done, stored


def test_every_line_is_passed_on_byte_for_byte(recorded):
    lines, done, _ = recorded
    assert done.raw == b"\n".join(lines)


def test_each_valid_state_is_stored_exactly_and_no_other(recorded):
    _, _, stored = recorded
    assert stored == [case.text.encode() for case in CASES.values() if not case.refused]


def test_each_invalid_state_is_counted_and_the_first_are_told_of(recorded):
    _, done, _ = recorded
    refused = [(number, case) for number, case in enumerate(CASES.values(), 1) if case.refused]
    assert done.code == 1
    assert f"invalid and not recorded: {len(refused)} states" in done.err
    told = dict(re.findall(r"line (\d+): (.*)", done.err))
    assert len(told) == 10
    for number, case in refused[:10]:
        assert re.search(case.refused, told[str(number)])


CATALOGS = {
    "not JSON": ("{streams}", "not strict JSON"),
    "no object": ("[]", "no JSON object"),
    "no streams": ("{}", "streams"),
    "a stream without a name": (catalog({"stream": {}}), "name"),
    "a stream twice": (catalog(configured_stream("a"), configured_stream("a")), "twice"),
    "NaN": ('{"streams":[],"x":NaN}', "not strict JSON"),
    "a lone surrogate": (r'{"streams":[],"x":"\ud800"}', "not strict JSON"),
    "NUL in a name": (catalog(configured_stream("a\x00")), "NUL"),
    "a name of 256 characters": (catalog(configured_stream("x" * 256)), "256 characters"),
    "nesting of 100,000": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested|recursion|JSON"),
    "a definition of 17 MiB": (catalog(configured_stream("a", columns=["x" * 17 * MIB])), "bytes"),
    "a sync id of 64 bits and one": (catalog(configured_stream("a", sync_id=2**63)), "64 bits"),
    "a sync id of 64 bits": (catalog(configured_stream("a", sync_id=2**63 - 1)), None),
    "no stream": (catalog(), None),
    "a name of 255 characters": (catalog(configured_stream("x" * 255)), None),
    "a number of 200 digits": (catalog(configured_stream("a", x=int("9" * 200))), None),
    "unknown keys": (catalog(configured_stream("a", columns=["id"], later={"b": None})), None),
}


@pytest.mark.parametrize(("given", "refused"), CATALOGS.values(), ids=CATALOGS)
def test_a_catalog_is_registered_exactly_or_refused(given, refused, tmp_path, eventstore):
    file = tmp_path / "catalog.json"
    file.write_text(given if isinstance(given, str) else json.dumps(given))
    database = tmp_path / "state.db"
    done = eventstore("record", "--source", "source-shop", "--db", database, "--catalog", file)
    if refused:
        assert done.code == 2
        assert re.search(refused, done.err)
        assert len(done.complaints) == 1
    with connect(database) as store:
        if refused:
            assert store.heads() == {}
        else:
            assert done.code == 0
            found = latest_catalog(store, SHOP).catalog
            dumped = found.model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert dumped == given
