"""`/v1/asyncapi.json`: the AsyncAPI 3.0 document of the agents' socket, and so of `ws_manager.protocol.frames`."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ws_manager.gateway.http.access import SUBPROTOCOL, TOKEN_PROTOCOL
from ws_manager.gateway.http.api.schemas import (
    BOOLEAN,
    CONTENT,
    COUNT,
    KEY,
    KNOWN_NAME,
    NAME,
    NUMBER,
    SEQ,
    TEXT,
    TRACEPARENT,
    Schema,
    optional,
    thing,
)
from ws_manager.gateway.http.handshake import MAX_HANDSHAKE_METADATA
from ws_manager.models import MOST_ATTEMPTS
from ws_manager.protocol.attempt_frames import LONGEST_REASON
from ws_manager.protocol.close_codes import MEANINGS, should_reconnect
from ws_manager.version import __version__


class Frame(NamedTuple):
    """One form of a frame.

    Attributes:
        kind: its `type`.
        summary: one line for the document.
        schema: of the JSON object that it holds.
        example: such an object.
    """

    kind: str
    summary: str
    schema: Schema
    example: dict[str, Any]


def _frame(
    kind: str, summary: str, required: dict[str, Schema], /, *, example: dict[str, Any], **more: Schema
) -> Frame:
    return Frame(
        kind, summary, thing({"type": {"const": kind}, **required}, **more), {"type": kind, **example}
    )


_REF: Schema = {"description": "the agent's own name of the request: any JSON value; its result has it too"}
_TRUE: Schema = {"const": True}
_FALSE: Schema = {"const": False}
_ERROR = thing({"code": TEXT, "message": TEXT})
_REASON: Schema = {"type": "string", "description": "why; 200 characters of it are kept"}
_FAILURE: Schema = {"type": "string", "description": f"why; {LONGEST_REASON:,} characters of it are kept"}
_ID = "6d5c0f0e-7f0b-4d1c-9b0a-0c6a5f8e2d31"

FROM_GATEWAY = {
    "connected": _frame(
        "connected",
        "The first frame.",
        {
            "ws_id": TEXT,
            "agent": TEXT,
            "resumed": {**BOOLEAN, "description": "whether the ws_id was there before"},
            "pending": {**COUNT, "description": "messages that wait for it, counted up to 1,000"},
            "seq": {**SEQ, "description": "of the last message that it has confirmed; 0 for none"},
            "heartbeat": {**NUMBER, "description": "seconds between the gateway's Pings"},
        },
        example={
            "ws_id": "ws-001", "agent": "octavia", "resumed": True, "pending": 2, "seq": 40, "heartbeat": 10.0
        },
    ),
    "message": _frame(
        "message",
        "A message.",
        {
            "seq": {**SEQ, "description": "it only grows within a connection, and promises nothing else"},
            "msg_id": TEXT,
            "msg_type": TEXT,
            "sender_id": {**optional(TEXT), "description": "the ws_id that has sent it; null for the system"},
            "recipient_id": TEXT,
            "broadcast_id": {**optional(TEXT), "description": "null if it is no part of a broadcast"},
            "sent_at": TEXT,
            "content": CONTENT,
        },
        traceparent={**TEXT, "description": "the sender's W3C trace context; left out if it gave none"},
        wants_reply={**_TRUE, "description": "its sender asks for an answer; otherwise it is left out"},
        reply_to={**TEXT, "description": "the msg_id of the ask that it answers; otherwise it is left out"},
        example={
            "seq": 41, "msg_id": _ID, "msg_type": "data", "sender_id": "ws-002", "recipient_id": "ws-001",
            "broadcast_id": None, "sent_at": "2026-01-31T12:00:00.000000+00:00", "content": {"task": "deploy"},
        },
    ),
    "sent": _frame(
        "result",
        "What the agent has asked to send is committed: a message, an ask or an answer.",
        {"ref": _REF, "ok": _TRUE, "msg_id": TEXT},
        example={"ref": 7, "ok": True, "msg_id": _ID},
    ),
    "broadcasted": _frame(
        "result",
        "A broadcast that the agent has asked for is committed.",
        {"ref": _REF, "ok": _TRUE, "broadcast_id": TEXT, "recipients": COUNT},
        example={"ref": 8, "ok": True, "broadcast_id": _ID, "recipients": 3},
    ),
    "attempt": _frame(
        "result",
        "What a worker has said of an attempt is committed.",
        {
            "ref": _REF,
            "ok": _TRUE,
            "attempt": {**COUNT, "description": "its number, from 1 on"},
            "set_aside": {**BOOLEAN, "description": "whether the message is set aside: it was the last attempt"},
        },
        example={"ref": 9, "ok": True, "attempt": 1, "set_aside": False},
    ),
    "count": _frame(
        "result",
        "How many messages are pending for the agent's connection.",
        {"ref": _REF, "ok": _TRUE, "pending": {**COUNT, "description": "counted up to 1,000"}},
        example={"ref": 11, "ok": True, "pending": 0},
    ),
    "refused": _frame(
        "result",
        "A request could not be done, and nothing was sent.",
        {"ref": _REF, "ok": _FALSE, "error": _ERROR},
        example={
            "ref": 7, "ok": False, "error": {"code": "not_found", "message": "no active connection ws-002"}
        },
    ),
    "error": _frame(
        "error",
        "A frame of the agent could not be processed, and the socket stays open.",
        {"error": _ERROR},
        example={"error": {"code": "conflict", "message": "message 41 is not in flight"}},
    ),
}  # fmt: skip
"""Every form of a frame that a gateway sends."""

FROM_AGENT = {
    "send": _frame(
        "send",
        "Send to one connection, in the name of this one. The token needs the scope `send`.",
        {"to": KNOWN_NAME, "content": CONTENT},
        ref=_REF,
        msg_type={**NAME, "default": "data"},
        key={**optional(KEY), "description": "the same key for the same request does it once, for a day"},
        traceparent=TRACEPARENT,
        example={"ref": 7, "to": "ws-002", "content": {"task": "deploy"}},
    ),
    "broadcast": _frame(
        "broadcast",
        "Send to all active connections, this one included. The token needs the scope `broadcast`.",
        {"content": CONTENT},
        ref=_REF,
        agent={**optional(KNOWN_NAME), "description": "only to this agent's connections"},
        msg_type={**NAME, "default": "broadcast"},
        key={**optional(KEY), "description": "the same key for the same request does it once, for a day"},
        traceparent=TRACEPARENT,
        example={"ref": 8, "agent": "cipher", "content": "hello"},
    ),
    "ask": _frame(
        "ask",
        "Ask a connection, or an agent: its connection that was heard last. The token needs the scope `send`.",
        {"to": KNOWN_NAME, "content": CONTENT},
        ref=_REF,
        msg_type={**NAME, "default": "data"},
        key={**optional(KEY), "description": "the same key for the same request does it once, for a day"},
        traceparent=TRACEPARENT,
        example={"ref": 11, "to": "octavia", "content": {"task": "status"}},
    ),
    "reply": _frame(
        "reply",
        "Answer a message that has `wants_reply`. This confirms it, and no other; both are done with the result.",
        {"seq": SEQ, "content": CONTENT},
        ref=_REF,
        example={"ref": 12, "seq": 41, "content": {"up": True}},
    ),
    "ack": _frame(
        "ack",
        "Everything up to `seq` is processed. Only with `ack=explicit`.",
        {"seq": SEQ},
        example={"seq": 41},
    ),
    "reject": _frame(
        "reject",
        "This message cannot be taken: it is set aside, and the others go on. Only with `ack=explicit`.",
        {"seq": SEQ},
        reason=_REASON,
        example={"seq": 41, "reason": "no such task"},
    ),
    "started": _frame(
        "started",
        "A worker begins this message once the result has come. Only with `max_attempts`.",
        {"seq": SEQ},
        ref=_REF,
        example={"ref": 9, "seq": 41},
    ),
    "pending": _frame(
        "pending",
        "How many messages wait for this connection's confirmation?",
        {},
        ref=_REF,
        example={"ref": 11},
    ),
    "failed": _frame(
        "failed",
        "This attempt has failed. The last one sets the message aside. Only with `max_attempts`.",
        {"seq": SEQ},
        ref=_REF,
        reason=_FAILURE,
        example={"ref": 10, "seq": 41, "reason": "exit code 1: no such task"},
    ),
}
"""Every form of a frame that an agent may send."""

QUERY = thing(
    {"agent": {**NAME, "description": "the agent's name"}},
    ws_id={**NAME, "description": "the connection to open, or to resume; a new one if it is left out"},
    metadata={
        "type": "string",
        "contentMediaType": "application/json",
        "description": f"a JSON object, at most {MAX_HANDSHAKE_METADATA} bytes; left out, what is there stays",
    },
    ack={
        "enum": ["pong", "explicit"],
        "default": "pong",
        "description": "what confirms messages: the Pong behind them, or only the agent's frames `ack` and `reject`",
    },
    max_attempts={
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_ATTEMPTS,
        "description": "a message is set aside after this number of attempts; needs `worker` and `ack=explicit`",
    },
    worker={
        **NAME,
        "description": "the worker's process: the same name whenever it comes back; needs `max_attempts`",
    },
    access_token={**TEXT, "description": "the token; addresses end up in logs, so prefer the header"},
)
"""The parameters of the handshake."""

_SOCKET = f"""Each frame is a text frame (RFC 6455) that holds one JSON object. The token goes into the header \
`Authorization`, into the parameter `access_token`, or into a subprotocol: offer `{SUBPROTOCOL}` and \
`{TOKEN_PROTOCOL}<token>`; `{SUBPROTOCOL}` is selected. The gateway's Pings come at least every `heartbeat` \
seconds, and right behind messages: without `ack=explicit`, the Pong that answers such a Ping confirms them."""


