"""Answers the requests of the API: checks them, runs their handlers on a thread of the ledger, and waits if asked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
from collections.abc import Awaitable
from typing import Any, Callable, Optional, TypeVar

from aiohttp import web

from ws_manager import strict_json
from ws_manager.core.ledger import Ledger
from ws_manager.errors import InvalidInput, LedgerBusy, TooLarge
from ws_manager.gateway.bell import Bell
from ws_manager.gateway.delivery.ledger_threads import LedgerThread, LedgerThreads
from ws_manager.gateway.http.api import asyncapi, openapi
from ws_manager.gateway.http.api.gate import Gate
from ws_manager.gateway.http.api.parsing import (
    BadParameter,
    check_value,
    parse_body,
    parse_query,
    query_of,
    traceparent_of,
)
from ws_manager.gateway.http.api.route import Call, Reply, Route
from ws_manager.gateway.http.api.routes import ROUTES
from ws_manager.gateway.http.api.schemas import KEY
from ws_manager.gateway.http.api.slots import Slots
from ws_manager.gateway.http.bodies import Bodies
from ws_manager.gateway.http.errors import Unusable
from ws_manager.settings import Sizes, parse_duration

Result = TypeVar("Result")

LONGEST_WAIT = 60.0
"""Seconds that a request waits for confirmations at most."""

MOST_WAITS, MOST_OF_A_TOKEN = 500, 50
"""Requests that wait at the same time: of one process, and with one token."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_LOOK_SECONDS = 1.0
_HEADERS = {"Cache-Control": "no-store"}
_REPLAYED = {"Idempotency-Replayed": "true"}


def body_bytes(sizes: Sizes) -> int:
    """Return the most bytes of a body: content as large as it may be, with room for spaces and escapes."""
    return 2 * max(sizes.content, sizes.metadata) + 64 * 1024


