"""Accepts connections, and drops those that do not say what they want in time."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from typing import Callable, Optional

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from ws_manager.errors import Conflict, InvalidInput
from ws_manager.gateway.connection import Connection, TlsGate
from ws_manager.gateway.limits import Limits

KEEPALIVE_SECONDS = 15
MOST_WAITING = 1000
"""Connections that have not sent their request yet. For one more the oldest is dropped: it is the least likely to."""

LEAST_RATE = 1024 * 1024
"""Bytes a second that a connection may always send: what confirms messages is not counted as frames."""

MOST_WAITING_TLS = 250
"""The same with TLS, where each costs a quarter of a megabyte."""

_BACKLOG = 512


class Listener:
    """One address, and the connections that came to it.

    Whoever dribbles the head of a request, or does not shake hands for TLS, has the same few seconds.

    Args:
        application: answers the requests. It gets a middleware that sees when a request begins and ends.
        limits: how long a connection may take to send a request, and how many bytes a second may come through it.
        now: a monotonic clock.
    """

    def __init__(self, application: web.Application, limits: Limits, now: Callable[[], float]) -> None:
        self._handshake_seconds = limits.handshake_seconds
        self._rate = float(max(LEAST_RATE, limits.frame_bytes * limits.frames_per_second))
        self._now = now
        self._server: Optional[asyncio.AbstractServer] = None
        self._tls: Optional[ssl.SSLContext] = None
        self._most_waiting = MOST_WAITING
        # Those that have no request yet or no more, the longest first. A socket is one long request.
        self._waiting: dict[web.RequestHandler, Connection] = {}
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
            InvalidInput: the host is none.
        """
        await self._runner.setup()
        self._tls = tls
        self._most_waiting = MOST_WAITING if tls is None else MOST_WAITING_TLS
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept,
                host,
                port,
                backlog=_BACKLOG,
            )
        except socket.gaierror as error:
            raise InvalidInput(
                f"--host {host} is no address of this machine: {error.strerror}", hint="give an address"
            ) from error
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
        for connection in list(self._waiting.values()):
            if now >= connection.idle_until:
                self._forget(connection)
                connection.drop()

    def _accept(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        if len(self._waiting) >= self._most_waiting:
            oldest = next(iter(self._waiting.values()))
            self._forget(oldest)
            oldest.drop()
        connection = Connection(self._runner.server(), self._rate, self._forget)
        self._wait(connection, self._handshake_seconds)
        if self._tls is not None:
            return TlsGate(connection, self._tls, self._handshake_seconds)
        return connection

    def _wait(self, connection: Connection, seconds: float) -> None:
        connection.idle_until = self._now() + seconds
        self._waiting[connection.handler] = connection

    def _forget(self, connection: Connection) -> None:
        self._waiting.pop(connection.handler, None)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._waiting.pop(request.protocol, None)
            try:
                return await handler(request)
            finally:
                if connection is not None and connection.transport is not None:
                    self._wait(connection, KEEPALIVE_SECONDS)

        return timed


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
