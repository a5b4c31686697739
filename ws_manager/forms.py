"""The one JSON form of each thing: on the socket, over HTTP, in `--json`, and in the client libraries."""

from __future__ import annotations

from typing import Any

from ws_manager.models import Message, PendingMessage
from ws_manager.strict_json import Json

WIRE_FIELDS = (
    "seq",
    "msg_id",
    "msg_type",
    "sender_id",
    "recipient_id",
    "broadcast_id",
    "sent_at",
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


def wire_form(message: PendingMessage) -> dict[str, Any]:
    """Return a message by `WIRE_FIELDS`; its content is `Json`."""
    values = {**message._asdict(), "content": Json(message.content)}
    return {name: values[name] for name in WIRE_FIELDS}


def message_form(message: Message) -> dict[str, Any]:
    """Return a message by `MESSAGE_FIELDS`; its content is `Json`."""
    values = {**vars(message), "seq": message.db_id, "content": Json(message.content)}
    return {name: values[name] for name in MESSAGE_FIELDS}
