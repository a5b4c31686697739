"""One agent's session, the agent's side: reads the gateway's frames and writes acks. No IO."""

from __future__ import annotations

from typing import Optional

from ws_manager.protocol.frames import (
    Connected,
    GatewayFrame,
    Received,
    Unreadable,
    ack_frame,
    parse_gateway_frame,
    reject_frame,
)

_REMEMBERED = 2000


class AgentSession:
    """What an agent knows across its reconnections.

    A message that comes again because its receipt was lost has the same msg_id. It is confirmed again, but not
    handed out twice. Its `seq` would not do: on a restored ledger a gateway counts from an earlier number.

    Attributes:
        ws_id: the connection, once the gateway has named it.
        connected: the last greeting.
        answers: frames that the caller has to write.
    """

    def __init__(self, ws_id: Optional[str] = None) -> None:
        self.ws_id = ws_id
        self.connected: Optional[Connected] = None
        self.answers: list[str] = []
        # The highest number that came through the present socket. An answer to a higher one waits until that message
        # has come again: this gateway does not know it yet.
        self._reached = -1
        # In the order in which they were handed out.
        self._handed_out: dict[str, None] = {}
        # With the reason if the message was rejected. The oldest entries are dropped.
        self._handled: dict[str, Optional[str]] = {}

    def text(self, text: str) -> Optional[GatewayFrame]:
        """Take a text frame and return what it says; None if there is nothing to do.

        Raises:
            InvalidInput: it is not a frame of this protocol.
        """
        frame = parse_gateway_frame(text)
        if isinstance(frame, Connected):
            self.connected, self.ws_id = frame, frame.ws_id
            self._reached = -1
            self.answers.clear()
        elif isinstance(frame, Unreadable):
            self._reached = frame.seq
            self._remember(frame.id, frame.reason)
            self.answers.append(reject_frame(frame.seq, frame.reason))
            return None
        elif isinstance(frame, Received):
            self._reached = frame.seq
            if frame.id in self._handled:
                reason = self._handled[frame.id]
                answer = ack_frame(frame.seq) if reason is None else reject_frame(frame.seq, reason)
                self.answers.append(answer)
                return None
            if frame.id in self._handed_out:
                # The agent is working on it; its ack follows.
                return None
        return frame

    def handed_out(self, message: Received) -> None:
        """Note that the agent is working on a message: if it comes again meanwhile, it is ignored."""
        self._handed_out[message.id] = None

    def ack(self, message: Received) -> None:
        """Confirm a message and everything before it."""
        before = list(self._handed_out) if message.id in self._handed_out else [message.id]
        for earlier in before:
            self._remember(earlier, None)
            if earlier == message.id:
                break
        if message.seq <= self._reached:
            self.answers.append(ack_frame(message.seq))

    def reject(self, message: Received, reason: str) -> None:
        """Refuse a message: the gateway sets it aside."""
        self._remember(message.id, reason)
        if message.seq <= self._reached:
            self.answers.append(reject_frame(message.seq, reason))

    @property
    def is_dealing(self) -> bool:
        """True while a message that was handed out is neither confirmed nor refused."""
        return bool(self._handed_out)

    def take_answers(self) -> list[str]:
        """Return the frames to write, and clear the list."""
        answers, self.answers = self.answers, []
        return answers

    def _remember(self, message_id: str, rejected: Optional[str]) -> None:
        self._handed_out.pop(message_id, None)
        self._handled.setdefault(message_id, rejected)
        if len(self._handled) > _REMEMBERED:
            del self._handled[next(iter(self._handled))]
