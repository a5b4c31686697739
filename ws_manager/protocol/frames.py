"""The frames of agent protocol v1: writes and parses them. Each is a text frame that holds one JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Optional, Union

from ws_manager.errors import InvalidInput
from ws_manager.models import PendingMessage
from ws_manager.protocol.ask_frames import ReplyRequest, asking_members
from ws_manager.protocol.attempt_frames import LONGEST_REASON, CountPending, Failed, Started
from ws_manager.protocol.members import field_of, given_text, optional_text, reason_of, seq_of, text_of
from ws_manager.protocol.request_frames import BroadcastRequest, SendRequest
from ws_manager.strict_json import BEYOND_LIMITS, Json, NotJson, compact, decode_json, members

# Gateway to agent


def connected_frame(
    *, ws_id: str, agent: str, resumed: bool, pending: int, seq: int, heartbeat: float
) -> str:
    """Write the greeting.

    Args:
        ws_id: the connection.
        agent: its agent.
        resumed: True if the ws_id existed before.
        pending: the number of its pending messages, counted up to 1,000.
        seq: the highest seq that it has confirmed.
        heartbeat: seconds between the gateway's Pings.
    """
    return _dump(
        {
            "type": "connected",
            "ws_id": ws_id,
            "agent": agent,
            "resumed": resumed,
            "pending": pending,
            "seq": seq,
            "heartbeat": heartbeat,
        }
    )


def message_start(message: PendingMessage) -> bytes:
    """Write the part of a message's frame that only its recipient gets, in UTF-8. `message_tail` follows."""
    return b'{"type":"message","seq":%d,"msg_id":"%b","recipient_id":%b,' % (
        message.seq,
        message.msg_id.encode(),
        _quoted_recipient(message.recipient_id),
    )


def message_tail(message: PendingMessage) -> bytes:
    """Write the part of a message's frame that all recipients of a broadcast get, in UTF-8.

    Its content is JSON text and is inserted unchanged. A member that says nothing is left out: the
    traceparent, and those of asks and answers.
    """
    trace = "" if message.traceparent is None else f'"traceparent":{json.dumps(message.traceparent)},'
    asking = asking_members(message) if message.wants_reply or message.reply_to else ""
    return (
        f'"msg_type":{_quoted(message.msg_type)},"sender_id":{_quoted(message.sender_id)},'
        f'"broadcast_id":{_quoted(message.broadcast_id)},"sent_at":"{message.sent_at}",'
        f'{trace}{asking}"content":{message.content}}}'
    ).encode()


def sent_frame(ref: str, msg_id: str) -> str:
    """Write the result of a request to send; `ref` is the agent's own name of it, as JSON text."""
    return f'{{"type":"result","ref":{ref},"ok":true,"msg_id":"{msg_id}"}}'


def broadcasted_frame(ref: str, broadcast_id: str, recipients: int) -> str:
    """Write the result of a request to broadcast, with the number of recipients; `ref` as in `sent_frame`."""
    return (
        f'{{"type":"result","ref":{ref},"ok":true,"broadcast_id":"{broadcast_id}","recipients":{recipients}}}'
    )


def failure_frame(ref: str, code: str, message: str) -> str:
    """Write the result of a failed request; `ref` as in `sent_frame`."""
    error = _dump({"code": code, "message": message})
    return f'{{"type":"result","ref":{ref},"ok":false,"error":{error}}}'


def error_frame(code: str, message: str) -> str:
    """Write an error that is not the answer to a request."""
    return _dump({"type": "error", "error": {"code": code, "message": message}})


# Agent to gateway


@dataclass(frozen=True)
class Ack:
    """The agent has processed everything in flight up to `seq`."""

    seq: int


@dataclass(frozen=True)
class Reject:
    """The agent cannot take the message `seq`."""

    seq: int
    reason: str


def ack_frame(seq: int) -> str:
    """Write an acknowledgement of everything up to `seq`."""
    return _dump({"type": "ack", "seq": seq})


def reject_frame(seq: int, reason: str) -> str:
    """Write the refusal of one message."""
    return _dump({"type": "reject", "seq": seq, "reason": reason})


@dataclass(frozen=True)
class BadRequest:
    """A request that cannot be accepted; its result is a failure. `ref` as in `SendRequest`."""

    ref: str
    reason: str


