"""The one JSON form of each thing: on the socket, over HTTP, in `--json`, and in the client libraries."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ws_manager.models import Connection, Message, PendingMessage
from ws_manager.strict_json import Json, members

if TYPE_CHECKING:
    from ws_manager.repository.findings import BroadcastState, StoredEvent
    from ws_manager.repository.working import Ask

WIRE_FIELDS = (
    "seq",
    "msg_id",
    "msg_type",
    "sender_id",
    "recipient_id",
    "broadcast_id",
    "sent_at",
    "wants_reply",
    "reply_to",
    "traceparent",
    "content",
)
"""The fields of a message that its recipient gets."""

MESSAGE_FIELDS = (
    *WIRE_FIELDS,
    "delivered",
    "written_at",
    "confirmed_at",
    "rejected_at",
    "reject_reason",
    "refusals",
    "retry_of",
)
"""The fields of a message where the ledger is read."""

ASK_FIELDS = (
    "seq",
    "msg_id",
    "recipient_id",
    "sender_id",
    "asked_at",
    "state",
    "rejected_at",
    "reject_reason",
    "answer_id",
    "answered_at",
    "answer",
)
"""The fields of an ask and its answer; the last three are null before the answer."""

BROADCAST_FIELDS = (
    "broadcast_id",
    "sent_at",
    "msg_type",
    "sender_id",
    "recipients",
    "confirmed",
    "pending",
    "set_aside",
    "traceparent",
)
"""The fields of a broadcast."""


CONNECTION_FIELDS = (
    *(field.name for field in fields(Connection) if field.name != "metadata_json"),
    "pending",
)
"""The fields of a connection."""


WEBHOOK_EVENT_FIELDS = (
    "received_at",
    "event_id",
    "event_type",
    "status",
    "agent",
    "msg_type",
    "recipients",
    "routed_at",
    "broadcast_id",
    "reason",
)
"""The fields of an event that a webhook has brought."""

WEBHOOK_OUTCOME_FIELDS = (
    "event_id",
    "event_type",
    "status",
    "agent",
    "msg_type",
    "recipients",
    "broadcast_id",
    "reason",
)
"""The fields of what became of such an event."""


def connection_form(connection: Connection, pending: int) -> dict[str, Any]:
    """Return a connection, with the number of its pending messages, by `CONNECTION_FIELDS`; metadata is `Json`."""
    form = {name: getattr(connection, name) for name in CONNECTION_FIELDS[:-1]}
    return {**form, "metadata": Json(connection.metadata_json or "{}"), "pending": pending}


def wire_form(message: PendingMessage) -> dict[str, Any]:
    """Return a message by `WIRE_FIELDS`; its content is `Json`."""
    values = {
        **message._asdict(),
        # As a store has it: NULL, 0 or 1.
        "wants_reply": bool(message.wants_reply),
        "content": Json(message.content),
    }
    return {name: values[name] for name in WIRE_FIELDS}


def message_form(message: Message) -> dict[str, Any]:
    """Return a message by `MESSAGE_FIELDS`; its content is `Json`."""
    values = {**vars(message), "seq": message.db_id, "content": Json(message.content)}
    return {name: values[name] for name in MESSAGE_FIELDS}


def ask_form(ask: Ask) -> dict[str, Any]:
    """Return an ask and its answer by `ASK_FIELDS`; the answer is `Json`."""
    form = {name: getattr(ask, name) for name in ASK_FIELDS}
    return form if ask.answer is None else {**form, "answer": Json(ask.answer)}


def broadcast_form(state: BroadcastState) -> dict[str, Any]:
    """Return a broadcast by `BROADCAST_FIELDS`."""
    _kept, pending, set_aside = state.counts
    values = {
        **state._asdict(),
        # `prune` deletes confirmed messages alone.
        "confirmed": state.recipients - pending - set_aside,
        "pending": pending,
        "set_aside": set_aside,
    }
    return {name: values[name] for name in BROADCAST_FIELDS}


def webhook_event_form(event: StoredEvent) -> dict[str, Any]:
    """Return an event that a webhook has brought, by `WEBHOOK_EVENT_FIELDS`."""
    return {name: getattr(event, name) for name in WEBHOOK_EVENT_FIELDS}


def connection_of(text: str) -> Connection:
    """Return the connection that a form's JSON text describes; the number of pending messages is left out."""
    form = members(text)
    metadata = form.pop("metadata")
    values = {
        name: json.loads(form[name]) for name in CONNECTION_FIELDS if name in form and name != "pending"
    }
    return Connection(metadata=json.loads(metadata), metadata_json=metadata, **values)


def message_of(text: str) -> Message:
    """Return the message that a form's JSON text describes."""
    form = members(text)
    values = {name: json.loads(form[name]) for name in MESSAGE_FIELDS if name not in ("seq", "content")}
    return Message(content=form["content"], db_id=json.loads(form["seq"]), **values)


def pending_message_of(text: str) -> PendingMessage:
    """Return the message to be received that a form's JSON text describes."""
    form = members(text)
    values = {name: json.loads(form[name]) for name in WIRE_FIELDS if name != "content"}
    return PendingMessage(content=form["content"], **values)


def ask_of(text: str, subject: str) -> Ask:
    """Return the ask that a form's JSON text describes. A form does not say whose token asked."""
    from ws_manager.repository.working import ANSWERED, CONFIRMED, Ask

    form = members(text)
    values = {name: json.loads(form[name]) for name in ASK_FIELDS if name != "answer"}
    state = values.pop("state")
    answer = form["answer"] if state == ANSWERED else None
    return Ask(**values, subject=subject, answer=answer, delivered=state in (CONFIRMED, ANSWERED))


def broadcast_of(text: str) -> BroadcastState:
    """Return the broadcast that a form's JSON text describes. What was pruned of it counts as confirmed."""
    from ws_manager.repository.findings import BroadcastState
    from ws_manager.repository.records import DeliveryCounts

    form = json.loads(text)
    counts = DeliveryCounts(form["confirmed"], form["pending"], form["set_aside"])
    values = {name: form[name] for name in BROADCAST_FIELDS if name in BroadcastState._fields}
    return BroadcastState(**values, counts=counts)
