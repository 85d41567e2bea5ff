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
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Engine
    from typing_extensions import Self

# Before it says a word, a server waits for the disk, and so may all of a loaded machine.
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0

_TOLD = 10_000
"""Characters of a log that an error tells."""


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
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self.databases: set[str] = set()
        self._engines: dict[str | None, Engine] = {}
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
            ended = self._process.poll()
            if ended is not None:
                raise RuntimeError(f"ended with {ended} at its start: {self._said()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer within {_START_TIMEOUT_S} s: {self._said()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it, and the processes it has started, as a crash would; returns when all are gone."""
        assert self._process
        with self._tree() as tree:
            _signal(tree, signal.SIGKILL)
            self._process.wait(_STOP_TIMEOUT_S)
            for process in tree:
                select([process], [], [], _STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Let it hang: connections stay, and nobody answers."""
        with self._tree() as tree:
            _signal(tree, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        with self._tree() as tree:
            _signal(tree, signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its folder, unless this is a fork of who started it."""
        if os.getpid() != self._owner:
            return
        for engine in self._engines.values():
            engine.dispose()
        if self._process and self.runs:
            self.resume()
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
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {self._said()}")

    def execute(self, database: str | None, *statements: str) -> None:
        """Execute statements, each by itself."""
        with self.engine(database).connect() as db:
            for statement in statements:
                db.exec_driver_sql(statement)

    def engine(self, database: str | None = None) -> Engine:
        """For statements of the tests' own; it stays open, since to connect takes milliseconds."""
        if database not in self._engines:
            self._engines[database] = create_engine(
                self.url(database), isolation_level="AUTOCOMMIT", pool_pre_ping=True
            )
        return self._engines[database]

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _said(self) -> str:
        return f"{self.command()[0]}, {self._log}:\n{self._log.read_text()[-_TOLD:]}"

    @contextmanager
    def _tree(self) -> Iterator[list[int]]:
        """It and what it has started, by descriptors: a number may soon be another process's."""
        assert self._process
        number = self._process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        with ExitStack() as stack:
            tree = []
            for each in [number, *map(int, children)]:
                with suppress(ProcessLookupError):
                    tree.append(os.pidfd_open(each))
                    stack.callback(os.close, tree[-1])
            yield tree

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


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)


def wait_until(
    it_is_so: Callable[[], bool], timeout_s: float, but: Callable[[], object] = lambda: ""
) -> None:
    """Wait until something has come true; `but` tells what is there instead."""
    deadline = time.monotonic() + timeout_s
    while not it_is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {but()}"
        time.sleep(0.05)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
