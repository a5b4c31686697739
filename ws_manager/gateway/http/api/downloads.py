"""`GET /v1/export` and `GET /v1/backup`: the whole ledger, streamed. Nothing of it is kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import BinaryIO, Callable, Optional

from aiohttp import web

from ws_manager.core.ledger import Ledger
from ws_manager.errors import Conflict, LedgerError, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThread, LedgerThreads
from ws_manager.gateway.http.api.gate import Gate
from ws_manager.gateway.http.api.view import View
from ws_manager.settings import Located, Sizes
from ws_manager.tokens import Claims

EXPORT, BACKUP = "/v1/export", "/v1/backup"
_PIECE = 256 * 1024
_PATIENCE_SECONDS = 30.0
"""How long a reader may take for one piece: an export that stands still keeps the ledger's log from shrinking."""


class Downloads:
    """The downloads of one process, one at a time.

    Args:
        gate: lets requests in.
        threads: of the ledger: whether a token is still valid is asked there, since a download reads an older state.
        database: the ledger's file. A backup is made in the folder for temporary files before it is sent.
        sizes: of the ledger.
    """

    def __init__(self, gate: Gate, threads: LedgerThreads, database: Located, sizes: Sizes) -> None:
        self._gate = gate
        self._threads = threads
        self._database = database
        self._sizes = sizes
        self._busy = False

    def add_to(self, application: web.Application) -> None:
        """Add the routes to an application."""
        application.router.add_route("GET", EXPORT, self._gate.handler(self._export))
        application.router.add_route("GET", BACKUP, self._gate.handler(self._backup))

    async def _export(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        async with self._ledger(request, headers) as (claims, thread):
            lines = await thread.run(lambda ledger: ledger.maintenance.export_lines())
            response = await _started(request, headers, "application/x-ndjson")
            try:
                await self._send(request, response, claims, lambda: thread.run(lambda _: _next_piece(lines)))
            finally:
                # On its own thread: it ends the reading there.
                await thread.run(lambda _: lines.close())
            return response

    async def _backup(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        async with self._ledger(request, headers) as (claims, thread):
            file = await thread.run(_copied)
            with file:
                size = os.fstat(file.fileno()).st_size
                response = await _started(request, headers, "application/octet-stream", size)
                await self._send(request, response, claims, lambda: thread.run(lambda _: file.read(_PIECE)))
            return response

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        claims: Claims,
        next_piece: Callable[[], Awaitable[bytes]],
    ) -> None:
        """Send pieces until one is empty. At an error the connection is closed: without its end, it is not whole."""
        try:
            while piece := await next_piece():
                await self._threads.read(lambda ledger: self._gate.still_open(ledger, claims))
                await asyncio.wait_for(response.write(piece), _PATIENCE_SECONDS)
        except (WsManagerError, ConnectionError, asyncio.TimeoutError):
            if request.transport is not None:
                request.transport.close()

    @contextlib.asynccontextmanager
    async def _ledger(
        self, request: web.Request, headers: dict[str, str]
    ) -> AsyncIterator[tuple[Claims, LedgerThread]]:
        """Check the request, and open the ledger for it alone: a download must not delay messages."""
        claims = await self._gate.enter(request, headers)
        claims.require("admin")
        if self._busy:
            raise Conflict("another export or backup is under way", hint="come back later")
        self._busy = True
        thread = LedgerThread(self._database, "ws-manager-download", self._sizes)
        try:
            await thread.open()
            await thread.run(lambda ledger: self._check(ledger, claims))
            yield claims, thread
        finally:
            await thread.abandon()
            self._busy = False

    def _check(self, ledger: Ledger, claims: Claims) -> None:
        View(self._gate.still_open(ledger, claims), claims).require_all()


def _copied(ledger: Ledger) -> BinaryIO:
    """Return a copy of the ledger as an open file that has no name any more."""
    try:
        with tempfile.TemporaryDirectory(prefix="ws-manager-") as folder:
            copy = Path(folder) / "ledger.db"
            ledger.maintenance.backup(copy)
            return copy.open("rb")
    except OSError as error:
        raise LedgerError(
            f"no copy can be made in the folder for temporary files: {error.strerror}",
            cause="the gateway has no room for a copy",
            hint="check TMPDIR and its free space",
        ) from None


def _next_piece(lines: Iterator[str]) -> bytes:
    piece = bytearray()
    for line in lines:
        piece += line.encode("utf-8") + b"\n"
        if len(piece) >= _PIECE:
            break
    return bytes(piece)


async def _started(
    request: web.Request, headers: dict[str, str], kind: str, size: Optional[int] = None
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "Cache-Control": "no-store"})
    response.content_type = kind
    response.content_length = size
    await response.prepare(request)
    return response
