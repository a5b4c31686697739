"""Who may talk to the gateway, decided before anything else is looked at.

First `Host` and `Origin` (`ws_manager.gateway.http.names`), then the token: in the `Authorization` header, the query,
or, because a page can set neither a header nor hide a query from logs on the way, as a WebSocket subprotocol. What is
refused leaves a line in the log that says which option would let it in; a token itself never does.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Callable, Optional

import aiohttp
from aiohttp import hdrs, web

from ws_manager.errors import GatewayUnavailable, InvalidInput, NotAuthorised
from ws_manager.gateway.http.names import Names, host_option, origin_option
from ws_manager.gateway.refusal_log import RefusalLog, quoted
from ws_manager.remedies import MAKE_TOKEN
from ws_manager.tokens import EVERYTHING, Claims, verify

SUBPROTOCOL = "ws-manager.v1"
"""The only subprotocol (RFC 6455 section 1.9) that is ever selected."""

TOKEN_PROTOCOL = "bearer."  # noqa: S105 - a prefix
"""What a subprotocol that carries a token begins with. It is never selected, so the token is never echoed."""

_SAFE_AIOHTTP = (3, 14, 3)


class BadToken(NotAuthorised):
    """There is no token, or it is not valid: HTTP 401, where other refusals of this kind are 403.

    Attributes:
        challenge: the `WWW-Authenticate` header of the answer (RFC 6750 section 3).
    """

    challenge = 'Bearer error="invalid_token"'


class NoToken(BadToken):
    """There is no token at all; RFC 6750 section 3.1 has no error code for that."""

    challenge = "Bearer"


def is_loopback(host: str) -> bool:
    """Say whether a bind address reaches this machine alone. A name other than `localhost` counts as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(host: str, *, tokens: bool, aiohttp_version: str = aiohttp.__version__) -> None:
    """Refuse to bind an address that strangers reach where they could do harm.

    Args:
        host: the address to bind.
        tokens: whether tokens are asked for.
        aiohttp_version: of the installed aiohttp.

    Raises:
        InvalidInput: it is no loopback address, and there are no tokens, or aiohttp has known holes
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
    """The check of every request.

    Args:
        names: under which the gateway may be addressed, and from which pages.
        refusal_log: notes what is refused.
        key: that signs tokens; None asks for no tokens.
        clock: the time of day, in seconds since 1970.

    Attributes:
        key: as above; it may come later than the rest.
        closed: why nobody is let in for the moment; None where they are.
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

    def check_address(self, request: web.Request) -> None:
        """Let a request pass that addresses this gateway, from a page that may do so or from no page.

        Raises:
            NotAuthorised: a foreign Host or Origin.
            GatewayUnavailable: nobody is let in for the moment.
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
        if self.closed is not None:
            raise GatewayUnavailable(self.closed, hint="try again later")

    def check(self, request: web.Request) -> Claims:
        """Let a request pass, and return what its token allows, or raise.

        Raises:
            BadToken: no token, or one that is not valid.
            NotAuthorised: a foreign Host or Origin; or, where no tokens are asked for, a request that came
                through a proxy: the gateway cannot know who is behind it.
            InvalidInput: several tokens, or subprotocols without ours.
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

    def note_token(self, request: web.Request, reason: str) -> None:
        """Note that a token was refused: why, who asked and from where. Never the token."""
        agent = request.query.get("agent", "")
        self._refusal_log.note(
            "token",
            f"{reason} (agent {quoted(agent)}, from {request.remote})",
            "a token made by: ws-manager token <agent>",
        )


def _tokens(request: web.Request) -> list[str]:
    """Return every token that a request carries.

    Raises:
        InvalidInput: it offers subprotocols, and not ours.
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
    # aiohttp looks at the first of these headers alone, and logs it, token and all, if nothing in it is ours.
    first = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
    if SUBPROTOCOL not in [item.strip() for item in first.split(",")]:
        raise InvalidInput(f"the subprotocol here is {SUBPROTOCOL}", hint=f"offer {SUBPROTOCOL}, or none")
    return found
