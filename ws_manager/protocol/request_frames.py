"""The frames with which an agent sends to others, in its own name. Each is a request, and gets a result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

from ws_manager.strict_json import Json, encode


@dataclass(frozen=True)
class SendRequest:
    """The agent sends to one connection, or asks.

    Attributes:
        ref: its own name of the request: any JSON text.
        to: the recipient's ws_id.
        content: compact JSON text.
        msg_type: a label.
        key: with one, the same request is done once, however often it comes: see `ws_manager.core.once`.
        traceparent: the W3C trace context, which the recipient gets.
        asks: whether it wants an answer. Then `to` may also be an agent: see `ws_manager.core.asks`.
    """

    ref: str
    to: str
    content: Json
    msg_type: str
    key: Optional[str] = None
    traceparent: Optional[str] = None
    asks: bool = False


@dataclass(frozen=True)
class BroadcastRequest:
    """The agent sends to all active connections, or to those of one agent; other fields as in `SendRequest`."""

    ref: str
    agent: Optional[str]
    content: Json
    msg_type: str
    key: Optional[str] = None
    traceparent: Optional[str] = None


def send_frame(
    ref: int,
    to: str,
    content: object,
    msg_type: str,
    key: Optional[str] = None,
    traceparent: Optional[str] = None,
    kind: str = "send",
) -> str:
    """Write a request to send to one connection, or with the kind `ask` to ask; see `SendRequest`.

    The gateway checks the traceparent.

    Raises:
        InvalidInput: the content is not JSON, or exceeds the limits of `strict_json`.
    """
    frame = {"type": kind, "ref": ref, "to": to, "msg_type": msg_type}
    return _with_content(frame, content, key, traceparent)


def broadcast_frame(
    ref: int,
    agent: Optional[str],
    content: object,
    msg_type: str,
    key: Optional[str] = None,
    traceparent: Optional[str] = None,
) -> str:
    """Write a request to send to all connections, or to those of one agent. It raises what `send_frame` raises."""
    frame = {"type": "broadcast", "ref": ref, "agent": agent, "msg_type": msg_type}
    return _with_content(frame, content, key, traceparent)


def _with_content(
    frame: dict[str, Any], content: object, key: Optional[str], traceparent: Optional[str]
) -> str:
    given = {"key": key, "traceparent": traceparent}
    frame.update((name, value) for name, value in given.items() if value is not None)
    start = json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
    return f'{start[:-1]},"content":{encode(content, "message")}}}'
