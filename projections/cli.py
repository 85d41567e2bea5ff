"""The `eventstore` command."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from eventstore.errors import CheckpointUnusable, EventStoreError, Invalid, InvalidHistory, NotFound
from projections import commands
from projections.display import complain, prepare_output
from projections.record import Stopped

_NEW_OBJECTS = 50_000
"""After how many of them Python looks for what can go: all that importing modules makes stays, and
to look at it every 700, as it does of itself, takes a command a fourteenth of its start."""

_FUNCTIONS = {function.partition("_")[0]: function for function in commands.LISTED}


class _Commands(TyperGroup):
    """Lists all commands, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in _FUNCTIONS:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name)(getattr(commands, _FUNCTIONS[name]))
            command = get_command(alone)
        return name, command, rest


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; errors are one line on stderr, exit code 2 for wrong usage, else 1."""
    gc.set_threshold(_NEW_OBJECTS)
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
        from importlib import metadata  # noqa: PLC0415 - takes as long as the rest

        print(f"eventstore {metadata.version('airbyte-eventstore')}")
        raise typer.Exit


def _not_imported() -> None:
    """Stand in the list of commands."""


for name, function in _FUNCTIONS.items():
    _, summary = commands.LISTED[function]
    app.command(name, help=summary, short_help=summary)(_not_imported)  # which is not cut


@app.command("demo")
def demo(
    folder: Annotated[
        Path, typer.Option(help="Where to leave the database and the connector.")
    ] = Path("eventstore-demo"),
) -> None:
    """Sync a connector and look at its history."""
    from projections.demo import run_demo  # noqa: PLC0415 - needs PyAirbyte

    run_demo(folder)


def _is_wrong_usage(error: Exception) -> bool:
    """Whether another command line would help; an export that was altered is the file's fault."""
    usage = Invalid | NotFound | CheckpointUnusable
    return isinstance(error, usage) and not isinstance(error, InvalidHistory)


def _fail(problem: str, code: int) -> NoReturn:
    complain([problem])
    sys.exit(code)
