"""A MariaDB of the tests' own, by the programs of the system's package."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateSchema, DropSchema

from tests.servers import NoBinaries, Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-use-native-aio=OFF",  # of which several servers at once get too little
    "--innodb-log-file-size=32M",
    "--innodb-lock-wait-timeout=10",
    "--performance-schema=OFF",
    "--max-allowed-packet=80M",  # for bodies of 16 MiB
)

# Whoever waits to sync files, and has one for each table, takes half a second to make the tables of
# a test, and a tenth so.
_NOT_DURABLE = (
    "--debug-no-sync",
    "--sync-frm=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=OFF",
    "--innodb-file-per-table=OFF",
)

# A line is a statement.
_FIRST = """\
CREATE OR REPLACE USER tests@'127.0.0.1';
GRANT ALL ON *.* TO tests@'127.0.0.1' WITH GRANT OPTION;
"""

_SYSTEMS = ("information_schema", "mysql", "performance_schema", "sys")


class MariaDB(Server):
    """The MariaDB that is installed."""

    def find_binaries(self) -> None:
        """Find the server where the packages of a Linux put it."""
        self._server = _found("mariadbd")
        self._installer = _found("mariadb-install-db")

    def initialise(self) -> None:
        """Make the system's tables, and a user who may do everything."""
        own = ("--skip-test-db", "--auth-root-authentication-method=normal")
        self.run(self._installer, *self._settings, *own)
        self.first.write_text(_FIRST)

    def command(self) -> Sequence[str | Path]:
        """What starts it."""
        own = (f"--port={self.port}", f"--socket={self.folder / 'socket'}")
        return [self._server, *self._settings, *own, f"--init-file={self.first}"]

    def is_ready(self) -> bool:
        """Whether it greets: it listens only when it is ready."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as greeting:
                return bool(greeting.recv(1))
        except OSError:
            return False

    def url(self, database: str | None = None) -> str:
        """The SQLAlchemy URL of a database.

        Without TLS: PyMySQL reads all certificates of the system for each connection, 19 ms.
        """
        address = f"tests@127.0.0.1:{self.port}/{database or 'mysql'}"
        return f"mariadb+pymysql://{address}?charset=utf8mb4&ssl_disabled=true"

    def empty(self, database: str) -> None:
        """End its connections and make it anew; drop what a test has made beside it."""
        with self.engine().connect() as db:
            mine = text("SELECT id FROM information_schema.processlist WHERE db = :name")
            for number in db.scalars(mine, {"name": database}):
                with suppress(OperationalError):  # it has ended by itself
                    db.exec_driver_sql(f"KILL {number}")
            there = db.scalars(text("SELECT schema_name FROM information_schema.schemata"))
            for name in {*there} - {*_SYSTEMS} - self.databases | {database}:
                db.execute(DropSchema(name))
            db.execute(CreateSchema(database))

    @property
    def _settings(self) -> Sequence[str]:
        # In a folder that they share, servers remove each other's temporary files.
        own = (f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder}")
        relaxed = () if self.durable else _NOT_DURABLE
        return ("--no-defaults", *own, *_SETTINGS, *relaxed)

    @property
    def first(self) -> Path:
        """What it executes when it starts."""
        return self.folder / "first.sql"


def _found(program: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        raise NoBinaries(
            "no MariaDB server: apt-get install --no-install-recommends mariadb-server"
        )
    return found
