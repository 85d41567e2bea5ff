"""A projection that notes what it is shown, and a process that catches up: `catcher URL COUNT`."""

from __future__ import annotations

import sys
import time

from sqlalchemy import BigInteger, Column, MetaData, String, Table, func, select

from projections import catch_up, connect

_DEADLINE_S = 50


class Seen:
    """Numbers the events in the order in which it is shown them."""

    name = "seen"
    table = Table(
        "seen",
        MetaData(),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("source", String(255), nullable=False),
        Column("version", BigInteger, nullable=False),
    )
    TABLES = (table,)

    def apply(self, db, stored):
        """Note one more event."""
        number = (db.scalar(select(func.max(self.table.c.number))) or 0) + 1
        row = {"number": number, "source": stored.pipeline.source, "version": stored.version}
        db.execute(self.table.insert(), row)


def main() -> None:
    """Catch up until the log has so many events."""
    url, count = sys.argv[1:]
    deadline = time.monotonic() + _DEADLINE_S
    with connect(url) as store:
        while sum(store.heads().values()) < int(count):
            catch_up(store, Seen())
            assert time.monotonic() < deadline
        catch_up(store, Seen())


if __name__ == "__main__":
    main()
