"""The `eventstore` command."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from eventstore.errors import EventStoreError, Invalid, InvalidHistory, StreamNotFound
from projections.commands import (
    erasing,
    exchanging,
    explaining,
    following,
    proving,
    reading,
    restoring,
    writing,
)
from projections.display import complain, prepare_output
from projections.options import on_pipeline, on_store
from projections.record import Stopped

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; errors are one line on stderr, exit code 2 for wrong usage, else 1."""
    if sys.stderr is None:  # its number would soon be a file of the database's
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open to the end
    if sys.stdout is None:
        _fail("there is no output to write to", 1)
    # DuckDB imports it, to look at the first parameter of a statement: half a second for nothing.
    sys.modules.setdefault("pandas", None)  # type: ignore[arg-type]
    prepare_output()
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')} (see --help)", 2)
    except (EventStoreError, Stopped) as error:
        _fail(str(error), 2 if _is_wrong_usage(error) else 1)
    except BrokenPipeError:
        # Python flushes stdout once more when it ends: give it somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        what = error.filename or "the output"
        _fail(f"{what} cannot be written: {error.strerror}", 1)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The history of Airbyte connector state, in the SQL database you already run."""
    if version:
        print(f"eventstore {metadata.version('airbyte-eventstore')}")
        raise typer.Exit


def demo(
    folder: Annotated[
        Path, typer.Option(help="Where to leave the database and the connector.")
    ] = Path("eventstore-demo"),
) -> None:
    """Sync a real connector three times and look at the history."""
    from projections.demo import run_demo  # noqa: PLC0415 - needs PyAirbyte

    run_demo(folder)


for command in (
    writing.record,
    reading.pipelines,
    on_store(following.log),
    on_pipeline(reading.show),
    on_pipeline(reading.state),
    on_pipeline(reading.catalog),
    on_pipeline(explaining.diff),
    on_pipeline(explaining.blame),
    on_store(explaining.doctor),
    on_pipeline(restoring.rewind, writes=True),
    on_pipeline(restoring.clear, writes=True),
    on_pipeline(restoring.set_state, writes=True),
    on_pipeline(restoring.copy, writes=True),
    on_pipeline(restoring.move, writes=True),
    writing.rebuild,
    on_store(exchanging.export),
    exchanging.import_,
    proving.verify,
    proving.checkpoint,
    proving.keygen,
    on_store(erasing.erase, writes=True),
    on_store(erasing.retention, writes=True),
    demo,
):
    app.command(command.__name__.partition("_")[0])(command)


def _is_wrong_usage(error: Exception) -> bool:
    """Whether another command line would help; an export that was altered is the file's fault."""
    return isinstance(error, Invalid | StreamNotFound) and not isinstance(error, InvalidHistory)


def _fail(problem: str, code: int) -> NoReturn:
    complain([problem])
    sys.exit(code)
