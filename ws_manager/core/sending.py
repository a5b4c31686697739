"""Sending to one connection or to many, and waiting for confirmations."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Callable, Optional, Union, cast

from ws_manager.core.traceparent import check_traceparent
from ws_manager.core.validation import check_name, encode_content
from ws_manager.errors import InvalidInput
from ws_manager.models import Broadcast, Connection, Message, new_id, utc_now
from ws_manager.repository.records import DeliveryCounts, NewBroadcast, NewMessage

if TYPE_CHECKING:
    from ws_manager.repository.findings import BroadcastState
    from ws_manager.repository.store import Store

    Sent = Union[Broadcast, BroadcastState, Sequence[Message]]
    """What was sent: one broadcast, or single messages."""

WAIT_STEP = 0.005
"""Seconds between two looks at the ledger."""

Admit = Callable[[int, int], None]
"""Is called with the number of recipients and the bytes of the content, before anything is written."""


def send(
    store: Store,
    ws_id: str,
    content: object,
    msg_type: str,
    sender_id: Optional[str],
    *,
    traceparent: Optional[str],
    limit: int,
    admit: Optional[Admit],
) -> Optional[Message]:
    """Commit one message to one active connection. `limit` is the largest content in bytes."""
    text, trace = checked(store, content, msg_type, sender_id, traceparent, limit)
    with store.atomic():
        if not store.connections.is_active(ws_id):
            return None
        if admit is not None:
            admit(1, len(text.encode("utf-8")))
        # The time is taken here, so that the order of the times is the order of the messages.
        new = NewMessage(new_id(), ws_id, text, msg_type, sender_id, utc_now(), traceparent=trace)
        seq = store.messages.insert(new)
    return Message(**new._asdict(), db_id=seq)


def broadcast(
    store: Store,
    content: object,
    *,
    agent: Optional[str],
    filter_fn: Optional[Callable[[Connection], bool]],
    msg_type: str,
    sender_id: Optional[str],
    traceparent: Optional[str],
    limit: int,
    admit: Optional[Admit],
) -> Broadcast:
    """Commit one message to each active connection. `limit` is the largest content in bytes."""
    text, trace = checked(store, content, msg_type, sender_id, traceparent, limit)
    if agent is not None:
        check_name(agent, "agent", known=True)
    chosen = _chosen(store, agent, filter_fn)
    with store.atomic():
        recipients = store.connections.recipients(agent, chosen)
        if admit is not None:
            admit(len(recipients.ws_ids), len(text.encode("utf-8")))
        new = NewBroadcast(new_id(), text, msg_type, sender_id, utc_now(), trace)
        store.broadcasts.insert([new], recipients)
    return Broadcast(new.broadcast_id, recipients.ws_ids)


def wait(store: Store, sent: Sent, seconds: float) -> DeliveryCounts:
    """Follow the ledger until nothing of what was sent is pending, or the time is over."""
    deadline = time.monotonic() + seconds
    changes = store.changes()
    broadcast_id = getattr(sent, "broadcast_id", None)
    msg_ids = [] if broadcast_id else [message.msg_id for message in cast("Sequence[Message]", sent)]
    try:
        while True:
            if changes.happened():
                if broadcast_id is not None:
                    counts = store.broadcasts.delivery_counts(broadcast_id)
                else:
                    counts = store.messages.delivery_counts(msg_ids)
            if not counts.pending or time.monotonic() >= deadline:
                return counts
            time.sleep(WAIT_STEP)
    finally:
        changes.close()


def _chosen(
    store: Store, agent: Optional[str], filter_fn: Optional[Callable[[Connection], bool]]
) -> Optional[Collection[str]]:
    """Return the ws_ids that a filter chooses; None for all. It runs before the ledger is locked."""
    if filter_fn is None:
        return None
    return {connection.ws_id for connection in store.connections.active(agent) if filter_fn(connection)}


def checked(
    store: Store,
    content: object,
    msg_type: str,
    sender_id: Optional[str],
    traceparent: Optional[str],
    limit: int,
) -> tuple[str, Optional[str]]:
    """Check what every kind of sending gets, and return the content and the traceparent as they are kept.

    Raises:
        InvalidInput: one of them cannot be accepted.
    """
    text = encode_content(content, limit)
    check_name(msg_type, "message type")
    trace = check_traceparent(traceparent)
    _check_sender(store, sender_id)
    return text, trace


def _check_sender(store: Store, ws_id: Optional[str]) -> None:
    """Refuse a sender with a name that cannot be accepted, unless it is a connection already."""
    if ws_id is None:
        return
    try:
        check_name(ws_id, "sender")
    except InvalidInput:
        if not store.connections.is_known(check_name(ws_id, "sender", known=True)):
            raise
