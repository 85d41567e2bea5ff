"""`eventstore demo`, as a newcomer types it: twice."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Demo, run_demo

pytestmark = pytest.mark.timeout(900)

EVENTSTORE = Path(sys.executable).with_name("eventstore")


def run(*arguments, cwd):
    return subprocess.run(
        [EVENTSTORE, *arguments], cwd=cwd, check=False, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def second_demo(demo):
    return Demo(demo.folder, *run_demo(demo.folder))


@pytest.mark.parametrize(
    ("name", "number"), [("demo", 1), pytest.param("second_demo", 2, marks=pytest.mark.slow)]
)
def test_a_run_works_and_leaves_its_database_where_it_says(request, name, number):
    demo = request.getfixturevalue(name)
    assert (demo.code, demo.stderr) == (0, "")
    [database] = re.findall(r"^The database is (\S+)\. ", demo.stdout, re.MULTILINE)
    assert database == f"eventstore-demo/run-{number}/cache.duckdb"
    assert (demo.folder / database).is_file()


def test_the_connector_reads_again_what_the_later_syncs_had_read(demo):
    counts = re.findall(r"^ +(\d+) records read(.*)$", demo.stdout, re.MULTILINE)
    assert counts == [
        ("100", ""),
        ("100", ""),
        ("100", ""),
        ("0", ""),
        ("200", ": 100 users, 100 purchases"),
    ]
    assert "the second and the third sync had read 200" in demo.stdout


def test_it_shows_each_run_and_the_past_and_what_changed(demo):
    events = re.findall(r"^@\d+\t.*", demo.stdout, re.MULTILINE)
    assert len({event.split("\t")[7] for event in events}) == 3
    assert re.search(r'^\[\{"type":"STREAM".*"products".*\}\]$', demo.stdout, re.MULTILINE)
    assert re.search(r"^products\tincremental\t", demo.stdout, re.MULTILINE)
    assert re.search(r"^added\tpurchases\t", demo.stdout, re.MULTILINE)


def test_the_three_commands_it_ends_with_work(demo):
    commands = [line.split() for line in demo.stdout.splitlines()[-3:]]
    for name, *arguments in commands:
        assert name == "eventstore"
        done = run(*arguments, cwd=demo.folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
