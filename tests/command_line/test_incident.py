"""The README's walk through an incident, typed as it stands there."""

import json
import re
from pathlib import Path

from eventstore import Pipeline
from projections import connect, latest_state
from tests.command_line.shell import run_in_bash

README = Path(__file__).parents[2] / "README.md"


def test_the_walk_finds_the_lost_orders_brings_them_back_and_proves_it(tmp_path):
    text = README.read_text()
    section = text[text.index("## An incident") :].split("\n## ")[0]
    begin, found, undone, proven, _ = re.findall(r"(?ms)^```sh\n(.*?)^```$", section)

    assert run_in_bash(f"set -euo pipefail\n{begin}", tmp_path).code == 0
    rest = [
        run_in_bash(f"set -euo pipefail\nexport EVENTSTORE_DB=incident.db\n{block}", tmp_path)
        for block in (found, undone, proven)
    ]
    assert [done.code for done in rest] == [0, 0, 0], rest

    saw, did, told = ([line.split("\t") for line in done.lines] for done in rest)
    assert saw[0] == ["@4", "orders", "0 of 120 records written", "shop -> lake"]
    first, second = saw[1:3]
    assert (first[0], first[5]) == ("@2", '{"updated_at":"2026-11-20"} (120 records, 120 written)')
    assert (second[0], second[5], second[6], second[7]) == (
        "@4",
        "! 0 of 120 records written; updated_at 2026-11-20 -> 2026-11-21",
        "airflow",
        "8812",
    )
    blamed, *changed = saw[3:]
    assert (blamed[0], blamed[3:7]) == ("@4", ["updated_at", '"2026-11-21"', "airflow", "8812"])
    assert sorted(line[1] for line in changed) == ["orders", "users"]

    moved = ["changed", "orders", "updated_at", '"2026-11-21" -> "2026-11-20"', "shop -> lake"]
    assert did == [moved, moved, ["1 event appended to shop -> lake: @5"]]
    sent = json.loads((tmp_path / "state.json").read_text())
    cursors = {
        state["stream"]["stream_descriptor"]["name"]: state["stream"]["stream_state"]
        for state in sent
    }
    assert cursors == {
        "users": {"updated_at": "2026-11-21"},
        "orders": {"updated_at": "2026-11-20"},
    }
    with connect(tmp_path / "incident.db", create=False) as store:
        kept = latest_state(store, Pipeline("shop", "lake")).bodies
        assert [json.loads(body) for body in kept] == sent

    restored, whole = told
    assert (restored[0], restored[2], restored[-1]) == (
        "@5",
        "StateSaved (restored)",
        "run 8812 wrote no orders",
    )
    assert (whole[0], whole[1]) == ("whole", "@5")