AgentRequest = Union[SendRequest, BroadcastRequest, ReplyRequest, Started, Failed, CountPending]
_REQUESTS = ("send", "broadcast", "ask", "reply", "started", "failed", "pending")
AgentFrame = Union[Ack, Reject, AgentRequest, BadRequest]


def parse_agent_frame(text: str) -> AgentFrame:
    """Parse a frame from an agent.

    Raises:
        InvalidInput: it is not a frame of this protocol. The error never quotes it.
    """
    try:
        frame = decode_json(text, "frame", envelope=1)
    except NotJson:
        raise InvalidInput("not JSON") from None
    except InvalidInput as error:
        refused = _refused_request(text, error.message)
        if refused is None:
            raise
        return refused
    if not isinstance(frame, dict):
        raise InvalidInput("not a JSON object")
    kind = frame.get("type")
    if kind == "ack":
        return Ack(seq_of(frame))
    if kind == "reject":
        return Reject(seq_of(frame), reason_of(frame, 200))
    if kind in _REQUESTS:
        texts = members(text)
        try:
            return _request(frame, texts)
        except InvalidInput as error:
            return BadRequest(texts.get("ref", "null"), error.message)
    raise InvalidInput("unknown frame type")


def _refused_request(text: str, reason: str) -> Optional[BadRequest]:
    """Return a request that is valid JSON but over a limit, such as one whose content is nested too deeply.

    None if the frame is not a request.
    """
    texts = members(text)
    if texts.get("type", "").strip('"') not in _REQUESTS:
        return None
    ref = texts.get("ref", "null")
    try:
        decode_json(ref, "ref")
    except InvalidInput:
        ref = "null"
    try:
        decode_json(texts.get("content", "null"), "message")
    except InvalidInput as problem:
        reason = problem.message
    return BadRequest(ref, reason)


# Agent's side


@dataclass(frozen=True)
class Connected:
    """The greeting; its fields are those of `connected_frame`."""

    ws_id: str
    agent: str
    resumed: bool
    pending: int
    seq: int
    heartbeat: float


@dataclass(frozen=True)
class Received:
    """A message, with the field names of the frame: `ws_manager.forms.WIRE_FIELDS`.

    Attributes:
        wants_reply: whether the sender asks for an answer.
        reply_to: the msg_id of the ask that it answers; None for every other message.
        content: the decoded content; a number in it may be rounded.
        content_json: the content as the JSON text that was received.
    """

    seq: int
    msg_id: str
    msg_type: str
    sender_id: Optional[str]
    recipient_id: str
    broadcast_id: Optional[str]
    sent_at: str
    wants_reply: bool
    reply_to: Optional[str]
    content: Any
    content_json: Json = field(repr=False)
    traceparent: Optional[str] = None

    def as_dict(self) -> dict[str, Any]:
        """Return the envelope without its `type`."""
        return {name: value for name, value in vars(self).items() if name != "content_json"}


@dataclass(frozen=True)
class Unreadable:
    """A message that this side cannot decode; it has to be rejected."""

    seq: int
    msg_id: str
    reason: str


@dataclass(frozen=True)
class Failure:
    """An error that the gateway reports."""

    code: str
    message: str


@dataclass(frozen=True)
class Result:
    """The result of a request: the id of what was sent, the number of an attempt, or the failure.

    Attributes:
        ref: the request.
        msg_id: of the message.
        broadcast_id: of the broadcast.
        recipients: of the broadcast.
        attempt: the number of the attempt, if a worker began a message or failed with it.
        set_aside: True if that attempt was the last.
        pending: how many messages are pending.
        failure: why it could not be done.
    """

    ref: Any
    msg_id: Optional[str] = None
    broadcast_id: Optional[str] = None
    recipients: Optional[int] = None
    attempt: Optional[int] = None
    set_aside: bool = False
    pending: Optional[int] = None
    failure: Optional[Failure] = None


GatewayFrame = Union[Connected, Received, Unreadable, Result, Failure]


