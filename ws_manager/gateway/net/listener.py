"""Accepts connections, and drops those that do not say what they want in time."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Callable, Optional

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from ws_manager.errors import GatewayUnavailable, WsManagerError
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.net.binding import BACKLOG, bind
from ws_manager.gateway.net.tcp import READ_BYTES, TcpPeer, TlsGate
from ws_manager.gateway.quotas import Addresses
from ws_manager.gateway.refusal_log import RefusalLog

KEEPALIVE_SECONDS = 15
MOST_WAITING = 1000
"""Connections that have not sent their request yet. For one more the oldest is dropped: it is the least likely to."""

LEAST_RATE = 1024 * 1024
"""Bytes a second that a connection may always send: what confirms messages is not counted as frames."""

MOST_WAITING_TLS = 250
"""The same with TLS, where each costs a quarter of a megabyte."""

SURPLUS_SECONDS = 2.0
"""How long a connection that its address may not have stays, to be answered."""

_LINGERING_SECONDS = 2.0


class Listener:
    """The addresses that are bound, and the connections that came to them.

    Whoever dribbles the head of a request, or does not shake hands for TLS, has the same few seconds.

    Args:
        application: answers the requests. It gets a middleware that sees when a request begins and ends.
        limits: how long a connection may take to send a request, how many bytes a second may come through it, and how
            many connections an address may have.
        addresses: tells whose a connection is.
        refusal_log: notes what is refused.
        now: a monotonic clock.
        error_response: makes the answer to a connection that is turned away.
    """

    def __init__(
        self,
        application: web.Application,
        limits: Limits,
        addresses: Addresses,
        refusal_log: RefusalLog,
        now: Callable[[], float],
        error_response: Callable[[WsManagerError], web.Response],
    ) -> None:
        self._addresses = addresses
        self._error_response = error_response
        self._refusal_log = refusal_log
        self._per_address = limits.per_address
        self._held: dict[str, int] = {}
        self._handshake_seconds = limits.handshake_seconds
        self._rate = float(max(LEAST_RATE, limits.frame_bytes * limits.frames_per_second))
        self._now = now
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._servers: list[asyncio.AbstractServer] = []
        self._tls: Optional[ssl.SSLContext] = None
        self._most_waiting = MOST_WAITING
        # Those that have no request yet or no more, the longest first. A socket is one long request.
        self._waiting: dict[web.RequestHandler, TcpPeer] = {}
        application.middlewares.append(self._middleware())
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log(),
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            shutdown_timeout=1,
        )

    async def start(self, hosts: Sequence[str], port: int, tls: Optional[ssl.SSLContext]) -> int:
        """Bind every host to the same port, and return the port.

        Raises:
            Conflict: one of them cannot be bound.
            InvalidInput: a host is not an address.
        """
        await self._runner.setup()
        self._tls = tls
        self._most_waiting = MOST_WAITING if tls is None else MOST_WAITING_TLS
        loop = asyncio.get_running_loop()
        sockets = await loop.run_in_executor(None, bind, hosts, port)
        bound: int = sockets[0].getsockname()[1]
        for each in sockets:
            self._servers.append(await loop.create_server(self._accept, sock=each, backlog=BACKLOG))
        return bound

    def stop_accepting(self) -> None:
        """Take no new connections; those that there are stay."""
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """End every connection."""
        self.stop_accepting()
        await self._runner.cleanup()

    def tick(self) -> None:
        """Drop the connections that have had their time."""
        now = self._now()
        for peer in list(self._waiting.values()):
            if now >= peer.idle_until:
                self._forget(peer)
                peer.drop()

    def _accept(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        if len(self._waiting) >= self._most_waiting:
            oldest = next(iter(self._waiting.values()))
            self._forget(oldest)
            oldest.drop()
        peer = TcpPeer(self._runner.server(), self._rate, self._buffer, self._arrived, self._lost)
        self._wait(peer, self._handshake_seconds)
        if self._tls is not None:
            return TlsGate(peer, self._tls, self._handshake_seconds)
        return peer

    def _arrived(self, peer: TcpPeer) -> None:
        """Count a connection for its address. One too many stays for a moment, so that it can be told so."""
        assert peer.transport is not None
        address = self._addresses.key(peer.transport.get_extra_info("peername"))
        if address is None:
            return
        peer.address = address
        self._held[address] = count = self._held.get(address, 0) + 1
        if count > self._per_address:
            peer.surplus = True
            if peer.handler in self._waiting:
                self._wait(peer, SURPLUS_SECONDS)

    def _lost(self, peer: TcpPeer) -> None:
        self._forget(peer)
        address, peer.address = peer.address, None
        if address is not None:
            left = self._held[address] - 1
            if left:
                self._held[address] = left
            else:
                del self._held[address]

    def _wait(self, peer: TcpPeer, seconds: float) -> None:
        peer.idle_until = self._now() + seconds
        self._waiting[peer.handler] = peer

    def _forget(self, peer: TcpPeer) -> None:
        self._waiting.pop(peer.handler, None)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
            peer = self._waiting.pop(request.protocol, None)
            try:
                if peer is not None and peer.surplus:
                    return self._turned_away(peer)
                return await handler(request)
            finally:
                if peer is not None and peer.transport is not None:
                    peer.unread = None if request.content.is_eof() else request.content
                    self._wait(peer, SURPLUS_SECONDS if peer.surplus else KEEPALIVE_SECONDS)

        return timed

    def _turned_away(self, peer: TcpPeer) -> web.Response:
        self._refusal_log.note(
            "address",
            f"a connection from {peer.address}, which has {self._per_address} already",
            "--max-per-address, or --proxy if others come through it",
        )
        response = self._error_response(
            GatewayUnavailable(
                "too many connections from this address",
                hint="close some",
            )
        )
        response.force_close()
        return response


class _OnlyDefects(logging.Filter):
    """Leaves out what is no HTTP: aiohttp's tracebacks quote such a request's line, with its token."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, HttpProcessingError)


def http_log() -> logging.Logger:
    """Return the log of the HTTP server, which never quotes a request."""
    log = logging.getLogger("ws_manager.gateway.http")
    if not any(isinstance(known, _OnlyDefects) for known in log.filters):
        log.addFilter(_OnlyDefects())
    return log
