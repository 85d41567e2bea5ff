"""The README does what it says: its blocks are run as they stand, in the order they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from projections.cli import app
from tests.e2e.syncs import CONFIG

pytestmark = pytest.mark.timeout(900)

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, source_faker):
    """What the README takes for granted: a config and a catalog of the connector."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    discovered = subprocess.run(
        [source_faker, "discover", "--config", config], check=True, capture_output=True, text=True
    )
    messages = [json.loads(line) for line in discovered.stdout.splitlines()]
    [found] = [message["catalog"] for message in messages if message["type"] == "CATALOG"]
    streams = [
        {"stream": stream, "sync_mode": "incremental", "destination_sync_mode": "append"}
        for stream in found["streams"]
    ]
    (tmp_path / "catalog.json").write_text(json.dumps({"streams": streams}))
    (tmp_path / "lake.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("language", ["python", "sh"])
def test_every_block_runs(language, folder, source_faker, destination_lake):
    program = "\n".join(text for found, text in BLOCKS if found == language)
    shells = {
        "python": [sys.executable, "-W", "ignore", "-c"],
        "sh": ["bash", "-euo", "pipefail", "-c"],
    }
    programs = [Path(sys.executable).parent, source_faker.parent, destination_lake.parent]
    done = subprocess.run(
        [*shells[language], program],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "DO_NOT_TRACK": "1",
            "AIRBYTE_OFFLINE_MODE": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_two_blocks_that_no_test_runs_and_they_are_the_two_commands():
    others = [text.strip() for language, text in BLOCKS if language not in {"python", "sh", "sql"}]
    assert others == [
        "pip install '.[pyairbyte]' && eventstore demo",
        "pip install '.[test]' && pytest",
    ]


def test_every_command_is_in_the_readme():
    text = README.read_text()
    names = [command.name for command in app.registered_commands]
    assert [name for name in names if f"eventstore {name}" not in text] == []
