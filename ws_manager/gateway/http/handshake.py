"""A handshake's pieces: what the query says, the socket's settings, and the answer to one that is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Optional

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
from ws_manager.gateway.http.access import SUBPROTOCOL, BadToken
from ws_manager.gateway.http.bodies import TooLate
from ws_manager.gateway.quotas import TooFast
from ws_manager.strict_json import Json, checked_object

MAX_HANDSHAKE_METADATA = 4 * 1024
"""Bytes of metadata in an address; those have to fit into one line of HTTP."""

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


class Asked(NamedTuple):
    """What an agent asks for in the query of its address.

    Attributes:
        agent: its name, unchecked.
        ws_id: the connection to be or to resume, unchecked; None for a new one.
        metadata: for the registration; None keeps what is there.
        explicit_ack: True if only its own acks are to confirm.
    """

    agent: str
    ws_id: Optional[str]
    metadata: Optional[Json]
    explicit_ack: bool


def new_websocket(frame_bytes: int) -> web.WebSocketResponse:
    """Make the server's side of a socket.

    No compression is negotiated, whatever a client offers (RFC 7692): its memory is a peer's to choose.

    Args:
        frame_bytes: the largest message that is taken. aiohttp reads up to four times as many to their end, because a
            close in the middle of one would be lost on its peer; what is larger than that is cut off.
    """
    return web.WebSocketResponse(
        protocols=(SUBPROTOCOL,),
        autoping=False,
        # What a peer confirms between our close frame and its own counts: the socket closes itself.
        autoclose=False,
        heartbeat=None,
        compress=False,
        max_msg_size=4 * frame_bytes,
        timeout=2.0,
    )


def parse_query(query: Mapping[str, str]) -> Asked:
    """Read the query of `/ws`.

    Raises:
        InvalidInput: there is no agent, or a parameter cannot be accepted.
    """
    agent = query.get("agent")
    if agent is None:
        raise InvalidInput("no agent given", hint="connect to /ws?agent=NAME")
    ack = query.get("ack", "pong")
    if ack not in ("pong", "explicit"):
        raise InvalidInput("ack is neither pong nor explicit")
    text = query.get("metadata")
    if text is None:
        return Asked(agent, query.get("ws_id"), None, ack == "explicit")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_HANDSHAKE_METADATA:
        raise InvalidInput(f"metadata at the handshake is limited to {MAX_HANDSHAKE_METADATA} bytes")
    return Asked(agent, query.get("ws_id"), checked_object(text, "metadata"), ack == "explicit")


def told_to_agents(error: WsManagerError) -> str:
    """Return what an error says to those who are not to learn where the database is."""
    return error.cause if isinstance(error, LedgerError) else error.message


def refusal(error: WsManagerError) -> web.Response:
    """Return the HTTP answer for a request that is refused."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"Retry-After": "1"} if status == 503 else {}
    if isinstance(error, TooFast):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    if isinstance(error, BadToken):
        headers["WWW-Authenticate"] = error.challenge
    hint = None if isinstance(error, LedgerError) else error.hint
    return web.json_response(
        {"error": {"code": error.code, "message": told_to_agents(error), "hint": hint}},
        status=status,
        headers=headers,
    )
