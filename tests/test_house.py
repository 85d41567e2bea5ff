"""The order of the house: who may know whom, and what is offered at the door."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import eventstore
import projections

ROOT = Path(eventstore.__file__).parent.parent
SOURCES = sorted(
    path for name in ("eventstore", "projections") for path in (ROOT / name).rglob("*.py")
)

DOORS = {("projections", "cli"), ("projections", "demo")}

RELIED_ON = {
    eventstore: "EventStore Pipeline StateSaved StateEmitted StateCleared StreamDefined "
    "CatalogRegistered StoredEvent EventStoreError HistoryConflict",
    projections: "connect latest_state latest_catalog state_as_of catalog_as_of register_catalog "
    "rebuild replay parse_moment SqlStateBackend SqlStateWriter SqlCatalogBackend "
    "CatalogBackendBase CachedStream CacheStreamStateModel DestinationStreamStateModel "
    "SqlAlchemyModel STREAMS_TABLE_NAME CACHE_STATE_TABLE_NAME DESTINATION_STATE_TABLE_NAME "
    "GLOBAL_STATE_STREAM_NAME LEGACY_STATE_STREAM_NAME GLOBAL_STATE_STREAM_NAMES",
}

sources = pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
packages = pytest.mark.parametrize("package", RELIED_ON, ids=lambda package: package.__name__)


@sources
def test_the_write_side_knows_nothing_of_the_read_side(source):
    if source.relative_to(ROOT).parts[0] == "eventstore":
        assert not {name for name in _imported(source) if name.split(".")[0] == "projections"}


@sources
def test_only_doors_open_doors(source):
    if source.relative_to(ROOT).with_suffix("").parts not in DOORS:
        assert _imported(source).isdisjoint(".".join(door) for door in DOORS)


@sources
def test_only_dialects_ask_which_database_it_is(source):
    if source.parent.name != "dialects":
        assert "dialect.name" not in source.read_text()


@packages
def test_what_is_offered_is_sorted(package):
    """As ruff's RUF022 and isort sort: constants, then classes, then functions."""
    assert package.__all__ == sorted(
        package.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


@packages
def test_everything_public_is_offered_and_nothing_else(package):
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public <= set(package.__all__) == set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
    with pytest.raises(AttributeError, match=f"{package.__name__}.* has no .*surprise"):
        package.surprise  # noqa: B018


@packages
def test_nothing_that_is_offered_has_the_name_of_a_module(package):
    """Whoever imports the module would find it there from then on."""
    folder = Path(package.__file__).parent
    assert {path.stem for path in folder.iterdir()}.isdisjoint(package.__all__)


@packages
def test_the_names_others_rely_on_are_offered(package):
    assert set(RELIED_ON[package].split()) <= set(package.__all__)


@pytest.mark.parametrize(
    ("program", "never"),
    [
        (
            "from eventstore import EventStore",
            {"sqlalchemy.orm", "sqlalchemy.dialects.mysql", "typer", "rich", "projections"},
        ),
        ("from projections import connect", {"sqlalchemy.orm", "typer", "rich"}),
        ("from projections.commands import log, record", {"sqlalchemy.orm"}),
        ("from projections.cli import main; main()", {"sqlalchemy", "rich", "projections.options"}),
    ],
)
def test_what_takes_its_time_is_imported_where_it_is_needed(program, never):
    """The command alone prints its help."""
    command = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {program}"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    models = {"airbyte_protocol", "pydantic", "pydantic_core"}
    assert loaded.isdisjoint(never | models | {"airbyte", "duckdb", "psycopg"})


def _imported(source):
    """The modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_promise_of_the_readme_names_a_test():
    tests = Path(__file__).parent
    readme = tests.with_name("README.md").read_text()
    promises = re.findall(r"\| `(\w+/test_\w+\.py)::(test_\w+)` \|$", readme, re.MULTILINE)
    assert promises
    for path, name in promises:
        assert f"\ndef {name}(" in (tests / path).read_text(), name
