"""Reads bodies of requests within limits of memory and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Callable, Optional

from aiohttp import web

from ws_manager.errors import GatewayUnavailable, WsManagerError

LEAST = 64 * 1024
"""Least bytes that a body is counted as: its connection, head and buffers take as much."""


_GONE = "the peer went away before the body had come"


class TooLate(WsManagerError):
    """A request did not arrive in time: HTTP 408 (RFC 9110 section 15.5.9)."""

    code = "invalid"


class _Body:
    """A body that is being read or processed."""

    __slots__ = ("ended", "held", "reading", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.held = 0
        self.reading: Optional[asyncio.Future[bytes]] = None
        self.ended: Optional[WsManagerError] = None


class Bodies:
    """Reads bodies of requests.

    If they need too much memory together, the oldest unfinished one is ended, as the least likely to be completed.

    Args:
        most: largest number of bytes of all bodies together.
        largest: largest number of bytes of one body.
        seconds: time limit of one body.
        now: a monotonic clock, in seconds.

    Attributes:
        held: bytes that are counted at present.
    """

    def __init__(self, most: int, largest: int, seconds: float, now: Callable[[], float]) -> None:
        self.held = 0
        self._most = most
        self._largest = largest
        self._seconds = seconds
        self._now = now
        # The oldest first.
        self._bodies: dict[_Body, None] = {}

    @contextlib.asynccontextmanager
    async def of(self, request: web.Request) -> AsyncIterator[bytes]:
        """Read a request's body, and count its bytes until the block ends.

        Raises:
            web.HTTPRequestEntityTooLarge: the body is too large.
            TooLate: it did not arrive in time.
            GatewayUnavailable: there is no memory for it.
        """
        if (request.content_length or 0) > self._largest:
            raise web.HTTPRequestEntityTooLarge(self._largest, request.content_length or 0)
        body = _Body(self._now() + self._seconds)
        self._bodies[body] = None
        try:
            self._grow(body, LEAST)
            yield await self._read(request, body)
        finally:
            self._forget(body)

    def tick(self) -> None:
        """End the bodies whose time is over. Call it about once a second."""
        now = self._now()
        for body in list(self._bodies):
            if now >= body.until:
                self._end(body, TooLate("the body did not come in time", hint="send it again"))

    async def _read(self, request: web.Request, body: _Body) -> bytes:
        body.reading = asyncio.ensure_future(self._chunks(request, body))
        try:
            return await body.reading
        except asyncio.CancelledError:
            if body.ended is None:
                raise
        finally:
            body.reading = None
        raise body.ended from None

    async def _chunks(self, request: web.Request, body: _Body) -> bytes:
        data = bytearray()
        while True:
            if request.transport is None:
                raise TooLate(_GONE)
            try:
                chunk = await request.content.readany()
            except ConnectionError:
                raise TooLate(_GONE) from None
            if not chunk:
                return bytes(data)
            if len(data) + len(chunk) > self._largest:
                raise web.HTTPRequestEntityTooLarge(self._largest, len(data) + len(chunk))
            self._grow(body, max(LEAST, len(data) + len(chunk)))
            data += chunk

    def _grow(self, body: _Body, size: int) -> None:
        full = "too many bodies are on their way"
        while self.held + size - body.held > self._most:
            # A body that was read completely is processed soon, and ending it would free nothing.
            unfinished = (each for each in self._bodies if each.reading is not None and each is not body)
            oldest = next(unfinished, None)
            if oldest is None:
                raise GatewayUnavailable(full, hint="try again later")
            self._end(oldest, GatewayUnavailable(full, hint="send it faster"))
        self.held += size - body.held
        body.held = size

    def _end(self, body: _Body, error: WsManagerError) -> None:
        if body.reading is not None:
            body.ended = error
            body.reading.cancel()
            self._forget(body)

    def _forget(self, body: _Body) -> None:
        self._bodies.pop(body, None)
        self.held -= body.held
        body.held = 0
