"""One TCP connection, between its transport and aiohttp. It enforces the limits that aiohttp does not have."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Callable, Optional, Protocol, cast

from aiohttp import StreamReader, web

from ws_manager.protocol.bucket import Bucket

_BURST = 512 * 1024
"""Bytes that a peer may send at once, whatever the rate is."""


READ_BYTES = 256 * 1024
"""Bytes per read from a WebSocket: the size that asyncio uses."""

READ_FIRST_BYTES = 16 * 1024
"""Bytes per read before the upgrade. Many connections may be readable at the same time, and asyncio reads from all of
them before the first is processed."""


class UpgradedSocket(Protocol):
    """What takes a connection over after the upgrade."""

    def receive(self, data: bytes) -> None:
        """Take received bytes."""

    def lost(self) -> None:
        """Take note that the connection is lost."""


class TcpPeer(asyncio.BufferedProtocol):
    """Passes everything on to aiohttp's protocol, and after an upgrade what is received to a socket.

    After an upgrade aiohttp has no part in the connection, because what it keeps is more than a socket's own memory.

    It adds three things:

    * A limit of bytes a second, on average. The rest stays in the kernel's buffer, which stops the peer. It also
      limits frames that cost time but no memory, such as empty fragments.
    * It reports when the peer's address is known, so that the listener counts connections per address.
    * It reports when the connection is lost.

    Args:
        handler: aiohttp's protocol.
        rate: bytes a second that the peer may send.
        buffer: `READ_BYTES` to read into. All connections of an event loop may share it.
        arrived: called with this connection once the peer's address is known, before the TLS handshake.
        lost: called with this connection after its end.

    Attributes:
        address: the address that it counts for; None before `arrived`, or if it is not counted.
        admitted: False if it is over its address's limit; None if it is not counted.
        transport: the transport; during the TLS handshake, the one below TLS. None before and after the connection.
        dropped: True if `drop` was called.
        unread: the body of a request that was answered before all of it had arrived.
        idle_until: the monotonic time until which it may be without a request.
    """

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_buffer",
        "_bytes",
        "_drained",
        "_early",
        "_handler",
        "_loop",
        "_lost",
        "_made",
        "_paused",
        "_read_bytes",
        "_socket",
        "address",
        "admitted",
        "dropped",
        "idle_until",
        "transport",
        "unread",
    )

    def __init__(
        self,
        handler: web.RequestHandler,
        rate: float,
        buffer: memoryview,
        arrived: Callable[[TcpPeer], None],
        lost: Callable[[TcpPeer], None],
    ) -> None:
        self.address: Optional[str] = None
        self._handler: Optional[web.RequestHandler] = handler
        self.transport: Optional[asyncio.Transport] = None
        self.dropped = False
        self.admitted: Optional[asyncio.Future[bool]] = None
        self.unread: Optional[StreamReader] = None
        self.idle_until = 0.0
        self._loop = asyncio.get_running_loop()
        self._bytes = Bucket(rate, _BURST, self._loop.time())
        self._buffer = buffer
        self._read_bytes = READ_FIRST_BYTES
        self._arrived = arrived
        self._lost = lost
        self._made = False
        self._paused = False
        self._drained: Optional[asyncio.Future[None]] = None
        self._early: list[bytes] = []
        self._socket: Optional[UpgradedSocket] = None

    @property
    def upgraded(self) -> bool:
        """True after the upgrade."""
        return self._handler is None

    def upgrade(self, socket: UpgradedSocket) -> None:
        """Pass what is received to a socket from now on, and what has come since its handshake at once.

        Call it in the handler of the request, after the answer is written to its end. What the handler returns then
        is not written.
        """
        handler = self._handler
        assert handler is not None
        self._socket = socket
        self._read_bytes = READ_BYTES
        # aiohttp keeps what came behind the request for the parser that takes over.
        handler.set_parser(cast(Any, _Rest(socket)))
        # For aiohttp the connection ends here. Without the transport it cannot close it.
        self._handler = handler.transport = None
        handler.connection_lost(None)

    async def drain(self) -> None:
        """Wait until the transport has written its buffer, or the connection is lost. Only one may wait at a time."""
        if self._paused and self.transport is not None:
            self._drained = self._loop.create_future()
            await self._drained

    def drop(self) -> None:
        """Abort the connection, or mark it so that it is aborted when it begins: it may not have begun yet."""
        self.dropped = True
        if self.transport is not None:
            self.transport.abort()

    def arrive(self, transport: asyncio.Transport) -> bool:
        """Take the transport; after a TLS handshake, its successor. Return False if the connection was dropped."""
        if self.dropped:
            transport.abort()
            return False
        first, self.transport = self.transport is None, transport
        if first:
            self._arrived(self)
        return not self.dropped

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio.Protocol's
        # With uvloop, it is not an instance of asyncio.Transport.
        if not self.arrive(cast(asyncio.Transport, transport)):
            return
        self._made = True
        assert self._handler is not None
        self._handler.connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def connection_lost(self, exc: Optional[BaseException]) -> None:  # noqa: D102 - as above
        self.transport = None
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.lost()
        self._lost(self)
        self._end_drain()
        if self._handler is not None:
            # Also if it was never made: aiohttp breaks the reference cycles of its protocol in this call only.
            self._handler.connection_lost(exc)
        if self.unread is not None:
            # Otherwise aiohttp waits for the rest of the body.
            self.unread.feed_eof()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102 - as above
        return self._buffer[: self._read_bytes]

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102 - as above
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take received bytes."""
        if not self._made:
            # They came together with the end of the TLS handshake.
            self._early.append(data)
            return
        self._pay(len(data))
        if self._socket is not None:
            self._socket.receive(data)
        elif self._handler is not None:
            self._handler.data_received(data)

    def eof_received(self) -> None:  # noqa: D102 - as above
        if self._handler is not None:
            self._handler.eof_received()

    def pause_writing(self) -> None:  # noqa: D102 - as above
        self._paused = True
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:  # noqa: D102 - as above
        self._paused = False
        self._end_drain()
        if self._handler is not None:
            self._handler.resume_writing()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _pay(self, size: int) -> None:
        seconds = self._bytes.charge(size, self._loop.time())
        if seconds and self.transport is not None:
            self.transport.pause_reading()
            self._loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        # While aiohttp has enough of a request's body, it has paused the transport too, and will resume it.
        if self._handler is not None and self._handler._reading_paused:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