class Api:
    """The routes below `/v1`.

    Args:
        gate: lets requests in.
        bodies: reads bodies.
        threads: of the ledger; what is sent is written there.
        ledger: a thread with the ledger, of its own: a question must not delay messages.
        bell: rings when something is new in the ledger.
        seconds: how long a write may wait for the ledger.
    """

    def __init__(
        self,
        gate: Gate,
        bodies: Bodies,
        threads: LedgerThreads,
        ledger: LedgerThread,
        bell: Bell,
        seconds: float,
    ) -> None:
        self._gate = gate
        self._bodies = bodies
        self._threads = threads
        self._ledger = ledger
        self._seconds = seconds
        self._bell = bell
        self._stopping = False
        self._waits = Slots("waiting requests", MOST_WAITS, MOST_OF_A_TOKEN)

    def add_to(self, application: web.Application) -> None:
        """Add the routes to an application."""
        for route in ROUTES:
            # aiohttp's own pattern for a part leaves out braces.
            path = re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", route.path)
            application.router.add_route(route.method, path, self._handler(route))
        application.router.add_get("/v1/openapi.json", self._described(openapi.document))
        application.router.add_get("/v1/asyncapi.json", self._described(asyncapi.document))

    def stop(self) -> None:
        """Let no request wait any longer."""
        self._stopping = True
        self._bell.ring()

    async def close(self) -> None:
        """End the questions that nobody waits for any more, and close their ledger."""
        await self._ledger.abandon()

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        return self._gate.handler(lambda request, headers: self._answer(request, route, headers))

    async def _answer(
        self, request: web.Request, route: Route, headers: dict[str, str]
    ) -> web.StreamResponse:
        claims = await self._gate.enter(request, headers)
        claims.require(route.scope)
        given = parse_query(query_of(request), route.parameters)
        path = ((each.name, request.match_info[each.name]) for each in route.path_parameters)
        given |= parse_query(path, route.path_parameters)
        wait = _seconds_of(given.pop("wait", None))
        key = _key(request, route)
        waiting = contextlib.nullcontext() if wait is None else self._waits.taken(claims)
        with waiting:
            account, trace = self._gate.account(claims), traceparent_of(request)
            call = Call(claims, given, {}, key, account, self._gate.access, trace)
            return await self._reply(request, route, call, wait)

    async def _reply(
        self, request: web.Request, route: Route, call: Call, wait: Optional[float]
    ) -> web.StreamResponse:
        if route.body is None:
            reply = await self._waited(request, route, call, wait or 0)
        else:
            async with self._bodies.of(request) as data:
                reply = await self._run(route, call._replace(body=parse_body(data, route.body)))
        status, body = reply.status, reply.body
        if wait is not None and reply.reached is not None and reply.anew is not None:
            status = 201 if await self._reached(request, call, reply.reached, wait) else 202
            body = await self._ask(call, reply.anew)
        return web.Response(
            text=strict_json.written(body),
            status=status,
            content_type="application/json",
            headers={**_HEADERS, **reply.headers, **(_REPLAYED if reply.replayed else {})},
        )

    async def _waited(self, request: web.Request, route: Route, call: Call, seconds: float) -> Reply:
        """Run a handler, and again while it has nothing yet: at most for these seconds."""
        looks = _Looks(self._bell, seconds)
        while True:
            reply = await self._run(route, call)
            if reply.resume is None or not await self._again(looks, request):
                return reply
            call = call._replace(given={**call.given, **reply.resume})

    async def _reached(
        self,
        request: web.Request,
        call: Call,
        reached: Callable[[Ledger], Optional[bool]],
        seconds: float,
    ) -> bool:
        """Wait for the confirmations of what was sent, or for an answer: see `Reply.reached`."""
        looks = _Looks(self._bell, seconds)
        while True:
            found = await self._ask(call, reached)
            if found is not None:
                return found
            if not await self._again(looks, request):
                return False

    async def _again(self, looks: _Looks, request: web.Request) -> bool:
        if self._stopping or not await looks.wait():
            return False
        # Without a transport the client has gone.
        return request.transport is not None

    async def _run(self, route: Route, call: Call) -> Reply:
        try:
            return await self._handled(route, call)
        except TooLarge:
            raise
        except InvalidInput as error:
            # Its form was right.
            hint = None if error.remedy else error.hint
            raise Unusable(error.message, hint=hint, remedy=error.remedy, about=error.about) from None

    async def _handled(self, route: Route, call: Call) -> Reply:
        if route.long or not route.writes:
            return await self._ask(call, lambda ledger: route.handler(ledger, call))
        writing = self._threads.write(
            lambda ledger: route.handler(self._gate.still_open(ledger, call.claims), call)
        )
        try:
            # What has begun goes on after a timeout: with its key, the request can be sent again.
            return await asyncio.wait_for(asyncio.shield(writing), self._seconds)
        except asyncio.TimeoutError:
            # Its outcome is nobody's: an error that nobody takes would be logged.
            writing.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise LedgerBusy("the ledger is busy", cause="the ledger is busy") from None

    async def _ask(self, call: Call, question: Callable[[Ledger], Result]) -> Result:
        await self._ledger.open()
        return await self._ledger.run(lambda ledger: question(self._gate.still_open(ledger, call.claims)))

    def _described(
        self, document: Callable[[str], dict[str, Any]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        @functools.lru_cache(maxsize=8)
        def written(origin: str) -> str:
            return json.dumps(document(origin))

        async def answer(request: web.Request, _headers: dict[str, str]) -> web.StreamResponse:
            self._gate.check_address(request)
            return web.Response(text=written(str(request.url.origin())), content_type="application/json")

        return self._gate.handler(answer)


def _key(request: web.Request, route: Route) -> Optional[str]:
    keys = request.headers.getall("Idempotency-Key", [])
    if not route.keyed or not keys:
        return None
    if len(keys) > 1:
        raise BadParameter("several idempotency keys", "Idempotency-Key")
    check_value(keys[0], KEY, "Idempotency-Key")
    return keys[0]


def _seconds_of(text: Optional[str]) -> Optional[float]:
    return None if text is None else min(parse_duration(text), LONGEST_WAIT)


class _Looks:
    """When a request that waits looks at the ledger again: when something may be new, but not with every commit.

    Args:
        bell: rings when something is new.
        seconds: how long it waits.
    """

    def __init__(self, bell: Bell, seconds: float) -> None:
        self._bell = bell
        # Taken before the look: what comes in between is not missed.
        self._ringing = bell.next
        self._until = asyncio.get_running_loop().time() + seconds
        self._pause = _FIRST_PAUSE

    async def wait(self) -> bool:
        """Wait for the next look. False if the time is over."""
        left = self._until - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        # Many who wait must not keep others from asking.
        await asyncio.sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        await self._bell.heard(self._ringing, min(_LOOK_SECONDS, left))
        self._ringing = self._bell.next
        return True
