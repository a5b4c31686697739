"""The query of a handshake, and the answer to it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha1
from typing import NamedTuple, Optional

from aiohttp import hdrs, web

from ws_manager.core.attempts import worker_of
from ws_manager.errors import InvalidInput
from ws_manager.gateway.http.access import SUBPROTOCOL
from ws_manager.models import MessageWorker
from ws_manager.strict_json import Json, checked_object

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What makes a key's answer one that only a WebSocket server gives (RFC 6455 section 1.3)."""

MAX_HANDSHAKE_METADATA = 4 * 1024
"""Largest number of bytes of metadata in a query: the request line has to hold them."""


class HandshakeQuery(NamedTuple):
    """The parameters of `GET /ws`.

    Attributes:
        agent: the agent's name, not checked.
        ws_id: the connection to create or resume, not checked; None lets the gateway choose one.
        metadata: metadata of the registration; None keeps what is stored.
        explicit_ack: True if only the agent's acks confirm messages.
        worker: the process that works on the messages, if it counts attempts.
    """

    agent: str
    ws_id: Optional[str]
    metadata: Optional[Json]
    explicit_ack: bool
    worker: Optional[MessageWorker] = None


def switched(request: web.Request) -> web.StreamResponse:
    """Return the answer to a handshake that is accepted, 101 (RFC 6455 section 4.2.2).

    No extension is negotiated: with compression (RFC 7692) the peer decides how much memory it takes.

    Raises:
        InvalidInput: it is not a handshake.
    """
    # aiohttp checks the headers. It reads no frame: see `ws_manager.protocol.frame_reader`.
    offered = web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request)
    if not offered.ok:
        raise InvalidInput("this address speaks WebSocket", hint="connect with a WebSocket client")
    key = request.headers[hdrs.SEC_WEBSOCKET_KEY].strip().encode()
    headers = {
        hdrs.UPGRADE: "websocket",
        hdrs.CONNECTION: "Upgrade",
        hdrs.SEC_WEBSOCKET_ACCEPT: b64encode(sha1(key + _GUID).digest()).decode(),  # noqa: S324 - the RFC's choice
    }
    if offered.protocol is not None:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = offered.protocol
    answer = web.StreamResponse(status=101, headers=headers)
    answer.force_close()
    return answer


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
    explicit, worker = ack == "explicit", _worker(query)
    if worker is not None and not explicit:
        raise InvalidInput("attempts are counted for explicit acks only", hint="connect with ack=explicit")
    text = query.get("metadata")
    if text is None:
        return HandshakeQuery(agent, query.get("ws_id"), None, explicit, worker)
    if len(text.encode("utf-8", "surrogateescape")) > MAX_HANDSHAKE_METADATA:
        raise InvalidInput(f"metadata at the handshake is limited to {MAX_HANDSHAKE_METADATA} bytes")
    return HandshakeQuery(agent, query.get("ws_id"), checked_object(text, "metadata"), explicit, worker)


def _worker(query: Mapping[str, str]) -> Optional[MessageWorker]:
    most = query.get("max_attempts")
    if most is not None and not (most.isascii() and most.isdigit() and len(most) <= 3):
        raise InvalidInput("max_attempts is not a number")
    return worker_of(query.get("worker"), None if most is None else int(most))
