"""The values that a store takes and gives where messages are sent and delivered: plain, without behaviour."""

from __future__ import annotations

from typing import NamedTuple, NewType, Optional

from ws_manager.models import Connection, PendingMessage

Position = NewType("Position", object)
"""How far the commits of a ledger were read. Only the store that gave a position can read on from it."""

NO_PLACE = "the place to go on from was not given by this ledger"

MOST_CHARACTERS = 1024 * 1024
"""A reading of pending messages ends by default once their contents exceed this."""

LEASE_SECONDS = 60.0
"""For this long after its last renewal a gateway with a lease counts as living."""


class Reading(NamedTuple):
    """Pending messages that were read together.

    Attributes:
        messages: in order for each connection.
        position: how far they reach: nothing up to it is left out.
        whole: whether these were all.
    """

    messages: list[PendingMessage]
    position: Position
    whole: bool


class DeliveryCounts(NamedTuple):
    """How many of some messages are confirmed, pending and set aside."""

    confirmed: int
    pending: int
    set_aside: int


class ListedConnection(NamedTuple):
    """A connection and the number of its pending messages."""

    connection: Connection
    pending: int


class SilentConnection(NamedTuple):
    """An active connection without a recent sign of life.

    Attributes:
        ws_id: the connection.
        last_heartbeat: its last sign of life, as it was read.
        gateway: id of the gateway that holds or held its socket; None where a command registered it.
        gateway_seen_at: when that gateway last wrote that it runs, or when its lease ends; None where the ledger does
            not know it.
    """

    ws_id: str
    last_heartbeat: str
    gateway: Optional[str]
    gateway_seen_at: Optional[str]


class NewMessage(NamedTuple):
    """A message that is to be written.

    Attributes:
        msg_id: UUID v4.
        recipient_id: an active connection.
        content: compact JSON text.
        msg_type: a label.
        sender_id: the sending connection; None for the system.
        sent_at: the present time.
        retry_of: the msg_id of the set-aside message that it repeats.
        traceparent: the sender's trace, as `check_traceparent` gives it.
        wants_reply: whether it asks for an answer.
        reply_to: the msg_id of the ask that it answers.
    """

    msg_id: str
    recipient_id: str
    content: str
    msg_type: str
    sender_id: Optional[str]
    sent_at: str
    retry_of: Optional[str] = None
    traceparent: Optional[str] = None
    wants_reply: bool = False
    reply_to: Optional[str] = None


class NewBroadcast(NamedTuple):
    """A broadcast that is to be written. Fields as in `NewMessage`."""

    broadcast_id: str
    content: str
    msg_type: str
    sender_id: Optional[str]
    sent_at: str
    traceparent: Optional[str] = None


class Recipients(NamedTuple):
    """The connections that a broadcast is for.

    Attributes:
        ws_ids: them, active until the block of `atomic` ends.
        agent: whose connections they are; None where they may be of all agents.
        everybody: whether these are all active connections, of that agent or of all.
    """

    ws_ids: list[str]
    agent: Optional[str]
    everybody: bool


class LoggedHeartbeat(NamedTuple):
    """A row of the heartbeat log: when, and the round trip in milliseconds where it was measured."""

    ts: str
    latency_ms: Optional[int]
