"""Messages as the bytes of their frames. What the recipients of a broadcast share is encoded once for all of them."""

from __future__ import annotations

from ws_manager.models import PendingMessage
from ws_manager.protocol.frames import message_start, message_tail
from ws_manager.protocol.wire import text_frame

Framed = tuple[int, bytes]
"""The seq of a message, and the frame that carries it."""

_MOST_SHARED = 64
"""Broadcasts that are remembered at a time."""


class MessageFrames:
    """Writes messages as frames. Keep one for messages that were read together: it remembers their broadcasts."""

    def __init__(self) -> None:
        self._tails: dict[str, bytes] = {}

    def of(self, message: PendingMessage) -> Framed:
        """Return a message with its frame."""
        broadcast_id = message.broadcast_id
        tail = self._tails.get(broadcast_id) if broadcast_id is not None else None
        if tail is None:
            tail = message_tail(message)
            if broadcast_id is not None:
                if len(self._tails) >= _MOST_SHARED:
                    self._tails.clear()
                self._tails[broadcast_id] = tail
        return message.seq, text_frame(message_start(message) + tail)
