"""The values of a store for those who look: filters, states, findings. Plain, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional

from ws_manager.errors import InvalidInput
from ws_manager.repository.records import DeliveryCounts

TABLES = (
    "connections",
    "messages",
    "heartbeat_log",
    "broadcasts",
    "events",
    "gateways",
    "webhook_events",
    "bars",
)
"""The tables that are exported: all of a ledger's but the journal of receipts.

An export may have lines of others, which are the engine's own.
"""


class RowRefused(InvalidInput):
    """A table cannot take a row of an export.

    Args:
        message: why.
        index: of the row among those that were given.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


MOST_COUNTED = 10_000
"""An overview counts the pending messages of one connection up to this number."""


ORDERS = ("pending", "idle", "round-trip", "sent", "age", "agent")
"""What an overview can order connections by: the most, the longest, or the first name, comes first."""


@dataclass(frozen=True)
class MessageFilter:
    """Which messages are wanted. None or False means that this is not asked for.

    Attributes:
        ws_id: this connection received or sent them.
        agent: connections of this agent, active or not, received or sent them.
        msg_type: their type.
        pending: only those that are neither confirmed nor set aside.
        set_aside: only those that are set aside. Together with `pending`: either.
        since: sent at this time (fixed-width UTC) or later.
        before: sent before this time.
        text: a text that the content contains, in any case, as plain text or escaped as in JSON.
        broadcast_id: they belong to this broadcast.
        below: their `seq` is lower than this.
    """

    ws_id: Optional[str] = None
    agent: Optional[str] = None
    msg_type: Optional[str] = None
    pending: bool = False
    set_aside: bool = False
    since: Optional[str] = None
    before: Optional[str] = None
    text: Optional[str] = None
    broadcast_id: Optional[str] = None
    below: Optional[int] = None


class ActiveConnection(NamedTuple):
    """What an overview shows of an active connection."""

    ws_id: str
    agent: str
    connected_at: str
    last_heartbeat: str
    message_count: int
    confirmed_seq: int


class RecentMessage(NamedTuple):
    """A message with the first characters of its content."""

    seq: int
    msg_id: str
    msg_type: str
    sender_id: Optional[str]
    recipient_id: str
    sent_at: str
    delivered: int
    rejected_at: Optional[str]
    content_start: str


class Ended(NamedTuple):
    """An event that says why a socket or a connection ended."""

    ts: str
    ws_id: str
    kind: str
    detail: Optional[str]


class Backlog(NamedTuple):
    """What has not arrived, over a whole ledger.

    Attributes:
        pending: messages that wait for their connections.
        set_aside: messages that were taken out of delivery.
        unrouted: webhook events that wait for a recipient.
        oldest_pending_at: when the first of the pending messages was sent; None if nothing is pending.
    """

    pending: int
    set_aside: int
    unrouted: int
    oldest_pending_at: Optional[str]


class FeedEntry(NamedTuple):
    """One thing that happened: an event, or the confirmation of a message.

    Attributes:
        cursor: behind it; the next reading begins there.
        kind: `confirmed`, or an event's kind: see `ws_manager.models.Event`.
        at: when.
        ws_id: the connection.
        msg_id: the message, if it is about one.
        detail: an event's.
        seq: of the message that was confirmed.
        sender_id: its sender.
        broadcast_id: the broadcast that it belongs to.
    """

    cursor: str
    kind: str
    at: str
    ws_id: Optional[str]
    msg_id: Optional[str]
    detail: Optional[str] = None
    seq: Optional[int] = None
    sender_id: Optional[str] = None
    broadcast_id: Optional[str] = None


class BroadcastState(NamedTuple):
    """A broadcast and how far its delivery is.

    Attributes:
        broadcast_id: UUID v4.
        recipients: to how many connections it was sent.
        msg_type: a label.
        sender_id: the sending connection; None for the system.
        sent_at: when it was committed.
        counts: of the messages that are still in the ledger; `prune` deletes confirmed ones.
        traceparent: the sender's W3C trace context, which its messages have too; None if it gave none.
    """

    broadcast_id: str
    recipients: int
    msg_type: str
    sender_id: Optional[str]
    sent_at: str
    counts: DeliveryCounts
    traceparent: Optional[str] = None


class StoredEvent(NamedTuple):
    """A webhook event as the ledger has it, without its payload.

    Attributes:
        event_id: the sender's own identifier.
        event_type: such as `invoice.paid`.
        agent: to whose connections it goes; None for all.
        msg_type: of the messages.
        received_at: when it first came.
        status: `routed` or `unrouted`.
        recipients: how many messages it became.
        routed_at: when it became messages.
        broadcast_id: of these messages.
        reason: why it cannot become messages; None where it can.
    """

    event_id: str
    event_type: str
    agent: Optional[str]
    msg_type: str
    received_at: str
    status: str
    recipients: int
    routed_at: Optional[str]
    broadcast_id: Optional[str]
    reason: Optional[str]


class TableColumns(NamedTuple):
    """The columns of a table in an export of some version.

    Attributes:
        present: its names there.
        later: names that later versions have added.
    """

    present: frozenset[str]
    later: frozenset[str]


OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One thing that `doctor` looked at.

    Attributes:
        check: what was looked at.
        status: `OK`, `WARNING` or `PROBLEM`.
        detail: what was found.
        advice: what to do; None where there is nothing to do, or a remedy says it.
        remedy: a code of `ws_manager.remedies`.
    """

    check: str
    status: str
    detail: str
    advice: Optional[str] = None
    remedy: Optional[str] = None
