"""Who may use the gateway. It is decided before anything else.

First `Host` and `Origin` are checked (`names.py`), then the token. It comes in the `Authorization` header, in the
query,
or as a WebSocket subprotocol: a page cannot set a header, and proxies log queries. Each refusal is logged with the
option that would let the request in. A token is never logged.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Callable, Optional

import aiohttp
from aiohttp import hdrs, web

from ws_manager.errors import GatewayUnavailable, InvalidInput, NotAuthorised
from ws_manager.gateway.http.names import Names, host_option, origin_option
from ws_manager.gateway.refusal_log import Refusals, quoted
from ws_manager.remedies import MAKE_TOKEN
from ws_manager.tokens import EVERYTHING, Claims, verify

SUBPROTOCOL = "ws-manager.v1"
"""The only subprotocol (RFC 6455 section 1.9) that is ever selected."""

TOKEN_PROTOCOL = "bearer."  # noqa: S105 - a prefix
"""The prefix of a subprotocol that carries a token. It is never selected, so the token is never echoed."""

_SAFE_AIOHTTP = (3, 14, 3)


class BadToken(NotAuthorised):
    """There is no token, or it is not valid: HTTP 401. Other refusals of this kind are 403.

    Attributes:
        challenge: the `WWW-Authenticate` header of the answer (RFC 6750 section 3).
    """

    challenge = 'Bearer error="invalid_token"'


class NoToken(BadToken):
    """There is no token. RFC 6750 section 3.1 has no error code for that."""

    challenge = "Bearer"


def is_loopback(host: str) -> bool:
    """Say whether a bind address can be reached from this machine only. Of names, only `localhost` counts."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(host: str, *, tokens: bool, aiohttp_version: str = aiohttp.__version__) -> None:
    """Refuse to bind an address beyond loopback without tokens, or with an unsafe aiohttp.

    Args:
        host: the address to bind.
        tokens: whether tokens are required.
        aiohttp_version: of the installed aiohttp.

    Raises:
        InvalidInput: the address is not loopback, and tokens are not required, or aiohttp has known holes
            (CVE-2026-54274 in its WebSocket reader, CVE-2026-69243 in its upgrade parsing).
    """
    if is_loopback(host):
        return
    if not tokens:
        raise InvalidInput(
            f"--no-auth works on this machine only, and {host} can be reached from others",
            hint="use --host 127.0.0.1 or ::1, or leave --no-auth out",
        )
    version = tuple(int(part) for part in aiohttp_version.split(".")[:3] if part.isdigit())
    if version < _SAFE_AIOHTTP:
        raise InvalidInput(
            f"{host} can be reached from others, and aiohttp {aiohttp_version} has holes that 3.14.3 mends "
            "(CVE-2026-54274, CVE-2026-69243)",
            hint="use Python 3.10 or newer with a newer aiohttp, or --host 127.0.0.1",
        )


class Access:
    """Checks every request.

    Args:
        names: of the gateway, and the pages that may connect.
        refusals: the log of refusals.
        key: that signs tokens. None: tokens are not required.
        clock: the time of day, in seconds since 1970.

    Attributes:
        key: as above. It may be set later.
        closed: why every request is refused at the moment. None: they are not.
    """

    def __init__(
        self,
        names: Names,
        refusals: Refusals,
        key: Optional[bytes] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._names = names
        self._refusals = refusals
        self.key = key
        self.closed: Optional[str] = None
        self._clock = clock

    def check_address(self, request: web.Request) -> None:
        """Check that a request is addressed to this gateway, and that its page, if it is from one, may connect.

        Raises:
            NotAuthorised: the Host or the Origin is not allowed.
            GatewayUnavailable: every request is refused at the moment.
        """
        transport = request.transport
        came_to = None if transport is None else str(transport.get_extra_info("sockname")[0])
        host = request.headers.get("Host", "")
        if not self._names.has_host(host, came_to):
            self._refusals.note("host", f"the Host {quoted(host)} is not served here", host_option(host))
            raise NotAuthorised("this Host is not served here")
        for origin in request.headers.getall("Origin", []):
            if not self._names.allows(origin, came_to):
                self._refusals.note(
                    "origin", f"the Origin {quoted(origin)} is not allowed", origin_option(origin)
                )
                raise NotAuthorised("this Origin is not allowed")
        if self.closed is not None:
            raise GatewayUnavailable(self.closed, hint="try again later")

    def check(self, request: web.Request) -> Claims:
        """Check a request, and return what its token allows.

        Raises:
            BadToken: there is no token, or it is not valid.
            NotAuthorised: the Host or the Origin is not allowed; or tokens are not required and the request came
                through a proxy, so that the gateway cannot know who sent it.
            InvalidInput: there are several tokens, or the offered subprotocols lack ours.
        """
        self.check_address(request)
        tokens = _tokens(request)
        if self.key is None:
            if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers:
                reason = "without tokens, requests through a proxy are refused"
                self._refusals.note("proxy", f"{reason}: leave --no-auth out")
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

    def note_token(self, request: web.Request, reason: str) -> None:
        """Log that a token was refused: why, for which agent, and from where. Never the token."""
        agent = request.query.get("agent", "")
        self._refusals.note(
            "token",
            f"{reason} (agent {quoted(agent)}, from {request.remote})",
            "a token made by: ws-manager token <agent>",
        )


def _tokens(request: web.Request) -> list[str]:
    """Return every token that a request carries.

    Raises:
        InvalidInput: it offers subprotocols, and ours is not among them.
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
    # aiohttp reads only the first of these headers. If ours is not in it, aiohttp logs it, token included.
    first = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
    if SUBPROTOCOL not in [item.strip() for item in first.split(",")]:
        raise InvalidInput(f"the subprotocol here is {SUBPROTOCOL}", hint=f"offer {SUBPROTOCOL}, or none")
    return found
