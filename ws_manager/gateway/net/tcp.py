"""One TCP connection, between its transport and aiohttp: the checks that aiohttp lacks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Callable, Optional, cast

from aiohttp import StreamReader, web

from ws_manager.protocol.bucket import Bucket

_BURST = 512 * 1024
"""Bytes that may come in one burst, whatever the rate is."""


READ_BYTES = 256 * 1024
"""Bytes read at once from a WebSocket: asyncio's own size."""

READ_FIRST_BYTES = 16 * 1024
"""The same before a connection is a WebSocket: many may have data at the same time, and all of it is in memory before
the first is handled."""


class TcpPeer(asyncio.BufferedProtocol):
    """Passes everything on to aiohttp's protocol, and adds four things.

    * The peer may send `rate` bytes a second on average. More stay in the system's buffer, which slows the peer down.
      Without this, empty fragments would cost time without end.
    * The first frame of a socket has to be masked: RFC 6455 section 5.1 obliges a server to close otherwise.
    * `arrived` is called when the peer is known: connections are counted by address.
    * `lost` is called when the connection has ended.

    Args:
        handler: aiohttp's protocol.
        rate: bytes a second.
        buffer: of `READ_BYTES`, to read into. All connections of an event loop share it.
        arrived: called with this connection when its peer is known, before any TLS.
        lost: called with this connection when it has ended.

    Attributes:
        address: that its peer counts for. None: it is not counted, or has not arrived.
        handler: as above.
        transport: while it is connected; with TLS the one below TLS. None before and after.
        dropped: whether the gateway has ended it.
        surplus: whether it is over its address's limit.
        unread: the body of a request that was answered before its end.
        idle_until: how long it may be without a request.
    """

    def __init__(
        self,
        handler: web.RequestHandler,
        rate: float,
        buffer: memoryview,
        arrived: Callable[[TcpPeer], None],
        lost: Callable[[TcpPeer], None],
    ) -> None:
        self.address: Optional[str] = None
        self.handler = handler
        self.transport: Optional[asyncio.Transport] = None
        self.dropped = False
        self.surplus = False
        self.unread: Optional[StreamReader] = None
        self.idle_until = 0.0
        self._loop = asyncio.get_running_loop()
        self._bytes = Bucket(rate, _BURST, self._loop.time())
        self._buffer = buffer
        self._read_bytes = READ_FIRST_BYTES
        self._arrived = arrived
        self._lost = lost
        self._made = False
        self._early: list[bytes] = []
        self._done_reading = False
        self._unmasked: Optional[Callable[[], None]] = None
        self._seen = 0

    def expect_mask(self, unmasked: Callable[[], None]) -> None:
        """Expect frames from now on. If the first has no mask, nothing more is read and `unmasked` is called."""
        self._unmasked = unmasked
        self._read_bytes = READ_BYTES

    def read_no_more(self) -> None:
        """Leave what the peer sends from now on in the system's buffer."""
        self._done_reading = True
        # asyncio's TLS transport raises these if the connection is lost already.
        with contextlib.suppress(AttributeError, RuntimeError):
            if self.transport is not None:
                self.transport.pause_reading()

    def drop(self) -> None:
        """End it at once, or as soon as it begins: many connections are accepted before the first is set up."""
        self.dropped = True
        if self.transport is not None:
            self.transport.abort()

    def arrive(self, transport: asyncio.Transport) -> bool:
        """Begin on a transport; with TLS another one follows. False if the connection was dropped already."""
        if self.dropped:
            transport.abort()
            return False
        first, self.transport = self.transport is None, transport
        if first:
            self._arrived(self)
        return not self.dropped

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio.Protocol's
        # uvloop's transport is not an instance of asyncio.Transport.
        if not self.arrive(cast(asyncio.Transport, transport)):
            return
        self._made = True
        self.handler.connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def connection_lost(self, exc: Optional[BaseException]) -> None:  # noqa: D102 - as above
        self.transport = None
        self._unmasked = None
        self._lost(self)
        # Called even if it was never made: aiohttp's protocol refers to itself until then.
        self.handler.connection_lost(exc)
        if self.unread is not None:
            # aiohttp would wait for the rest of it.
            self.unread.feed_eof()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102 - as above
        return self._buffer[: self._read_bytes]

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102 - as above
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        if not self._made:
            # It came together with the end of the TLS handshake.
            self._early.append(data)
            return
        self._pay(len(data))
        if self._unmasked is not None and not self._is_masked(data):
            return
        self.handler.data_received(data)

    def eof_received(self) -> None:  # noqa: D102 - as above
        self.handler.eof_received()

    def pause_writing(self) -> None:  # noqa: D102 - as above
        self.handler.pause_writing()

    def resume_writing(self) -> None:  # noqa: D102 - as above
        self.handler.resume_writing()

    def _pay(self, size: int) -> None:
        seconds = self._bytes.charge(size, self._loop.time())
        if seconds and self.transport is not None:
            self.transport.pause_reading()
            self._loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        # aiohttp pauses the same transport while its own queue is full, and then resumes it itself.
        if self._done_reading or self.handler._reading_paused:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _is_masked(self, data: bytes) -> bool:
        """Look at the second byte of the first frame (RFC 6455 section 5.2)."""
        place, self._seen = 1 - self._seen, self._seen + len(data)
        if place >= len(data):
            return True
        unmasked, self._unmasked = self._unmasked, None
        if data[place] & 0x80:
            return True
        if unmasked is not None:
            unmasked()
        return False


def address_of(request: web.Request) -> Optional[str]:
    """Return the address that the peer of a request counts for. None: it is not counted, or has gone."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol.address if isinstance(protocol, TcpPeer) else None


class TlsGate(asyncio.Protocol):
    """Does the TLS handshake, and then hands the connection over.

    asyncio's own server does that too, but cannot end a handshake early to make room for another.

    Args:
        connection: takes over after the handshake. Until then it has the transport below, so that it can be dropped.
        context: with the certificate.
        seconds: how long the handshake may take.
    """

    def __init__(self, connection: TcpPeer, context: ssl.SSLContext, seconds: float) -> None:
        self._connection = connection
        self._context = context
        self._seconds = seconds
        self._task: Optional[asyncio.Task[None]] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio.Protocol's
        below = cast(asyncio.Transport, transport)
        if not self._connection.arrive(below):
            return
        # asyncio starts reading after this call, and runs the task before it passes data on: nothing is lost.
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(below))

    async def _shake_hands(self, below: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                below,
                self._connection,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._seconds,
            )
        except (OSError, asyncio.TimeoutError) as error:
            # The peer does not speak TLS, does not trust the certificate, or sent nothing.
            secured = None
            forget_frames(error)
        if secured is None or below.is_closing():
            below.abort()
            self._connection.connection_lost(None)
        else:
            self._connection.connection_made(secured)


def forget_frames(error: Optional[BaseException]) -> None:
    """Drop an error's tracebacks, because one of their frames may hold what holds the error.

    Otherwise a connection's objects would stay in memory until the garbage collector finds them. Under attack there
    are many.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
