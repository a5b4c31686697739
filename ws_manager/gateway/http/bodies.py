"""Bodies of requests whose sender is not known yet. Their total size and their time are limited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Callable, Optional

from aiohttp import web

from ws_manager.errors import GatewayUnavailable, WsManagerError

LEAST = 64 * 1024
"""The least that a body counts as, in bytes: its connection, its head and its buffers need as much."""


_GONE = "the peer went away before the body had come"


class TooLate(WsManagerError):
    """A request did not come in time: HTTP 408 (RFC 9110 section 15.5.9)."""

    code = "invalid"


class _Body:
    """A body that is being read, or is read and still in use."""

    __slots__ = ("ended", "held", "reading", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.held = 0
        self.reading: Optional[asyncio.Future[bytes]] = None
        self.ended: Optional[WsManagerError] = None


class Bodies:
    """Reads bodies.

    If they would need too much memory, the oldest unfinished one is ended: it is the least likely to complete.

    Args:
        most: bytes of all bodies together.
        largest: bytes of one.
        seconds: how long one may take.
        now: a monotonic clock.

    Attributes:
        held: bytes that all bodies count as at the moment.
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
        """Read a request's body, and count it until the block ends.

        Raises:
            web.HTTPRequestEntityTooLarge: it is over `largest`.
            TooLate: it did not come in time.
            GatewayUnavailable: it was ended to make room for others.
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
        """End the bodies whose time is over."""
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
        full = "too many events are on their way"
        while self.held + size - body.held > self._most:
            # Only unfinished ones: a complete body is used and freed soon, and ending it would free nothing.
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
