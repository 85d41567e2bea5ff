"""A TCP proxy that cuts connections in the middle of a commit, or is slow."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from select import select
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Cut = Literal["unheard", "unanswered", "halfway"]
"""Before the server hears of COMMIT; when it has answered, and nobody hears that; or while nobody
knows how far it is."""

_COMMITS = (b"COMMIT", b"WITH event AS")
"""The second is a transaction by itself, where that is possible."""

CUTS: tuple[Cut, ...] = ("unheard", "unanswered", "halfway")


class Proxy(ThreadingTCPServer):
    """Passes what it is sent on to the first of some servers that can be reached."""

    daemon_threads = True

    def __init__(self, *ports: int) -> None:
        """Choose a free port of the loopback, and know those of the servers."""
        super().__init__(("127.0.0.1", 0), _Passage)
        self.ports = ports
        self.port: int = self.server_address[1]
        self.cuts: list[Cut] = []
        self.delay_s: Callable[[], float] = float


@contextmanager
def proxy(*ports: int) -> Iterator[Proxy]:
    """A proxy that is there meanwhile."""
    with Proxy(*ports) as it:
        Thread(target=it.serve_forever, args=(0.05,), daemon=True).start()
        yield it
        it.shutdown()


class _Passage(BaseRequestHandler):
    """One connection."""

    server: Proxy

    def handle(self) -> None:
        """Pass on what either says, until one of them ends or COMMIT is cut."""
        with suppress(OSError), self._connected() as server:
            self._pass_on(self.request, server)

    def _connected(self) -> socket.socket:
        for port in self.server.ports:
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", port))
        raise ConnectionRefusedError

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        cut: Cut | None = None
        while True:
            for speaker in select([client, server], [], [])[0]:
                said = speaker.recv(1 << 16)
                commits = speaker is client and any(words in said for words in _COMMITS)
                if commits and self.server.cuts:
                    cut = self.server.cuts.pop()
                answered = speaker is server and cut == "unanswered"
                if not said or answered or cut == "unheard":
                    return
                sleep(self.server.delay_s())
                (server if speaker is client else client).sendall(said)
                if cut == "halfway":
                    return
