"""The values that cross ws-manager's boundaries: plain, frozen, without behaviour of their own.

Timestamps are text, UTC, of one fixed width (`2026-11-22T17:15:18.644305+00:00`), so that the order of
the text is the order of time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, Optional, Union

ACTIVE = "active"
DISCONNECTED = "disconnected"
ROUTED, UNROUTED = "routed", "unrouted"


def timestamp(moment: datetime) -> str:
    """Write an aware datetime as ws-manager's fixed-width UTC text."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def utc_now() -> str:
    """Return the present time as fixed-width UTC text."""
    return timestamp(datetime.now(timezone.utc))


AHEAD_SECONDS = 2.0
"""How far in the future a sign of life may lie: a leap second, or a small step of the clock.

One further ahead was written before the clock was set back, and says nothing about the present.
"""


def heard_between(now: str, timeout: float) -> tuple[str, str]:
    """Return the times between which a connection must have been heard to count as alive now.

    Args:
        now: the present time.
        timeout: seconds without a sign of life after which a connection is lost.
    """
    return seconds_before(now, timeout), seconds_before(now, -AHEAD_SECONDS)


def is_ahead(last_heartbeat: str, now: str) -> bool:
    """Return whether a sign of life is so far in the future that the clock must have been set back."""
    return last_heartbeat > seconds_before(now, -AHEAD_SECONDS)


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_ids(count: int, beside: Optional[str] = None) -> list[str]:
    """Return `count` fresh UUIDs, version 4 (RFC 9562 section 5.4), in ascending order.

    They share their first 48 bits, so what is written together falls on neighbouring pages of an index, however large
    that is. 74 bits of each stay random: among 1,000,000 ids of one call two are equal with a chance of 3 in 10¹¹.
    Ids of different calls are equal as rarely as any two of version 4. An id authorises nothing.

    Args:
        count: how many.
        beside: an id whose first 48 bits they share; None takes new random ones.
    """
    # One read of the system's random source costs a third of `uuid.uuid4()` for each, and needs no import.
    digits = os.urandom(10 * count + 6).hex()
    prefix = f"{digits[-12:-4]}-{digits[-4:]}" if beside is None else beside[:13]
    return sorted(
        f"{prefix}-4{d[:3]}-{_VARIANT[d[3]]}{d[4:7]}-{d[7:19]}"
        for d in (digits[start : start + 20] for start in range(0, 20 * count, 20))
    )


