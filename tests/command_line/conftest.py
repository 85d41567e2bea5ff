"""The command called in this process, and histories for it to read."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest

from projections import cli
from tests.command_line.histories import FILES, write_crowd, write_history
from tests.command_line.shell import Done, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def eventstore(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Call the command's entry point here: for what it says, not for what a process does."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for package in ("eventstore", "projections"):  # else each call adds a handler, to the end
        monkeypatch.setattr(logging.getLogger(package), "handlers", [])

    def call(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["eventstore", *map(str, args)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session", params=FILES)
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pipeline, to be read only; DuckDB's file, too, is called `.db`."""
    path = tmp_path_factory.mktemp("history") / "state.db"
    write_history(f"{request.param}:///{path}")
    return path


@pytest.fixture(scope="session", params=FILES)
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pipelines, to be read only."""
    path = tmp_path_factory.mktemp("crowd") / "crowd.db"
    write_crowd(f"{request.param}:///{path}")
    return path
