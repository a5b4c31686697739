"""The HTTP answer to an error: status, headers, and a hint for a remote caller."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Optional

from aiohttp import web
from aiohttp.typedefs import Handler

from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    KeyReused,
    LedgerError,
    MissingExtra,
    NotAuthorised,
    NotFound,
    TooLarge,
    WsManagerError,
)
from ws_manager.gateway.http.access import BadToken
from ws_manager.gateway.http.bodies import TooLate
from ws_manager.gateway.quotas import TooFast
from ws_manager.remedies import MAKE_TOKEN, UNBAR


class Unusable(InvalidInput):
    """A value is of the right form, and cannot be used: HTTP 422 (RFC 9110 section 15.5.21)."""


_STATUS = {
    BadToken: 401,
    NotAuthorised: 403,
    TooLarge: 413,
    Unusable: 422,
    InvalidInput: 400,
    NotFound: 404,
    KeyReused: 422,
    Conflict: 409,
    LedgerError: 503,
    TooFast: 429,
    TooLate: 408,
    GatewayUnavailable: 503,
    MissingExtra: 503,
}

_HINTS = {
    MAKE_TOKEN: "ask the operator of this gateway for one",
    UNBAR: "do not come back, unless an operator lets the agent in again",
}
"""Hints for remote callers, by the codes of `ws_manager.remedies`. Other remedies are for operators only."""


def hint_of(error: WsManagerError) -> Optional[str]:
    """Return what a remote caller can do next; None if only an operator can do something."""
    if isinstance(error, LedgerError):
        return None
    return error.hint if error.remedy is None else _HINTS.get(error.remedy)


def error_response(error: WsManagerError, status: Optional[int] = None) -> web.Response:
    """Return the HTTP answer to an error, as RFC 9457 has it. Its message never names the ledger's file.

    Args:
        error: what happened.
        status: the HTTP status; None for that of the error's kind.
    """
    if status is None:
        status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"Retry-After": "1"} if status == 503 else {}
    if isinstance(error, TooFast):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    if isinstance(error, BadToken):
        headers["WWW-Authenticate"] = error.challenge
    # Codes, for a reader that has its own words for them: our command line has.
    members = {"param": getattr(error, "param", None)}
    if not isinstance(error, LedgerError):
        members |= {"remedy": error.remedy, "about": error.about}
    return problem(status, error.code, error.public_message, hint_of(error), members, headers)


def problem(
    status: int,
    code: str,
    detail: str,
    hint: Optional[str] = None,
    members: Optional[Mapping[str, Optional[str]]] = None,
    headers: Optional[Mapping[str, str]] = None,
) -> web.Response:
    """Return the HTTP answer for what went wrong (RFC 9457).

    Args:
        status: HTTP status.
        code: one of `ws_manager.errors`.
        detail: one line that says what happened.
        hint: what a remote caller can do next.
        members: further members; None leaves one out. `param` is the parameter, or the member of the body, that
            cannot be accepted; `remedy` is a code of `ws_manager.remedies`, `about` what it is about.
        headers: further headers.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "hint": hint,
        **{name: value for name, value in (members or {}).items() if value is not None},
    }
    text = json.dumps(body, ensure_ascii=False)
    return web.Response(text=text, status=status, headers=headers, content_type="application/problem+json")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a path or a method that does not exist as a problem too (RFC 9457)."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return problem(404, NotFound.code, "there is no such path")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{error.method} is not allowed here"
        return problem(405, InvalidInput.code, detail, f"use {allowed}", headers={"Allow": allowed})
