"""`/healthz`, `/readyz` and `/metrics`: for those who watch the gateway."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import Callable, Optional

from aiohttp import web

from ws_manager.core.ledger import Ledger
from ws_manager.errors import LedgerError, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThread
from ws_manager.gateway.http.access import Access
from ws_manager.gateway.http.errors import error_response, problem
from ws_manager.gateway.http.meters import CONTENT_TYPE, Family, merged, of_ledger, text_of

_LEAST_SECONDS = 5.0
_SHARE = 20
"""A sample of the ledger is at least 5 s old before the next, and 20 times as long as it took."""

Troubles = Callable[[], Awaitable[list[str]]]
Families = Callable[[], Awaitable[list[list[Family]]]]


class Health:
    """The routes of those who watch.

    Args:
        access: checks Host and token.
        troubles: returns why this gateway and its siblings cannot serve; nothing if they can.
        families: returns the counters of each process.
        ledger: a thread with the ledger, of its own: a sample must not delay messages.
        public: whether `/metrics` needs no token.
    """

    def __init__(
        self, access: Access, troubles: Troubles, families: Families, ledger: LedgerThread, *, public: bool
    ) -> None:
        self._access = access
        self._troubles = troubles
        self._families = families
        self._ledger = ledger
        self._public = public
        self._sample: Optional[list[Family]] = None
        self._next = 0.0
        self._sampling = asyncio.Lock()

    def add_to(self, application: web.Application) -> None:
        """Add the routes to an application."""
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)

    async def close(self) -> None:
        """Close the ledger."""
        await self._ledger.close()

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        return self._checked(request) or _status("ok")

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        refused = self._checked(request)
        if refused is not None:
            return refused
        troubles = await self._troubles()
        if troubles:
            return problem(503, "unavailable", "; ".join(troubles), headers={"Retry-After": "1"})
        return _status("ready")

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        try:
            if self._public:
                self._access.check_address(request)
            else:
                self._access.check(request).require("read")
        except WsManagerError as error:
            return error_response(error)
        families = merged([*await self._families(), await self._of_ledger()])
        return web.Response(body=text_of(families), headers={"Content-Type": CONTENT_TYPE})

    def _checked(self, request: web.Request) -> Optional[web.Response]:
        try:
            self._access.check_address(request, even_closed=True)
        except WsManagerError as error:
            return error_response(error)
        return None

    async def _of_ledger(self) -> list[Family]:
        async with self._sampling:
            if self._sample is None or time.monotonic() >= self._next:
                began = time.monotonic()
                try:
                    await self._ledger.open()
                    self._sample = await self._ledger.run(_sampled)
                except LedgerError:
                    # What is known of it is older then; `/readyz` says that there is trouble.
                    self._sample = self._sample or []
                took = time.monotonic() - began
                self._next = time.monotonic() + max(_LEAST_SECONDS, _SHARE * took)
            return self._sample


def _sampled(ledger: Ledger) -> list[Family]:
    return of_ledger(ledger)


def _status(word: str) -> web.Response:
    return web.Response(text=json.dumps({"status": word}), content_type="application/json")
