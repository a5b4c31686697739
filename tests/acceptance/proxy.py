"""A forward proxy: CONNECT (RFC 9110 section 9.3.6), and requests with a whole address (section 7.2 of RFC 9112)."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import Optional


class Proxy:
    """Listens on loopback, takes every host for one port of this machine, and keeps what it was asked.

    Attributes:
        url: its address.
        target: the port that every host stands for.
        heads: the requests that came, each up to its empty line.
        answer: refuse every request with this status instead, and with a page for people.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.heads: list[str] = []
        self.answer: Optional[int] = None
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread in accept() keeps the port otherwise.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Lose every connection."""
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                client.close()
                return
            head += piece
        self.heads.append(head.partition(b"\r\n\r\n")[0].decode())
        if self.answer is not None:
            page = b"<h1>No</h1>"
            client.sendall(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s" % (self.answer, len(page), page))
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self.target))
        self._sockets.append(server)
        if head.startswith(b"CONNECT "):
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            server.sendall(re.sub(rb"^(\w+) http://[^/]+", rb"\1 ", head))
        back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
        back.start()
        self._copy(client, server)
        back.join()
        client.close()
        server.close()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
