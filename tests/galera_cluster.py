"""MariaDB servers of the tests' own that hold the same: a Galera cluster."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from pymysql import OperationalError, connect

from tests.mariadb_server import MariaDB
from tests.servers import NoBinaries, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

_PROVIDERS = [Path(folder) / "galera/libgalera_smm.so" for folder in ("/usr/lib", "/usr/lib64")]

# What a node takes over the files of another by.
_TAKES_OVER = ("rsync", "lsof")

# How long a node may be silent: by default it is four times as long.
_PATIENCE = "evs.suspect_timeout=PT3S;evs.inactive_timeout=PT5S;evs.keepalive_period=PT0.5S"

_SETTLE_TIMEOUT_S = 120


class Node(MariaDB):
    """One server of a cluster. Whoever joins takes over all that the others have."""

    is_first = False
    cluster = ""

    def find_binaries(self) -> None:
        """Find what makes of a server a node, too."""
        super().find_binaries()
        found = [provider for provider in _PROVIDERS if provider.exists()]
        if not found or not all(map(which, _TAKES_OVER)):
            raise NoBinaries(
                "no Galera: apt-get install --no-install-recommends galera-4 rsync lsof"
            )
        self._provider = found[0]

    def initialise(self) -> None:
        """Choose the ports between nodes. It is made as a single server is if it is the first."""
        self.group_port, self._ist_port, self._sst_port = free_port(), free_port(), free_port()
        if self.is_first:
            super().initialise()
        else:
            self.run("mkdir", self.folder / "data")
            self.first.touch()

    def command(self) -> Sequence[str | Path]:
        """What starts it: alone, or as one of several."""
        group = f"gmcast.listen_addr=tcp://127.0.0.1:{self.group_port};base_port={self.group_port}"
        ist = f"ist.recv_addr=127.0.0.1:{self._ist_port};ist.recv_bind=127.0.0.1:{self._ist_port}"
        wsrep = {
            "on": "ON",
            "provider": self._provider,
            "provider-options": f"{group};{ist};gcache.size=16M;{_PATIENCE}",
            "cluster-address": f"gcomm://{self.cluster}",
            "node-address": "127.0.0.1",
            "node-incoming-address": f"127.0.0.1:{self.port}",
            "sst-method": "rsync",
            "sst-receive-address": f"127.0.0.1:{self._sst_port}",
        }
        options = [f"--wsrep-{name}={value}" for name, value in wsrep.items()]
        return [*super().command(), "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", *options]

    def is_ready(self) -> bool:
        """Whether it has all that the others have, and is in step with them."""
        return super().is_ready() and self.status("local_state_comment") == "Synced"

    def status(self, name: str) -> str | None:
        """What it says of itself and the cluster; None while it lets nobody in."""
        try:
            answer = self.ask(f"SHOW STATUS LIKE 'wsrep_{name}'")
        except OperationalError:
            return None
        return str(answer[1])

    def ask(self, statement: str) -> Sequence[object]:
        """Say something to it, also where it has lost the cluster and refuses most of all."""
        address = {"host": "127.0.0.1", "port": self.port}
        with connect(**address, user="tests", ssl_disabled=True) as db, db.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() or ()


class _First(Node):
    is_first = True


class Galera:
    """Three nodes; a context manager."""

    def __init__(self) -> None:
        """Make the nodes; raises NoBinaries."""
        self.nodes = [_First(), Node(), Node()]
        self._names = (f"test_{number}" for number in count())
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start one after the other."""
        for node in self.nodes:
            self._stack.enter_context(node)
            for each in self.nodes:  # whoever comes back joins the others
                each.cluster = ",".join(f"127.0.0.1:{node.group_port}" for node in self.nodes)
                each.first.write_text("")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._stack.close()

    def new_database(self) -> list[str]:
        """The URLs of an empty database, one for each node."""
        name = next(self._names)
        for node in self.nodes:
            node.execute(None, f"CREATE DATABASE IF NOT EXISTS {name}")
        return [node.url(name) for node in self.nodes]

    def mend(self) -> None:
        """Start the nodes that have ended, and wait until all are in step."""
        for node in self.nodes:
            if node.runs:
                node.resume()
        wait_until(self._is_mended, _SETTLE_TIMEOUT_S, self._states)

    def _is_mended(self) -> bool:
        for node in self.nodes:
            if not node.runs:  # also one that ends by itself, as it finds that it was left out
                node.start()
        return all(map(self._is_whole, self.nodes))

    def _states(self) -> list[tuple[bool, str | None, str | None]]:
        """Whether each node runs, what it does, and how many it sees."""
        names = ("local_state_comment", "cluster_size")
        return [(node.runs, *map(node.status, names)) for node in self.nodes]

    def _is_whole(self, node: Node) -> bool:
        return node.is_ready() and node.status("cluster_size") == str(len(self.nodes))
