"""The errors that a gateway's refusals become."""

from __future__ import annotations

import aiohttp

from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    LedgerBusy,
    LedgerError,
    NotAuthorised,
    NotFound,
    WsManagerError,
)
from ws_manager.protocol.frames import Failure

_ERRORS: dict[str, type[WsManagerError]] = {
    kind.code: kind for kind in (InvalidInput, NotFound, Conflict, NotAuthorised, LedgerBusy, LedgerError)
}


def failed(failure: Failure) -> WsManagerError:
    """Return the error for a request that the gateway answered with a failure."""
    return _ERRORS.get(failure.code, WsManagerError)(failure.message)


def untrusted(error: aiohttp.ClientConnectorCertificateError, url: str) -> GatewayUnavailable:
    """Return the error for a gateway whose certificate cannot be verified.

    Args:
        error: what aiohttp raises.
        url: the gateway's base address.
    """
    cause = error.certificate_error
    return GatewayUnavailable(
        f"the certificate of {url} is not to be trusted: {getattr(cause, 'verify_message', '') or cause}",
        hint="give the certificate of its authority with --ca, or use the name that it is for",
    )


def refused(error: aiohttp.WSServerHandshakeError, url: str) -> WsManagerError:
    """Return the error for a handshake that was answered with an HTTP status.

    Args:
        error: what aiohttp raises.
        url: the gateway's base address.
    """
    if error.status == 401:
        return NotAuthorised(
            f"{url} asks for a valid token (401)",
            hint="on its machine, ws-manager token <agent> prints one; give it with --token-file",
        )
    if error.status == 403:
        return NotAuthorised(
            f"{url} refuses this agent (403)",
            hint="check the token's agent, ws_id and scope: ws-manager token --inspect; and the address",
        )
    if error.status == 409:
        return Conflict("the ws_id belongs to another agent", hint="use another --ws-id")
    if error.status == 400:
        return InvalidInput(f"{url} cannot accept this agent's name, ws_id or metadata")
    return GatewayUnavailable(f"{url} answered {error.status}", hint="check --url")
