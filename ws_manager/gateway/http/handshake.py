"""A handshake's pieces: what the query says, the socket's settings, and the answer to one that is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

from aiohttp import web

from ws_manager.errors import (
    InvalidInput,
)
from ws_manager.gateway.http.access import SUBPROTOCOL
from ws_manager.strict_json import Json, checked_object

MAX_HANDSHAKE_METADATA = 4 * 1024
"""Bytes of metadata in an address; those have to fit into one line of HTTP."""


class HandshakeQuery(NamedTuple):
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


def parse_query(query: Mapping[str, str]) -> HandshakeQuery:
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
        return HandshakeQuery(agent, query.get("ws_id"), None, ack == "explicit")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_HANDSHAKE_METADATA:
        raise InvalidInput(f"metadata at the handshake is limited to {MAX_HANDSHAKE_METADATA} bytes")
    return HandshakeQuery(agent, query.get("ws_id"), checked_object(text, "metadata"), ack == "explicit")
