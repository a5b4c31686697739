"""Bodies of requests from people who have not shown yet who they are: bounded together, and in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Callable, Optional

from aiohttp import web

from ws_manager.errors import GatewayUnavailable, WsManagerError

LEAST = 64 * 1024
"""Bytes that a body counts as at least: its connection, its head and the buffers cost as much."""


_GONE = "the peer went away before the body had come"


class TooLate(WsManagerError):
    """A request did not come in time: HTTP 408 (RFC 9110 section 15.5.9)."""

    code = "invalid"


class _Body:
    """One body that is being read, or has been read and is still needed."""

    __slots__ = ("ended", "held", "reading", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.held = 0
        self.reading: Optional[asyncio.Future[bytes]] = None
        self.ended: Optional[WsManagerError] = None


class Bodies:
    """Reads bodies.

    Where they would need too much memory, the oldest unfinished one is ended: it is the least likely to be completed.

    Args:
        most: bytes of all of them together.
        largest: bytes of one.
        seconds: how long one may take.
        now: a monotonic clock.

    Attributes:
        held: bytes that they count as at the moment.
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
            web.HTTPRequestEntityTooLarge: it is larger than one may be.
            TooLate: it did not come in time.
            GatewayUnavailable: others needed its room.
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
        """End those that have had their time."""
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
            # One that has come to its end is not waited for long, and nothing would be freed by ending it.
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
