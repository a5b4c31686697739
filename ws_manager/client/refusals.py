"""The errors for a gateway's refusals, and for what stands between the agent and the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Optional

import aiohttp

from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    KeyReused,
    LedgerBusy,
    LedgerError,
    MissingExtra,
    NotAuthorised,
    NotFound,
    WsManagerError,
)
from ws_manager.protocol.close_codes import CloseCode, should_reconnect
from ws_manager.protocol.frames import Failure
from ws_manager.remedies import CHECK_TOKEN, CHECK_URL, CHECK_URL_AND_PROXY, CHOOSE_WS_ID, GIVE_CA, GIVE_TOKEN

_ERRORS: dict[str, type[WsManagerError]] = {
    kind.code: kind
    for kind in (InvalidInput, NotFound, Conflict, KeyReused, NotAuthorised, LedgerBusy, LedgerError)
}
_CODES = {*_ERRORS, WsManagerError.code, GatewayUnavailable.code, MissingExtra.code}
_LONGEST = 16 * 1024


class Refused(Exception):
    """A handshake was answered with an HTTP status.

    Attributes:
        status: of the answer.
        message: the gateway's message; None if the answer is not a gateway's.
    """

    def __init__(self, status: int, message: Optional[str]) -> None:
        super().__init__(status)
        self.status = status
        self.message = message


async def read_refusals(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Read answers that open no socket: a middleware of aiohttp's client, which does not read their bodies.

    Raises:
        Refused: it is one.
    """
    response = await handler(request)
    if response.status < 400:
        return response
    try:
        body = await response.content.readexactly(_LONGEST)
    except asyncio.IncompleteReadError as whole:
        body = whole.partial
    finally:
        response.close()
    raise Refused(response.status, _told(body))


def _told(body: bytes) -> Optional[str]:
    """Return the message of a gateway's refusal; None where the body is not of that form."""
    try:
        problem = json.loads(body)
        code, message = problem["code"], problem["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return message if isinstance(message, str) and isinstance(code, str) and code in _CODES else None


def failed(failure: Failure) -> WsManagerError:
    """Return the error for a request that the gateway answered with a failure."""
    return _ERRORS.get(failure.code, WsManagerError)(failure.message)


def terminal(code: int, cause: str, *, renewable: bool) -> Optional[WsManagerError]:
    """Return the error for a socket after whose end the agent must not come back; None if it should.

    Args:
        code: the close code.
        cause: why it was closed, in words.
        renewable: the agent can get another token.
    """
    closed = f"the gateway closed the connection: {cause}"
    if code == CloseCode.BARRED:
        return NotAuthorised(closed)
    if code == CloseCode.TOKEN_EXPIRED and not renewable:
        return NotAuthorised(closed, remedy=GIVE_TOKEN)
    if code == CloseCode.TOO_LARGE:
        return InvalidInput(
            closed,
            hint="a frame of an agent has at most 64 KiB, unless its gateway takes more: send less at once",
        )
    return None if should_reconnect(code) else Conflict(closed)


def untrusted(error: aiohttp.ClientConnectorCertificateError, url: str) -> GatewayUnavailable:
    """Return the error for a gateway whose certificate cannot be verified.

    Args:
        error: what aiohttp raises.
        url: the gateway's base address.
    """
    cause = error.certificate_error
    return GatewayUnavailable(
        f"the certificate of {url} is not to be trusted: {getattr(cause, 'verify_message', '') or cause}",
        remedy=GIVE_CA,
    )


def refused(answer: Refused, url: str) -> WsManagerError:
    """Return the error for a handshake that was answered with an HTTP status.

    Args:
        answer: the answer. One that is not a gateway's comes from a proxy, or from what runs before the gateway
            does: it says nothing about the agent, which tries again.
        url: the gateway's base address.
    """
    if answer.message is None:
        return GatewayUnavailable(
            f"{url} answered {answer.status}, and not as a gateway does",
            remedy=CHECK_URL_AND_PROXY,
        )
    if answer.status == 401:
        return NotAuthorised(
            f"{url} asks for a valid token (401)",
            remedy=GIVE_TOKEN,
        )
    if answer.status == 403:
        return NotAuthorised(
            f"{url} refuses this agent (403): {answer.message}",
            remedy=CHECK_TOKEN,
        )
    if answer.status == 409:
        return Conflict("the ws_id belongs to another agent", remedy=CHOOSE_WS_ID)
    if answer.status == 400:
        return InvalidInput(f"{url} cannot accept this agent's name, ws_id or metadata")
    return GatewayUnavailable(f"{url} answered {answer.status}: {answer.message}", remedy=CHECK_URL)
