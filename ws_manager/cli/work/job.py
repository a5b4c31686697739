"""A message as work: what a command gets on stdin and in its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Optional

from ws_manager.cli.output.text import Row, json_object
from ws_manager.forms import WIRE_FIELDS

CONTENT, RAW, ENVELOPE = "content", "raw", "envelope"

# Of ours, and of those that a command has no business with: it works on messages that anybody may have sent.
_HIDDEN = ("BLACKROAD_WS_TOKEN", "BLACKROAD_WS_SECRET", "PGPASSWORD")
_HIDDEN_PREFIX = "STRIPE_"
_VARIABLES = {
    "WS_MSG_ID": "msg_id",
    "WS_MSG_TYPE": "msg_type",
    "WS_SENDER_ID": "sender_id",
    "WS_SENT_AT": "sent_at",
    "WS_SEQ": "seq",
    "WS_ID": "recipient_id",
    "WS_BROADCAST_ID": "broadcast_id",
    "TRACEPARENT": "traceparent",
}


def given(message: Row, form: str) -> bytes:
    """Return a message as bytes.

    Args:
        message: its `WIRE_FIELDS`; the content is `Json`.
        form: `CONTENT` for its JSON text and a line feed; `RAW` for the text itself of content that is text;
            `ENVELOPE` for all fields as one JSON object and a line feed.
    """
    if form == ENVELOPE:
        return json_object({name: message.get(name) for name in WIRE_FIELDS}).encode() + b"\n"
    if form == RAW:
        content = json.loads(str(message["content"]))
        if isinstance(content, str):
            # JSON can hold half of a surrogate pair, UTF-8 cannot.
            return content.encode("utf-8", "replace")
    return str(message["content"]).encode() + b"\n"


def environment(
    message: Row, agent: str, attempt: Optional[int], base: Optional[Mapping[str, str]] = None
) -> dict[str, str]:
    """Return the variables of a command: ours without secrets, and those that tell of the message.

    Args:
        message: its `WIRE_FIELDS`. What it does not have is no variable.
        agent: the name of the agent that has received it.
        attempt: the number of the attempt, from 1 on.
        base: the variables to start from; None for those of this process.
    """
    variables = {
        name: value
        for name, value in (os.environ if base is None else base).items()
        if not _is_secret(name, value) and name not in _VARIABLES
    }
    values: dict[str, Any] = {name: message.get(field) for name, field in _VARIABLES.items()}
    values.update(WS_AGENT=agent, WS_ATTEMPT=attempt)
    variables.update({name: str(value) for name, value in values.items() if value is not None})
    return variables


def _is_secret(name: str, value: str) -> bool:
    # The address of a database may have its password in it.
    return (
        name in _HIDDEN or name.startswith(_HIDDEN_PREFIX) or (name == "BLACKROAD_WS_DB" and "://" in value)
    )