def document(url: str) -> dict[str, Any]:
    """Return the document. `url` is the gateway's base address."""
    address = urlsplit(url)
    frames = {**FROM_GATEWAY, **FROM_AGENT}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ws-manager: the agents' socket",
            "version": __version__,
            "description": "Agents get messages here, confirm them, and send their own.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {
                "host": address.netloc,
                "protocol": "wss" if address.scheme == "https" else "ws",
                "security": [
                    {"$ref": f"#/components/securitySchemes/{name}"} for name in ("header", "parameter")
                ],
            }
        },
        "channels": {
            "socket": {
                "address": "/ws",
                "description": _SOCKET,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in frames},
                "bindings": {"ws": {"method": "GET", "query": QUERY, "bindingVersion": "0.1.0"}},
                "x-close-codes": [
                    {"code": int(code), "meaning": meaning, "reconnect": should_reconnect(code)}
                    for code, meaning in MEANINGS.items()
                ],
            }
        },
        "operations": _operations(),
        "components": {
            "messages": {name: _message(frame) for name, frame in frames.items()},
            "securitySchemes": {
                "header": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "parameter": {"type": "httpApiKey", "name": "access_token", "in": "query"},
            },
        },
    }


def _operations() -> dict[str, Any]:
    """Return the operations. They are named from the gateway's side: it receives what an agent sends."""
    return {
        "deliver": {
            "action": "send",
            "summary": "The gateway greets the agent, and delivers messages.",
            **_messages("connected", "message", "error"),
        },
        "request": {
            "action": "receive",
            "summary": "The agent sends in its own name. Each request gets one result.",
            **_messages("send", "broadcast", "ask"),
            "reply": _messages("sent", "broadcasted", "refused"),
        },
        "work": {
            "action": "receive",
            "summary": "With `max_attempts`, a worker tells of its attempts. Each request gets one result.",
            **_messages("started", "failed"),
            "reply": _messages("attempt", "refused"),
        },
        "answer": {
            "action": "receive",
            "summary": "The agent answers an ask. Each request gets one result.",
            **_messages("reply"),
            "reply": _messages("sent", "refused"),
        },
        "count": {
            "action": "receive",
            "summary": "An agent that ends when nothing is left to do asks whether anything is pending.",
            **_messages("pending"),
            "reply": _messages("count", "refused"),
        },
        "settle": {
            "action": "receive",
            "summary": "With `ack=explicit`, the agent confirms messages, or rejects one.",
            **_messages("ack", "reject"),
        },
    }


def _messages(*names: str) -> dict[str, Any]:
    channel = "#/channels/socket"
    return {
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in names],
    }


def _message(frame: Frame) -> dict[str, Any]:
    named = (
        {"correlationId": {"location": "$message.payload#/ref"}}
        if "ref" in frame.schema["properties"]
        else {}
    )
    return {
        "name": frame.kind,
        "summary": frame.summary,
        "payload": frame.schema,
        "examples": [{"payload": frame.example}],
        **named,
    }
