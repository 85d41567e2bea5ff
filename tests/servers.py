"""Servers of the tests' own: no system install, as root or as any user, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0


class NoBinaries(Exception):
    """There is no server to start."""


class Server:
    """A server in a temporary folder, on a free port of the loopback; a context manager.

    Subclasses say how it is initialised, started, asked and emptied.
    """

    STOP = signal.SIGTERM
    """What it ends at without waiting for its clients."""

    def __init__(self, *, durable: bool = False, disk: Path | None = None) -> None:
        """Make a folder of its own, and what the server keeps in it; raises NoBinaries.

        What one commits that is not `durable` outlives neither a power cut nor a kill. `disk` is
        where the folder is made, if not where all temporary ones are.
        """
        self.durable = durable
        self.find_binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="eventstore-server-", dir=disk))
        self.as_user = _unprivileged()
        if self.as_user:
            os.chown(self.folder, self.as_user["user"], self.as_user["group"])
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self.databases: set[str] = set()
        self._idle: list[str] = []
        self.initialise()

    def find_binaries(self) -> None:
        """Find the programs; raises NoBinaries."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Make the files of a server without databases."""
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        """What starts it."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def url(self, database: str | None = None) -> str:
        """The SQLAlchemy URL of a database, or of the one that is always there."""
        raise NotImplementedError

    def empty(self, database: str) -> None:
        """Leave a database as if it had just been made, and nobody connected to it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **self.as_user,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self._log.read_text())
            time.sleep(0.02)

    def kill(self) -> None:
        """End it, and the processes it has started, as a crash would."""
        assert self._process
        number = self._process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        self._process.kill()
        self._process.wait(_STOP_TIMEOUT_S)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its folder, unless this is a fork of who started it."""
        if os.getpid() != self._owner:
            return
        if self._process and self._process.poll() is None:
            self._process.send_signal(self.STOP)
            self._process.wait(_STOP_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The URL of a database of the caller's own; emptied and used again afterwards."""
        name = self._idle.pop() if self._idle else self._create_database()
        yield self.url(name)
        self.empty(name)
        self._idle.append(name)

    def run(self, *command: str | Path) -> None:
        """Run a program to its end, as the user that the server runs as."""
        with self._log.open("ab") as log:
            done = subprocess.run(
                command, check=False, stdout=log, stderr=log, cwd="/", **self.as_user
            )
        if done.returncode:
            raise RuntimeError(self._log.read_text())

    def execute(self, database: str | None, *statements: str) -> None:
        """Execute statements, each by itself."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as db:
            for statement in statements:
                db.exec_driver_sql(statement)
        engine.dispose()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _create_database(self) -> str:
        name = f"test_{len(self.databases)}"
        self.execute(None, f"CREATE DATABASE {name}")
        self.databases.add(name)
        return name


def _unprivileged() -> dict[str, Any]:
    """Whom to run as: servers refuse root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
