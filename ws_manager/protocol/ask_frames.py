"""What asking adds to the frames: an agent's answer, and two members of a message. See `ws_manager.core.asks`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ws_manager.models import PendingMessage
from ws_manager.strict_json import Json, encode


@dataclass(frozen=True)
class ReplyRequest:
    """The agent answers the message `seq`, which confirms it; `ref` as in `frames.SendRequest`."""

    ref: str
    seq: int
    content: Json


def reply_frame(ref: int, seq: int, content: object) -> str:
    """Write an answer to the message `seq`.

    Raises:
        InvalidInput: the content is not JSON, or exceeds the limits of `strict_json`.
    """
    return f'{{"type":"reply","ref":{ref},"seq":{seq},"content":{encode(content, "message")}}}'


def asking_members(message: PendingMessage) -> str:
    """Write the members of a message's frame that only asks and answers have; each ends with a comma."""
    wanted = '"wants_reply":true,' if message.wants_reply else ""
    return wanted if message.reply_to is None else f'{wanted}"reply_to":{json.dumps(message.reply_to)},'