def new_id() -> str:
    """Return a fresh UUID, version 4."""
    return new_ids(1)[0]


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one time to another; 0 if they lie the other way round, or one is not a time.

    A file of the earlier implementation may hold any text.
    """
    try:
        return max(0.0, (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def seconds_before(moment: str, seconds: float) -> str:
    """Return the timestamp that lies `seconds` before `moment`."""
    return timestamp(datetime.fromisoformat(moment) - timedelta(seconds=seconds))


@dataclass(frozen=True)
class Connection:
    """One connection of an agent, as the ledger has it.

    Attributes:
        ws_id: the WebSocket identifier; the ledger has one row for it.
        agent: the logical name; many connections may belong to one agent.
        metadata: the JSON object that came with the registration, decoded: a number may be rounded in it. Treat it
            as read-only: the pool hands the same object to every caller.
        connected_at: when it was last registered.
        last_heartbeat: its last sign of life.
        status: `active` or `disconnected`.
        message_count: messages sent to it so far, confirmed or not.
        db_id: primary key of its row; None until it is in the ledger.
        disconnected_at: when it was disconnected; None while active.
        epoch: how often this ws_id was registered. A receipt or close of an older epoch is void.
        confirmed_seq: the highest `messages.id` that it confirmed. 0 for none.
        close_code: close code of its last socket (RFC 6455 section 7.4); None while a socket is open,
            or where there never was one.
        close_reason: why the last socket or registration ended.
        gateway: id of the gateway that holds or held its socket; None where a command registered it.
        metadata_json: the metadata as the JSON text that the ledger holds; None for a Connection made by hand.
    """

    ws_id: str
    agent: str
    metadata: dict[str, Any] = field(default_factory=dict)
    connected_at: str = field(default_factory=utc_now)
    last_heartbeat: str = field(default_factory=utc_now)
    status: str = ACTIVE
    message_count: int = 0
    db_id: Optional[int] = None
    disconnected_at: Optional[str] = None
    epoch: int = 0
    confirmed_seq: int = 0
    close_code: Optional[int] = None
    close_reason: Optional[str] = None
    gateway: Optional[str] = None
    metadata_json: Optional[str] = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Message:
    """One message to one recipient, as the ledger has it.

    Attributes:
        msg_id: UUID v4.
        msg_type: a label of the sender's choice.
        sender_id: the sending connection's ws_id; None for the system.
        recipient_id: the ws_id that it is for.
        content: the payload as compact JSON text. `payload` decodes it.
        sent_at: when it was committed.
        delivered: True once the receiving side has confirmed it.
        db_id: primary key of its row, called `seq` on the wire; the order of delivery.
        confirmed_at: when it was confirmed.
        rejected_at: when it was set aside.
        reject_reason: why it was set aside.
        retry_of: the msg_id of the set-aside message that this one repeats.
        refusals: how many sockets closed on it.
        written_at: when a gateway last wrote it to a socket, as far as it was reported.
        broadcast_id: the broadcast that it belongs to; None if it was sent to this connection alone.
        traceparent: the sender's W3C trace context, in the form of version 00; None if it gave none.
        wants_reply: whether its sender asks for an answer: see `ws_manager.core.asks`.
        reply_to: the msg_id of the ask that it answers; None for every other message.
    """

    msg_id: str
    msg_type: str
    sender_id: Optional[str]
    recipient_id: str
    content: str
    sent_at: str
    delivered: bool = False
    db_id: Optional[int] = None
    confirmed_at: Optional[str] = None
    rejected_at: Optional[str] = None
    reject_reason: Optional[str] = None
    retry_of: Optional[str] = None
    refusals: int = 0
    written_at: Optional[str] = None
    broadcast_id: Optional[str] = None
    traceparent: Optional[str] = None
    wants_reply: bool = False
    reply_to: Optional[str] = None

    @property
    def payload(self) -> Any:  # noqa: ANN401 - a payload is any JSON value
        """The content, decoded from JSON."""
        return json.loads(self.content)


MESSAGE_COLUMNS = (
    "id",
    "msg_id",
    "msg_type",
    "sender_id",
    "recipient_id",
    "content",
    "sent_at",
    "delivered",
    "confirmed_at",
    "rejected_at",
    "reject_reason",
    "retry_of",
    "refusals",
    "written_at",
    "broadcast_id",
    "traceparent",
    "wants_reply",
    "reply_to",
)
"""The documented columns of a message."""


def message_columns(message: Message) -> dict[str, Any]:
    """Return a message by the names of its documented columns; `delivered` and `wants_reply` are 1 or 0."""
    values = vars(message)
    return {
        **{name: values["db_id" if name == "id" else name] for name in MESSAGE_COLUMNS},
        "delivered": int(message.delivered),
        "wants_reply": int(message.wants_reply),
    }


class Broadcast(NamedTuple):
    """One call of `broadcast`.

    Attributes:
        broadcast_id: UUID v4.
        recipients: the ws_ids that it was addressed to, one message each.
    """

    broadcast_id: str
    recipients: list[str]


class Event(NamedTuple):
    """Something that happened to a connection or a message.

    Attributes:
        db_id: primary key; grows with time.
        ts: when.
        ws_id: the connection.
        msg_id: the message, if it is about one.
        kind: `registered`, `opened`, `resumed`, `closed`, `disconnected`, `moved`, `started`, `failed`, `set_aside`,
            `retried`, `answered`.
        detail: close code and reason, or other details of the kind.
    """

    db_id: int
    ts: str
    ws_id: Optional[str]
    msg_id: Optional[str]
    kind: str
    detail: Optional[str]


class Gateway(NamedTuple):
    """A gateway's entry in the ledger, for display. Whether it runs, its hold on the ledger decides.

    Attributes:
        id: UUID v4 of this run.
        pid: process id.
        url: base address, such as `http://127.0.0.1:8765`.
        started_at: when it started.
        seen_at: when it last wrote.
    """

    id: str
    pid: int
    url: str
    started_at: str
    seen_at: str


Registration = tuple[str, int]
"""A ws_id and its epoch: one registration of a connection."""


class Receipt(NamedTuple):
    """The receiving side has confirmed what one registration was sent.

    Attributes:
        ws_id: the connection.
        epoch: the registration under which it was written; a receipt of another one is void.
        seqs: the numbers (`messages.id`) that it confirms, in ascending order; at least one.
        written_at: when they were written; None where there is no socket, and where the ledger knows it already.
        seconds: from the writing of one of the messages that were confirmed together until this receipt was read;
            None if none of them was timed.
    """

    ws_id: str
    epoch: int
    seqs: Sequence[int]
    written_at: Optional[str] = None
    seconds: Optional[float] = None


class Written(NamedTuple):
    """A socket was sent messages and has not confirmed them.

    Attributes:
        ws_id: the connection.
        epoch: the registration under which they were written.
        first: the lowest number (`messages.id`).
        last: the highest. Everything that is pending between the two was written.
        written_at: when that was.
    """

    ws_id: str
    epoch: int
    first: int
    last: int
    written_at: str


class Rejection(NamedTuple):
    """The agent rejected one message, which is set aside. Fields as in `Receipt`."""

    ws_id: str
    epoch: int
    seq: int
    reason: str


class Settled(NamedTuple):
    """A request of the agent has settled one message in the ledger. Other fields as in `Receipt`.

    Attributes:
        confirmed: whether it was an answer, which confirms the message; otherwise the last attempt has failed, and
            the message is set aside.
    """

    ws_id: str
    epoch: int
    seq: int
    written_at: Optional[str]
    confirmed: bool


class Closure(NamedTuple):
    """A socket has ended.

    Attributes:
        ws_id: the connection.
        epoch: the registration that the socket made.
        code: close code (RFC 6455 section 7.4); 1006 where there was none.
        reason: in words.
        ended: True if the agent closed because it is done: the connection becomes disconnected. Otherwise its status
            stays: the agent may resume, or the close has another cause, which the ledger knows already.
        refused: `messages.id` of the one message that the agent closed on, because it cannot take it.
    """

    ws_id: str
    epoch: int
    code: int
    reason: str
    ended: bool
    refused: Optional[int] = None


class SignOfLife(NamedTuple):
    """A socket's peer was heard.

    Attributes:
        ws_id: the connection.
        epoch: the registration that the socket made.
        at: when.
        latency_ms: the round trip, where it was measured.
        logged: True if it goes into the heartbeat log, which is sampled.
    """

    ws_id: str
    epoch: int
    at: str
    latency_ms: Optional[int]
    logged: bool


SocketReport = Union[Receipt, Rejection, Settled, Written, Closure, SignOfLife]
"""What a socket reports to the ledger."""


class PendingMessage(NamedTuple):
    """A pending message with what its frame needs; the content is JSON text.

    Messages of one broadcast differ in their seq, msg_id and recipient only. `wants_reply` and `reply_to` are as in
    `Message`.
    """

    seq: int
    msg_id: str
    msg_type: str
    sender_id: Optional[str]
    recipient_id: str
    content: str
    sent_at: str
    broadcast_id: Optional[str] = None
    traceparent: Optional[str] = None
    wants_reply: bool = False
    reply_to: Optional[str] = None


MOST_ATTEMPTS = 100
"""The largest `max_attempts`."""


class MessageWorker(NamedTuple):
    """What a handshake says of the process that works on the messages.

    Attributes:
        name: of the process, the same whenever it comes back; random, so that another one has another.
        max_attempts: a message is set aside after this number of them.
    """

    name: str
    max_attempts: int
