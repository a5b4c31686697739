"""Accepts TCP connections, and drops those that send no complete request in time."""

from __future__ import annotations

import asyncio
import functools
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
from ws_manager.gateway.net.tcp import READ_BYTES, TcpPeer, TlsGate, peer_of
from ws_manager.gateway.quotas import Addresses, Quotas
from ws_manager.gateway.refusal_log import RefusalLog

KEEPALIVE_SECONDS = 15
MOST_WAITING = 1000
"""Connections that may wait without a complete request. For a further one, the oldest is dropped."""

LEAST_RATE = 1024 * 1024
"""Bytes a second that every connection may send: frames that confirm messages are not limited by number."""

MOST_WAITING_TLS = 250
"""The same with TLS, where each connection takes 256 KiB."""

SURPLUS_SECONDS = 2.0
"""Seconds that a connection over its address's limit stays open, so that it gets an answer."""

_LINGERING_SECONDS = 2.0

_LAST_SECONDS = 1.0
"""How long the end waits for requests that are being answered."""


class Listener:
    """The listening sockets and their connections.

    The time limit for a request includes the TLS handshake and a head that arrives in small pieces.

    Args:
        application: answers the requests. The listener adds a middleware that notes when a request begins and ends.
        limits: the time for a request, and the rate of a connection.
        quotas: count the connections of each address.
        addresses: says which address a connection counts for.
        refusal_log: notes what is refused.
        now: a monotonic clock, in seconds.
        error_response: makes the HTTP answer to an error.
    """

    def __init__(
        self,
        application: web.Application,
        limits: Limits,
        quotas: Quotas,
        addresses: Addresses,
        refusal_log: RefusalLog,
        now: Callable[[], float],
        error_response: Callable[[WsManagerError], web.Response],
    ) -> None:
        self._addresses = addresses
        self._error_response = error_response
        self._refusal_log = refusal_log
        self._quotas = quotas
        self._per_address = limits.per_address
        self._handshake_seconds = limits.handshake_seconds
        self._rate = float(max(LEAST_RATE, limits.frame_bytes * limits.frames_per_second))
        self._now = now
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._servers: list[asyncio.AbstractServer] = []
        self._tls: Optional[ssl.SSLContext] = None
        self._most_waiting = MOST_WAITING
        # Connections without a request at present, the longest waiting first. Those of WebSockets are not among them.
        self._waiting: dict[TcpPeer, None] = {}
        application.middlewares.append(self._middleware())
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log(),
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            shutdown_timeout=_LAST_SECONDS,
        )
        # One task for each request that is being answered.
        # The task of each request that is being answered. It goes on with the next request of its connection.
        self._answering: dict[asyncio.Future[None], asyncio.Task[object]] = {}

    async def start(
        self, hosts: Sequence[str], port: int, tls: Optional[ssl.SSLContext], *, shared: bool = False
    ) -> int:
        """Bind every host to the same port, and return the port. `shared` lets other workers bind it too.

        Raises:
            Conflict: a host or the port cannot be bound.
            InvalidInput: a host is not an address.
        """
        await self._runner.setup()
        self._tls = tls
        self._most_waiting = MOST_WAITING if tls is None else MOST_WAITING_TLS
        loop = asyncio.get_running_loop()
        sockets = await loop.run_in_executor(None, functools.partial(bind, hosts, port, shared=shared))
        bound: int = sockets[0].getsockname()[1]
        for each in sockets:
            self._servers.append(await loop.create_server(self._accept, sock=each, backlog=BACKLOG))
        return bound

    def stop_accepting(self) -> None:
        """Accept no new connections. The open ones stay."""
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """Close every connection."""
        self.stop_accepting()
        # aiohttp would wait too, but it fails if a request ends just when it gives up (`RequestHandler.shutdown`).
        if self._answering:
            await asyncio.wait(self._answering, timeout=_LAST_SECONDS)
        late = list(self._answering.values())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_LAST_SECONDS)
        await self._runner.cleanup()

    def tick(self) -> None:
        """Drop the connections whose time is over. Call it about once a second."""
        now = self._now()
        for peer in list(self._waiting):
            if now >= peer.idle_until:
                self._forget(peer)
                peer.drop()

    def _accept(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        if len(self._waiting) >= self._most_waiting:
            oldest = next(iter(self._waiting))
            self._forget(oldest)
            oldest.drop()
        peer = TcpPeer(self._runner.server(), self._rate, self._buffer, self._arrived, self._lost)
        self._wait(peer, self._handshake_seconds)
        if self._tls is not None:
            return TlsGate(peer, self._tls, self._handshake_seconds)
        return peer

    def _arrived(self, peer: TcpPeer) -> None:
        """Count a connection for its address. One over the limit stays open for a moment, to be answered 503."""
        assert peer.transport is not None
        address = self._addresses.key(peer.transport.get_extra_info("peername"))
        if address is None:
            return
        peer.address = address
        peer.admitted = self._quotas.arrive(address)
        peer.admitted.add_done_callback(functools.partial(self._counted, peer))

    def _counted(self, peer: TcpPeer, admitted: asyncio.Future[bool]) -> None:
        if admitted.cancelled() or admitted.exception() is not None or admitted.result():
            return
        if peer in self._waiting:
            self._wait(peer, SURPLUS_SECONDS)

    def _lost(self, peer: TcpPeer) -> None:
        self._forget(peer)
        address, peer.address = peer.address, None
        if address is not None:
            self._quotas.depart(address)

    def _wait(self, peer: TcpPeer, seconds: float) -> None:
        peer.idle_until = self._now() + seconds
        self._waiting[peer] = None

    def _forget(self, peer: TcpPeer) -> None:
        self._waiting.pop(peer, None)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
            peer, admitted = peer_of(request), True
            if peer is not None:
                self._forget(peer)
            task = asyncio.current_task()
            assert task is not None
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._answering[answered] = task
            try:
                if peer is not None and peer.admitted is not None:
                    admitted = await peer.admitted
                if peer is not None and not admitted:
                    return self._turned_away(peer)
                return await handler(request)
            except GatewayUnavailable as error:
                return self._error_response(error)
            finally:
                del self._answering[answered]
                answered.set_result(None)
                if peer is not None and peer.transport is not None and not peer.upgraded:
                    peer.unread = None if request.content.is_eof() else request.content
                    self._wait(peer, KEEPALIVE_SECONDS if admitted else SURPLUS_SECONDS)

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
    """Drops records about malformed HTTP: aiohttp's tracebacks quote the request line, which may hold a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, HttpProcessingError)


def http_log() -> logging.Logger:
    """Return the logger for the HTTP server. Its records never quote a request."""
    log = logging.getLogger("ws_manager.gateway.http")
    if not any(isinstance(known, _OnlyDefects) for known in log.filters):
        log.addFilter(_OnlyDefects())
    return log