class _Rest:
    """Takes from aiohttp what it has kept, as a parser of aiohttp's would."""

    def __init__(self, socket: UpgradedSocket) -> None:
        self._socket = socket

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._socket.receive(data)
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: `TcpPeer` reports that the connection is lost."""


def peer_of(request: web.Request) -> Optional[TcpPeer]:
    """Return a request's connection; None if it is lost."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol if isinstance(protocol, TcpPeer) else None


class TlsGate(asyncio.Protocol):
    """Performs the TLS handshake, and then passes the connection to its `TcpPeer`.

    asyncio's server can do the handshake, but cannot abort one to make room for another connection.

    Args:
        peer: gets the decrypted bytes. During the handshake it has the transport below TLS, to drop it.
        context: the TLS context with the certificate.
        seconds: the time limit of the handshake.
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
        # No byte is lost: asyncio starts to read after this call, and the task runs before bytes are passed on.
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
            # The peer sent no TLS, did not trust the certificate, or sent nothing.
            secured = None
            forget_frames(error)
        if secured is None or below.is_closing():
            below.abort()
            self._peer.connection_lost(None)
        else:
            self._peer.connection_made(secured)


def forget_frames(error: Optional[BaseException]) -> None:
    """Remove the tracebacks of an error and its causes.

    An error that is stored in an object which one of its frames refers to forms a cycle. The connection would stay in
    memory until a full garbage collection; under attack that is much memory.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
