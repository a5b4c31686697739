"""`POST /v1/batches`: many messages in one request. Each line is answered by one line, after its commit.

The answers begin while lines still come. Lines are committed in groups, so that a producer that waits for an answer
gets it soon, and one that does not wait pays for few commits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Optional

from aiohttp import web

from ws_manager.core.ledger import Ledger
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.http.api.batch_sender import BatchSender, Line, Sent
from ws_manager.gateway.http.api.gate import Gate
from ws_manager.gateway.http.api.parsing import traceparent_of
from ws_manager.gateway.http.api.slots import Slots
from ws_manager.tokens import Claims

CONTENT_TYPE = "application/x-ndjson"
MOST_BATCHES, MOST_OF_A_TOKEN = 20, 4
"""Batches at the same time: of one process, and with one token."""

_MOST_LINES = 500
_MOST_BYTES = 1024 * 1024
_IDLE_SECONDS = 0.02
_PATIENCE_SECONDS = 60.0
"""How long the next line may take, and the reading of answers."""


class Batches:
    """The batches of one process.

    Args:
        gate: lets requests in.
        threads: of the ledger.
        longest: bytes of a line at most.
    """

    def __init__(self, gate: Gate, threads: LedgerThreads, longest: int) -> None:
        self._gate = gate
        self._threads = threads
        self._longest = longest
        self._slots = Slots("batches", MOST_BATCHES, MOST_OF_A_TOKEN)

    def add_to(self, application: web.Application) -> None:
        """Add the route to an application."""
        application.router.add_post("/v1/batches", self._gate.handler(self._handle))

    async def _handle(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        claims = await self._gate.enter(request, headers)
        if not (claims.allows("send") or claims.allows("broadcast")):
            claims.require("send")
        if not request.body_exists or request.content_length == 0:
            raise InvalidInput("a batch has lines", hint="send one JSON object on each line")
        with self._slots.taken(claims):
            await self._threads.write(lambda ledger: self._gate.still_open(ledger, claims))
            return await self._answer(request, claims, headers)

    async def _answer(
        self, request: web.Request, claims: Claims, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Cache-Control": "no-store"})
        response.content_type = CONTENT_TYPE
        trace = traceparent_of(request)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            try:
                async for group in self._groups(request):
                    await self._commit(group, claims, trace, response)
            except (WsManagerError, asyncio.TimeoutError):
                # Without an end, so that its client knows that lines were not answered.
                if request.transport is not None:
                    request.transport.close()
        return response

    async def _commit(
        self, group: list[Line], claims: Claims, trace: Optional[str], response: web.StreamResponse
    ) -> None:
        """Commit lines, and answer them. A token that is too fast is slowed down."""

        def sent(ledger: Ledger) -> Sent:
            admit = self._gate.account(claims)
            return BatchSender(self._gate.still_open(ledger, claims), claims, admit, trace).send(group)

        while group:
            outcome = await self._threads.write(sent)
            if outcome.answers:
                text = "".join(answer + "\n" for answer in outcome.answers)
                await asyncio.wait_for(response.write(text.encode("utf-8")), _PATIENCE_SECONDS)
            group = group[outcome.done :]
            if group:
                await asyncio.sleep(outcome.seconds)

    async def _groups(self, request: web.Request) -> AsyncIterator[list[Line]]:
        """Give the lines of a body in groups, each when it is full or when nothing comes for a moment.

        Raises:
            asyncio.TimeoutError: a line takes too long.
        """
        splitter, group, size = _Splitter(self._longest), list[Line](), 0
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_SECONDS
        while True:
            reading = asyncio.ensure_future(request.content.readany())
            if group and not (await asyncio.wait({reading}, timeout=_IDLE_SECONDS))[0]:
                yield group
                group, size = [], 0
            data = await asyncio.wait_for(reading, max(0, until - loop.time()))
            lines = splitter.feed(data) if data else splitter.end()
            if lines:
                until = loop.time() + _PATIENCE_SECONDS
            for line in lines:
                group.append(line)
                size += len(line.data or b"")
                if len(group) >= _MOST_LINES or size >= _MOST_BYTES:
                    yield group
                    group, size = [], 0
            if not data:
                if group:
                    yield group
                return


class _Splitter:
    """Splits bytes into lines; of one that is too long it keeps nothing."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""
        self._skipping = False
        self._number = 0

    def feed(self, data: bytes) -> list[Line]:
        """Take bytes, and return the lines that they end."""
        first, *others = data.split(b"\n")
        self._add(first)
        if not others:
            return []
        whole = [None if self._skipping else self._rest, *others[:-1]]
        self._rest, self._skipping = b"", False
        self._add(others[-1])
        return [self._line(each) for each in whole]

    def end(self) -> list[Line]:
        """Return the last line, if it has no end."""
        whole, self._rest = None if self._skipping else self._rest, b""
        return [self._line(whole)] if whole != b"" else []

    def _add(self, part: bytes) -> None:
        if self._skipping or len(self._rest) + len(part) > self._longest:
            self._rest, self._skipping = b"", True
        else:
            self._rest += part

    def _line(self, data: Optional[bytes]) -> Line:
        self._number += 1
        # As in a file of lines, an empty one says nothing.
        return Line(self._number, None if data is None else data if data.strip() else b"")