def parse_gateway_frame(text: str) -> Optional[GatewayFrame]:
    """Parse a frame from a gateway. Return None if this version does not know its type.

    Raises:
        InvalidInput: it is not a frame of this protocol.
    """
    frame, unreadable = _load(text)
    kind = frame.get("type")
    try:
        if kind == "message":
            if unreadable is not None:
                return Unreadable(seq_of(frame), field_of(frame, "msg_id", str), unreadable)
            return Received(
                seq_of(frame),
                field_of(frame, "msg_id", str),
                field_of(frame, "msg_type", str),
                optional_text(frame, "sender_id"),
                field_of(frame, "recipient_id", str),
                optional_text(frame, "broadcast_id"),
                field_of(frame, "sent_at", str),
                frame.get("wants_reply") is True,
                given_text(frame, "reply_to"),
                frame["content"],
                Json(members(text)["content"]),
                given_text(frame, "traceparent"),
            )
        if kind == "connected":
            return Connected(
                field_of(frame, "ws_id", str),
                field_of(frame, "agent", str),
                field_of(frame, "resumed", bool),
                field_of(frame, "pending", int),
                field_of(frame, "seq", int),
                float(field_of(frame, "heartbeat", (int, float))),
            )
        if kind == "result" and frame["ok"]:
            if "broadcast_id" in frame:
                named, recipients = field_of(frame, "broadcast_id", str), field_of(frame, "recipients", int)
                return Result(frame["ref"], broadcast_id=named, recipients=recipients)
            if "attempt" in frame:
                set_aside = field_of(frame, "set_aside", bool)
                return Result(frame["ref"], attempt=field_of(frame, "attempt", int), set_aside=set_aside)
            if "pending" in frame:
                return Result(frame["ref"], pending=field_of(frame, "pending", int))
            return Result(frame["ref"], field_of(frame, "msg_id", str))
        if kind == "result":
            return Result(frame["ref"], failure=_failure(frame))
        if kind == "error":
            return _failure(frame)
    except KeyError as error:
        raise InvalidInput(f"a {kind} frame without {error}") from None
    return None


def _failure(frame: dict[str, Any]) -> Failure:
    error = field_of(frame, "error", dict)
    return Failure(field_of(error, "code", str), field_of(error, "message", str))


def _load(text: str) -> tuple[dict[str, Any], Optional[str]]:
    """Return the frame and None; if its content exceeds a limit, return the other fields and the reason."""
    try:
        frame, problem = decode_json(text, "frame", envelope=1, duplicates=True), None
    except NotJson:
        raise InvalidInput("not JSON") from None
    except InvalidInput as error:
        texts = members(text)
        if texts.pop("content", None) is None:
            raise
        frame = {name: decode_json(value, "frame") for name, value in texts.items()}
        problem = f"{BEYOND_LIMITS}: {error.message}"
    if not isinstance(frame, dict):
        raise InvalidInput("not a JSON object")
    return frame, problem


def _request(frame: dict[str, Any], texts: dict[str, str]) -> AgentRequest:
    if frame["type"] == "pending":
        return CountPending(texts.get("ref", "null"))
    if frame["type"] == "started":
        return Started(texts.get("ref", "null"), seq_of(frame))
    if frame["type"] == "failed":
        return Failed(texts.get("ref", "null"), seq_of(frame), reason_of(frame, LONGEST_REASON))
    if "content" not in frame:
        raise InvalidInput("there is no content")
    ref, content = texts.get("ref", "null"), compact(texts["content"], "message")
    if frame["type"] == "reply":
        return ReplyRequest(ref, seq_of(frame), content)
    key, trace = given_text(frame, "key"), given_text(frame, "traceparent")
    if frame["type"] in ("send", "ask"):
        to, msg_type = text_of(frame, "to"), text_of(frame, "msg_type", "data")
        return SendRequest(ref, to, content, msg_type, key, trace, asks=frame["type"] == "ask")
    agent = given_text(frame, "agent")
    return BroadcastRequest(ref, agent, content, text_of(frame, "msg_type", "broadcast"), key, trace)


def _dump(frame: dict[str, Any]) -> str:
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=16_384)
def _quoted_recipient(ws_id: str) -> bytes:
    return json.dumps(ws_id, ensure_ascii=False).encode()


@lru_cache(maxsize=1024)
def _quoted(text: Optional[str]) -> str:
    return json.dumps(text, ensure_ascii=False)
