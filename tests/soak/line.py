"""The line between a gateway and its database: a TCP proxy on loopback that can be cut, or swallow what is sent."""

from __future__ import annotations

import contextlib
import socket
import threading

_PIECE = 1 << 16


class Line:
    """Takes connections and brings them to one port of this machine.

    Args:
        target: that port.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self._refuses = True
        self._drop()

    def swallow(self) -> None:
        """From now on nothing arrives any more, in either direction, and no connection ends."""
        self._flows.clear()

    def mend(self, *, lost: bool = False) -> None:
        """Let everything through again: what was swallowed too, unless its connections are lost meanwhile."""
        self._refuses = False
        if lost:
            self._drop()
        self._flows.set()

    def close(self) -> None:
        """End it."""
        # A thread in accept() keeps the port otherwise.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._drop()
        self._flows.set()

    def _drop(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _end(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._refuses:
                    _end(client)
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            _end(client)
            client.close()
            return
        with self._lock:
            self._ends |= {client, server}
        if self._refuses:
            # It was cut in the meantime.
            _end(client)
        back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
        back.start()
        self._copy(client, server)
        back.join()
        with self._lock:
            self._ends -= {client, server}
        client.close()
        server.close()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                self._flows.wait()
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _end(connection: socket.socket) -> None:
    """End a connection; both sides notice it at once."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
