"""`eventstore demo`: a real connector synced three times, and what its history can then answer."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from json import dumps
from typing import TYPE_CHECKING

from rich.console import Console

from eventstore.errors import EventStoreError
from eventstore.strict_json import parse_object
from projections import cli
from projections.display import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CONNECTOR = "airbyte-source-faker"
_CONFIG = {"count": 100, "seed": 7, "parallelism": 1, "always_updated": False}
_SYNCS = (
    (["products"], {"records_per_slice": 50}),
    (["products", "users"], {"records_per_slice": 25}),
    (["products", "users", "purchases"], {"records_per_slice": 20}),
)

_console = Console(highlight=False, soft_wrap=True)

_NO_PYAIRBYTE = "the demo needs PyAirbyte: pip install 'airbyte-eventstore[pyairbyte]'"


class DemoFailed(EventStoreError):
    """A step of the demo did not work; the message says which and why."""


@dataclass(frozen=True)
class _Sync:
    streams: Sequence[str]
    records: int
    ended: datetime


def run_demo(folder: Path) -> None:
    """Run the demo in a folder, in a database of its own; raises DemoFailed."""
    if importlib.util.find_spec("airbyte") is None:
        raise DemoFailed(_NO_PYAIRBYTE)
    # PyAirbyte asks for these when it is imported: its registry of connectors is not needed here.
    os.environ.update({"DO_NOT_TRACK": "1", "AIRBYTE_OFFLINE_MODE": "1"})
    # Its default is one folder for all users of the machine, where only the first may write.
    os.environ.setdefault("AIRBYTE_LOGGING_ROOT", str((folder / "logs").absolute()))
    connector = _install_connector(folder / "source-faker")
    run = next(run for n in count(1) if not (run := folder / f"run-{n}").exists())
    run.mkdir()
    database = run / "cache.duckdb"
    syncs = _sync_three_times(connector, database, run / "syncs.txt")
    between = syncs[0].ended

    _say("Every state and catalog of the three syncs is an event, with who, when and which run:")
    _show("log", "--db", str(database))
    moment = rfc3339(between)
    _say("The state and the catalog as of a moment between the first sync and the second:")
    _show("state", "--db", str(database), "--at", moment)
    _show("catalog", "--db", str(database), "--at", moment, "--table")
    _say("What changed from that moment until now:")
    _show("diff", moment, "now", "--db", str(database))
    _read_again(connector, database, run, moment, syncs)

    _say(f"The database is {database}. Next you could type:")
    _console.print(f"  eventstore log --db {database} --stream users")
    _console.print(f"  eventstore show @-1 --db {database}")
    _console.print(f"  eventstore state --db {database} --at @0")


def _install_connector(venv: Path) -> Path:
    """Make the connector's own virtual environment: it needs another CDK than PyAirbyte."""
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    if not (scripts / "source-faker").exists():
        _say(f"Installing {_CONNECTOR} into {venv} (about a minute) ...")
        # The newest pip takes half the time.
        _run([sys.executable, "-m", "venv", "--upgrade-deps", str(venv)])
        pip = [str(scripts / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        _run([*pip, "install", _CONNECTOR])
    return scripts / "source-faker"


def _sync_three_times(connector: Path, database: Path, details: Path) -> list[_Sync]:
    sys.modules.pop("pandas", None)  # PyAirbyte needs it, see cli.main
    # What PyAirbyte's dependencies want changed one day is not for whoever looks at a demo.
    warnings.simplefilter("ignore")
    try:
        import airbyte  # noqa: PLC0415 - heavy, and an extra
        from airbyte.caches import DuckDBCache  # noqa: PLC0415

        from projections.pyairbyte import with_history  # noqa: PLC0415
    except ImportError as error:
        raise DemoFailed(f"{_NO_PYAIRBYTE} ({error})") from error
    syncs = []
    with DuckDBCache(db_path=database) as plain, details.open("w") as log:
        cache = with_history(plain)
        with redirect_stdout(log), redirect_stderr(log):
            source = airbyte.get_source(
                "source-faker", local_executable=connector, install_if_missing=False
            )
        for number, (streams, options) in enumerate(_SYNCS, start=1):
            chosen = " ".join([*streams, *(f"{key}={value}" for key, value in options.items())])
            _say(f"Sync {number} of {len(_SYNCS)}, through PyAirbyte: {chosen} ...")
            with redirect_stdout(log), redirect_stderr(log):
                source.set_config({**_CONFIG, **options})
                source.select_streams(list(streams))
                records = source.read(cache).processed_records
            _console.print(f"  {records} records read")
            syncs.append(_Sync(streams, records, datetime.now(timezone.utc)))
    _console.print(f"  (PyAirbyte's own words are in {details})", style="dim")
    return syncs


def _read_again(
    connector: Path, database: Path, run: Path, moment: str, syncs: Sequence[_Sync]
) -> None:
    """Give the connector the state of then and of now, and count what it reads with each."""
    config, catalog = run / "config.json", run / "catalog.json"
    config.write_text(dumps({**_CONFIG, **_SYNCS[-1][1]}))
    catalog.write_text(_printed("catalog", "--db", str(database)))
    _say("The connector itself, run once more with the state of now and with the state of then:")
    for name, arguments in (("now", ()), ("then", ("--at", moment))):
        state = run / f"state-{name}.json"
        _command("state", "--db", str(database), *arguments, suffix=f" > {state}")
        state.write_text(_printed("state", "--db", str(database), *arguments))
        files = ["--config", str(config), "--catalog", str(catalog), "--state", str(state)]
        _console.print(f"[bold]$ source-faker read --state {state} ...[/bold]", markup=True)
        counted = _count_records(_run([str(connector), "read", *files]))
        read = ", ".join(f"{number} {stream}" for stream, number in counted.items())
        _console.print(f"  {sum(counted.values())} records read" + (f": {read}" if read else ""))
    later = sum(sync.records for sync in syncs[1:])
    _console.print(f"  (the second and the third sync had read {later})")


def _count_records(messages: str) -> dict[str, int]:
    counted: dict[str, int] = {}
    for line in messages.splitlines():
        if '"RECORD"' in line:
            message = parse_object(line, "the connector's message")
            if message["type"] == "RECORD":
                stream = message["record"]["stream"]
                counted[stream] = counted.get(stream, 0) + 1
    return counted


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        problem = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise DemoFailed(f"`{' '.join(command)}` failed: {problem}")
    return done.stdout


def _say(text: str) -> None:
    _console.print(f"\n[bold cyan]{text}[/bold cyan]" if _console.is_terminal else f"\n{text}")


def _command(*arguments: str, suffix: str = "") -> None:
    _console.print(f"$ eventstore {' '.join(arguments)}{suffix}", style="bold", markup=False)


def _show(*arguments: str) -> None:
    _command(*arguments)
    cli.app(list(arguments), standalone_mode=False)


def _printed(*arguments: str) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        cli.app(list(arguments), standalone_mode=False)
    return printed.getvalue()
