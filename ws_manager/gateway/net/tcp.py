"""One TCP connection, between its transport and aiohttp: what aiohttp leaves out is here."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Callable, Optional, cast

from aiohttp import StreamReader, web

from ws_manager.protocol.bucket import Bucket

_BURST = 512 * 1024
"""Bytes that may come at once, whatever the rate is."""


READ_BYTES = 256 * 1024
"""Bytes that are read at once from a socket: asyncio's own size."""

READ_FIRST_BYTES = 16 * 1024
"""The same while a connection is not a socket: many may have something to read at the same time, and all of it is in
memory before the first is looked at."""


class TcpPeer(asyncio.BufferedProtocol):
    """Hands everything on to aiohttp's protocol, and holds four things against the peer.

    * It may send so many bytes a second, on average: more are left in the system's buffer, which stops the peer.
      Fragments without content, say, cost no memory and end no message, but time.
    * The first frame of a socket has to be masked: RFC 6455 section 5.1 obliges a server to close otherwise.
    * Its address may not have any number of connections: whoever made it counts them.
    * Whoever made it learns when it is lost.

    Args:
        handler: aiohttp's protocol.
        rate: bytes a second.
        buffer: of `READ_BYTES`, to read into; all connections of an event loop can have the same.
        arrived: called with this connection when its peer is known, before any TLS.
        lost: called with this connection when it has ended.

    Attributes:
        address: what its peer counts as; None if its peer is not counted, and before it has arrived.
        handler: as above.
        transport: once it is connected, for TLS the one below that; None before, and after its end.
        dropped: whether it was ended from here.
        surplus: whether its address may not have it.
        unread: the body of a request that was answered before its end.
        idle_until: until when it may be without a request.
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
        """From now on there are frames; `unmasked` is called if the first has no mask, and nothing is read then."""
        self._unmasked = unmasked
        self._read_bytes = READ_BYTES

    def read_no_more(self) -> None:
        """Leave what the peer sends from now on in the system's buffer."""
        self._done_reading = True
        # asyncio's TLS transport fails so where the connection is lost already.
        with contextlib.suppress(AttributeError, RuntimeError):
            if self.transport is not None:
                self.transport.pause_reading()

    def drop(self) -> None:
        """End it at once, or as soon as it begins: many are accepted before the first of them hears of it."""
        self.dropped = True
        if self.transport is not None:
            self.transport.abort()

    def arrive(self, transport: asyncio.Transport) -> bool:
        """Begin on the transport, which may change its form for TLS later; False if it was dropped already."""
        if self.dropped:
            transport.abort()
            return False
        first, self.transport = self.transport is None, transport
        if first:
            self._arrived(self)
        return not self.dropped

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio.Protocol's
        # Not an instance of it where the event loop is uvloop's.
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
        # Where it was never made, too: only so does aiohttp undo what its protocol has of itself.
        self.handler.connection_lost(exc)
        if self.unread is not None:
            # aiohttp would wait for the rest of it.
            self.unread.feed_eof()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102 - as above
        return self._buffer[: self._read_bytes]

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102 - as above
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if not self._made:
            # It came with the end of the handshake for TLS.
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
        # aiohttp pauses the same transport while its own queue is full, and resumes it by itself.
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
    """Return what the peer of a request counts as; None if it is not counted, or has gone."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol.address if isinstance(protocol, TcpPeer) else None


class TlsGate(asyncio.Protocol):
    """Shakes hands for TLS, and then hands the connection over.

    asyncio's own server does that too, and has no way to end a handshake that another one needs the room of.

    Args:
        peer: gets what comes then; until then it has the transport below, so that it can be dropped.
        context: with the certificate.
        seconds: how long the handshake may take.
    """

    def __init__(self, peer: TcpPeer, context: ssl.SSLContext, seconds: float) -> None:
        self._peer = peer
        self._context = context
        self._seconds = seconds
        self._task: Optional[asyncio.Task[None]] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio.Protocol's
        below = cast(asyncio.Transport, transport)
        if not self._peer.arrive(below):
            return
        # asyncio begins to read behind this call, and runs the task before it hands on what came: nothing is lost.
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(below))

    async def _shake_hands(self, below: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                below,
                self._peer,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._seconds,
            )
        except (OSError, asyncio.TimeoutError) as error:
            # No TLS, a certificate that is not trusted, or nothing at all: the peer knows which.
            secured = None
            forget_frames(error)
        if secured is None or below.is_closing():
            below.abort()
            self._peer.connection_lost(None)
        else:
            self._peer.connection_made(secured)


def forget_frames(error: Optional[BaseException]) -> None:
    """Drop an error's tracebacks, where somebody who keeps the error is held by one of its frames.

    All that came and goes with a connection would stay until the garbage collector looks at its oldest objects: under
    attack those are many.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
