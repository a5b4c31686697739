"""The query of a handshake, and the settings of its WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

from aiohttp import web

from ws_manager.errors import InvalidInput
from ws_manager.gateway.http.access import SUBPROTOCOL
from ws_manager.strict_json import Json, checked_object

MAX_HANDSHAKE_METADATA = 4 * 1024
"""Largest number of bytes of metadata in a query: the request line has to hold them."""


class HandshakeQuery(NamedTuple):
    """The parameters of `GET /ws`.

    Attributes:
        agent: the agent's name, not checked.
        ws_id: the connection to create or resume, not checked; None lets the gateway choose one.
        metadata: metadata of the registration; None keeps what is stored.
        explicit_ack: True if only the agent's acks confirm messages.
    """

    agent: str
    ws_id: Optional[str]
    metadata: Optional[Json]
    explicit_ack: bool


def new_websocket(frame_bytes: int) -> web.WebSocketResponse:
    """Return the server's side of a WebSocket.

    Compression (RFC 7692) is never negotiated, because the peer decides how much memory it takes.

    Args:
        frame_bytes: largest message that is accepted. aiohttp reads messages of up to four times this size to their
            end, because a peer that is still sending does not read the Close frame. It cuts larger ones off.
    """
    return web.WebSocketResponse(
        protocols=(SUBPROTOCOL,),
        autoping=False,
        # AgentSocket closes by itself, because what a peer confirms between the two Close frames counts.
        autoclose=False,
        heartbeat=None,
        compress=False,
        max_msg_size=4 * frame_bytes,
        timeout=2.0,
    )


def parse_query(query: Mapping[str, str]) -> HandshakeQuery:
    """Read the query of `/ws`.

    Raises:
        InvalidInput: the agent is missing, or a parameter cannot be accepted.
    """
    agent = query.get("agent")
    if agent is None:
        raise InvalidInput("no agent given", hint="connect to /ws?agent=NAME")
    ack = query.get("ack", "pong")
    if ack not in ("pong", "explicit"):
        raise InvalidInput("ack is neither pong nor explicit")
    text = query.get("metadata")
    if text is None:
        return HandshakeQuery(agent, query.get("ws_id"), None, ack == "explicit")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_HANDSHAKE_METADATA:
        raise InvalidInput(f"metadata at the handshake is limited to {MAX_HANDSHAKE_METADATA} bytes")
    return HandshakeQuery(agent, query.get("ws_id"), checked_object(text, "metadata"), ack == "explicit")
