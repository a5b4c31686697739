"""Answers the requests of the API: checks them, runs their handlers on a thread of the ledger, and waits if asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, Callable, Optional, TypeVar

from aiohttp import web

from ws_manager.core.ledger import Ledger
from ws_manager.errors import InvalidInput, LedgerBusy, TooLarge, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThread, LedgerThreads
from ws_manager.gateway.http.access import Access
from ws_manager.gateway.http.api import asyncapi, openapi
from ws_manager.gateway.http.api.parsing import BadParameter, check_value, parse_body, parse_query
from ws_manager.gateway.http.api.route import Call, Reply, Route
from ws_manager.gateway.http.api.routes import ROUTES
from ws_manager.gateway.http.api.schemas import KEY
from ws_manager.gateway.http.bodies import Bodies
from ws_manager.gateway.http.errors import Unusable, error_response, problem
from ws_manager.gateway.quotas import Account, Quotas, TooFast
from ws_manager.gateway.refusal_log import RefusalLog
from ws_manager.settings import Sizes, parse_duration
from ws_manager.strict_json import Json
from ws_manager.tokens import Claims

Result = TypeVar("Result")

LONGEST_WAIT = 60.0
"""Seconds that a request waits for confirmations at most."""

_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.1
_HEADERS = {"Cache-Control": "no-store"}
_REPLAYED = {"Idempotency-Replayed": "true"}


def body_bytes(sizes: Sizes) -> int:
    """Return the most bytes of a body: content as large as it may be, with room for spaces and escapes."""
    return 2 * max(sizes.content, sizes.metadata) + 64 * 1024


class Api:
    """The routes below `/v1`.

    Args:
        access: checks Host, Origin and token.
        bodies: reads bodies.
        threads: of the ledger; what is sent is written there.
        ledger: a thread with the ledger, of its own: a question must not delay messages.
        quotas: count what tokens use.
        refusal_log: notes what is refused.
        rate: requests per second that a token may make.
        seconds: how long a write may wait for the ledger.
    """

    def __init__(
        self,
        access: Access,
        bodies: Bodies,
        threads: LedgerThreads,
        ledger: LedgerThread,
        quotas: Quotas,
        refusal_log: RefusalLog,
        rate: int,
        seconds: float,
    ) -> None:
        self._refusal_log = refusal_log
        self._rate = rate
        self._access = access
        self._bodies = bodies
        self._threads = threads
        self._ledger = ledger
        self._quotas = quotas
        self._seconds = seconds

    def add_to(self, application: web.Application) -> None:
        """Add the routes to an application."""
        for route in ROUTES:
            application.router.add_route(route.method, route.path, self._handler(route))
        application.router.add_get("/v1/openapi.json", self._described(openapi.document))
        application.router.add_get("/v1/asyncapi.json", self._described(asyncapi.document))

    async def close(self) -> None:
        """End the questions that nobody waits for any more, and close their ledger."""
        await self._ledger.abandon()

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            headers: dict[str, str] = {}
            try:
                response = await self._answer(request, route, headers)
            except web.HTTPRequestEntityTooLarge:
                response = problem(413, InvalidInput.code, "the body is too large")
            except WsManagerError as error:
                if isinstance(error, TooFast):
                    self._refusal_log.note(
                        error.option, f"{error.message} (from {request.remote})", error.option
                    )
                response = error_response(error)
            response.headers.update(headers)
            return response

        return handle

    async def _answer(
        self, request: web.Request, route: Route, headers: dict[str, str]
    ) -> web.StreamResponse:
        claims = self._access.check(request)
        if claims.key is not None:
            # Without tokens, every program on this machine is trusted.
            left = await self._quotas.request(claims.key)
            # draft-ietf-httpapi-ratelimit-headers.
            headers["RateLimit-Policy"] = f'"requests";q={self._rate};w=1'
            headers["RateLimit"] = f'"requests";r={left};t=1'
        claims.require(route.scope)
        given = parse_query(_query(request), route.parameters)
        path = ((each.name, request.match_info[each.name]) for each in route.path_parameters)
        given |= parse_query(path, route.path_parameters)
        wait = _seconds_of(given.pop("wait", None))
        key = _key(request, route)
        if route.body is None:
            reply = await self._run(route, Call(claims, given, {}, key, self._admit(claims), self._access))
        else:
            async with self._bodies.of(request) as data:
                body = parse_body(data, route.body)
                call = Call(claims, given, body, key, self._admit(claims), self._access)
                reply = await self._run(route, call)
        status = reply.status
        if wait is not None and reply.sent is not None and not await self._confirmed(reply, wait):
            status = 202
        return web.Response(
            text=_json(reply.body),
            status=status,
            content_type="application/json",
            headers={**_HEADERS, **reply.headers, **(_REPLAYED if reply.replayed else {})},
        )

    def _admit(self, claims: Claims) -> Callable[[int, int], None]:
        return Account(self._quotas.charge, claims.key or "*").spend

    async def _run(self, route: Route, call: Call) -> Reply:
        try:
            return await self._handled(route, call)
        except TooLarge:
            raise
        except InvalidInput as error:
            # Its form was right.
            raise Unusable(error.message, hint=error.hint) from None

    async def _handled(self, route: Route, call: Call) -> Reply:
        def checked(ledger: Ledger) -> Reply:
            agent = None if call.claims.agent == "*" else call.claims.agent
            ledger.check_bars(agent, call.claims.key)
            return route.handler(ledger, call)

        if route.long or not route.writes:
            return await self._ask(checked)
        writing = self._threads.write(checked)
        try:
            # What has begun goes on after a timeout: with its key, the request can be sent again.
            return await asyncio.wait_for(asyncio.shield(writing), self._seconds)
        except asyncio.TimeoutError:
            writing.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise LedgerBusy("the ledger is busy", cause="the ledger is busy") from None

    async def _ask(self, question: Callable[[Ledger], Result]) -> Result:
        await self._ledger.open()
        return await self._ledger.run(question)

    async def _confirmed(self, reply: Reply, seconds: float) -> bool:
        """Wait for the confirmations of what was sent."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + seconds, _FIRST_LOOK
        while True:
            counts = await self._ask(lambda ledger: ledger.wait(reply.sent, 0))
            if not counts.pending:
                return not counts.set_aside
            left = until - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)

    def _described(
        self, document: Callable[[str], dict[str, Any]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._access.check_address(request)
            except WsManagerError as error:
                return error_response(error)
            return web.Response(
                text=json.dumps(document(str(request.url.origin()))), content_type="application/json"
            )

        return handle


def _query(request: web.Request) -> list[tuple[str, str]]:
    # A token in the query is Access's.
    return [(name, value) for name, value in request.query.items() if name != "access_token"]


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


def _json(value: object) -> str:
    """Return a value as JSON text; `Json` in it stays as it is."""
    if isinstance(value, Json):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_json(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
