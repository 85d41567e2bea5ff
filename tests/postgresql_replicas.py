"""PostgreSQL servers of the tests' own: a primary and two synchronous standbys."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from tests.postgresql_server import Postgres
from tests.servers import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

_SETTLE_TIMEOUT_S = 120


class _Replica(Postgres):
    """A server that follows whoever is primary, until it is promoted."""

    def __init__(self, number: int, ports: Sequence[int], primary: _Replica | None = None) -> None:
        """Make the first primary, or a copy of one that runs."""
        self._name, self._port, self._primary = f"s{number}", ports[number], primary
        hosts, numbers = ",".join(["127.0.0.1"] * len(ports)), ",".join(map(str, ports))
        self.all = f"host={hosts}&port={numbers}&target_session_attrs=read-write"
        super().__init__(durable=True)

    def initialise(self) -> None:
        """Make its files."""
        self.port = self._port
        if self._primary:
            source = ("-d", self._primary.address)
            self.run_own("pg_basebackup", "-D", self.data, "-c", "fast", *source)
            self._follow()
            return
        super().initialise()
        self.configure(
            {
                "synchronous_standby_names": "'ANY 1 (s0, s1, s2)'",
                "primary_conninfo": f"'user=postgres {self.all.replace('&', ' ')}'",
                "wal_keep_size": "'4GB'",  # for pg_rewind
                "wal_retrieve_retry_interval": "'100ms'",
            }
        )

    def command(self) -> Sequence[str | Path]:
        """What starts it. What differs between replicas is not in their files: those are copied."""
        return [*super().command(), "-c", f"cluster_name={self._name}"]

    @property
    def address(self) -> str:
        """Where its own programs find it."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def rewind(self, primary: _Replica) -> None:
        """Forget what it had and the new primary has not, and follow that one."""
        self.run_own("pg_rewind", "-D", self.data, "--source-server", primary.address)
        self._follow()

    def ask(self, query: str) -> int:
        """Ask for a number."""
        engine = create_engine(self.url())
        with engine.connect() as db:
            number: int = db.exec_driver_sql(query).scalar_one()
        engine.dispose()
        return number

    def _follow(self) -> None:
        (self.data / "standby.signal").touch()


class Replicas:
    """Three servers, of which one is the primary; a context manager."""

    def __init__(self) -> None:
        """Make the first; raises NoBinaries."""
        self._ports = [free_port() for _ in range(3)]
        self.primary = _Replica(0, self._ports)
        self._standbys: list[_Replica] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start it, and make the others."""
        self._stack.enter_context(self.primary)
        for number in (1, 2):
            standby = _Replica(number, self._ports, self.primary)
            self._standbys.append(self._stack.enter_context(standby))
        self._wait_for_standbys()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._stack.close()

    def new_database(self, driver: str = "psycopg") -> str:
        """The URL of an empty database, wherever its primary is."""
        name = f"test_{len(self.primary.databases)}"
        self.primary.execute(None, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        self.primary.databases.add(name)
        return f"postgresql+{driver}://postgres@/{name}?{self.primary.all}"

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby that has received most."""
        self.primary.kill()
        received = "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint"
        successor = max(self._standbys, key=lambda standby: standby.ask(received))
        self._standbys.remove(successor)
        self._standbys.append(self.primary)
        self.primary = successor
        self.primary.execute(None, "SELECT pg_promote()")

    def mend(self) -> None:
        """Let those that have ended follow the primary."""
        for standby in self._standbys:
            if not standby.runs:
                standby.rewind(self.primary)
                standby.start()
        self._wait_for_standbys()

    def _wait_for_standbys(self) -> None:
        query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
        wait_until(lambda: self.primary.ask(query) == len(self._standbys), _SETTLE_TIMEOUT_S)
