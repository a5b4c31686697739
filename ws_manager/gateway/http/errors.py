"""The HTTP answer to an error: status, headers, and a hint for a remote caller."""

from __future__ import annotations

import math
from typing import Optional

from aiohttp import web

from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    LedgerError,
    MissingExtra,
    NotAuthorised,
    WsManagerError,
)
from ws_manager.gateway.http.access import BadToken
from ws_manager.gateway.http.bodies import TooLate
from ws_manager.gateway.quotas import TooFast
from ws_manager.remedies import MAKE_TOKEN

_STATUS = {
    BadToken: 401,
    NotAuthorised: 403,
    InvalidInput: 400,
    Conflict: 409,
    LedgerError: 503,
    TooFast: 429,
    TooLate: 408,
    GatewayUnavailable: 503,
    MissingExtra: 503,
}

_HINTS = {MAKE_TOKEN: "ask the operator of this gateway for one"}
"""Hints for remote callers, by the codes of `ws_manager.remedies`. Other remedies are for operators only."""


def hint_of(error: WsManagerError) -> Optional[str]:
    """Return what a remote caller can do next; None if only an operator can do something."""
    if isinstance(error, LedgerError):
        return None
    return error.hint if error.remedy is None else _HINTS.get(error.remedy)


def error_response(error: WsManagerError) -> web.Response:
    """Return the HTTP answer to an error. Its message never names the ledger's file."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"Retry-After": "1"} if status == 503 else {}
    if isinstance(error, TooFast):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    if isinstance(error, BadToken):
        headers["WWW-Authenticate"] = error.challenge
    return web.json_response(
        {"error": {"code": error.code, "message": error.public_message, "hint": hint_of(error)}},
        status=status,
        headers=headers,
    )
