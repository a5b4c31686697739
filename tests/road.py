"""A road between a client and a gateway, on which connections and answers are lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Callable

from ws_manager.client.api import ApiClient
from ws_manager.client.remote import RemoteLedger

Way = Callable[[socket.socket, "Road"], None]
"""What becomes of one connection."""


class Road:
    """Stands between a client and a gateway, and treats each connection in a way of its own; then all are forwarded.

    Args:
        port: the gateway's.
        ways: of the first connections.
    """

    def __init__(self, port: int, *ways: Way) -> None:
        self.gateway = port
        self.requests = 0
        self._ways = list(ways)
        self._peers: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                way = self._ways.pop(0) if self._ways else forward
                threading.Thread(target=self._treat, args=(way, peer), daemon=True).start()

    def go_away(self) -> None:
        """Lose every connection, and take no new one."""
        self._ways = [hang_up] * 100_000
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def lose_the_next(self) -> None:
        """Lose every connection, and the answer to the next request."""
        self.go_away()
        self._ways = [lose_the_answer]

    def come_back(self) -> None:
        self._ways = []

    def _treat(self, way: Way, peer: socket.socket) -> None:
        self.requests += 1
        self._peers.append(peer)
        with peer, contextlib.suppress(OSError):
            try:
                way(peer, self)
            finally:
                # Another thread may still read from it.
                peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def pump(source: socket.socket, target: socket.socket, most: float = float("inf")) -> None:
    """Copy bytes until one side ends, or until the limit is reached."""
    with contextlib.suppress(OSError):
        while most > 0 and (data := source.recv(int(min(65536, most)))):
            target.sendall(data)
            most -= len(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def answered(most: float) -> Way:
    """Forward a connection, and cut its answer off after some bytes."""

    def way(peer: socket.socket, road: Road) -> None:
        with socket.create_connection(("127.0.0.1", road.gateway)) as gateway:
            threading.Thread(target=pump, args=(peer, gateway), daemon=True).start()
            if most:
                pump(gateway, peer, most)
            else:
                # The request has been done when its answer comes.
                gateway.recv(1)

    return way


forward = answered(float("inf"))
lose_the_answer = answered(0)


def say(text: str) -> Way:
    """Answer a request in the gateway's place."""

    def way(peer: socket.socket, _road: Road) -> None:
        peer.recv(65536)
        peer.sendall(text.replace("\n", "\r\n").encode())

    return way


def page(status: str, *headers: str) -> Way:
    """Answer with a page of HTML, as a proxy does."""
    body = "<h1>no</h1>"
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/html", f"Content-Length: {len(body)}", *headers]
    return say("\n".join([*lines, "Connection: close", "", body]))


def hang_up(peer: socket.socket, _road: Road) -> None:
    peer.recv(1)


@contextlib.contextmanager
def ledger_behind(port: int, *ways: Way) -> Iterator[tuple[RemoteLedger, Road]]:
    road = Road(port, *ways)
    try:
        with RemoteLedger(ApiClient(road.url, lambda: None)) as ledger:
            yield ledger, road
    finally:
        road.close()
