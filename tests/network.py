"""A network between two programs that a test can take away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Callable, Optional

_SECONDS = 20


class Link:
    """A TCP proxy to a port of this machine, in a thread of its own.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._transports: set[asyncio.Transport] = set()
        self._up = True
        self._swallows = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def cut(self) -> None:
        """Lose every connection, and refuse new ones."""
        self._call(self._cut)

    def swallow(self) -> None:
        """Let no byte through any more, and refuse nothing: as a network does that drops every packet."""
        self._call(lambda: setattr(self, "_swallows", True))

    def mend(self) -> None:
        """Let everything through again. The connections that were there while nothing came through are lost."""
        self._call(self._mend)

    @contextlib.contextmanager
    def running(self) -> Iterator[Link]:
        """Run it for the length of a block."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        serving = asyncio.run_coroutine_threadsafe(
            self._loop.create_server(lambda: _End(self), sock=self._listening), self._loop
        )
        try:
            serving.result(_SECONDS)
            yield self
        finally:
            self._call(self._cut)
            self._call(serving.result().close)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def _call(self, what: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(), done.set()))
        assert done.wait(_SECONDS)

    def _cut(self) -> None:
        self._up = False
        for transport in list(self._transports):
            transport.abort()

    def _mend(self) -> None:
        if self._swallows:
            self._cut()
        self._up, self._swallows = True, False


class _End(asyncio.Protocol):
    """One end of a connection; `other` is the one behind it."""

    def __init__(self, link: Link, other: Optional[_End] = None) -> None:
        self._link = link
        self._early = b""
        self.other = other
        self.transport: Optional[asyncio.Transport] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._link._transports.add(transport)
        if not self._link._up:
            transport.abort()
        elif self.other is None and not self._link._swallows:
            self.other = _End(self._link, self)
            self._reaching = asyncio.ensure_future(self._reach(self.other))

    def data_received(self, data: bytes) -> None:
        if self._link._swallows:
            return
        if self.other is None or self.other.transport is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, _error: Optional[Exception]) -> None:
        if self.transport is not None:
            self._link._transports.discard(self.transport)
        if self.other is not None and self.other.transport is not None and not self._link._swallows:
            self.other.transport.close()

    async def _reach(self, other: _End) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: other, "127.0.0.1", self._link._target)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        if other.transport is not None:
            other.transport.write(self._early)
