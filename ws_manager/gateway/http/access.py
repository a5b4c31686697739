"""Decides who may use the gateway, before anything else of a request is read.

It checks `Host` and `Origin` (see `ws_manager.gateway.http.names`), then the token. The token is in the
`Authorization` header, in the query, or in a WebSocket subprotocol: a web page cannot set headers, and proxies log
queries. A refusal is logged with the option that would accept the request, and never with the token.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Callable, Optional

import aiohttp
from aiohttp import hdrs, web

from ws_manager.core.doctor import is_safe
from ws_manager.errors import Conflict, GatewayUnavailable, InvalidInput, NotAuthorised
from ws_manager.gateway.http.names import Names, host_option, origin_option
from ws_manager.gateway.refusal_log import RefusalLog, quoted
from ws_manager.remedies import MAKE_TOKEN
from ws_manager.tokens import EVERYTHING, Claims, sign, verify

SUBPROTOCOL = "ws-manager.v1"
"""The only subprotocol (RFC 6455 section 1.9) that is ever selected."""

TOKEN_PROTOCOL = "bearer."  # noqa: S105 - a prefix
"""The prefix of a subprotocol that carries a token. It is never selected, so the answer never repeats the token."""


class BadToken(NotAuthorised):
    """There is no token, or it is not valid: HTTP 401. Other errors of the base class are HTTP 403.

    Attributes:
        challenge: value of the `WWW-Authenticate` header (RFC 6750 section 3).
    """

    challenge = 'Bearer error="invalid_token"'


class NoToken(BadToken):
    """There is no token. RFC 6750 section 3.1 gives no error code in that case."""

    challenge = "Bearer"


def is_loopback(host: str) -> bool:
    """Return whether a bind address is reachable from this machine only. False for names other than `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(host: str, *, tokens: bool, aiohttp_version: str = aiohttp.__version__) -> None:
    """Check that it is safe to bind an address.

    Args:
        host: the address to bind.
        tokens: True if the gateway requires tokens.
        aiohttp_version: version of the installed aiohttp.

    Raises:
        InvalidInput: other machines reach the address, and the gateway requires no tokens, or aiohttp has known
            vulnerabilities (CVE-2026-54274 in its WebSocket reader, CVE-2026-69243 in its upgrade parsing).
    """
    if is_loopback(host):
        return
    if not tokens:
        raise InvalidInput(
            f"--no-auth works on this machine only, and {host} can be reached from others",
            hint="use --host 127.0.0.1 or ::1, or leave --no-auth out",
        )
    if not is_safe(aiohttp_version):
        raise InvalidInput(
            f"{host} can be reached from others, and aiohttp {aiohttp_version} has vulnerabilities that 3.14.3 fixes "
            "(CVE-2026-54274, CVE-2026-69243)",
            hint="use Python 3.10 or newer with a newer aiohttp, or --host 127.0.0.1",
        )


class Access:
    """Checks every request.

    Args:
        names: the accepted hosts and origins.
        refusal_log: notes what is refused.
        key: the key that signs tokens; None requires no tokens.
        clock: the time of day, in seconds since 1970.

    Attributes:
        key: see the argument. It may be set later.
        closed: why every request is refused at present; None if requests are accepted.
    """

    def __init__(
        self,
        names: Names,
        refusal_log: RefusalLog,
        key: Optional[bytes] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._names = names
        self._refusal_log = refusal_log
        self.key = key
        self.closed: Optional[str] = None
        self._clock = clock

    def check_address(self, request: web.Request, *, even_closed: bool = False) -> None:
        """Check the `Host` and the `Origin` of a request. A request without `Origin` is not from a web page.

        Args:
            request: the request.
            even_closed: accept it also while every other request is refused.

        Raises:
            NotAuthorised: the Host or the Origin is not accepted.
            GatewayUnavailable: every request is refused at present.
        """
        transport = request.transport
        came_to = None if transport is None else str(transport.get_extra_info("sockname")[0])
        host = request.headers.get("Host", "")
        if not self._names.has_host(host, came_to):
            self._refusal_log.note("host", f"the Host {quoted(host)} is not served here", host_option(host))
            raise NotAuthorised("this Host is not served here")
        for origin in request.headers.getall("Origin", []):
            if not self._names.allows(origin, came_to):
                self._refusal_log.note(
                    "origin", f"the Origin {quoted(origin)} is not allowed", origin_option(origin)
                )
                raise NotAuthorised("this Origin is not allowed")
        if self.closed is not None and not even_closed:
            raise GatewayUnavailable(self.closed, hint="try again later")

    def check(self, request: web.Request) -> Claims:
        """Check a request and return the claims of its token.

        Raises:
            BadToken: there is no token, or it is not valid.
            NotAuthorised: the Host or the Origin is not accepted. Or no tokens are required, and the request came
                through a proxy, so its client may be on another machine.
            InvalidInput: there are several tokens, or subprotocols without ours.
            GatewayUnavailable: every request is refused at present.
        """
        self.check_address(request)
        tokens = _tokens(request)
        if self.key is None:
            if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers:
                reason = "without tokens, requests through a proxy are refused"
                self._refusal_log.note("proxy", f"{reason}: leave --no-auth out")
                raise NotAuthorised(reason)
            return EVERYTHING
        if len(tokens) > 1:
            # RFC 6750 section 2: clients must not use more than one method.
            raise InvalidInput("several tokens", hint="give one: as header, parameter or subprotocol")
        try:
            if not tokens:
                raise NoToken("no token", remedy=MAKE_TOKEN)
            return verify(self.key, tokens[0], self._clock())
        except NotAuthorised as error:
            self.note_token(request, error.message)
            if isinstance(error, BadToken):
                raise
            raise BadToken(error.message, hint=error.hint, remedy=error.remedy) from None

    def now(self) -> float:
        """Return the time of day by which tokens expire, in seconds since 1970."""
        return self._clock()

    def sign(self, claims: Claims) -> str:
        """Return the token with these claims.

        Raises:
            Conflict: this gateway requires no tokens, so it has no key.
        """
        if self.key is None:
            raise Conflict("this gateway requires no tokens, and has no key to sign them with")
        return sign(self.key, claims)

    def note_token(self, request: web.Request, reason: str) -> None:
        """Log why a token was refused, for which agent, and from where. The token is never logged."""
        agent = request.query.get("agent", "")
        self._refusal_log.note(
            "token",
            f"{reason} (agent {quoted(agent)}, from {request.remote})",
            "a token made by: ws-manager token <agent>",
        )


def _tokens(request: web.Request) -> list[str]:
    """Return every token in a request.

    Raises:
        InvalidInput: it offers subprotocols, but not ours.
    """
    found = []
    for value in request.headers.getall(hdrs.AUTHORIZATION, []):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            found.append(token.strip())
    found += request.query.getall("access_token", [])
    protocols = [
        protocol.strip()
        for value in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
        for protocol in value.split(",")
    ]
    found += [item[len(TOKEN_PROTOCOL) :] for item in protocols if item.startswith(TOKEN_PROTOCOL)]
    # aiohttp reads only the first of these headers. If ours is not in it, aiohttp logs it, including the token.
    first = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
    if SUBPROTOCOL not in [item.strip() for item in first.split(",")]:
        raise InvalidInput(f"the subprotocol here is {SUBPROTOCOL}", hint=f"offer {SUBPROTOCOL}, or none")
    return found
