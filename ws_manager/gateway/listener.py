"""Accepts connections, and drops those that do not say what they want in time."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Callable, Optional

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from ws_manager.errors import Conflict

KEEPALIVE_SECONDS = 15
MOST_WAITING = 1000
"""Connections that have not sent their request yet. More are dropped: they can only be an attack."""

_BACKLOG = 512


class Listener:
    """One address, and the connections that came to it.

    aiohttp gives a client all the time it wants to send the head of its request, and to shake hands for TLS a
    minute. Here both have the same few seconds.

    Args:
        application: answers the requests. It gets a middleware that sees when a request begins and ends.
        handshake_seconds: how long a connection may take to send a request.
        now: a monotonic clock.
    """

    def __init__(
        self, application: web.Application, handshake_seconds: float, now: Callable[[], float]
    ) -> None:
        self._handshake_seconds = handshake_seconds
        self._now = now
        self._server: Optional[asyncio.AbstractServer] = None
        # Connections without a request, with the time until which they may be so. A socket is one long request.
        self._idle_until: dict[web.RequestHandler, float] = {}
        self._requests = 0
        application.middlewares.append(self._middleware())
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log(),
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=1,
        )

    async def start(self, host: str, port: int, tls: Optional[ssl.SSLContext]) -> int:
        """Bind the address, and return the port.

        Raises:
            Conflict: it cannot be bound.
        """
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept,
                host,
                port,
                ssl=tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=None if tls is None else self._handshake_seconds,
            )
        except OSError as error:
            raise Conflict(
                f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                hint="choose another --port; 0 takes one that is free",
            ) from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def stop_accepting(self) -> None:
        """Take no new connections; those that there are stay."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End every connection."""
        self.stop_accepting()
        await self._runner.cleanup()

    def tick(self) -> None:
        """Drop the connections that have had their time."""
        now = self._now()
        for connection, until in list(self._idle_until.items()):
            if now >= until:
                del self._idle_until[connection]
                if connection.transport is not None:
                    connection.transport.abort()

    def _accept(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        if len(self._runner.server.connections) - self._requests >= MOST_WAITING:
            return _Dropped()
        connection = self._runner.server()
        self._idle_until[connection] = self._now() + self._handshake_seconds
        return connection

    def _middleware(self) -> Middleware:
        @web.middleware
        async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._idle_until.pop(request.protocol, None)
            self._requests += 1
            try:
                return await handler(request)
            finally:
                self._requests -= 1
                self._idle_until[request.protocol] = self._now() + KEEPALIVE_SECONDS

        return timed


class _Dropped(asyncio.Protocol):
    """What becomes of a connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


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
