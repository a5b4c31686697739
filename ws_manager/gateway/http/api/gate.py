"""What every route of the API checks first, and how it answers an error."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Callable

from aiohttp import web

from ws_manager.core.ledger import Ledger
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.gateway.http.access import Access, BadToken
from ws_manager.gateway.http.errors import error_response, problem
from ws_manager.gateway.quotas import Account, Quotas, TooFast
from ws_manager.gateway.refusal_log import RefusalLog
from ws_manager.remedies import MAKE_TOKEN
from ws_manager.tokens import ANY_AGENT, Claims

Answer = Callable[[web.Request, dict[str, str]], Awaitable[web.StreamResponse]]
"""Answers a request. The headers that it puts into the dictionary are in its problems too."""


class Gate:
    """Lets requests in.

    Args:
        access: checks Host, Origin and token.
        quotas: count what tokens use.
        refusal_log: notes what is refused.
        rate: requests per second that a token may make.

    Attributes:
        access: as above.
    """

    def __init__(self, access: Access, quotas: Quotas, refusal_log: RefusalLog, rate: int) -> None:
        self.access = access
        self._quotas = quotas
        self._refusal_log = refusal_log
        self._rate = rate

    async def enter(self, request: web.Request, headers: dict[str, str]) -> Claims:
        """Check a request's token and its rate, and return what the token allows.

        Raises:
            NotAuthorised: there is no valid token.
            TooFast: there were too many requests with it.
        """
        claims = self.access.check(request)
        if claims.key is not None:
            # Without tokens, every program on this machine is trusted.
            left = await self._quotas.request(claims.key)
            # draft-ietf-httpapi-ratelimit-headers.
            headers["RateLimit-Policy"] = f'"requests";q={self._rate};w=1'
            headers["RateLimit"] = f'"requests";r={left};t=1'
        return claims

    def still_open(self, ledger: Ledger, claims: Claims) -> Ledger:
        """Check that a token is still valid, and that it and its agent are let in; return the ledger.

        Raises:
            BadToken: it has expired.
            NotAuthorised: it was revoked, or the agent is barred.
        """
        if claims.expires_at <= self.access.now():
            raise BadToken("the token has expired", remedy=MAKE_TOKEN)
        ledger.check_bars(None if claims.agent == ANY_AGENT else claims.agent, claims.key)
        return ledger

    def check_address(self, request: web.Request) -> None:
        """Check Host and Origin only, for what needs no token."""
        self.access.check_address(request)

    def account(self, claims: Claims) -> Callable[[int, int], None]:
        """Return what charges a token for what it sends: see `ws_manager.core.sending.Admit`."""
        return Account(self._quotas.charge, claims.key or ANY_AGENT).spend

    def handler(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler of a route, which answers errors as problems (RFC 9457)."""

        async def handle(request: web.Request) -> web.StreamResponse:
            headers: dict[str, str] = {}
            try:
                response = await answer(request, headers)
            except web.HTTPRequestEntityTooLarge:
                response = problem(413, InvalidInput.code, "the body is too large")
            except WsManagerError as error:
                if isinstance(error, TooFast):
                    self._refusal_log.note(
                        error.option, f"{error.message} (from {request.remote})", error.option
                    )
                response = error_response(error)
            if not response.prepared:
                response.headers.update(headers)
            return response

        return handle
